//! One UDP port, from which a process dials and on which it is dialed. A connection comes out of here only
//! when its handshake is over, so that its other end is always known.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::close::{CloseCode, ConnectionLost};
use super::connection::Connection;
use super::crowd::Prefix;
use super::probe;
use super::reset::ResetKeys;
use super::settings::{self, Alpn, Profile};
use super::tls::{Expect, Refused, Tls, Verifier};
use crate::identity::certificate::CertificateError;
use crate::identity::id::PeerId;
use crate::identity::key::{NoRandomness, SigningKey};
use crate::identity::key_file::KeyFileError;
use crate::limits::{
    CONNECT_TIMEOUT, GOODBYE_TIMEOUT, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, HANDSHAKES_PER_PREFIX_MAX,
    HANDSHAKES_UNPROVEN_MAX,
};

/// What an endpoint is.
#[derive(Clone, Debug)]
pub(crate) struct EndpointConfig {
    /// Who it is.
    pub(crate) key: SigningKey,
    /// What those who dial it may speak; nobody may dial it if this is empty.
    pub(crate) accept: Vec<Alpn>,
    /// How much it takes from those who dial it.
    pub(crate) profile: Profile,
    /// An existing folder for the secrets by which a restart is noticed, which only one endpoint of a
    /// profile may use at a time; without one, the others wait for [`IDLE_TIMEOUT`](crate::limits::IDLE_TIMEOUT).
    pub(crate) reset_keys: Option<PathBuf>,
    /// Makes what QUIC draws from its own generator repeatable, for tests.
    pub(crate) rng_seed: Option<[u8; 32]>,
}

impl EndpointConfig {
    /// An endpoint that only dials.
    pub(crate) fn dialer(key: SigningKey) -> Self {
        Self::listener(key, Profile::Peer, Vec::new())
    }

    /// An endpoint that also accepts.
    pub(crate) fn listener(key: SigningKey, profile: Profile, accept: Vec<Alpn>) -> Self {
        Self {
            key,
            accept,
            profile,
            reset_keys: None,
            rng_seed: None,
        }
    }
}

/// A bound port. Clones are the same port; when the last of them is dropped nothing is accepted any more
/// and no task remains, but connections that somebody holds go on.
#[derive(Clone)]
pub(crate) struct Endpoint(Arc<Inner>);

struct Inner {
    quinn: quinn::Endpoint,
    tls: Tls,
    peer_id: PeerId,
    local_addr: SocketAddr,
    connections_max: usize,
    /// Whether this is a socket of this machine.
    real: bool,
    /// Handshakes of accepted connections that are under way, or over and not yet taken.
    handshakes: Mutex<Handshakes>,
}

impl Endpoint {
    /// Binds the UDP port `listen`; port 0 takes a free one. Blocks for a moment to read the reset keys.
    ///
    /// # Errors
    ///
    /// If the port is taken, or the reset keys cannot be used.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub(crate) fn bind(listen: SocketAddr, config: EndpointConfig) -> Result<Self, BindError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { addr: listen },
            _ => BindError::Socket {
                addr: listen,
                source,
            },
        };
        let socket = settings::socket(listen).map_err(failed)?;
        let socket = TokioRuntime.wrap_udp_socket(socket).map_err(failed)?;
        Self::new(socket, config, true)
    }

    /// Uses `socket`, which may be one of a network in memory.
    ///
    /// # Errors
    ///
    /// If the reset keys cannot be used, or the socket has no address.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[cfg(test)]
    pub(crate) fn bind_on(
        socket: Arc<dyn AsyncUdpSocket>,
        config: EndpointConfig,
    ) -> Result<Self, BindError> {
        Self::new(socket, config, false)
    }

    fn new(
        socket: Arc<dyn AsyncUdpSocket>,
        config: EndpointConfig,
        real: bool,
    ) -> Result<Self, BindError> {
        let keys = match &config.reset_keys {
            Some(dir) => ResetKeys::load_or_create(dir, config.profile)?,
            None => {
                let mut seed = Zeroizing::new([0; 32]);
                SystemRandom::new()
                    .fill(seed.as_mut())
                    .map_err(|_| NoRandomness)?;
                ResetKeys::from_seed(&seed)
            }
        };
        let tls = Tls::new(&config.key)?;
        let server = match config.accept.as_slice() {
            [] => None,
            accept => Some(settings::server(config.profile, tls.server(accept)?)),
        };
        let no_address = |source| BindError::Socket {
            addr: SocketAddr::from(([0, 0, 0, 0], 0)),
            source,
        };
        let local_addr = socket.local_addr().map_err(no_address)?;
        let quinn = quinn::Endpoint::new_with_abstract_socket(
            settings::endpoint(&keys, config.rng_seed),
            server,
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(no_address)?;
        Ok(Self(Arc::new(Inner {
            quinn,
            tls,
            peer_id: config.key.verifying_key().into(),
            local_addr,
            connections_max: config.profile.connections_max(),
            real,
            handshakes: Mutex::default(),
        })))
    }

    /// The address that was bound, with the port that was given.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.0.local_addr
    }

    /// Who this endpoint is.
    pub(crate) fn peer_id(&self) -> PeerId {
        self.0.peer_id
    }

    /// Connects to `addr`, within [`CONNECT_TIMEOUT`]. Dropping the future gives up.
    ///
    /// # Errors
    ///
    /// If nobody answers there, somebody else than expected does, or he does not want to.
    pub(crate) async fn connect(
        &self,
        addr: SocketAddr,
        alpn: Alpn,
        expect: Expect,
    ) -> Result<Connection, ConnectError> {
        let Inner { quinn, tls, .. } = &*self.0;
        let broken = |reason: String| ConnectError::Failed { addr, reason };
        let (tls, verifier) = tls
            .client(alpn, expect)
            .map_err(|error| broken(error.to_string()))?;
        let connecting = quinn
            .connect_with(settings::client(alpn, tls), addr, SERVER_NAME)
            .map_err(|error| match error {
                quinn::ConnectError::EndpointStopping => ConnectError::Closed,
                quinn::ConnectError::InvalidRemoteAddress(_) => ConnectError::Unreachable {
                    addr,
                    reason: "this side's socket cannot send to such an address".to_owned(),
                },
                error => broken(error.to_string()),
            })?;
        let connected = tokio::select! {
            biased;
            connected = timeout(CONNECT_TIMEOUT, connecting) => connected,
            reason = probe::unreachable(addr, false), if self.0.real => {
                return Err(ConnectError::Unreachable { addr, reason });
            }
        };
        match connected {
            Ok(Ok(connection)) => Connection::new(connection)
                .ok_or_else(|| broken("the handshake says not who and what".to_owned())),
            Ok(Err(error)) => Err(judge(addr, alpn, expect, &verifier, error)),
            Err(_) => Err(ConnectError::NoAnswer { addr }),
        }
    }

    /// Resolves, with the reason, only once it is known that nobody listens at the other end of a connection of
    /// this endpoint, to which one byte is sent. Cancel-safe.
    pub(crate) async fn is_deserted(&self, connection: &Connection) -> String {
        match self.0.real {
            true => probe::unreachable(connection.remote_addr(), true).await,
            false => std::future::pending().await,
        }
    }

    /// The next connection that somebody has made, or `None` once the endpoint is closed. Attempts are only
    /// looked at while this is called; beyond [`HANDSHAKES_UNPROVEN_MAX`] handshakes that are under way, a newcomer has
    /// to prove his address first, beyond [`HANDSHAKES_PER_PREFIX_MAX`] from his prefix he has to try again, and
    /// beyond [`HANDSHAKES_MAX`] the handshake that began first makes room for his. Cancel-safe.
    pub(crate) async fn accept(&self) -> Option<Connection> {
        let mut handshakes = self.0.handshakes.lock().await;
        loop {
            tokio::select! {
                biased;
                done = handshakes.next(), if !handshakes.running.is_empty() => {
                    if let Some(connection) = done {
                        return Some(connection);
                    }
                }
                incoming = self.0.quinn.accept() => self.greet(incoming?, &mut handshakes),
            }
        }
    }

    fn greet(&self, incoming: quinn::Incoming, handshakes: &mut Handshakes) {
        if self.0.quinn.open_connections() >= self.0.connections_max {
            tracing::debug!(from = %incoming.remote_address(), "refusing a connection: too many");
            return incoming.refuse();
        }
        let proven = incoming.remote_address_validated();
        if handshakes.begun.len() >= HANDSHAKES_UNPROVEN_MAX && !proven && incoming.may_retry() {
            // It fails only where it may not be done.
            _ = incoming.retry();
            return;
        }
        let from = incoming.remote_address();
        let prefix = Prefix::of(from.ip());
        if handshakes.of(prefix) >= HANDSHAKES_PER_PREFIX_MAX {
            return incoming.ignore();
        }
        let connecting = match incoming.accept() {
            Ok(connecting) => connecting,
            Err(error) => return tracing::debug!(%from, %error, "a connection attempt failed"),
        };
        handshakes.begin(prefix, async move {
            match timeout(HANDSHAKE_TIMEOUT, connecting).await {
                Ok(Ok(connection)) => return Connection::new(connection),
                Ok(Err(error)) => tracing::debug!(%from, %error, "a handshake failed"),
                Err(_) => tracing::debug!(%from, "a handshake took too long"),
            }
            None
        });
    }

    #[cfg(test)]
    pub(super) async fn handshakes_under_way(&self) -> usize {
        self.0.handshakes.lock().await.begun.len()
    }

    /// Closes all connections and accepts and dials no more.
    pub(crate) fn close(&self, code: CloseCode) {
        self.0.quinn.close(code.number(), b"");
    }

    /// Waits until the other sides have been told of all connections that were closed, for
    /// [`GOODBYE_TIMEOUT`] at most. Cancel-safe.
    pub(crate) async fn wait_idle(&self) {
        // Who was not told by then finds out by himself.
        _ = timeout(GOODBYE_TIMEOUT, self.0.quinn.wait_idle()).await;
    }
}

/// Handshakes of those who dialed in.
#[derive(Default)]
struct Handshakes {
    running: JoinSet<Option<Connection>>,
    /// Those that were not given up, in the order in which they began.
    begun: VecDeque<(Prefix, AbortHandle)>,
}

impl Handshakes {
    /// How many are from `prefix`.
    fn of(&self, prefix: Prefix) -> usize {
        let from = self.begun.iter().filter(|(from, _)| *from == prefix);
        from.count()
    }

    /// Waits until one ends, and gives what came of it. Cancel-safe.
    async fn next(&mut self) -> Option<Connection> {
        let ended = self.running.join_next_with_id().await?;
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        self.begun.retain(|(_, handshake)| handshake.id() != id);
        ended.ok()?.1
    }

    fn begin(
        &mut self,
        prefix: Prefix,
        handshake: impl Future<Output = Option<Connection>> + Send + 'static,
    ) {
        if self.begun.len() >= HANDSHAKES_MAX
            && let Some((_, first)) = self.begun.pop_front()
        {
            first.abort();
        }
        let handle = self.running.spawn(handshake);
        self.begun.push_back((prefix, handle));
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("local_addr", &self.0.local_addr)
            .field("peer_id", &self.0.peer_id)
            .finish_non_exhaustive()
    }
}

/// Why a port could not be bound. Nothing is bound.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum BindError {
    /// Another process has it.
    #[error("UDP port {} of {} is in use", addr.port(), addr.ip())]
    InUse {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// The operating system refused.
    #[error("cannot bind UDP {addr}: {source}")]
    Socket {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What it said.
        source: io::Error,
    },
    /// The reset keys cannot be used.
    #[error(transparent)]
    ResetKeys(#[from] KeyFileError),
    /// There is no randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why there is no connection. The other side has acted upon nothing.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub(crate) enum ConnectError {
    /// The address cannot be reached from here, or nobody listens there.
    #[error("{addr} cannot be reached: {reason}")]
    Unreachable {
        /// Who was dialed.
        addr: SocketAddr,
        /// What the operating system said.
        reason: String,
    },
    /// Nothing came back.
    #[error("{addr} did not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    NoAnswer {
        /// Who was dialed.
        addr: SocketAddr,
    },
    /// Somebody else is there.
    #[error("{addr} is {found}, where {expected} was expected")]
    WrongPeer {
        /// Who was dialed.
        addr: SocketAddr,
        /// Who should be there.
        expected: PeerId,
        /// Who is.
        found: PeerId,
    },
    /// Its certificate names nobody.
    #[error("{addr} has no identity: {reason}")]
    NoIdentity {
        /// Who was dialed.
        addr: SocketAddr,
        /// What is wrong with the certificate.
        reason: CertificateError,
    },
    /// It speaks something else.
    #[error("{addr} does not speak {}", alpn.name())]
    WrongProtocol {
        /// Who was dialed.
        addr: SocketAddr,
        /// What was asked for.
        alpn: Alpn,
    },
    /// It takes no more connections now.
    #[error("{addr} takes no more connections at the moment")]
    Refused {
        /// Who was dialed.
        addr: SocketAddr,
    },
    /// The handshake failed in some other way.
    #[error("the connection to {addr} failed: {reason}")]
    Failed {
        /// Who was dialed.
        addr: SocketAddr,
        /// In QUIC's words.
        reason: String,
    },
    /// This endpoint is closed.
    #[error("this side is shutting down")]
    Closed,
}

/// Why a dial failed whose handshake ended with `error`.
fn judge(
    addr: SocketAddr,
    alpn: Alpn,
    expect: Expect,
    verifier: &Verifier,
    error: quinn::ConnectionError,
) -> ConnectError {
    match (verifier.refused(), expect) {
        (Some(Refused::OtherPeer(found)), Expect::Peer(expected)) => {
            return ConnectError::WrongPeer {
                addr,
                expected,
                found,
            };
        }
        (Some(Refused::Certificate(reason)), _) => {
            return ConnectError::NoIdentity { addr, reason };
        }
        _ => {}
    }
    match error {
        quinn::ConnectionError::TimedOut => ConnectError::NoAnswer { addr },
        quinn::ConnectionError::LocallyClosed => ConnectError::Closed,
        quinn::ConnectionError::ConnectionClosed(close) => {
            let code = u64::from(close.error_code);
            if code == u64::from(quinn::TransportErrorCode::CONNECTION_REFUSED) {
                ConnectError::Refused { addr }
            } else if code == NO_APPLICATION_PROTOCOL {
                ConnectError::WrongProtocol { addr, alpn }
            } else {
                let lost = ConnectionLost::from(quinn::ConnectionError::ConnectionClosed(close));
                ConnectError::Failed {
                    addr,
                    reason: lost.to_string(),
                }
            }
        }
        error => ConnectError::Failed {
            addr,
            reason: ConnectionLost::from(error).to_string(),
        },
    }
}

/// TLS wants a name to dial. It is neither sent nor checked.
const SERVER_NAME: &str = "p2pshare";

/// QUIC's code for the TLS alert 120.
const NO_APPLICATION_PROTOCOL: u64 = 0x178;
