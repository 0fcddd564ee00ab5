//! What is behind the handle of a member: it gives coordinators their replicas and performs what they
//! want done.
//!
//! With one member, which is the only kind of ring that this version founds, a change is prepared and
//! accepted inside one job of the writer, so that it costs one sync; the coordinator and the replica are
//! those of any ring.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::builder::DhtBindError;
use super::coordinator::Coordinator;
use super::founding::{self, Identity};
use super::lease::read::LeaseRead;
use super::lease::table::LeaseTable;
use super::lease::write::LeaseWrite;
use super::lease::{Lease, LeasesPut};
use super::machine::{self, Machine};
use super::placement::{Placement, slice_of_row};
use super::register::Change;
use super::replica::{self, Replica};
use super::row::{Listing, Row, RowChange, RowError, ScanCursor, ScanPage};
use super::task::{Action, Failure, Input, Intent, Outcome, Proposer, Rounds, Task};
use crate::identity::{MemberId, RingId};
use crate::store::{Store, StoreError, Transaction};
use crate::wire::ring::{
    LeaseKey, LeaseNews, ReplicaAnswer, ReplicaCall, ReplicaRequest, ReplicaRow, RowKey, RowState,
};

/// A member in one of its lives.
#[derive(Debug)]
pub(super) struct Member {
    identity: Identity,
    placement: Placement,
    rounds: Arc<Rounds>,
    store: Store,
    replica: Replica,
    leases: Mutex<LeaseTable>,
}

impl Member {
    /// Begins a life over an open store.
    pub(super) async fn start(
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
            identity,
            placement,
            rounds,
            store,
            replica,
            leases,
        })
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) async fn read(&self, key: &RowKey) -> Result<Option<Row>, RowError> {
        let mut machine = self.coordinator(key, Intent::Read, 0);
        match self.drive(&mut machine).await? {
            Ok(Outcome::Read(state)) => Ok(Row::from_state(state)),
            Ok(outcome) => unreachable!("a read ended as {outcome:?}"),
            Err(failure) => Err(failure.into()),
        }
    }

    pub(super) async fn list(
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
        match self.ask_self(call).await? {
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

    pub(super) async fn change(
        self: &Arc<Self>,
        key: &RowKey,
        change: Change,
    ) -> Result<RowChange, RowError> {
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

    pub(super) async fn scan(
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

    pub(super) async fn put_leases(&self, news: Vec<LeaseNews>) -> LeasesPut {
        let (epoch, me) = (self.identity.epoch, self.identity.member);
        let replicas = |slice| self.placement.preference_list(slice);
        self.run_leases(LeaseWrite::new(now(), epoch, news, replicas, |member| {
            member == me
        }))
        .unwrap_or_default()
    }

    pub(super) async fn leases_of(&self, keys: &[LeaseKey]) -> Vec<Vec<Lease>> {
        let (epoch, me) = (self.identity.epoch, self.identity.member);
        let replicas = |slice| self.placement.preference_list(slice);
        let keys = keys.to_vec();
        self.run_leases(LeaseRead::new(now(), epoch, keys, replicas, |member| {
            member == me
        }))
        .unwrap_or_default()
    }

    /// Runs a machine against the leases of this member, the only one there is.
    fn run_leases<M: Machine>(&self, mut machine: M) -> Option<M::Outcome> {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match machine.poll_action()? {
                machine::Action::Finish(outcome) => return Some(outcome),
                machine::Action::Send { to: from, request } => {
                    let answer = leases.handle(now(), request.call, |_| true)?;
                    machine.handle(now(), machine::Input::Answer { from, answer });
                }
            }
        }
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
        .clamp(1, crate::limits::REPLICA_PAGE_ROWS)
}

/// The monotonic clock of tokio, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
