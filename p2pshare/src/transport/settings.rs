//! Every setting of QUIC, in one place. What a remote can make this side buffer is [`Windows`] per
//! connection and nothing more: small where anybody may dial in, large where this side chose to fetch.
//!
//! quinn takes an accepting endpoint's settings before it knows which protocol is asked for, so they
//! belong to the endpoint ([`Profile`]); a dialer's belong to the protocol ([`Alpn`]).

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{IdleTimeout, MtuDiscoveryConfig, NoneTokenStore, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

use super::reset::ResetKeys;
use crate::limits::{
    DATAGRAM_BUFFER_BYTES, IDLE_TIMEOUT, INCOMING_BYTES_MAX, INCOMING_MAX, INITIAL_RTT,
    INITIAL_WINDOW_BYTES, KEEP_ALIVE, PEER_CONNECTIONS_MAX, RING_CONNECTIONS_MAX,
    SOCKET_BUFFER_BYTES, TRACKER_CONNECTIONS_MAX, UDP_PAYLOAD_BYTES_MAX,
};

/// The protocol that a connection speaks, with its version.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub(crate) enum Alpn {
    /// From a peer to a tracker.
    Tracker,
    /// From a tracker to a tracker.
    Ring,
    /// From a peer to a peer.
    Peer,
}

impl Alpn {
    /// Its name in the TLS handshake.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tracker => "p2pshare-tracker/1",
            Self::Ring => "p2pshare-ring/1",
            Self::Peer => "p2pshare-peer/1",
        }
    }

    /// The protocol with this name.
    pub(super) fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Tracker, Self::Ring, Self::Peer]
            .into_iter()
            .find(|alpn| alpn.name().as_bytes() == name)
    }

    const fn dialed(self) -> Windows {
        match self {
            // Answers, and no streams from the tracker.
            Self::Tracker => Windows {
                stream: MIB,
                connection: 4 * MIB,
                send: MIB,
                streams: 0,
            },
            Self::Ring => RING,
            Self::Peer => Windows {
                connection: 32 * MIB,
                ..PEER
            },
        }
    }
}

/// What an accepting endpoint is for: how much it takes from those who dial it.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Profile {
    /// Many strangers with small requests.
    Tracker,
    /// The few members of a ring, with bulk between them; known addresses, so that none may move.
    Ring,
    /// Other peers, who fetch much and send little.
    Peer,
}

impl Profile {
    const fn accepted(self) -> Windows {
        match self {
            Self::Tracker => Windows {
                stream: 256 * KIB,
                connection: 64 * KIB,
                send: 256 * KIB,
                streams: 32,
            },
            Self::Ring => RING,
            Self::Peer => PEER,
        }
    }

    /// The most connections, dialed and closing ones included, with which an endpoint still accepts another:
    /// twice those that have a place, so that nobody is kept out by those that are closing.
    pub(super) const fn connections_max(self) -> usize {
        match self {
            Self::Tracker => 2 * TRACKER_CONNECTIONS_MAX,
            // Beside those that others dialed, as many that this one did.
            Self::Ring => 2 * RING_CONNECTIONS_MAX,
            Self::Peer => 2 * PEER_CONNECTIONS_MAX,
        }
    }
}

/// What one connection may hold, in bytes and streams.
pub(crate) struct Windows {
    /// Bytes received and not yet read, per stream.
    stream: u32,
    /// Bytes received and not yet read, over all streams.
    connection: u32,
    /// Bytes written and not yet acknowledged.
    send: u32,
    /// Bidirectional streams that the other side may have open.
    streams: u32,
}

/// The settings of an endpoint, both ways.
pub(super) fn endpoint(keys: &ResetKeys, rng_seed: Option<[u8; 32]>) -> quinn::EndpointConfig {
    let mut config = quinn::EndpointConfig::new(keys.reset_key());
    let ids = keys.connection_ids();
    config
        .cid_generator(ids)
        // A reset is smaller than what provoked it, so a low interval amplifies nothing, and all peers
        // of a restarted process learn of it in time.
        .min_reset_interval(Duration::from_millis(1))
        .rng_seed(rng_seed);
    #[expect(clippy::expect_used, reason = "quinn takes 1,200 to 65,527")]
    config
        .max_udp_payload_size(UDP_PAYLOAD_BYTES_MAX)
        .expect("within quinn's bounds");
    config
}

/// The settings of accepted connections.
pub(super) fn server(
    profile: Profile,
    tls: quinn::crypto::rustls::QuicServerConfig,
) -> quinn::ServerConfig {
    let mut transport = transport(&profile.accepted());
    if profile == Profile::Ring {
        allow_datagrams(&mut transport);
    }
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(Arc::new(transport))
        .migration(profile != Profile::Ring)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX * INCOMING_MAX as u64);
    config
}

/// The settings of a dialed connection.
pub(super) fn client(
    alpn: Alpn,
    tls: quinn::crypto::rustls::QuicClientConfig,
) -> quinn::ClientConfig {
    let mut transport = transport(&alpn.dialed());
    // One side is enough, and it is the dialer that wants the connection.
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    if alpn == Alpn::Ring {
        allow_datagrams(&mut transport);
    }
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config
        .transport_config(Arc::new(transport))
        .token_store(Arc::new(NoneTokenStore));
    config
}

/// A UDP socket on `listen` with large buffers; on an IPv6 address it speaks IPv4 too, where it can.
pub(super) fn socket(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(listen),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if listen.is_ipv6() && listen.ip().is_unspecified() {
        // Not every system lets one socket do both; then it is IPv6 alone.
        _ = socket.set_only_v6(false);
    }
    // The system may grant less (net.core.rmem_max and wmem_max on Linux), which costs speed only.
    _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

fn transport(windows: &Windows) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(UDP_PAYLOAD_BYTES_MAX);
    let idle = VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_BYTES);
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(congestion))
        .stream_receive_window(VarInt::from_u32(windows.stream))
        .receive_window(VarInt::from_u32(windows.connection))
        .send_window(windows.send.into())
        .max_concurrent_bidi_streams(VarInt::from_u32(windows.streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::from(idle)))
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(mtu))
        .datagram_receive_buffer_size(None);
    transport
}

fn allow_datagrams(transport: &mut TransportConfig) {
    transport
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES);
}

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;

const RING: Windows = Windows {
    stream: 4 * MIB,
    connection: 8 * MIB,
    send: 8 * MIB,
    streams: 256,
};

/// 16 MiB for a stream and 64 MiB to send measured best; who dials in gets 1 MiB until he is fetched from.
const PEER: Windows = Windows {
    stream: 16 * MIB,
    connection: MIB,
    send: 64 * MIB,
    streams: 64,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_protocols_there_and_back() {
        for alpn in [Alpn::Tracker, Alpn::Ring, Alpn::Peer] {
            assert_eq!(Alpn::from_name(alpn.name().as_bytes()), Some(alpn));
        }
        assert_eq!(Alpn::from_name(b"p2pshare-tracker/2"), None);
        assert_eq!(Alpn::from_name(b""), None);
    }

    #[test]
    fn a_stranger_can_fill_little() {
        for (profile, most) in [(Profile::Tracker, 64 * KIB), (Profile::Peer, MIB)] {
            assert!(profile.accepted().connection <= most);
        }
    }
}
