//! How a member of a ring is started, and why it may not be.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::founding::{self, Beginning};
use super::host::{Authority, Core};
use super::links::Links;
use super::member::Member;
use super::node::DhtNode;
use super::{startup, upkeep};
use crate::identity::key::{NoRandomness, SigningKey};
use crate::identity::{MemberId, RingId, TrackerAddr};
use crate::limits::WELCOMES_WAITING_MAX;
use crate::store::{Store, StoreError, StoreKind};
use crate::transport::Endpoint;
use crate::wire::ring::RingMember;

/// Why a member could not start. Nothing was changed, unless it is the store that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DhtBindError {
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
    /// The system has no randomness.
    #[error("the system has no randomness")]
    NoRandomness,
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<NoRandomness> for DhtBindError {
    fn from(_: NoRandomness) -> Self {
        Self::NoRandomness
    }
}

/// What a [`DhtNode`] needs to start.
#[derive(Debug)]
pub struct DhtNodeBuilder {
    data_dir: PathBuf,
    ring: RingId,
    together: Option<Together>,
}

/// What a member of a ring of several needs beside its folder.
#[derive(Debug)]
pub(crate) struct Together {
    /// The address of this member, as the list has it.
    pub(crate) own: TrackerAddr,
    /// The addresses of all founders, its own among them.
    pub(crate) founders: Vec<TrackerAddr>,
    /// By what it proves that it is a member.
    pub(crate) authority: Authority,
    /// On its DHT port; it accepts the protocol of the ring.
    pub(crate) endpoint: Endpoint,
    /// How far this machine's clock is off, in milliseconds, for tests.
    pub(crate) skew: i64,
}

impl DhtNodeBuilder {
    pub(super) fn new(data_dir: PathBuf, ring: RingId) -> Self {
        Self {
            data_dir,
            ring,
            together: None,
        }
    }

    /// Lets it found, or take part in, a ring of several.
    #[must_use]
    pub(crate) fn together(mut self, together: Together) -> Self {
        self.together = Some(together);
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
        let store = Store::open(&self.data_dir.join("db"), StoreKind::Tracker).await?;
        let noted = self.data_dir.join("commits");
        start(store, self.data_dir, self.ring, self.together, Some(noted)).await
    }
}

/// Begins a life over an open store. `noted` is the file that remembers how many commits it had.
pub(super) async fn start(
    store: Store,
    path: PathBuf,
    ring: RingId,
    together: Option<Together>,
    noted: Option<PathBuf>,
) -> Result<DhtNode, DhtBindError> {
    let commits = store.commits();
    let remembered = match &noted {
        Some(noted) => upkeep::read_commits(noted).await.unwrap_or(0),
        None => 0,
    };
    let together = match together {
        Some(together) => Parts::of(together),
        None => Parts::alone()?,
    };
    let Parts {
        own,
        founders,
        authority,
        endpoint,
        skew,
    } = together;
    let (newcomer, addr) = (MemberId::from_bytes(rand::random()), own.clone());
    let identity = store
        .write(move |tx| founding::begin(tx, ring, newcomer, &addr, commits, remembered))
        .await?;
    let identity = identity.map_err(|found| DhtBindError::OtherRing {
        path,
        found,
        expected: ring,
    })?;
    let me = RingMember {
        id: identity.life.member,
        addr: own.clone(),
    };
    let beginning = Beginning::new(&identity, own.clone(), founders.clone());
    if remembered > identity.commits
        && let Some(noted) = &noted
    {
        // The disk knows now.
        upkeep::write_commits(noted, identity.commits).await;
        tracing::error!(
            commits = identity.commits,
            remembered,
            "the disk of this tracker has lost what it had"
        );
    }
    let (welcomed, welcomes) = mpsc::channel(WELCOMES_WAITING_MAX);
    let core = Arc::new(Core::new(identity, own, store, authority, skew, welcomed));
    let links = Links::new(endpoint, ring, me);
    let member = Arc::new(Member::new(core.clone(), links, founders.len()));
    match core.record() {
        Some(record) => {
            // Until it votes it answers nothing, but it knows its ring.
            let returning = beginning.is_returning();
            core.become_member(record.clone(), core.life(), returning, core.ahead())
                .await?;
            member.links.set_members(record.members());
        }
        None => member.links.set_founders(&founders),
    }
    member.links.start(Arc::downgrade(&core));
    let mut tasks = JoinSet::new();
    if founders.len() == 1 && beginning.others().is_empty() {
        startup::begin(&member, beginning, welcomes).await?;
    } else {
        let beginner = member.clone();
        let begun = async move {
            if let Err(error) = startup::begin(&beginner, beginning, welcomes).await {
                beginner.core.fail(error);
            }
        };
        tasks.spawn(watched(core.clone(), begun));
    }
    tasks.spawn(watched(core.clone(), upkeep::repair(member.clone())));
    tasks.spawn(watched(
        core.clone(),
        upkeep::exchange_leases(member.clone()),
    ));
    tasks.spawn(watched(core.clone(), upkeep::scrub(member.clone())));
    tasks.spawn(watched(core, upkeep::note(member.clone(), noted)));
    Ok(DhtNode::new(member, tasks))
}

/// A task of a member, whose panic is the end of it.
async fn watched(core: Arc<Core>, task: impl Future<Output = ()>) {
    struct Watch(Arc<Core>);
    impl Drop for Watch {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.fail(StoreError::JobPanicked);
            }
        }
    }
    let _watch = Watch(core);
    task.await;
}

/// [`Together`], of a member that may be alone.
struct Parts {
    own: TrackerAddr,
    founders: Vec<TrackerAddr>,
    authority: Authority,
    endpoint: Option<Endpoint>,
    skew: i64,
}

impl Parts {
    fn of(together: Together) -> Self {
        let Together {
            own,
            founders,
            authority,
            endpoint,
            skew,
        } = together;
        Self {
            own,
            founders,
            authority,
            endpoint: Some(endpoint),
            skew,
        }
    }

    /// Of one that speaks to nobody: its keys are good for nothing, and its address is none.
    fn alone() -> Result<Self, DhtBindError> {
        let key = SigningKey::generate(&ring::rand::SystemRandom::new())?;
        let own = NOWHERE.parse::<TrackerAddr>();
        #[expect(clippy::expect_used, reason = "an address and a port")]
        let own = own.expect("an address and a port");
        Ok(Self {
            founders: vec![own.clone()],
            own,
            authority: Authority {
                tokens: key.verifying_key(),
                peer: key.verifying_key().into(),
                ring: key,
            },
            endpoint: None,
            skew: 0,
        })
    }
}

/// Where a member is that nobody dials.
const NOWHERE: &str = "127.0.0.1:1";
