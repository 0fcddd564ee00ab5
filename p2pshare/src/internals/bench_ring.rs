//! A ring of several members in one process, each on its own folder and port, for the benches.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;

use crate::DhtNode;
use crate::dht::{Authority, DhtBindError, Together};
use crate::identity::TrackerAddr;
use crate::identity::key::SigningKey;
use crate::limits::DHT_PORT_OFFSET;
use crate::transport::{Alpn, Endpoint, EndpointConfig, Profile};

/// Starts `members` members of one ring in folders beneath `dir` and waits until each reaches all.
///
/// # Panics
///
/// If the machine lacks randomness or free ports, or the disk fails.
#[expect(clippy::expect_used, reason = "a bench without its machine fails")]
pub async fn ring_of(dir: &Path, members: usize) -> Vec<DhtNode> {
    let random = ring::rand::SystemRandom::new();
    let key = || SigningKey::generate(&random).expect("randomness");
    let (authority, tokens) = (key(), key());
    let places: Vec<(UdpSocket, TrackerAddr)> = (0..members).map(|_| free_place()).collect();
    let founders: Vec<_> = places.iter().map(|(_, addr)| addr.clone()).collect();
    let mut nodes = Vec::new();
    for (number, (socket, own)) in places.into_iter().enumerate() {
        let (addr, key) = (socket.local_addr().expect("it is bound"), key());
        drop(socket);
        let peer = key.verifying_key().into();
        let config = EndpointConfig::listener(key, Profile::Ring, vec![Alpn::Ring]);
        let together = Together {
            own,
            founders: founders.clone(),
            authority: Authority {
                ring: authority.clone(),
                tokens: tokens.verifying_key(),
                peer,
            },
            endpoint: Endpoint::bind(addr, config).expect("the port was free"),
            skew: 0,
        };
        let folder = dir.join(number.to_string());
        let node = DhtNode::builder(folder, authority.verifying_key().into());
        let node: Result<_, DhtBindError> = node.together(together).bind().await;
        nodes.push(node.expect("a folder on the disk"));
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

/// A free port for a member, with the address that a list would have for it.
#[expect(clippy::expect_used, reason = "a bench without free ports fails")]
fn free_place() -> (UdpSocket, TrackerAddr) {
    loop {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = socket.local_addr().expect("it is bound").port();
        if let Some(port) = port.checked_sub(DHT_PORT_OFFSET)
            && let Ok(addr) = TrackerAddr::try_from(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        {
            return (socket, addr);
        }
    }
}
