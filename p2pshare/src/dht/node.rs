//! The handle of one member of the ring: opens its folder, gives coordinators their replicas, and tells
//! how it is.
//!
//! With one member, which is the only kind of ring that this version founds, a change is prepared and
//! accepted inside one job of the writer, so that it costs one sync; the coordinator and the replica are
//! those of any ring.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::coordinator::{
    Action, Coordinator, Failure, Input, Intent, Outcome, Proposer, Rounds, Task,
};
use super::founding::{self, Identity};
use super::lease::{Lease, LeaseError, LeaseTable};
use super::placement::{Placement, slice_of_row};
use super::register::{Attempt, Change};
use super::replica::{self, Replica};
use super::row::{Listing, Row, RowChange, RowError, ScanCursor, ScanPage};
use crate::identity::{MemberId, PeerId, RingId, SessionId, TrackerAddr};
use crate::store::{Store, StoreError, StoreKind, Transaction};
use crate::wire::ring::{
    LeaseKey, ReplicaAnswer, ReplicaCall, ReplicaRequest, ReplicaRow, RequestKey, RowKey, RowState,
    Version,
};

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
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    identity: Identity,
    placement: Placement,
    rounds: Arc<Rounds>,
    store: Store,
    replica: Replica,
    leases: Mutex<LeaseTable>,
}

/// How a ring is, as one of its members sees it.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RingStatus {
    /// How many trackers are in the ring.
    pub trackers: u32,
    /// How many of them, this one counted, are thought alive.
    pub reachable: u32,
    /// Which list of members counts; it rises with each change of who is in the ring.
    pub epoch: u64,
}

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
        DhtNode::start(store, data_dir, ring).await
    }
}

impl DhtNode {
    /// A member of the ring `ring` whose rows live in the folder `data_dir`, which is created if need be.
    #[must_use]
    pub fn builder(data_dir: impl Into<PathBuf>, ring: RingId) -> DhtNodeBuilder {
        DhtNodeBuilder {
            data_dir: data_dir.into(),
            ring,
            founders: Vec::new(),
        }
    }

    /// Starts over an open store.
    pub(crate) async fn start(
        store: Store,
        path: PathBuf,
        ring: RingId,
    ) -> Result<Self, DhtBindError> {
        let newcomer = MemberId::from_bytes(rand::random());
        let identity = store
            .write(move |tx| founding::begin(tx, ring, newcomer))
            .await?;
        let identity = identity.map_err(|found| DhtBindError::OtherRing {
            path,
            found,
            expected: ring,
        })?;
        let placement = Placement::new(&identity.members.iter().copied().collect::<BTreeSet<_>>());
        let replica = Replica::open(store.clone()).await?;
        let (rounds, leases) = (Arc::default(), Mutex::default());
        Ok(Self {
            inner: Arc::new(Inner {
                identity,
                placement,
                rounds,
                store,
                replica,
                leases,
            }),
        })
    }

    /// The member that this is, the same in all its lives.
    #[must_use]
    pub fn member_id(&self) -> MemberId {
        self.inner.identity.member
    }

    /// The ring that it belongs to.
    #[must_use]
    pub fn ring_id(&self) -> RingId {
        self.inner.identity.ring
    }

    /// How the ring is.
    #[must_use]
    pub fn status(&self) -> RingStatus {
        let Identity { epoch, members, .. } = &self.inner.identity;
        let trackers = u32::try_from(members.len()).unwrap_or(u32::MAX);
        RingStatus {
            trackers,
            reachable: trackers.min(1),
            epoch: epoch.0,
        }
    }

    /// Reads a row as a majority has it: every change that was answered before this call is seen.
    /// `None` when it was never written; a deleted row is a [`Row`] without a value.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`RowError::InsufficientReplicas`], [`RowError::Store`].
    pub async fn read(&self, key: &RowKey) -> Result<Option<Row>, RowError> {
        let mut machine = self.inner.coordinator(key, Intent::Read, 0);
        match self.inner.drive(&mut machine).await? {
            Ok(Outcome::Read(state)) => Ok(Row::from_state(state)),
            Ok(outcome) => unreachable!("a read ended as {outcome:?}"),
            Err(failure) => Err(failure.into()),
        }
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
        let value = Some(value.into());
        self.inner
            .change(
                key,
                Change {
                    expected: Version::NEVER,
                    value,
                    request,
                    attempt,
                },
            )
            .await
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
        self.inner
            .change(
                key,
                Change {
                    expected,
                    value,
                    request,
                    attempt,
                },
            )
            .await
    }

    /// The rows of a partition behind the sort key `after`, in the order of their sort keys. Of `limit`
    /// rows that are read at most, up to 1000, the deleted ones are left out, so a page may be short, or
    /// empty, and yet have a next one.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`RowError::Store`].
    pub async fn list(
        &self,
        partition: &[u8],
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<Listing, RowError> {
        let partition = partition.to_vec();
        if RowKey::new(partition.clone(), []).is_err() {
            return Ok(Listing::default());
        }
        let call = ReplicaCall::List {
            partition,
            after,
            limit: page_rows(limit),
        };
        match self.inner.ask_self(call).await? {
            ReplicaAnswer::Rows { rows, more } => {
                let next = rows
                    .last()
                    .filter(|_| more)
                    .map(|row| row.key.sort().to_vec());
                let rows = visible(rows)
                    .map(|(key, row)| (key.sort().to_vec(), row))
                    .collect();
                Ok(Listing {
                    rows,
                    next,
                    stale: false,
                })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Some rows of the whole ring, those behind `cursor`. A page may be empty and yet have a next one.
    ///
    /// Rows that are written while a scan goes on may or may not be seen. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`RowError::Store`].
    pub async fn scan(
        &self,
        cursor: Option<ScanCursor>,
        limit: usize,
    ) -> Result<ScanPage, RowError> {
        self.inner.scan(Vec::new(), false, cursor, limit).await
    }

    /// Like [`DhtNode::scan`], of the partitions alone whose keys begin with `prefix`, and of each only
    /// the row with the first sort key. Long partitions cost no more than short ones.
    ///
    /// # Errors
    ///
    /// [`RowError::Store`].
    pub async fn scan_heads(
        &self,
        prefix: &[u8],
        cursor: Option<ScanCursor>,
        limit: usize,
    ) -> Result<ScanPage, RowError> {
        self.inner.scan(prefix.to_vec(), true, cursor, limit).await
    }

    /// Says something under a key until it expires, in place of what the same session said there before
    /// with a lower number. Returns whether it was taken: not when a number as high is known.
    ///
    /// # Errors
    ///
    /// [`LeaseError`]; what was known is unchanged.
    pub async fn put_lease(&self, key: &LeaseKey, lease: Lease) -> Result<bool, LeaseError> {
        self.inner
            .with_leases(|leases, now| leases.put(now, key, lease))
    }

    /// Everything that is said under a key, in no order that means anything.
    pub async fn leases(&self, key: &LeaseKey) -> Vec<Lease> {
        self.inner.with_leases(|leases, now| leases.get(now, key))
    }

    /// Withdraws what a session said under a key, under the rule of [`DhtNode::put_lease`].
    ///
    /// # Errors
    ///
    /// [`LeaseError::Full`] when there is no room to remember it.
    pub async fn drop_lease(
        &self,
        key: &LeaseKey,
        peer: PeerId,
        session: SessionId,
        number: u64,
    ) -> Result<bool, LeaseError> {
        self.inner
            .with_leases(|leases, now| leases.withdraw(now, key, (peer, session), number))
    }

    /// Waits until this member can no longer keep its promises, and says why: the disk failed, or a task
    /// of its own. The process should end then; another one reads back what the disk has. Pending for
    /// ever on a healthy member. Cancel-safe.
    pub async fn failed(&self) -> StoreError {
        self.inner.store.failed().await
    }

    /// Finishes the changes that were handed in and releases the folder. Later calls fail with
    /// [`StoreError::Closed`]. May be called again, from any clone.
    ///
    /// # Errors
    ///
    /// [`StoreError::Poisoned`] when the store had failed; the folder is released even so.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        self.inner.store.shutdown().await
    }

    /// The store under the rows, for what else a tracker has to remember.
    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }
}

impl Inner {
    fn coordinator(&self, key: &RowKey, intent: Intent, round: u64) -> Coordinator {
        let Identity {
            member,
            incarnation,
            epoch,
            ..
        } = self.identity;
        let replicas = self.placement.preference_list(slice_of_row(key));
        let reachable = replicas
            .iter()
            .filter(|replica| **replica == member)
            .count();
        let task = Task {
            key: key.clone(),
            intent,
            epoch,
            replicas,
            reachable,
            round,
        };
        let proposer = Proposer {
            member,
            incarnation,
            rounds: self.rounds.clone(),
        };
        Coordinator::new(now(), task, proposer, rand::random())
    }

    /// Runs a coordinator against this replica, the only one there is.
    async fn drive(
        &self,
        machine: &mut Coordinator,
    ) -> Result<Result<Outcome, Failure>, StoreError> {
        loop {
            match machine.poll_action() {
                Some(Action::Send { to: from, request }) if from == self.identity.member => {
                    let answer = self.replica.handle(request).await?;
                    machine.handle(now(), Input::Answer { from, answer });
                }
                Some(Action::Send { to: from, .. }) => {
                    machine.handle(now(), Input::Failed { from });
                }
                Some(Action::Finish(result)) => return Ok(result),
                None => {
                    if let Some(timeout) = machine.poll_timeout() {
                        tokio::time::sleep_until(timeout.into()).await;
                    }
                    machine.handle_timeout(now());
                }
            }
        }
    }

    async fn change(self: &Arc<Self>, key: &RowKey, change: Change) -> Result<RowChange, RowError> {
        let len = change.value.as_ref().map_or(0, Vec::len);
        if len > RowState::VALUE_BYTES_MAX {
            return Err(RowError::ValueTooLarge {
                len,
                max: RowState::VALUE_BYTES_MAX,
            });
        }
        let (this, key) = (self.clone(), key.clone());
        let result = self
            .store
            .write(move |tx| this.change_alone(tx, &key, change))
            .await?;
        match result {
            Ok(Outcome::Applied(version)) => Ok(RowChange::Applied { version }),
            Ok(Outcome::AlreadyApplied(version)) => Ok(RowChange::AlreadyApplied { version }),
            Ok(Outcome::Conflict(state)) => Ok(RowChange::Conflict {
                current: Row::from_state(state),
            }),
            Ok(outcome @ Outcome::Read(_)) => unreachable!("a change ended as {outcome:?}"),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Runs the coordinator of a change inside the writer, against the replica of the same store. Its
    /// outcome is answered when all of it is durable.
    fn change_alone(
        &self,
        tx: &mut Transaction<'_>,
        key: &RowKey,
        change: Change,
    ) -> Result<Result<Outcome, Failure>, StoreError> {
        let round = replica::register(tx, key)?.promised.round;
        let mut machine = self.coordinator(key, Intent::Change(change), round);
        loop {
            match machine.poll_action() {
                Some(Action::Send { to: from, request }) if from == self.identity.member => {
                    let answer = replica::answer(tx, request)?;
                    machine.handle(now(), Input::Answer { from, answer });
                }
                Some(Action::Send { to: from, .. }) => {
                    machine.handle(now(), Input::Failed { from });
                }
                Some(Action::Finish(result)) => return Ok(result),
                // Nothing changes while a job waits, so that its pauses are cut short.
                None => match machine.poll_timeout() {
                    Some(timeout) => machine.handle_timeout(timeout),
                    None => return Ok(Err(Failure::OutcomeUnknown)),
                },
            }
        }
    }

    async fn scan(
        &self,
        prefix: Vec<u8>,
        heads: bool,
        cursor: Option<ScanCursor>,
        limit: usize,
    ) -> Result<ScanPage, RowError> {
        let after = cursor.map(|cursor| cursor.key().clone());
        let call = ReplicaCall::Scan {
            prefix,
            heads,
            after,
            limit: page_rows(limit),
        };
        match self.ask_self(call).await? {
            ReplicaAnswer::Scanned { rows, next } => {
                let next = next.map(ScanCursor::behind);
                Ok(ScanPage {
                    rows: visible(rows).collect(),
                    next,
                    stale: false,
                })
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn ask_self(&self, call: ReplicaCall) -> Result<ReplicaAnswer, StoreError> {
        let epoch = self.identity.epoch;
        self.replica.handle(ReplicaRequest { epoch, call }).await
    }

    fn with_leases<R>(&self, f: impl FnOnce(&mut LeaseTable, Instant) -> R) -> R {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut leases, now())
    }
}

impl From<Failure> for RowError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::InsufficientReplicas {
                reachable,
                members,
                needed,
            } => Self::InsufficientReplicas {
                reachable,
                members,
                needed,
            },
            Failure::Contended => Self::Contended,
            Failure::StaleEpoch(_) => Self::StaleEpoch,
            Failure::OutcomeUnknown => Self::OutcomeUnknown,
        }
    }
}

/// Keys and rows, without those that are deleted or were never written.
fn visible(rows: Vec<ReplicaRow>) -> impl Iterator<Item = (RowKey, Row)> {
    rows.into_iter()
        .filter_map(|ReplicaRow { key, state, .. }| {
            let row = Row::from_state(state).filter(|row| row.value.is_some())?;
            Some((key, row))
        })
}

/// What a replica of its own epoch never answers to a listing or a scan.
fn unexpected(answer: &ReplicaAnswer) -> RowError {
    debug_assert!(
        matches!(answer, ReplicaAnswer::StaleEpoch { .. }),
        "{answer:?}"
    );
    RowError::StaleEpoch
}

fn page_rows(limit: usize) -> u16 {
    u16::try_from(limit)
        .unwrap_or(u16::MAX)
        .clamp(1, replica::PAGE_ROWS)
}

/// The monotonic clock of tokio, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
