//! Those who connect and do not log in, and those who stay with a tracker that is cut off, over the network in memory.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::{
    content::{Digest, FileId},
    dht::test_ring::{World, all_reach, pass, reaches},
    identity::RequestId,
    limits::{LEASE_LIFE, LEASE_RENEWAL, TRACKER_ANSWER_TIMEOUT},
    tracker::rows::member_key,
    transport::{Alpn, Crowd, Endpoint, EndpointConfig, Expect, Profile, memory::Network},
    wire::tracker::{Access, NewFile, Password},
};

/// The seed of the ring's key.
pub(crate) const RING_KEY: u8 = 7;

pub(crate) fn key(of: u8) -> SigningKey {
    SigningKey::from_seed(&[of; 32])
}

fn endpoint(network: &Network, host: u8, profile: Profile, alpn: &[Alpn]) -> Endpoint {
    let config = EndpointConfig::listener(key(host), profile, alpn.to_vec());
    let addr: SocketAddr = ([10, 0, 0, host], 9000).into();
    Endpoint::bind_on(network.bind(addr).unwrap(), config).unwrap()
}

async fn ask(connection: &Connection, request: Request) -> Response {
    let answer = connection.request(&request, TRACKER_ANSWER_TIMEOUT).await;
    answer.unwrap()
}

/// A tracker of its own at this member of the ring.
pub(crate) fn tracker(network: &Network, host: u8, dht: &DhtNode) -> Endpoint {
    let tracker = endpoint(network, host, Profile::Tracker, &[Alpn::Tracker]);
    let authority = Authority {
        ring: key(RING_KEY),
        tokens: key(8).verifying_key(),
        peer: tracker.peer_id(),
    };
    let service = Arc::new(Service::new(dht.clone(), authority, key(8)).unwrap());
    let (serving, crowd) = (tracker.clone(), Crowd::new(8, 8));
    tokio::spawn(async move {
        while let Some(connection) = serving.accept().await {
            let place = crowd.admit(&connection).unwrap();
            tokio::spawn(service.clone().serve(connection, place));
        }
    });
    tracker
}

async fn dial(from: &Endpoint, to: &Endpoint) -> Connection {
    let dialed = from.connect(to.local_addr(), Alpn::Tracker, Expect::Any);
    dialed.await.unwrap()
}

fn change(request: u8) -> Change {
    Change::new(RequestId::from_bytes([request; 16]))
}

/// Makes an account and logs in to it.
async fn enter(connection: &Connection) -> Signed<Credential> {
    let user = UserName::new("u").unwrap();
    let password = Password::new("pass123");
    let create = Request::CreateUser {
        change: change(1),
        user: user.clone(),
        password: password.clone(),
    };
    let created = ask(connection, create).await;
    assert!(
        matches!(created, Response::UserCreated { .. }),
        "{created:?}"
    );
    let login = Request::Login {
        change: change(3),
        user,
        password,
    };
    match ask(connection, login).await {
        Response::LoggedIn { credential, .. } => credential,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_login_ends_after_a_minute() {
    let (network, folder) = (Network::new(1), tempfile::tempdir().unwrap());
    let ring = RingId::from_bytes([1; 32]);
    let dht = DhtNode::alone(folder.path(), ring).await.unwrap();
    let tracker = tracker(&network, 1, &dht);
    let (one, two) = (
        endpoint(&network, 2, Profile::Peer, &[]),
        endpoint(&network, 3, Profile::Peer, &[]),
    );
    let member = dial(&one, &tracker).await;
    enter(&member).await;

    let stranger = dial(&two, &tracker).await;
    let start = Instant::now();
    // To be answered is not to be known.
    let half = STRANGER_LIFE / 2;
    let early = tokio::time::timeout(half, stranger.closed()).await;
    assert!(early.is_err());
    assert!(matches!(
        ask(&stranger, Request::Hello).await,
        Response::Welcome(_)
    ));
    let lost = stranger.closed().await;
    assert_eq!(lost.code(), Some(CloseCode::Unauthenticated));
    let took = start.elapsed();
    assert!(took >= STRANGER_LIFE - Duration::from_secs(1), "{took:?}");
    assert!(took < STRANGER_LIFE + Duration::from_secs(1), "{took:?}");
    // Whoever logged in stays.
    assert!(
        tokio::time::timeout(STRANGER_LIFE, member.closed())
            .await
            .is_err()
    );
    // And is a stranger after logging out.
    let change = change(2);
    let logged_out = ask(&member, Request::Logout { change }).await;
    assert!(matches!(logged_out, Response::Done), "{logged_out:?}");
    let ended = tokio::time::timeout(2 * STRANGER_LIFE, member.closed()).await;
    assert_eq!(ended.unwrap().code(), Some(CloseCode::Unauthenticated));
    dht.shutdown().await.unwrap();
}

fn group() -> GroupName {
    GroupName::new("g").unwrap()
}

fn entry(name: &str, holding: Holding) -> SwarmEntry {
    SwarmEntry {
        group: group(),
        name: FileName::new(name).unwrap(),
        id: FileId::from_bytes([name.as_bytes()[0]; 32]),
        holding,
    }
}

fn announcement(number: u64, swarms: Vec<SwarmEntry>) -> Request {
    Request::Announce(Announcement {
        number,
        addrs: vec![([192, 0, 2, 1], 5000).into()],
        anew: swarms.iter().all(|entry| entry.holding != Holding::Nothing),
        swarms,
    })
}

/// With how many each file of the group is online, as a tracker says, and whether it says that this is stale.
async fn online(connection: &Connection) -> (bool, Vec<u32>) {
    let list = Request::ListFiles {
        group: group(),
        after: None,
    };
    match ask(connection, list).await {
        Response::Files { files, stale, .. } => {
            let online = files.iter().map(|file| file.holders_online);
            (stale, online.collect())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_tracker_that_is_cut_off_goes_on_saying_who_is_there_and_takes_nothing_new() {
    let (ring, nodes) = World::founded(3).await;
    let network = Network::new(1);
    let [alone, other] = [0, 1].map(|at: u8| tracker(&network, at + 1, &nodes[usize::from(at)]));
    let peer = endpoint(&network, 9, Profile::Peer, &[]);
    let mut there = dial(&peer, &alone).await;
    let credential = enter(&there).await;
    let elsewhere = dial(&peer, &other).await;
    let show = || Request::Authenticate {
        credential: credential.clone(),
    };
    let shown = ask(&elsewhere, show()).await;
    assert!(matches!(shown, Response::LoggedIn { .. }), "{shown:?}");
    let create = Request::CreateGroup {
        change: change(4),
        group: group(),
        access: Access::Members,
    };
    assert!(matches!(ask(&there, create).await, Response::Done));
    for (number, name) in [(5, "a"), (6, "b")] {
        let publish = Request::PublishFile {
            change: change(number),
            group: group(),
            file: NewFile {
                name: FileName::new(name).unwrap(),
                id: entry(name, Holding::Complete).id,
                size: 1,
                sha256: Digest::from_bytes([2; 32]),
            },
        };
        assert!(matches!(ask(&there, publish).await, Response::Done));
    }
    let [a, b] = ["a", "b"].map(|name| entry(name, Holding::Complete));
    let announced = ask(&there, announcement(1, vec![a.clone()])).await;
    assert!(matches!(announced, Response::Announced { .. }));
    assert_eq!(online(&there).await, (false, vec![1, 0]));

    ring.cut_off(0);
    reaches(&nodes[0], 1).await;
    let mut number = 1;
    // It is known there by its credential alone once it has connected anew.
    for anew in [false, true] {
        if anew {
            there.close(CloseCode::ShuttingDown);
            there = dial(&peer, &alone).await;
            let shown = ask(&there, show()).await;
            assert!(matches!(shown, Response::LoggedIn { .. }), "{shown:?}");
        }
        let until = Instant::now() + 2 * LEASE_LIFE;
        while Instant::now() < until {
            pass(LEASE_RENEWAL).await;
            number += 1;
            let both = vec![a.clone(), b.clone()];
            let refused = ask(&there, announcement(number, both)).await;
            let cut_off = Refusal::InsufficientReplicas {
                reachable: 1,
                members: 3,
                needed: 2,
            };
            assert_eq!(refused, Response::Refused(cut_off));
            // The second was never confirmed.
            assert_eq!(online(&there).await, (true, vec![1, 0]));
        }
    }
    assert_eq!(online(&elsewhere).await, (false, vec![0, 0]));

    ring.network.heal();
    all_reach(&nodes, 3).await;
    pass(LEASE_RENEWAL).await;
    assert_eq!(online(&elsewhere).await, (false, vec![1, 0]));
    let announced = ask(&there, announcement(number + 1, vec![a, b])).await;
    assert!(matches!(announced, Response::Announced { .. }));
    assert_eq!(online(&elsewhere).await, (false, vec![1, 1]));

    // What it holds no more is said also by one that is cut off.
    ring.cut_off(0);
    reaches(&nodes[0], 1).await;
    let ended = vec![entry("a", Holding::Nothing)];
    ask(&there, announcement(number + 2, ended)).await;
    assert_eq!(online(&there).await, (true, vec![0, 1]));
}

/// A row of a group that two of three trackers can no longer read concerns nobody but whom it is of.
#[tokio::test(start_paused = true)]
async fn one_request_that_cannot_be_read_hides_no_other_and_makes_no_list_stale() {
    let (ring, nodes) = World::founded(3).await;
    let network = Network::new(1);
    let tracker = tracker(&network, 1, &nodes[0]);
    let peer = endpoint(&network, 9, Profile::Peer, &[]);
    let owner = dial(&peer, &tracker).await;
    enter(&owner).await;
    let access = Access::Members;
    let create = Request::CreateGroup {
        change: change(4),
        group: group(),
        access,
    };
    assert!(matches!(ask(&owner, create).await, Response::Done));
    let groups = Groups::new(nodes[0].clone());
    let users = ["v", "w"].map(|name| UserName::new(name).unwrap());
    for (number, user) in (5..).zip(&users) {
        let request = Author {
            peer: peer.peer_id(),
            change: change(number),
        };
        groups
            .join(request, user, &group(), Timestamp::from_millis(1))
            .await
            .unwrap();
    }
    for member in [1, 2] {
        ring.damage(member, &member_key(&group(), &users[1]));
    }
    let began = Instant::now();
    let (of, after) = (group(), None);
    match ask(&owner, Request::ListRequests { group: of, after }).await {
        Response::Users { users: found, .. } => assert!(found.contains(&users[0])),
        other => panic!("{other:?}"),
    }
    let cursor = Vec::new();
    match ask(&owner, Request::ListGroups { cursor }).await {
        Response::Groups { groups, stale, .. } => assert_eq!((groups.len(), stale), (1, false)),
        other => panic!("{other:?}"),
    }
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}
