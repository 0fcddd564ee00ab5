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
