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

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use service::Service;

/// What the simulator of swarms runs.
#[cfg(any(test, feature = "__sim"))]
pub(crate) use swarms::crowd::Crowd as SwarmCrowd;

/// A tracker on a network in memory.
#[cfg(test)]
pub(crate) use service::tests::{RING_KEY, tracker as test_tracker};

use crate::{
    dht::{DhtBindError, DhtNode, DhtNodeBuilder, Started},
    identity::{RingId, TrackerAddr},
    limits::{DHT_PORT_OFFSET, TRACKER_CONNECTIONS_MAX, TRACKER_CONNECTIONS_PER_PREFIX_MAX},
    store::{ShutdownError, StoreError},
    transport::{Alpn, CloseCode, Crowd, Endpoint, EndpointConfig, Profile},
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
    /// It cannot be a member of its ring, or a port of its pair cannot be had.
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
    node: DhtNodeBuilder,
}

impl TrackerBuilder {
    /// The UDP address to listen on; 1000 above it is the port between trackers. By default
    /// 127.0.0.1:9000. Port 0 takes a free pair.
    #[must_use]
    pub fn listen(self, listen: SocketAddr) -> Self {
        self.with(|node| node.listen(listen))
    }

    /// The file of the ring's key, made if there is none. By default `ring.key` in the data folder.
    #[must_use]
    pub fn ring_key(self, path: impl Into<PathBuf>) -> Self {
        self.with(|node| node.ring_key(path))
    }

    /// Where the others and the peers reach it, as its entry in the list of founders has it. By default the
    /// address on which it listens.
    #[must_use]
    pub fn address(self, address: TrackerAddr) -> Self {
        self.with(|node| node.address(address))
    }

    /// The trackers that found the ring, this one among them. By default this one alone.
    #[must_use]
    pub fn founders(self, founders: impl IntoIterator<Item = TrackerAddr>) -> Self {
        self.with(|node| node.founders(founders))
    }

    /// How many milliseconds this machine's clock is off, for tests.
    #[cfg(test)]
    pub(crate) fn clock_off_by(self, millis: i64) -> Self {
        self.with(|node| node.clock_off_by(millis))
    }

    fn with(self, f: impl FnOnce(DhtNodeBuilder) -> DhtNodeBuilder) -> Self {
        let Self { data_dir, node } = self;
        let node = f(node);
        Self { data_dir, node }
    }

    /// Opens the rows, making ring and folder if there are none, and starts to listen.
    ///
    /// # Errors
    /// [`TrackerBindError`]; nothing runs then.
    pub async fn bind(self) -> Result<Tracker, TrackerBindError> {
        let Started {
            node: dht,
            listen,
            key,
            ring_key,
            authority,
        } = self.node.start().await?;
        let service = Service::new(dht.clone(), authority, ring_key.token_key())
            .map_err(|_| TrackerBindError::Hashing)?;
        let mut config = EndpointConfig::listener(key, Profile::Tracker, vec![Alpn::Tracker]);
        config.reset_keys = Some(self.data_dir);
        let endpoint =
            Endpoint::bind(listen, config).map_err(|error| DhtBindError::socket(listen, error))?;
        let end = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(endpoint.clone(), Arc::new(service), end.clone()));
        let dht_addr = SocketAddr::new(listen.ip(), listen.port() + DHT_PORT_OFFSET);
        Ok(Tracker(Arc::new(Inner {
            ring: dht.ring_id(),
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
        let data_dir = data_dir.into();
        TrackerBuilder {
            node: DhtNode::builder(&data_dir),
            data_dir,
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
