//! A ring of several members in one process, each on its own folder and port.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;

use p2pshare::{DhtNode, TrackerAddr};
use rand::RngExt as _;

/// Starts `members` members of one ring in folders beneath `dir` and waits until each reaches all.
///
/// # Panics
///
/// If the machine lacks randomness or free ports, or the disk fails.
#[expect(clippy::expect_used, reason = "a bench without its machine fails")]
pub async fn ring_of(dir: &Path, members: usize) -> Vec<DhtNode> {
    let places: Vec<_> = (0..members).map(|_| free_pair()).collect();
    let founders: Vec<TrackerAddr> = places.iter().map(|(_, listen)| address(*listen)).collect();
    let mut nodes = Vec::new();
    for (number, (sockets, listen)) in places.into_iter().enumerate() {
        drop(sockets);
        let node = DhtNode::builder(dir.join(number.to_string()))
            .ring_key(dir.join("ring.key"))
            .listen(listen)
            .founders(founders.clone());
        nodes.push(node.bind().await.expect("a folder on the disk"));
    }
    for node in &nodes {
        loop {
            let changed = node.status_changed();
            if node.status().reachable as usize == members {
                break;
            }
            changed.await;
        }
    }
    nodes
}

/// A pair of ports that are free and that the system gives to nobody, held by its sockets, and the lower address.
#[expect(clippy::expect_used, reason = "a bench without free ports fails")]
fn free_pair() -> (Vec<UdpSocket>, SocketAddr) {
    for _ in 0..1000 {
        let port = rand::rng().random_range(12_000..30_000);
        let pair = [port, port + 1000].map(|port| UdpSocket::bind(("127.0.0.1", port)));
        let held: Vec<_> = pair.into_iter().flatten().collect();
        if held.len() == 2 {
            let listen = held[0].local_addr().expect("it is bound");
            return (held, listen);
        }
    }
    panic!("no free ports");
}

fn address(listen: SocketAddr) -> TrackerAddr {
    TrackerAddr::try_from(listen).unwrap_or_else(|error| panic!("{listen}: {error}"))
}
