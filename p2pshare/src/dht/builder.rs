//! How a member of a ring is started, and why it may not be.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::host::Authority;
use super::life::{self, Surroundings};
use super::node::DhtNode;
use super::{ports, secrets};
use crate::identity::key::{NoRandomness, SigningKey};
use crate::identity::key_file::KeyFileError;
use crate::identity::ring_key::RingKey;
use crate::identity::{RingId, TrackerAddr};
use crate::store::{Store, StoreError, StoreKind};
use crate::transport::{Alpn, BindError, Endpoint, EndpointConfig, Profile};

/// Why a member could not start. Nothing runs then, and nothing was changed, unless it is the store that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DhtBindError {
    /// Another program has the port.
    #[error("port {} of {} is in use", addr.port(), addr.ip())]
    PortInUse {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// The port cannot be had, or has no room for the port between members above it.
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
        /// The members of the list.
        list: Vec<TrackerAddr>,
        /// The file of the ring's key.
        ring_key: PathBuf,
        /// The members that it names.
        founders: Vec<TrackerAddr>,
    },
    /// The folder belongs to another ring.
    #[error("{} belongs to the ring {found}, not to {expected}", path.display())]
    OtherRing {
        /// The folder.
        path: PathBuf,
        /// The ring it belongs to.
        found: RingId,
        /// The ring that was asked for.
        expected: RingId,
    },
    /// The folder is that of another member of the ring: a copy of it, or the places of two were mixed up.
    #[error("{} is the data of the tracker {of}, and the ring has another tracker at {asked}", path.display())]
    OtherMember {
        /// The folder.
        path: PathBuf,
        /// Where its member belongs.
        of: TrackerAddr,
        /// Where it was to be.
        asked: TrackerAddr,
    },
    /// The system has no randomness.
    #[error("the system has no randomness")]
    NoRandomness,
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DhtBindError {
    pub(super) fn secret(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Secret {
            cause: Arc::new(cause),
        }
    }

    /// That an address could not be listened on.
    pub(crate) fn socket(addr: SocketAddr, error: BindError) -> Self {
        match error {
            BindError::InUse { addr } => Self::PortInUse { addr },
            error => Self::Socket {
                addr,
                cause: Arc::new(error),
            },
        }
    }
}

impl From<NoRandomness> for DhtBindError {
    fn from(_: NoRandomness) -> Self {
        Self::NoRandomness
    }
}

impl From<KeyFileError> for DhtBindError {
    fn from(error: KeyFileError) -> Self {
        Self::secret(error)
    }
}

fn joined(addrs: &[TrackerAddr]) -> String {
    let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
    addrs.join(", ")
}

/// What a [`DhtNode`] is to be. A ring of several is founded once all its founders run, each with a folder of its
/// own, the same list of founders and a copy of the same key of the ring:
///
/// ```no_run
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// use p2pshare::{DhtNode, TrackerAddr};
///
/// let founders: [TrackerAddr; 3] = ["a.lan:9000".parse()?, "b.lan:9000".parse()?, "c.lan:9000".parse()?];
/// let node = DhtNode::builder("/var/lib/names")
///     .ring_key("/etc/names.key")
///     .listen("0.0.0.0:9000".parse()?)
///     .address(founders[0].clone())
///     .founders(founders)
///     .bind()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DhtNodeBuilder {
    data_dir: PathBuf,
    listen: SocketAddr,
    ring_key: Option<PathBuf>,
    address: Option<TrackerAddr>,
    founders: Vec<TrackerAddr>,
    skew: i64,
}

/// A member that has started, and what it was started with.
pub(crate) struct Started {
    pub(crate) node: DhtNode,
    /// The lower address of its pair; nobody holds it.
    pub(crate) listen: SocketAddr,
    /// Its own key.
    pub(crate) key: SigningKey,
    pub(crate) ring_key: RingKey,
    pub(crate) authority: Authority,
}

impl DhtNodeBuilder {
    pub(super) const fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            listen: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9000),
            ring_key: None,
            address: None,
            founders: Vec::new(),
            skew: 0,
        }
    }

    /// Its UDP address, of which it takes the port 1000 above, to speak to the other members. By default
    /// 127.0.0.1:9000. Port 0 takes one that is free.
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

    /// Where the others reach it, as its entry in the list of founders has it. By default the address on which it
    /// listens.
    #[must_use]
    pub fn address(mut self, address: TrackerAddr) -> Self {
        self.address = Some(address);
        self
    }

    /// The members that found the ring, this one among them. By default this one alone.
    #[must_use]
    pub fn founders(mut self, founders: impl IntoIterator<Item = TrackerAddr>) -> Self {
        self.founders = founders.into_iter().collect();
        self
    }

    /// How many milliseconds this machine's clock is off, for tests.
    #[cfg(test)]
    pub(crate) const fn clock_off_by(mut self, millis: i64) -> Self {
        self.skew = millis;
        self
    }

    /// Opens the folder, or founds a ring in an empty one, and starts.
    ///
    /// A member of a ring of several returns before the ring is founded, and before it takes part; see
    /// [`DhtNode::status`].
    ///
    /// # Errors
    ///
    /// [`DhtBindError`]; nothing was started.
    pub async fn bind(self) -> Result<DhtNode, DhtBindError> {
        self.start().await.map(|started| started.node)
    }

    /// The same, for who does more with the address and the secrets.
    pub(crate) async fn start(self) -> Result<Started, DhtBindError> {
        let (listen, upper) = ports::reserve_pair(self.listen)?;
        let dht_addr = upper.local_addr().map_err(|error| DhtBindError::Socket {
            addr: listen,
            cause: Arc::new(error),
        })?;
        let own = match self.address {
            Some(address) => address,
            None => TrackerAddr::try_from(listen).map_err(|error| DhtBindError::Socket {
                addr: listen,
                cause: Arc::new(error),
            })?,
        };
        let listed = self.founders;
        let founders = match listed.as_slice() {
            [] => vec![own.clone()],
            founders => founders.to_vec(),
        };
        let path = self
            .ring_key
            .unwrap_or_else(|| self.data_dir.join("ring.key"));
        let (data_dir, key_file) = (self.data_dir.clone(), path.clone());
        let (founding, list) = (founders.clone(), listed.clone());
        let opened = tokio::task::spawn_blocking(move || {
            secrets::open(&data_dir, &key_file, founding, &list)
        });
        let (key, ring_key) = opened.await.map_err(DhtBindError::secret)??;
        let authority = Authority {
            ring: ring_key.authority(),
            tokens: ring_key.token_key().verifying_key(),
            peer: key.verifying_key().into(),
        };
        let mut config = EndpointConfig::listener(key.clone(), Profile::Ring, vec![Alpn::Ring]);
        config.reset_keys = Some(self.data_dir.clone());
        // It was held so far, so that no other program took it.
        drop(upper);
        let endpoint = Endpoint::bind(dht_addr, config)
            .map_err(|error| DhtBindError::socket(dht_addr, error))?;
        let around = Surroundings {
            own,
            founders,
            authority: authority.clone(),
            endpoint: Some(endpoint),
            skew: self.skew,
        };
        let node = open(self.data_dir, ring_key.ring_id(), around).await?;
        if !node.status().founded
            && let Err(error) = secrets::check_founders(&listed, &path, &ring_key)
        {
            node.shutdown().await?;
            return Err(error);
        }
        Ok(Started {
            node,
            listen,
            key,
            ring_key,
            authority,
        })
    }
}

/// Opens the store in a folder, and begins a life over it.
pub(super) async fn open(
    data_dir: PathBuf,
    ring: RingId,
    around: Surroundings,
) -> Result<DhtNode, DhtBindError> {
    let store = Store::open(&data_dir.join("db"), StoreKind::Tracker).await?;
    let noted = data_dir.join("commits");
    life::start(store, data_dir, ring, around, Some(noted)).await
}
