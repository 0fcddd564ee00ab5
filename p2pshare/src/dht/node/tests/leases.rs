//! Leases of a ring of three on a network in memory.

use tokio::time::Instant;

use super::*;
use crate::dht::links::Host as _;
use crate::dht::node::ring_tests::world::{World, all_reach, pass, reaches};
use crate::limits::{LEASE_EXCHANGE_INTERVAL, LEASE_LIFE, LEASE_SILENCE_MAX};
use crate::wire::ring::{ReplicaAnswer, ReplicaCall, ReplicaRequest, SessionVector};

/// The numbers that a tracker itself knows.
async fn numbers(node: &DhtNode) -> Vec<SessionVector> {
    let core = &node.member.core;
    let with = core.life().member;
    let request = ReplicaRequest {
        epoch: core.epoch(),
        call: ReplicaCall::LeaseVectors { with, after: None },
    };
    match core.answer(with, vec![request]).await.remove(0) {
        ReplicaAnswer::LeaseVectors {
            sessions,
            next: None,
        } => sessions,
        other => panic!("{other:?}"),
    }
}

/// Waits until a tracker itself knows as much as another one, and gives how long that took.
async fn until_same(node: &DhtNode, as_node: &DhtNode) -> Duration {
    let began = Instant::now();
    while numbers(node).await != numbers(as_node).await {
        let waited = began.elapsed();
        assert!(waited < 2 * LEASE_EXCHANGE_INTERVAL, "not after {waited:?}");
        pass(Duration::from_millis(100)).await;
    }
    began.elapsed()
}

fn files(name: &str, count: usize) -> Vec<(LeaseKey, Arc<[u8]>)> {
    let key = |i| LeaseKey::new(format!("{name}/{i}")).unwrap();
    (0..count).map(|i| (key(i), Arc::from(&b"x"[..]))).collect()
}

fn session(i: u8) -> LeaseSession {
    LeaseSession::new(PeerId::from_bytes([i; 32]), SessionId::from_bytes([i; 16]))
}

async fn counts(node: &DhtNode, held: &[(LeaseKey, Arc<[u8]>)]) -> usize {
    let keys: Vec<LeaseKey> = held.iter().map(|(key, _)| key.clone()).collect();
    let found = node.leases_of(&keys).await;
    assert_eq!(found.len(), keys.len());
    found.iter().map(Vec::len).sum()
}

#[tokio::test(start_paused = true)]
async fn what_one_tracker_is_told_all_know_cut_off_or_started_anew() {
    let (world, mut nodes) = World::founded(3).await;
    let (mut first, held) = (session(1), files("first", 700));
    let news = first.whole(1, LEASE_LIFE, held.clone()).unwrap();
    let put = nodes[0].put_leases(vec![news]).await;
    assert!(put.replicas >= 2, "{put:?}");
    for node in &nodes {
        assert_eq!(counts(node, &held).await, 700);
    }

    // Cut off, a tracker still takes what its peers say, and tells what it knows, in a short time.
    world.cut_off(2);
    let (mut second, cut_off) = (session(2), files("second", 30));
    let began = Instant::now();
    let news = second.whole(1, LEASE_LIFE, cut_off.clone()).unwrap();
    assert_eq!(nodes[2].put_leases(vec![news]).await.replicas, 1);
    assert_eq!(counts(&nodes[2], &cut_off).await, 30);
    assert!(began.elapsed() <= 2 * LEASE_SILENCE_MAX);
    let (gone, _) = held[0].clone();
    let change = first.change(2, LEASE_LIFE, [(gone, None)]).unwrap();
    assert!(nodes[0].put_leases(vec![change]).await.replicas >= 2);
    assert_eq!(counts(&nodes[1], &held).await, 699);
    assert_eq!(counts(&nodes[1], &cut_off).await, 0);
    reaches(&nodes[0], 2).await;

    // When it is back, all know all.
    world.network.heal();
    all_reach(&nodes, 3).await;
    until_same(&nodes[0], &nodes[2]).await;
    until_same(&nodes[1], &nodes[2]).await;
    assert_eq!(counts(&nodes[0], &cut_off).await, 30);
    assert_eq!(counts(&nodes[2], &held).await, 699);

    // One that has forgotten all of it is told by the others, well before the peers renew it.
    let renewed = vec![first.renew(3, LEASE_LIFE), second.renew(3, LEASE_LIFE)];
    assert!(nodes[0].put_leases(renewed).await.replicas >= 2);
    let former = nodes.remove(1);
    former.shutdown().await.unwrap();
    drop(former);
    nodes.insert(1, world.start(1).await);
    assert_eq!(numbers(&nodes[1]).await, []);
    all_reach(&nodes, 3).await;
    let took = until_same(&nodes[1], &nodes[0]).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    pass(LEASE_LIFE).await;
    for node in &nodes {
        assert_eq!(numbers(node).await, []);
    }
}
