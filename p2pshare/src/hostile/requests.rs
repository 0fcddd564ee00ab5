//! At a tracker: who is not who he says is nobody, and nobody gets anything.

use super::*;
use crate::{
    dht::{RowKey, ScanCursor},
    limits::CLOCK_TOLERANCE,
    wire::tracker::{Announcement, NewFile, tests as samples},
};

async fn authenticate(connection: &Connection, credential: Signed<Credential>) -> Response {
    ask(connection, Request::Authenticate { credential }).await
}

async fn is_refused(connection: &Connection, credential: Signed<Credential>) -> bool {
    authenticate(connection, credential).await == Response::Refused(Refusal::NotLoggedIn)
}

fn farewell(number: u64) -> Request {
    Request::Announce(Announcement {
        number,
        addrs: Vec::new(),
        anew: true,
        swarms: Vec::new(),
    })
}

#[tokio::test]
async fn before_a_login_nothing_is_done() {
    let world = World::new().await;
    let stranger = world.stranger();
    let connection = stranger.dial_tracker().await;
    let mut refusals = 0;
    for (name, request) in samples::requests() {
        if let Request::Hello | Request::Ring | Request::CreateUser { .. } | Request::Login { .. } =
            request
        {
            continue;
        }
        let answer = ask(&connection, request).await;
        assert_eq!(answer, Response::Refused(Refusal::NotLoggedIn), "{name}");
        refusals += 1;
    }
    assert!(refusals > 20);
    assert!(
        world
            .login("alice")
            .await
            .groups()
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_credential_is_worth_nothing_in_other_hands() {
    let (world, other) = (World::new().await, World::new().await);
    let (bob, mallory) = (world.raw_user("bob").await, world.raw_user("mallory").await);
    let abroad = other.raw_user("bob").await;
    let group = group("own");
    bob.create_group(&group).await;
    let Credential::V1 {
        ring,
        user,
        session,
        generation,
        issued,
        ..
    } = bob.credential.peek().unwrap();
    let key = world.ring_key().token_key();
    let claims = |ring, peer, session, generation, expires| Credential::V1 {
        ring,
        user: user.clone(),
        peer,
        session,
        generation,
        issued,
        expires,
    };
    let (own, hers) = (bob.peer_id(), mallory.peer_id());
    let later = now().saturating_add(WITHIN * 10);
    let over = now().as_millis() - CLOCK_TOLERANCE.as_millis() as u64 - 1;
    let over = Timestamp::from_millis(over);
    let right = claims(ring, own, session, generation, later);
    let unknown = SessionId::from_bytes([9; 16]);
    let attempts = [
        ("copied", &mallory, bob.credential.clone()),
        (
            "signed by herself",
            &mallory,
            signed(
                &claims(ring, hers, session, generation, later),
                &SigningKey::from_seed(&[7; 32]),
            ),
        ),
        (
            "with a session of another peer",
            &mallory,
            signed(&claims(ring, hers, session, generation, later), &key),
        ),
        ("a grant", &bob, disguised(&bob.grant(&group).await)),
        ("of another ring's tracker", &bob, abroad.credential.clone()),
        (
            "of another ring",
            &bob,
            signed(&claims(other.ring(), own, session, generation, later), &key),
        ),
        (
            "signed by another ring",
            &bob,
            signed(&right, &other.ring_key().token_key()),
        ),
        (
            "expired",
            &bob,
            signed(&claims(ring, own, session, generation, over), &key),
        ),
        (
            "of a session that never was",
            &bob,
            signed(&claims(ring, own, unknown, generation, later), &key),
        ),
        (
            "of an earlier password",
            &bob,
            signed(&claims(ring, own, session, generation - 1, later), &key),
        ),
    ];
    for (what, by, credential) in attempts {
        let connection = by.stranger.dial_tracker().await;
        assert!(is_refused(&connection, credential).await, "{what}");
        let grant = Request::Grant {
            group: group.clone(),
        };
        let after = refused(&connection, grant).await;
        assert_eq!(after, Refusal::NotLoggedIn, "{what}");
    }
    let connection = bob.stranger.dial_tracker().await;
    let answer = authenticate(&connection, signed(&right, &key)).await;
    assert!(matches!(answer, Response::LoggedIn { .. }), "{answer:?}");
}

#[tokio::test]
async fn after_a_logout_the_credential_is_worth_nothing() {
    let world = World::new().await;
    let bob = world.raw_user("bob").await;
    let group = group("own");
    bob.create_group(&group).await;
    let second = bob.stranger.dial_tracker().await;
    let answer = authenticate(&second, bob.credential.clone()).await;
    assert!(matches!(answer, Response::LoggedIn { .. }), "{answer:?}");

    bob.done(Request::Logout { change: change() }).await;
    let grant = || Request::Grant {
        group: group.clone(),
    };
    assert_eq!(bob.refused(grant()).await, Refusal::NotLoggedIn);
    let third = bob.stranger.dial_tracker().await;
    assert!(is_refused(&third, bob.credential.clone()).await);
    // What another connection was logged in as, it gets no rights by any more.
    assert_eq!(refused(&second, grant()).await, Refusal::NotLoggedIn);
    assert_eq!(refused(&second, farewell(1)).await, Refusal::NotLoggedIn);
    assert!(is_refused(&second, bob.credential.clone()).await);
}

#[tokio::test]
async fn to_say_that_it_is_a_retry_gains_nothing() {
    let world = World::new().await;
    let (photos, file) = (group("photos"), TestFile::new("x", 1000));
    let alice = world.sharer("alice", &photos, &file).await;
    let (bob, mallory) = (world.raw_user("bob").await, world.raw_user("mallory").await);
    bob.join(&photos, &alice).await;
    let (group, name) = (photos.clone(), file.name.clone());
    let join = Request::JoinGroup {
        change: change(),
        group: group.clone(),
    };
    world.raw_user("carol").await.ask(join).await;
    let not_owner = Refusal::NotOwner {
        group: group.clone(),
    };
    let not_a_member = Refusal::NotAMember {
        group: group.clone(),
    };
    let new_file = NewFile {
        name: file_name("y"),
        id: file.id(),
        size: 1000,
        sha256: file.digests[0],
    };
    let attempts = |change: Change| {
        let (group, name) = (group.clone(), name.clone());
        let decide = Request::Decide {
            change,
            group: group.clone(),
            user: user("carol"),
            accept: true,
        };
        let remove = Request::RemoveMember {
            change,
            group: group.clone(),
            user: user("bob"),
        };
        let transfer = |to: &str| Request::TransferGroup {
            change,
            group: group.clone(),
            to: user(to),
        };
        let stop = |for_all| Request::StopSharing {
            change,
            group: group.clone(),
            name: name.clone(),
            for_all,
        };
        let not_uploader = Refusal::NotUploader {
            group: group.clone(),
            name: name.clone(),
        };
        let not_sharing = Refusal::NotSharing {
            group: group.clone(),
            name: name.clone(),
        };
        [
            (&bob, transfer("bob"), not_owner.clone()),
            (&mallory, transfer("mallory"), not_owner.clone()),
            (&bob, decide.clone(), not_owner.clone()),
            (&mallory, decide, not_owner.clone()),
            (&mallory, remove, not_owner.clone()),
            (
                &mallory,
                Request::LeaveGroup {
                    change,
                    group: group.clone(),
                },
                not_a_member.clone(),
            ),
            (
                &mallory,
                Request::PublishFile {
                    change,
                    group: group.clone(),
                    file: new_file.clone(),
                },
                not_a_member.clone(),
            ),
            (
                &mallory,
                Request::AddSharer {
                    change,
                    group: group.clone(),
                    name: name.clone(),
                    id: file.id(),
                },
                not_a_member.clone(),
            ),
            (&bob, stop(true), not_uploader),
            (&bob, stop(false), not_sharing),
            (
                &mallory,
                Request::CreateGroup {
                    change,
                    group: group.clone(),
                    access: Access::Open,
                },
                Refusal::GroupExists {
                    group: group.clone(),
                },
            ),
            (
                &mallory,
                Request::CreateUser {
                    change,
                    user: user("Alice"),
                    password: Password::new("mine now"),
                },
                Refusal::UserExists {
                    user: user("Alice"),
                },
            ),
        ]
    };
    let once = attempts(change());
    let again = attempts(Change {
        retry: true,
        ..change()
    });
    for (by, request, refusal) in once {
        assert_eq!(by.refused(request.clone()).await, refusal, "{request:?}");
    }
    for (by, request, refusal) in again {
        // Who had no right may have had one when it was sent first.
        let refusal = match refusal {
            Refusal::NotOwner { .. } | Refusal::NotAMember { .. } => Refusal::OutcomeUnknown,
            refusal => refusal,
        };
        assert_eq!(by.refused(request.clone()).await, refusal, "{request:?}");
    }
    let groups = alice.groups().await.unwrap();
    assert_eq!((groups[0].role, groups[0].members), (Some(Role::Owner), 2));
    assert_eq!(alice.requests(&photos).await.unwrap(), [user("carol")]);
    assert_eq!(alice.files(&photos).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_change_that_is_sent_again_is_not_made_again() {
    let world = World::new().await;
    let (alice, bob) = (world.raw_user("alice").await, world.raw_user("bob").await);
    let group = group("photos");
    alice.create_group(&group).await;
    let join = Request::JoinGroup {
        change: change(),
        group: group.clone(),
    };
    bob.ask(join.clone()).await;
    alice
        .done(Request::Decide {
            change: change(),
            group: group.clone(),
            user: user("bob"),
            accept: true,
        })
        .await;
    let retry = Change {
        retry: true,
        ..change()
    };
    let transfer = |change, to| Request::TransferGroup {
        change,
        group: group.clone(),
        to: user(to),
    };
    alice.done(transfer(retry, "bob")).await;
    let leave = Request::LeaveGroup {
        change: change(),
        group: group.clone(),
    };
    bob.done(transfer(change(), "alice")).await;
    bob.done(leave).await;
    // All of it is long over: what is sent again is answered, and changes nothing.
    alice.done(transfer(retry, "bob")).await;
    bob.ask(join).await;
    let Response::Groups { groups, .. } = bob.ask(Request::ListGroups { cursor: Vec::new() }).await
    else {
        panic!("no groups");
    };
    assert_eq!((&groups[0].owner, groups[0].members), (&user("alice"), 1));
    assert_eq!((groups[0].role, groups[0].pending), (None, false));
}

#[tokio::test]
async fn a_cursor_that_was_made_up_leads_to_groups_alone() {
    let world = World::new().await;
    let bob = world.raw_user("bob").await;
    for name in ["one", "two"] {
        bob.create_group(&group(name)).await;
    }
    let keys = [
        ("u/bob", ""),
        ("u/bob", "account"),
        ("u/", ""),
        ("g/one", ""),
        ("g/one", "group"),
        ("g/one", "member/"),
        ("f/one", "x"),
        ("\0", ""),
        ("\u{ff}", ""),
    ];
    // A scan goes on behind the hash of the partition: these lie all over the circle.
    let anywhere = (0..200).map(|n| (format!("x{n}"), ""));
    let keys = keys.map(|(partition, sort)| (partition.to_owned(), sort));
    for (partition, sort) in keys.into_iter().chain(anywhere) {
        let key = RowKey::new(partition, sort).unwrap();
        let cursor = ScanCursor::behind(key.clone()).to_bytes();
        match bob.ask(Request::ListGroups { cursor }).await {
            Response::Groups { groups, .. } => assert!(groups.len() <= 2, "{key:?}"),
            other => panic!("{key:?}: {other:?}"),
        }
    }
    for cursor in [&b"\0"[..], b"\x05u/b", &[0xff; 200], &[1; 2000]] {
        let cursor = cursor.to_vec();
        let refusal = bob.refused(Request::ListGroups { cursor }).await;
        assert_eq!(refusal, Refusal::BadRequest);
    }
}
