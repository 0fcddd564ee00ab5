//! How a member of a ring is started, and why it may not be.

use std::path::PathBuf;

use super::member::Member;
use super::node::DhtNode;
use crate::identity::{RingId, TrackerAddr};
use crate::store::{Store, StoreError, StoreKind};

/// Why a member could not start. Nothing was changed, unless it is the store that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DhtBindError {
    /// A ring of several was asked for.
    #[error("several trackers in one list are not supported by this version ({count} were given)")]
    SeveralFounders {
        /// How many were asked for.
        count: usize,
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
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a [`DhtNode`] needs to start.
#[derive(Clone, Debug)]
pub struct DhtNodeBuilder {
    data_dir: PathBuf,
    ring: RingId,
    founders: Vec<TrackerAddr>,
}

impl DhtNodeBuilder {
    pub(super) fn new(data_dir: PathBuf, ring: RingId) -> Self {
        Self {
            data_dir,
            ring,
            founders: Vec::new(),
        }
    }

    /// The addresses of the founders of the ring, this one among them. Without any, this one founds the
    /// ring alone. Several are refused by this version.
    #[must_use]
    pub fn founders(mut self, founders: impl IntoIterator<Item = TrackerAddr>) -> Self {
        self.founders = founders.into_iter().collect();
        self
    }

    /// Opens the folder, or founds a ring in an empty one, and starts.
    ///
    /// # Errors
    ///
    /// [`DhtBindError`]; nothing was started.
    pub async fn bind(self) -> Result<DhtNode, DhtBindError> {
        let Self {
            data_dir,
            ring,
            founders,
        } = self;
        if founders.len() > 1 {
            return Err(DhtBindError::SeveralFounders {
                count: founders.len(),
            });
        }
        let store = Store::open(&data_dir.join("db"), StoreKind::Tracker).await?;
        Member::start(store, data_dir, ring).await.map(DhtNode::new)
    }
}
