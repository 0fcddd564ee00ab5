//! Peers that announce what they do not have, or may not have.

use super::*;
use crate::{
    limits::{ANNOUNCED_ADDRS_MAX, ANNOUNCED_SWARMS_MAX, ANNOUNCEMENT_NUMBER_MAX},
    wire::tracker::{Announcement, Holder, Holding, SwarmEntry},
};

fn entry(group: &GroupName, file: &TestFile) -> SwarmEntry {
    SwarmEntry {
        group: group.clone(),
        name: file.name.clone(),
        id: file.id(),
        holding: Holding::Complete,
    }
}

impl RawUser {
    /// Announces and gives what the tracker says is no file to share.
    async fn announce(&self, number: u64, swarms: Vec<SwarmEntry>) -> Vec<(GroupName, FileName)> {
        let announcement = Announcement {
            number,
            addrs: vec![self.stranger.endpoint.local_addr()],
            anew: false,
            swarms,
        };
        match self.ask(Request::Announce(announcement)).await {
            Response::Announced { gone, .. } => gone,
            other => panic!("not announced: {other:?}"),
        }
    }

    /// Announces that it has some chunks of a file.
    async fn announce_part(&self, number: u64, of: SwarmEntry, bits: &[u8]) {
        let holding = Holding::Partial(bits.to_vec());
        assert_eq!(
            self.announce(number, vec![SwarmEntry { holding, ..of }])
                .await,
            []
        );
    }

    async fn holders(&self, group: &GroupName, file: &TestFile) -> Vec<PeerId> {
        let (group, name) = (group.clone(), file.name.clone());
        match self.ask(Request::Holders { group, name }).await {
            Response::Holders { holders, .. } => holders
                .into_iter()
                .map(|Holder { peer, .. }| peer)
                .collect(),
            other => panic!("no holders: {other:?}"),
        }
    }
}

#[tokio::test]
async fn only_who_may_read_a_file_is_named_as_its_holder() {
    let world = World::new().await;
    let (photos, file) = (group("photos"), TestFile::new("x", 1000));
    let alice = world.sharer("alice", &photos, &file).await;
    let (bob, mallory) = (world.raw_user("bob").await, world.raw_user("mallory").await);
    bob.join(&photos, &alice).await;
    let own = group("own");
    mallory.create_group(&own).await;

    let other_id = SwarmEntry {
        id: FileId::from_bytes([9; 32]),
        ..entry(&photos, &file)
    };
    let refused = [
        entry(&photos, &file),
        other_id,
        entry(&own, &file),
        entry(&group("nowhere"), &file),
    ];
    let places: Vec<_> = refused
        .iter()
        .map(|entry| (entry.group.clone(), entry.name.clone()))
        .collect();
    assert_eq!(mallory.announce(1, refused.to_vec()).await, places);
    let of_alice = alice.peer().peer_id();
    assert_eq!(bob.holders(&photos, &file).await, [of_alice]);
    assert_eq!(alice.files(&photos).await.unwrap()[0].holders_online, 1);

    // A member is, until the membership ends.
    let third = world.raw_user("carol").await;
    third.join(&photos, &alice).await;
    assert_eq!(bob.announce(1, vec![entry(&photos, &file)]).await, []);
    let both = third.holders(&photos, &file).await;
    assert!(both.contains(&bob.peer_id()) && both.contains(&of_alice));
    alice.remove_member(&photos, &bob.name).await.unwrap();
    // What was announced earlier is looked up again little by little.
    let gone = [
        bob.announce(2, Vec::new()).await,
        bob.announce(3, Vec::new()).await,
    ];
    assert_eq!(gone.concat(), [(photos.clone(), file.name.clone())]);
    assert_eq!(third.holders(&photos, &file).await, [of_alice]);
}

#[tokio::test]
async fn announcements_have_bounds() {
    let world = World::new().await;
    let (photos, file) = (group("photos"), TestFile::new("x", 1000));
    let alice = world.sharer("alice", &photos, &file).await;
    let bob = world.raw_user("bob").await;
    bob.join(&photos, &alice).await;
    let announcement = |number, addrs: usize, swarms: usize| Announcement {
        number,
        addrs: vec![bob.stranger.endpoint.local_addr(); addrs],
        anew: true,
        swarms: vec![entry(&photos, &file); swarms],
    };
    for beyond in [
        announcement(1, ANNOUNCED_ADDRS_MAX + 1, 0),
        announcement(1, 0, ANNOUNCED_SWARMS_MAX + 1),
        announcement(ANNOUNCEMENT_NUMBER_MAX + 1, 0, 1),
    ] {
        let refusal = bob.refused(Request::Announce(beyond)).await;
        assert_eq!(refusal, Refusal::BadRequest);
    }
    // Also what has the highest number that there is ends.
    let request = Request::Announce(announcement(
        ANNOUNCEMENT_NUMBER_MAX,
        ANNOUNCED_ADDRS_MAX,
        1,
    ));
    let announced = bob.ask(request).await;
    assert!(
        matches!(announced, Response::Announced { .. }),
        "{announced:?}"
    );
    assert_eq!(alice.files(&photos).await.unwrap()[0].holders_online, 2);
    bob.done(Request::Logout { change: change() }).await;
    assert_eq!(alice.files(&photos).await.unwrap()[0].holders_online, 1);
}

#[tokio::test]
async fn what_all_have_together_is_told_before_anybody_is_asked() {
    let world = World::new().await;
    let chunk = crate::CHUNK_SIZE as usize;
    let (photos, file) = (group("photos"), TestFile::new("x", 3 * chunk + 1));
    let alice = world.sharer("alice", &photos, &file).await;
    let [bob, carol] = [world.raw_user("bob").await, world.raw_user("carol").await];
    for member in [&bob, &carol] {
        member.join(&photos, &alice).await;
    }
    let availability = async || alice.availability(&photos, &file.name).await.unwrap();
    let of_alice = availability().await;
    let told = (of_alice.chunks, of_alice.holders, of_alice.whole);
    assert_eq!(told, (4, 1, 1));
    assert!(of_alice.is_complete());

    bob.announce_part(1, entry(&photos, &file), &[0b0110]).await;
    carol
        .announce_part(1, entry(&photos, &file), &[0b0010])
        .await;
    let of_all = availability().await;
    assert_eq!((of_all.holders, of_all.whole, of_all.untold), (3, 1, 0));
    assert_eq!(of_all.runs(), [(1, 1), (1, 3), (1, 2), (1, 1)]);
    assert!(bob.holders(&photos, &file).await.contains(&carol.peer_id()));
    assert!(!bob.holders(&photos, &file).await.contains(&bob.peer_id()));
    // What cannot be said of such a file is not taken, nor is what was said before.
    for (number, bits) in [(2, vec![0xff; 99]), (3, vec![0xff]), (4, vec![])] {
        let holding = Holding::Partial(bits);
        let of = entry(&photos, &file);
        let gone = bob.announce(number, vec![SwarmEntry { holding, ..of }]);
        assert_eq!(gone.await, [(photos.clone(), file.name.clone())]);
        let of_all = availability().await;
        assert_eq!((of_all.holders, of_all.untold), (2, 0));
        assert_eq!(of_all.runs(), [(1, 1), (1, 2), (2, 1)]);
    }

    // For whoever may not list the file there is none.
    let mallory = world.login("mallory").await;
    let refused = mallory.availability(&photos, &file.name).await;
    let Err(crate::SessionError::Refused(refused)) = refused else {
        panic!("{refused:?}");
    };
    let group = photos.clone();
    assert_eq!(refused, Refusal::NotAMember { group });
    // Without the one who has the whole, what nobody has cannot be had.
    let asking = world.login("dora").await;
    asking.join(&photos).await.unwrap();
    alice.accept(&photos, asking.user()).await.unwrap();
    alice.peer().shutdown().await.unwrap();
    bob.announce_part(5, entry(&photos, &file), &[0b0100]).await;
    let left = asking.availability(&photos, &file.name).await.unwrap();
    assert_eq!(left.runs(), [(1, 0), (2, 1), (1, 0)]);
    assert!(!left.is_complete());
    let dest = world.path("dora.got");
    let download = asking.download(&photos, &file.name, dest, DownloadOptions::default());
    let mut progress = download.watch();
    let told = loop {
        let next = tokio::time::timeout(WITHIN, progress.next()).await;
        let now = next.expect("it is told").unwrap();
        if now.out_of_reach > 0 {
            break now;
        }
    };
    assert_eq!((told.out_of_reach, told.verified_bytes), (2, 0));
}
