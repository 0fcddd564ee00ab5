//! Nobody at home, known at once. QUIC notices that a port is dead only by the silence, but the machine
//! itself knows whether it has a route to an address, and whether anything listens on a port of its own.

use std::future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

/// Resolves, with the reason, only if `addr` cannot be reached from this machine, or says that nobody listens
/// there; with `knock`, or where it is a loopback address, it is sent one byte that every QUIC endpoint ignores.
/// Cancel-safe.
pub(super) async fn unreachable(addr: SocketAddr, knock: bool) -> String {
    let any: IpAddr = match addr {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A machine without sockets to spare has said nothing about the address.
    let Ok(socket) = UdpSocket::bind((any, 0)).await else {
        return future::pending().await;
    };
    if let Err(error) = socket.connect(addr).await {
        return error.to_string();
    }
    if knock || addr.ip().is_loopback() {
        let mut answer = [0];
        let heard = match socket.send(&[0]).await {
            Ok(_) => socket.recv(&mut answer).await,
            error => error,
        };
        if heard.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
            return "nobody listens on this port".to_owned();
        }
    }
    future::pending().await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn tells_a_dead_port_from_a_live_one() {
        let live = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = live.local_addr().unwrap();
        let mut byte = [0; 2];
        tokio::select! {
            reason = unreachable(addr, false) => panic!("{reason}"),
            received = live.recv(&mut byte) => assert_eq!(received.unwrap(), 1),
        }
        drop(live);
        let reason = tokio::time::timeout(Duration::from_secs(5), unreachable(addr, true));
        assert_eq!(reason.await.unwrap(), "nobody listens on this port");
    }
}
