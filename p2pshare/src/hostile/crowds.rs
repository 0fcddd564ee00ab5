//! A crowd of strangers at a peer: they share the places of one address among themselves, and those who have a
//! right keep theirs.

use tokio::time::timeout;

use super::*;
use crate::{
    limits::PEER_CONNECTIONS_PER_PREFIX_MAX,
    transport::CloseCode,
    wire::peer::{Open, SwarmAnswer},
};

/// Opens a swarm, to which that grant is the right.
async fn is_served(connection: &Connection, grant: Signed<Grant>, of: &GroupName, file: &TestFile) {
    let open = Open::Swarm {
        grant,
        group: of.clone(),
        id: file.id(),
    };
    let (mut send, mut receive) = connection.open().await.unwrap();
    send.send(&open).await.unwrap();
    let answer: SwarmAnswer = receive.receive().await.unwrap();
    assert!(matches!(answer, SwarmAnswer::Opened { .. }), "{answer:?}");
}

#[tokio::test]
async fn a_crowd_at_a_peer_makes_room_for_those_who_have_a_right() {
    let world = World::new().await;
    let (photos, file) = (group("photos"), TestFile::new("x", 1000));
    let alice = world.sharer("alice", &photos, &file).await;
    let bob = world.raw_user("bob").await;
    bob.join(&photos, &alice).await;
    let grant = bob.grant(&photos).await;
    // Of the address of the crowd, and there before it came.
    let first = bob.stranger.dial_peer(alice.peer()).await;
    is_served(&first, grant.clone(), &photos, &file).await;

    let mallory = world.stranger();
    let mut crowd = Vec::new();
    for _ in 0..PEER_CONNECTIONS_PER_PREFIX_MAX + 20 {
        crowd.push(mallory.dial_peer(alice.peer()).await);
    }
    // One place was taken.
    let (out, rest) = crowd.split_at(21);
    for connection in out {
        let lost = timeout(WITHIN, connection.closed()).await;
        let lost = lost.expect("a stranger made room");
        assert_eq!(lost.code(), Some(CloseCode::TooManyRequests));
    }
    let closed = rest.iter().filter(|c| c.close_reason().is_some());
    assert_eq!(closed.count(), 0);

    // Whoever has a right is served, be he there or come only now.
    is_served(&first, grant.clone(), &photos, &file).await;
    let second = bob.stranger.dial_peer(alice.peer()).await;
    is_served(&second, grant, &photos, &file).await;
    for _ in 0..PEER_CONNECTIONS_PER_PREFIX_MAX {
        crowd.push(mallory.dial_peer(alice.peer()).await);
    }
    assert_eq!((first.close_reason(), second.close_reason()), (None, None));
}
