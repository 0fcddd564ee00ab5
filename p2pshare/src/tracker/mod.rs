//! A tracker: accounts, groups, membership, file records, and who is online with what, kept in the ring and
//! offered to peers. Who may do what is decided here.

mod accounts;
mod backlog;
mod fair;
mod files;
mod groups;
mod passwords;
mod rows;
mod service;
mod swarms;
mod table;
#[cfg(test)]
mod tests;
mod throttle;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use service::Service;

use crate::{
    dht::{Authority, DhtBindError, DhtNode, Together},
    identity::{
        RingId, TrackerAddr,
        key_file::{self, KeyFileError},
        ring_key::RingKey,
    },
    limits::{DHT_PORT_OFFSET, TRACKER_CONNECTIONS_MAX, TRACKER_CONNECTIONS_PER_PREFIX_MAX},
    store::{ShutdownError, StoreError},
    transport::{Alpn, BindError, CloseCode, Crowd, Endpoint, EndpointConfig, Profile},
    wire::tracker::RingStatus,
};

/// A tracker. A cheap clone; [`Tracker::shutdown`] ends it, and dropping the last clone ends it without
/// waiting.
#[derive(Clone, Debug)]
pub struct Tracker(Arc<Inner>);

struct Inner {
    ring: RingId,
    addr: SocketAddr,
    dht_addr: SocketAddr,
    /// Until it is shut down.
    ports: Mutex<Option<Ports>>,
    dht: DhtNode,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
    end: CancellationToken,
    _end_when_dropped: DropGuard,
}

/// The port of a tracker; other programs may have it once this is dropped.
struct Ports {
    endpoint: Endpoint,
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.endpoint.close(CloseCode::ShuttingDown);
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracker")
            .field("ring", &self.ring)
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

/// Why a tracker could not be started. Nothing runs then.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackerBindError {
    /// Another program has the port.
    #[error("port {} of {} is in use", addr.port(), addr.ip())]
    PortInUse {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// The port cannot be had, or has no room for the port between trackers above it.
    #[error("cannot listen on {addr}: {cause}")]
    Socket {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What is wrong.
        cause: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The ring's key, or another secret file, cannot be used.
    #[error("{cause}")]
    Secret {
        /// What is wrong; it names the file.
        cause: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The ring is not founded yet, and was to be founded by others than those of the list.
    #[error(
        "the list has {}, and {} is for a ring of {}: they must name the same trackers until it is founded",
        joined(list), ring_key.display(), joined(founders)
    )]
    OtherFounders {
        /// The trackers of the list.
        list: Vec<TrackerAddr>,
        /// The file of the ring's key.
        ring_key: PathBuf,
        /// The trackers that it names.
        founders: Vec<TrackerAddr>,
    },
    /// The rows cannot be opened: another process has them, they are of another ring, or of a ring that
    /// this version does not found.
    #[error(transparent)]
    Ring(#[from] DhtBindError),
    /// The system has no randomness, or no memory to hash a password.
    #[error("the machine cannot hash passwords")]
    Hashing,
}

/// What a [`Tracker`] is to be.
#[derive(Clone, Debug)]
pub struct TrackerBuilder {
    data_dir: PathBuf,
    listen: SocketAddr,
    ring_key: Option<PathBuf>,
    address: Option<TrackerAddr>,
    founders: Vec<TrackerAddr>,
    skew: i64,
}

impl TrackerBuilder {
    /// The UDP address to listen on; 1000 above it is the port between trackers. By default
    /// 127.0.0.1:9000. Port 0 takes a free pair.
    #[must_use]
    pub const fn listen(mut self, listen: SocketAddr) -> Self {
        self.listen = listen;
        self
    }

    /// The file of the ring's key, made if there is none. By default `ring.key` in the data folder.
    #[must_use]
    pub fn ring_key(mut self, path: impl Into<PathBuf>) -> Self {
        self.ring_key = Some(path.into());
        self
    }

    /// Where the others and the peers reach it, as its entry in the list of founders has it. By default the
    /// address on which it listens.
    #[must_use]
    pub fn address(mut self, address: TrackerAddr) -> Self {
        self.address = Some(address);
        self
    }

    /// How many milliseconds this machine's clock is off, for tests.
    #[cfg(test)]
    pub(crate) const fn clock_off_by(mut self, millis: i64) -> Self {
        self.skew = millis;
        self
    }

    /// The trackers that found the ring, this one among them. By default this one alone.
    #[must_use]
    pub fn founders(mut self, founders: impl IntoIterator<Item = TrackerAddr>) -> Self {
        self.founders = founders.into_iter().collect();
        self
    }

    /// Opens the rows, making ring and folder if there are none, and starts to listen.
    ///
    /// # Errors
    /// [`TrackerBindError`]; nothing runs then.
    pub async fn bind(self) -> Result<Tracker, TrackerBindError> {
        let (listen, dht_socket) = reserve_pair(self.listen)?;
        let own = match self.address {
            Some(address) => address,
            None => founder(listen)?,
        };
        let listed = self.founders;
        let founders = match listed.as_slice() {
            [] => vec![own.clone()],
            founders => founders.to_vec(),
        };
        let ring_key = self
            .ring_key
            .unwrap_or_else(|| self.data_dir.join("ring.key"));
        let (data_dir, key_file) = (self.data_dir.clone(), ring_key.clone());
        let (founding, list) = (founders.clone(), listed.clone());
        let secrets = tokio::task::spawn_blocking(move || {
            open_secrets(&data_dir, &key_file, founding, &list)
        })
        .await;
        let key_file = ring_key;
        let (key, ring_key) = secrets.map_err(TrackerBindError::secret)??;
        let ring = ring_key.ring_id();
        let authority = Authority {
            ring: ring_key.authority(),
            tokens: ring_key.token_key().verifying_key(),
            peer: key.verifying_key().into(),
        };
        let dht_addr = SocketAddr::new(listen.ip(), listen.port() + DHT_PORT_OFFSET);
        let mut config = EndpointConfig::listener(key.clone(), Profile::Ring, vec![Alpn::Ring]);
        config.reset_keys = Some(self.data_dir.clone());
        // It was held so far, so that no other program took it.
        drop(dht_socket);
        let between = Endpoint::bind(dht_addr, config)
            .map_err(|error| TrackerBindError::socket(dht_addr, error))?;
        let together = Together {
            own,
            founders,
            authority: authority.clone(),
            endpoint: between,
            skew: self.skew,
        };
        let dht = DhtNode::builder(&self.data_dir, ring).together(together);
        let dht = dht.bind().await?;
        if !dht.status().founded
            && let Err(error) = check_founders(&listed, &key_file, &ring_key)
        {
            dht.shutdown().await.map_err(DhtBindError::from)?;
            return Err(error);
        }
        let service = Service::new(dht.clone(), authority, ring_key.token_key())
            .map_err(|_| TrackerBindError::Hashing)?;
        let mut config = EndpointConfig::listener(key, Profile::Tracker, vec![Alpn::Tracker]);
        config.reset_keys = Some(self.data_dir);
        let endpoint = Endpoint::bind(listen, config)
            .map_err(|error| TrackerBindError::socket(listen, error))?;
        let end = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(endpoint.clone(), Arc::new(service), end.clone()));
        Ok(Tracker(Arc::new(Inner {
            ring,
            addr: endpoint.local_addr(),
            dht_addr,
            ports: Mutex::new(Some(Ports { endpoint })),
            dht,
            tasks: tokio::sync::Mutex::new(tasks),
            _end_when_dropped: end.clone().drop_guard(),
            end,
        })))
    }
}

impl Tracker {
    /// A tracker whose rows and secrets live in `data_dir`.
    pub fn builder(data_dir: impl Into<PathBuf>) -> TrackerBuilder {
        TrackerBuilder {
            data_dir: data_dir.into(),
            listen: (Ipv4Addr::LOCALHOST, 9000).into(),
            ring_key: None,
            address: None,
            founders: Vec::new(),
            skew: 0,
        }
    }

    /// The UDP address on which it serves peers.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// The UDP address between trackers.
    #[must_use]
    pub fn dht_addr(&self) -> SocketAddr {
        self.0.dht_addr
    }

    /// The ring that it is of.
    #[must_use]
    pub fn ring_id(&self) -> RingId {
        self.0.ring
    }

    /// How the ring is.
    #[must_use]
    pub fn status(&self) -> RingStatus {
        self.0.dht.status()
    }

    /// Resolves when the ring is no longer as it was when this was called. Cancel-safe.
    pub fn status_changed(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.dht.status_changed()
    }

    /// Waits until it can no longer keep what it promises, and says why: its disk failed. The process
    /// should end then. Pending for ever on a healthy tracker. Cancel-safe.
    pub async fn failed(&self) -> StoreError {
        self.0.dht.failed().await
    }

    /// Ends everything in order: no more requests, what was handed in on disk, ports and folder released.
    /// May be called again.
    ///
    /// # Errors
    /// [`ShutdownError`] when a task had panicked, or the store had failed.
    pub async fn shutdown(&self) -> Result<(), ShutdownError> {
        let inner = &self.0;
        inner.end.cancel();
        let ports = inner
            .ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(ports) = &ports {
            ports.endpoint.close(CloseCode::ShuttingDown);
        }
        let mut tasks = inner.tasks.lock().await;
        let mut panicked = false;
        while let Some(ended) = tasks.join_next().await {
            panicked |= ended.is_err_and(|error| error.is_panic());
        }
        if let Some(ports) = &ports {
            ports.endpoint.wait_idle().await;
        }
        drop(ports);
        inner.dht.shutdown().await?;
        match panicked {
            true => Err(ShutdownError::Panicked),
            false => Ok(()),
        }
    }
}

impl TrackerBindError {
    fn secret(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Secret {
            cause: Arc::new(cause),
        }
    }

    fn socket(addr: SocketAddr, error: BindError) -> Self {
        match error {
            BindError::InUse { addr } => Self::PortInUse { addr },
            error => Self::Socket {
                addr,
                cause: Arc::new(error),
            },
        }
    }
}

impl From<KeyFileError> for TrackerBindError {
    fn from(error: KeyFileError) -> Self {
        Self::secret(error)
    }
}

/// The tracker's own key and that of the ring, made where there is none yet.
fn open_secrets(
    data_dir: &Path,
    ring_key: &Path,
    founders: Vec<TrackerAddr>,
    listed: &[TrackerAddr],
) -> Result<(crate::identity::key::SigningKey, RingKey), TrackerBindError> {
    let ring_key = match key_file::read_ring_key(ring_key)? {
        Some(key) => {
            if !data_dir.join("db").exists() {
                check_founders(listed, ring_key, &key)?;
            }
            key
        }
        // A new one would not be the one of the rows, and stand where theirs has to be put back.
        None if data_dir.join("db").exists() => {
            return Err(KeyFileError::Missing {
                path: ring_key.to_owned(),
                data: data_dir.to_owned(),
            }
            .into());
        }
        None => {
            if let Some(folder) = ring_key.parent().filter(|dir| !dir.as_os_str().is_empty()) {
                key_file::create_private_dir(folder)?;
            }
            let made = RingKey::generate(&ring::rand::SystemRandom::new(), founders)
                .map_err(TrackerBindError::secret)?;
            match key_file::create_ring_key(ring_key, &made) {
                Ok(()) => made,
                // Another tracker that was started at the same moment was first; its key is the ring's.
                Err(KeyFileError::Exists { .. }) => {
                    key_file::read_ring_key(ring_key)?.ok_or_else(|| {
                        TrackerBindError::secret(io::Error::other("ring.key went away"))
                    })?
                }
                Err(error) => return Err(error.into()),
            }
        }
    };
    key_file::create_private_dir(data_dir)?;
    let key = key_file::load_or_create_identity(&data_dir.join("key"))?;
    Ok((key, ring_key))
}

/// Refuses a list, if there is one, of others than those that the key says are to found its ring.
fn check_founders(
    list: &[TrackerAddr],
    ring_key: &Path,
    key: &RingKey,
) -> Result<(), TrackerBindError> {
    let founders = key.founders();
    let same = list.len() == founders.len() && list.iter().all(|addr| founders.contains(addr));
    if list.is_empty() || same {
        return Ok(());
    }
    Err(TrackerBindError::OtherFounders {
        list: list.to_vec(),
        ring_key: ring_key.to_owned(),
        founders: founders.to_vec(),
    })
}

fn joined(addrs: &[TrackerAddr]) -> String {
    let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
    addrs.join(", ")
}

/// Takes connections from peers, and serves each.
async fn accept(endpoint: Endpoint, service: Arc<Service>, end: CancellationToken) {
    let crowd = Crowd::new(TRACKER_CONNECTIONS_MAX, TRACKER_CONNECTIONS_PER_PREFIX_MAX);
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            Some(_) = serving.join_next(), if !serving.is_empty() => {}
            connection = endpoint.accept() => {
                let Some(connection) = connection else { return };
                if let Some(place) = crowd.admit(&connection) {
                    serving.spawn(service.clone().serve(connection, place));
                }
            }
        }
    }
}

/// The address to listen on, of a pair whose upper port is taken for the ring. Port 0 finds a free pair.
fn reserve_pair(listen: SocketAddr) -> Result<(SocketAddr, UdpSocket), TrackerBindError> {
    let failed = |addr: SocketAddr, error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => TrackerBindError::PortInUse { addr },
        _ => TrackerBindError::Socket {
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

/// The founder of a ring of one that listens at `addr`.
fn founder(addr: SocketAddr) -> Result<TrackerAddr, TrackerBindError> {
    let founder = addr.to_string().parse::<TrackerAddr>();
    founder.map_err(|error| TrackerBindError::Socket {
        addr,
        cause: Arc::new(error),
    })
}

/// How many pairs of ports are tried.
const PAIR_ATTEMPTS: usize = 64;
