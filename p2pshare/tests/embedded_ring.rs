//! A ring of three embedded by another program: only what the library offers to everybody.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Mutex;

use p2pshare::{
    Attempt, DhtBindError, DhtNode, DhtNodeBuilder, PeerId, RequestId, RequestKey, RowChange,
    RowKey, TrackerAddr,
};
use rand::RngExt as _;

/// Addresses whose ports, and those 1000 above, were free a moment ago and are not given out by the system, nor again
/// by this.
fn free_addrs(count: usize) -> Vec<TrackerAddr> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let (mut given, mut addrs) = (GIVEN.lock().unwrap(), Vec::new());
    while addrs.len() < count {
        let port = rand::rng().random_range(12_000..30_000);
        let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let is_free = |port| !given.contains(&port) && UdpSocket::bind(addr(port)).is_ok();
        if is_free(port) && is_free(port + 1000) {
            given.extend([port, port + 1000]);
            addrs.push(addr(port).try_into().unwrap());
        }
    }
    addrs
}

fn member(dir: &Path, founders: &[TrackerAddr], number: usize) -> DhtNodeBuilder {
    DhtNode::builder(dir.join(number.to_string()))
        .ring_key(dir.join("ring.key"))
        .listen(founders[number].socket_addr().unwrap())
        .founders(founders.to_vec())
}

async fn reaches(node: &DhtNode, members: u64) {
    loop {
        let changed = node.status_changed();
        if node.status().founded && u64::from(node.status().reachable) == members {
            return;
        }
        changed.await;
    }
}

async fn create(node: &DhtNode, name: &str) -> RowChange {
    let key = RowKey::new("names", name).unwrap();
    let request = RequestKey {
        peer: PeerId::from_bytes([1; 32]),
        request: RequestId::from_bytes(rand::random()),
    };
    node.create(&key, name, request, Attempt::First)
        .await
        .unwrap()
}

#[tokio::test]
async fn three_members_agree_on_rows_and_one_of_them_may_die() {
    let dir = tempfile::tempdir().unwrap();
    let founders = free_addrs(3);
    let mut nodes = Vec::new();
    for number in 0..3 {
        nodes.push(member(dir.path(), &founders, number).bind().await.unwrap());
    }
    for node in &nodes {
        reaches(node, 3).await;
        assert_eq!(node.ring_id(), nodes[0].ring_id());
    }
    assert!(matches!(
        create(&nodes[0], "a").await,
        RowChange::Applied { .. }
    ));
    let again = create(&nodes[1], "a").await;
    assert!(matches!(again, RowChange::Conflict { current: Some(_) }));

    nodes.pop().unwrap().shutdown().await.unwrap();
    for node in &nodes {
        reaches(node, 2).await;
    }
    assert!(matches!(
        create(&nodes[1], "b").await,
        RowChange::Applied { .. }
    ));
    let third = member(dir.path(), &founders, 2).bind().await.unwrap();
    reaches(&third, 3).await;
    let listing = third.list(b"names", None, 10).await.unwrap();
    let names: Vec<_> = listing
        .rows
        .iter()
        .map(|(name, _)| name.as_slice())
        .collect();
    assert_eq!(names, [b"a", b"b"]);
    assert!(!listing.stale);
}

#[tokio::test]
async fn a_list_of_others_than_the_key_names_is_refused_and_nothing_runs() {
    let dir = tempfile::tempdir().unwrap();
    let founders = free_addrs(3);
    let one = member(dir.path(), &founders, 0).bind().await.unwrap();
    let refused = member(dir.path(), &founders[..2], 1).bind().await;
    assert!(
        matches!(refused, Err(DhtBindError::OtherFounders { .. })),
        "{refused:?}"
    );
    let taken = member(dir.path(), &founders, 0).bind().await;
    assert!(
        matches!(taken, Err(DhtBindError::PortInUse { .. })),
        "{taken:?}"
    );
    one.shutdown().await.unwrap();
}
