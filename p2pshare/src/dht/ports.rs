//! The pair of UDP ports of a member of a ring: the lower one is that of its address in lists, and on the one 1000
//! above it the members speak to each other.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use super::builder::DhtBindError;
use crate::limits::DHT_PORT_OFFSET;

/// The lower address of a pair, and a socket that holds the upper one. Port 0 finds a free pair.
pub(super) fn reserve_pair(listen: SocketAddr) -> Result<(SocketAddr, UdpSocket), DhtBindError> {
    let failed = |addr: SocketAddr, error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => DhtBindError::PortInUse { addr },
        _ => DhtBindError::Socket {
            addr,
            cause: Arc::new(error),
        },
    };
    let upper = |addr: SocketAddr| {
        let port = addr.port().checked_add(DHT_PORT_OFFSET);
        port.map(|port| SocketAddr::new(addr.ip(), port))
    };
    if listen.port() != 0 {
        let no_room = || {
            failed(
                listen,
                io::Error::other("no port above 64535 has one 1000 above it"),
            )
        };
        let dht = upper(listen).ok_or_else(no_room)?;
        // The port that was asked for is the one to be named when both are taken.
        drop(UdpSocket::bind(listen).map_err(|error| failed(listen, error))?);
        let socket = UdpSocket::bind(dht).map_err(|error| failed(dht, error))?;
        return Ok((listen, socket));
    }
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PAIR_ATTEMPTS {
        let lower = UdpSocket::bind(listen).and_then(|socket| socket.local_addr());
        let lower = lower.map_err(|error| failed(listen, error))?;
        let Some(dht) = upper(lower) else { continue };
        match UdpSocket::bind(dht) {
            Ok(socket) => return Ok((lower, socket)),
            Err(error) => last = error,
        }
    }
    Err(failed(listen, last))
}

/// How many pairs of ports are tried.
const PAIR_ATTEMPTS: usize = 64;
