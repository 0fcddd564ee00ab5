//! The handle of one member of the ring.

use std::path::PathBuf;
use std::sync::Arc;

use super::builder::{self, DhtBindError, DhtNodeBuilder};
use super::lease::{Lease, LeasesPut};
use super::life::Surroundings;
use super::member::Member;
use super::register::{Attempt, Change};
use super::row::{Listing, Row, RowChange, RowError, ScanCursor, ScanPage};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::identity::{MemberId, RingId};
use crate::store::StoreError;
use crate::time::Timestamp;
use crate::wire::ring::{LeaseKey, LeaseNews, RequestKey, RowKey, Version};
use crate::wire::tracker::RingStatus;

/// A member of a ring: rows that are agreed and durable, leases that expire.
///
/// A clone is the same member. When the last one is dropped, the store is closed once the changes that
/// were handed in are done; [`DhtNode::shutdown`] waits for that.
///
/// Rows are addressed by [`RowKey`]: rows with one partition key live together and are listed in the
/// order of their sort keys. A row holds at most 16 KiB and is never removed, only marked as deleted, so
/// that its version never falls and a name is created once.
///
/// Every change carries a [`RequestKey`] that is its name for ever. A row remembers its last 16 changes
/// by that name, so that one that is sent again, to whichever member, is made once. One request may
/// change several rows, but each at most once.
#[derive(Clone, Debug)]
pub struct DhtNode {
    member: Arc<Member>,
    /// What it does by itself; ends with the last handle.
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl DhtNode {
    /// A member whose rows and secrets live in the folder `data_dir`, which is created if need be.
    #[must_use]
    pub fn builder(data_dir: impl Into<PathBuf>) -> DhtNodeBuilder {
        DhtNodeBuilder::new(data_dir.into())
    }

    /// The one member of a ring that nobody can reach but who has the handle: it needs neither key nor port. Its rows
    /// live in the folder `data_dir`, which is created if need be; `ring` is whatever they belong to.
    ///
    /// # Errors
    ///
    /// [`DhtBindError`]; nothing was started.
    pub async fn alone(data_dir: impl Into<PathBuf>, ring: RingId) -> Result<Self, DhtBindError> {
        builder::open(data_dir.into(), ring, Surroundings::alone()?).await
    }

    /// The handle of a member that has started.
    pub(super) fn new(member: Arc<Member>, tasks: JoinSet<()>) -> Self {
        Self {
            member,
            tasks: Arc::new(Mutex::new(tasks)),
        }
    }

    /// The member that this is, the same in all its lives.
    #[must_use]
    pub fn member_id(&self) -> MemberId {
        self.member.core.life().member
    }

    /// The ring that it belongs to.
    #[must_use]
    pub fn ring_id(&self) -> RingId {
        self.member.core.ring
    }

    /// How the ring is, as this member sees it.
    #[must_use]
    pub fn status(&self) -> RingStatus {
        self.member.status()
    }

    /// Resolves when the ring is no longer as it was when this was called. Cancel-safe.
    pub fn status_changed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut changes = self.member.core.changes.subscribe();
        async move {
            // The sender lives as long as the member; who asks longer waits for nothing.
            if changes.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// The ring's time: the median of its members' clocks. It never goes back once it is known; before that, this
    /// is what this member's own clock says.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        let core = &self.member.core;
        core.time().unwrap_or_else(|| core.own_time())
    }

    /// The same, for others to go by: nothing before it is known.
    pub(crate) fn ring_time(&self) -> Option<Timestamp> {
        self.member.core.time()
    }

    /// Reads a row as a majority has it: every change that was answered before this call is seen.
    /// `None` when it was never written; a deleted row is a [`Row`] without a value.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`RowError`]; nothing was changed.
    pub async fn read(&self, key: &RowKey) -> Result<Option<Row>, RowError> {
        self.member.read(key).await
    }

    /// Creates a row that was never written before, also not deleted: a row is created once, ever.
    ///
    /// `request` names this change for ever; `attempt` says whether it may have been sent before.
    ///
    /// Once polled, the change may be made although the future is dropped.
    ///
    /// # Errors
    ///
    /// [`RowError`]; only with [`RowError::OutcomeUnknown`] and [`RowError::Store`] may the change have
    /// been made.
    pub async fn create(
        &self,
        key: &RowKey,
        value: impl Into<Vec<u8>>,
        request: RequestKey,
        attempt: Attempt,
    ) -> Result<RowChange, RowError> {
        let (expected, value) = (Version::NEVER, Some(value.into()));
        let change = Change {
            expected,
            value,
            request,
            attempt,
        };
        self.member.change(key, change).await
    }

    /// Gives a row a new value, or with `None` deletes it, if its version is `expected`.
    ///
    /// As [`DhtNode::create`] in everything else.
    ///
    /// # Errors
    ///
    /// As [`DhtNode::create`].
    pub async fn compare_and_set(
        &self,
        key: &RowKey,
        expected: Version,
        value: Option<Vec<u8>>,
        request: RequestKey,
        attempt: Attempt,
    ) -> Result<RowChange, RowError> {
        let change = Change {
            expected,
            value,
            request,
            attempt,
        };
        self.member.change(key, change).await
    }

    /// The rows of a partition behind the sort key `after`, in the order of their sort keys. Of `limit`
    /// rows that are read at most, up to 1000, the deleted ones are left out, so a page may be short, or
    /// empty, and yet have a next one.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`RowError`].
    pub async fn list(
        &self,
        partition: &[u8],
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<Listing, RowError> {
        self.member.list(partition, after, limit).await
    }

    /// Some rows of the whole ring, those behind `cursor`. A page may be empty and yet have a next one.
    ///
    /// Rows that are written while a scan goes on may or may not be seen. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`RowError`].
    pub async fn scan(
        &self,
        cursor: Option<ScanCursor>,
        limit: usize,
    ) -> Result<ScanPage, RowError> {
        self.member.scan(Vec::new(), false, cursor, limit).await
    }

    /// Like [`DhtNode::scan`], of the partitions alone whose keys begin with `prefix`, and of each only
    /// the row with the first sort key. Long partitions cost no more than short ones.
    ///
    /// # Errors
    ///
    /// [`RowError`].
    pub async fn scan_heads(
        &self,
        prefix: &[u8],
        cursor: Option<ScanCursor>,
        limit: usize,
    ) -> Result<ScanPage, RowError> {
        self.member.scan(prefix.to_vec(), true, cursor, limit).await
    }

    /// Tells the replicas what sessions say, in this order, all in a few messages. It never fails: how many
    /// replicas know it is in the answer, and to say it again later is right in any case.
    ///
    /// Once polled, it may be told although the future is dropped.
    pub async fn put_leases(&self, news: Vec<LeaseNews>) -> LeasesPut {
        self.member.put_leases(news).await
    }

    /// Everything that is said under each of these keys, in no order that means anything, asked at once: what
    /// a majority of the replicas knows, or what can be learnt in a short time. Where it is too much for one answer
    /// (32 MiB), there are fewer lists than keys, but one: the rest is to be asked for again. Cancel-safe.
    pub async fn leases_of(&self, keys: &[LeaseKey]) -> Vec<Vec<Lease>> {
        self.member.leases_of(keys).await
    }

    /// Waits until this member can no longer keep its promises, and says why: the disk failed, or a task
    /// of its own. The process should end then; another one reads back what the disk has. Pending for
    /// ever on a healthy member. Cancel-safe.
    pub async fn failed(&self) -> StoreError {
        self.member.core.failed().await
    }

    /// Finishes the changes that were handed in and releases the folder. Later calls fail with
    /// [`StoreError::Closed`]. May be called again, from any clone.
    ///
    /// # Errors
    ///
    /// [`StoreError::Poisoned`] when the store had failed; the folder is released even so.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        self.member.links.close().await;
        let mut tasks = self.tasks.lock().await;
        tasks.shutdown().await;
        // What the others told is worth one more write, and no more.
        _ = self.member.core.note_others_and_time(1).await;
        self.member.core.store.shutdown().await
    }
}

#[cfg(test)]
pub(super) mod ring_tests;
#[cfg(test)]
mod tests;
