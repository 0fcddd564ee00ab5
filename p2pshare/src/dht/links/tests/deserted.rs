//! A member that was killed, on sockets of this machine.

use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::limits::{DHT_PORT_OFFSET, REPLICA_BATCH_PATIENCE};

/// A port of this machine behind which a member is, until it is dropped: then the member is gone without a word.
struct Front {
    addr: TrackerAddr,
    _relay: AbortOnDropHandle<()>,
}

impl Front {
    async fn of(member: SocketAddr) -> Self {
        let (socket, addr) = loop {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let port = socket.local_addr().unwrap().port();
            if let Some(port) = port.checked_sub(DHT_PORT_OFFSET) {
                break (socket, format!("127.0.0.1:{port}").parse().unwrap());
            }
        };
        let relay = async move {
            let (mut buffer, mut dialer) = ([0; 2048], member);
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let to = if from == member { dialer } else { member };
                if from != member {
                    dialer = from;
                }
                _ = socket.send_to(&buffer[..length], to).await;
            }
        };
        let _relay = AbortOnDropHandle::new(tokio::spawn(relay));
        Self { addr, _relay }
    }
}

fn real(number: u8) -> Endpoint {
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = EndpointConfig::listener(tls_key(number), Profile::Ring, vec![Alpn::Ring]);
    Endpoint::bind(here, config).unwrap()
}

#[tokio::test]
async fn a_member_that_was_killed_is_given_up_as_soon_as_it_does_not_answer() {
    let world = World::new();
    let (endpoint, hello) = (real(2), world.hello(2, 1));
    let front = Front::of(endpoint.local_addr()).await;
    let two = world.member_on(endpoint, 2, hello);
    let mut one = world.member_on(real(1), 1, world.hello(1, 1));
    let at_front = RingMember {
        id: id(2),
        addr: front.addr.clone(),
    };
    one.links.set_members(&[ring_member(1), at_front]);
    one.until(&Event::Link(id(2), true)).await;
    assert!(!is_failed(&one.ask(2, read()).await.0));
    // One that thinks for long is left alone.
    two.behave(Manner::Stuck);
    let (input, took) = one.ask(2, read()).await;
    assert!(is_failed(&input) && took >= REPLICA_BATCH_TIMEOUT);
    assert!(one.links.is_up(id(2)));

    drop(front);
    let (input, took) = one.ask(2, read()).await;
    assert!(is_failed(&input) && took >= REPLICA_BATCH_PATIENCE);
    assert!(took < REPLICA_BATCH_TIMEOUT, "{took:?}");
    one.until(&Event::Link(id(2), false)).await;
    // It is dialed again.
    assert!(one.trouble().await.to_string().contains("nobody listens"));
}
