//! One connection: who is at the other end, and the streams between the two.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use super::close::{CloseCode, ConnectionLost};
use super::message::{RecvStream, SendStream};
use super::tls;
use crate::identity::id::PeerId;

/// A connection whose other end has proved who it is. Clones are the same connection, which is closed with
/// [`CloseCode::Done`] when the last of them and of its streams is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    quinn: quinn::Connection,
    remote_peer: PeerId,
}

impl Connection {
    /// `None`, and the connection closed, if the handshake left out who or what; TLS sees to it that it
    /// does not.
    pub(super) fn new(quinn: quinn::Connection) -> Option<Self> {
        let Some(remote_peer) = tls::remote_of(&quinn) else {
            quinn.close(CloseCode::ProtocolError.number(), b"");
            return None;
        };
        Some(Self { quinn, remote_peer })
    }

    /// Whether the two are clones of one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.quinn.stable_id() == other.quinn.stable_id()
    }

    /// Who is at the other end.
    pub(crate) fn remote_peer(&self) -> PeerId {
        self.remote_peer
    }

    /// Where the other end is now; on connections of peers and trackers it may move.
    pub(crate) fn remote_addr(&self) -> SocketAddr {
        let addr = self.quinn.remote_address();
        SocketAddr::new(addr.ip().to_canonical(), addr.port())
    }

    /// Opens a stream, waiting while the other side has as many open as it allows. It learns of the stream
    /// with the first bytes that are sent. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If the connection is lost; nothing was sent.
    pub(crate) async fn open(&self) -> Result<(SendStream, RecvStream), ConnectionLost> {
        let (send, receive) = self.quinn.open_bi().await?;
        Ok((SendStream::new(send), RecvStream::new(receive)))
    }

    /// The next stream that the other side opened. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If the connection is lost.
    pub(crate) async fn accept(&self) -> Result<(SendStream, RecvStream), ConnectionLost> {
        let (send, receive) = self.quinn.accept_bi().await?;
        Ok((SendStream::new(send), RecvStream::new(receive)))
    }

    /// Sends a datagram that may get lost, on a connection of the ring. Older ones that wait make way.
    ///
    /// # Errors
    ///
    /// If it is too long, the connection carries none, or is lost.
    pub(crate) fn send_datagram(&self, datagram: Bytes) -> Result<(), DatagramError> {
        use quinn::SendDatagramError as Quinn;
        self.quinn.send_datagram(datagram).map_err(|error| {
            let max = self.quinn.max_datagram_size();
            match (error, max) {
                (Quinn::ConnectionLost(error), _) => DatagramError::Lost(error.into()),
                (Quinn::TooLarge, Some(max)) => DatagramError::TooLong { max },
                _ => DatagramError::NotSupported,
            }
        })
    }

    /// The next datagram from the other side. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If the connection is lost.
    pub(crate) async fn receive_datagram(&self) -> Result<Bytes, ConnectionLost> {
        Ok(self.quinn.read_datagram().await?)
    }

    /// Closes the connection now: what is under way in both directions is lost.
    pub(crate) fn close(&self, code: CloseCode) {
        self.close_with(code, "");
    }

    /// Closes the connection now, with a reason for the other side's log.
    pub(crate) fn close_with(&self, code: CloseCode, reason: &str) {
        self.quinn.close(code.number(), reason.as_bytes());
    }

    /// Waits until the connection is no more, and says why. Cancel-safe.
    pub(crate) async fn closed(&self) -> ConnectionLost {
        self.quinn.closed().await.into()
    }

    /// Why the connection is no more, if it is.
    pub(crate) fn close_reason(&self) -> Option<ConnectionLost> {
        self.quinn.close_reason().map(Into::into)
    }

    /// Datagrams that came from the other side so far, whatever is in them.
    pub(crate) fn received(&self) -> u64 {
        self.quinn.stats().udp_rx.datagrams
    }

    /// How long the other side's answers take on their way at the moment.
    pub(crate) fn round_trip(&self) -> Duration {
        self.quinn.rtt()
    }

    /// Bytes in a UDP datagram that the path is known to carry.
    #[cfg(test)]
    pub(crate) fn mtu(&self) -> u16 {
        self.quinn.stats().path.current_mtu
    }
}

/// Why a datagram was not sent.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub(crate) enum DatagramError {
    /// It does not fit into a packet.
    #[error("the datagram is longer than the {max} bytes that fit into a packet")]
    TooLong {
        /// How many bytes would fit.
        max: usize,
    },
    /// The connection is not of a protocol with datagrams.
    #[error("the connection carries no datagrams")]
    NotSupported,
    /// The connection is no more.
    #[error(transparent)]
    Lost(#[from] ConnectionLost),
}
