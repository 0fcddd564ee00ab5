//! What is behind the handle of a member: it runs the machines of reads, changes and pages over its links.

use std::collections::BTreeMap;
use std::fmt;
use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::coordinator::Coordinator;
use super::host::{Core, now};
use super::lease::read::LeaseRead;
use super::lease::write::LeaseWrite;
use super::lease::{Lease, LeasesPut};
use super::links::Links;
use super::machine::{Action, Machine};
use super::membership::Membership;
use super::paging::{Page, Paging};
use super::placement::{slice_of, slice_of_row};
use super::register::Change;
use super::row::{Listing, Row, RowChange, RowError, ScanCursor, ScanPage};
use super::task::{Failure, Intent, Outcome, Proposer, Rounds, Task};
use crate::identity::MemberId;
use crate::limits::{
    DISPUTED_AT_ONCE, MACHINE_INPUTS_MAX, REPLICA_PAGE_ROWS, ROW_DEADLINE, ROW_PHASE_TIMEOUT,
};
use crate::wire::ring::{
    LeaseKey, LeaseNews, PullPlace, ReplicaCall, ReplicaRow, RowKey, RowState, Slice,
};
use crate::wire::tracker::{MemberStatus, RingStatus};

/// A member in one of its lives, and its links to the others.
pub(super) struct Member {
    pub(super) core: Arc<Core>,
    pub(super) links: Links<Core>,
    membership: Mutex<Option<Membership>>,
    rounds: Arc<Rounds>,
    /// How many founders the ring has or is to have.
    founders: usize,
}

impl Member {
    pub(super) fn new(core: Arc<Core>, links: Links<Core>, founders: usize) -> Self {
        Self {
            core,
            links,
            membership: Mutex::default(),
            rounds: Arc::default(),
            founders,
        }
    }

    /// Whether a member is thought to answer.
    pub(super) fn is_reachable(&self, member: MemberId) -> bool {
        match member == self.core.life().member {
            true => self.core.votes(),
            false => self.core.is_up(member) && self.seems_alive(member),
        }
    }

    fn seems_alive(&self, member: MemberId) -> bool {
        let membership = self
            .membership
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        membership
            .as_ref()
            .is_none_or(|membership| membership.alive(member))
    }

    /// Begins to gossip as the member that this is now.
    pub(super) fn gossip(&self) {
        let Some(record) = self.core.record() else {
            return;
        };
        let started = Membership::start(&self.links, self.core.life());
        started.set_members(record.members());
        let (mut rumours, core) = (started.changes(), self.core.clone());
        // Ends with the membership.
        tokio::spawn(async move {
            while rumours.changed().await.is_ok() {
                core.changed();
            }
        });
        let mut membership = self
            .membership
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *membership = Some(started);
    }

    pub(super) fn status(&self) -> RingStatus {
        let me = self.core.life().member;
        let record = self.core.record();
        let mut members: Vec<MemberStatus> = record
            .iter()
            .flat_map(|record| record.members())
            .map(|member| MemberStatus {
                id: member.id,
                addr: Some(member.addr.clone()),
                alive: member.id == me || self.is_reachable(member.id),
                is_self: member.id == me,
                refused: self.core.refusal_at(&member.addr),
            })
            .collect();
        members.sort_by(|a, b| a.addr.cmp(&b.addr));
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        RingStatus {
            trackers: count(record.as_ref().map_or(self.founders, |_| members.len())),
            reachable: match record {
                Some(_) => count(members.iter().filter(|member| member.alive).count()),
                None => count(self.founders.saturating_sub(self.core.waiting_for().len())),
            },
            epoch: record.as_ref().map_or(0, |record| record.epoch.list),
            founded: self.core.is_founded(),
            waiting_for: self.core.waiting_for(),
            members,
            rows: self.core.rows(),
            behind: self.core.behind(),
            votes: self.core.votes(),
        }
    }

    /// Runs a machine to its end. What it has asked of others by then goes on.
    pub(super) async fn drive<M: Machine>(&self, machine: M) -> M::Outcome {
        self.drive_watched(machine, |_| {}).await
    }

    /// The same, and shows the machine whenever something has happened to it.
    pub(super) async fn drive_watched<M: Machine>(
        &self,
        mut machine: M,
        mut watch: impl FnMut(&M),
    ) -> M::Outcome {
        let (reply, mut inputs) = mpsc::channel(MACHINE_INPUTS_MAX);
        loop {
            while let Some(action) = machine.poll_action() {
                match action {
                    Action::Send { to, request } => self.links.ask(to, request, &reply),
                    Action::Finish(outcome) => return outcome,
                }
            }
            watch(&machine);
            let timeout = machine.poll_timeout().unwrap_or_else(far);
            tokio::select! {
                biased;
                Some(input) = inputs.recv() => {
                    machine.handle(now(), input);
                    while let Ok(input) = inputs.try_recv() {
                        machine.handle(now(), input);
                    }
                }
                () = tokio::time::sleep_until(timeout.into()) => machine.handle_timeout(now()),
            }
        }
    }

    async fn run(
        &self,
        key: &RowKey,
        intent: Intent,
    ) -> Result<Result<Outcome, Failure>, RowError> {
        let placement = self.core.placement();
        let replicas = placement.preference_list(slice_of_row(key)).to_vec();
        if replicas.is_empty() {
            return Err(self.not_founded());
        }
        let reachable = replicas
            .iter()
            .filter(|replica| self.is_reachable(**replica));
        let life = self.core.life();
        let task = Task {
            key: key.clone(),
            intent,
            epoch: self.core.epoch(),
            reachable: reachable.count(),
            replicas,
            round: 0,
        };
        let proposer = Proposer {
            member: life.member,
            incarnation: life.incarnation,
            rounds: self.rounds.clone(),
        };
        let machine = Coordinator::new(now(), task, proposer, rand::random());
        self.driven(machine).await
    }

    /// Runs a machine to its end, or to that of this member's store.
    async fn driven<M: Machine>(&self, machine: M) -> Result<M::Outcome, RowError> {
        self.core.store.check()?;
        tokio::select! {
            biased;
            outcome = self.drive(machine) => Ok(outcome),
            failed = self.core.failed() => Err(failed.into()),
        }
    }

    fn not_founded(&self) -> RowError {
        RowError::NotFounded {
            waiting_for: self.core.waiting_for(),
        }
    }

    pub(super) async fn read(&self, key: &RowKey) -> Result<Option<Row>, RowError> {
        self.read_as(key, Intent::Read).await.map(Row::from_state)
    }

    /// Brings every replica that can be reached to what a majority agrees on.
    pub(super) async fn repair(&self, key: &RowKey, of: [MemberId; 2]) -> Result<(), RowError> {
        let of = of.to_vec();
        self.read_as(key, Intent::Repair { of }).await.map(drop)
    }

    async fn read_as(&self, key: &RowKey, intent: Intent) -> Result<RowState, RowError> {
        match self.run(key, intent).await? {
            Ok(Outcome::Read(state)) => Ok(state),
            Ok(outcome) => unreachable!("a read ended as {outcome:?}"),
            // It wrote nothing but what had been decided before.
            Err(Failure::OutcomeUnknown) => Err(RowError::Contended),
            Err(failure) => Err(failure.into()),
        }
    }

    pub(super) async fn change(&self, key: &RowKey, change: Change) -> Result<RowChange, RowError> {
        let len = change.value.as_ref().map_or(0, Vec::len);
        if len > RowState::VALUE_BYTES_MAX {
            return Err(RowError::ValueTooLarge {
                len,
                max: RowState::VALUE_BYTES_MAX,
            });
        }
        match self.run(key, Intent::Change(change)).await? {
            Ok(Outcome::Applied(version)) => Ok(RowChange::Applied { version }),
            Ok(Outcome::AlreadyApplied(version)) => Ok(RowChange::AlreadyApplied { version }),
            Ok(Outcome::Conflict(state)) => Ok(RowChange::Conflict {
                current: Row::from_state(state),
            }),
            Ok(outcome @ Outcome::Read(_)) => unreachable!("a change ended as {outcome:?}"),
            Err(failure) => Err(failure.into()),
        }
    }

    pub(super) async fn list(
        self: &Arc<Self>,
        partition: &[u8],
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<Listing, RowError> {
        let partition = partition.to_vec();
        if RowKey::new(partition.clone(), []).is_err() {
            return Ok(Listing::default());
        }
        let slice = slice_of(&partition);
        let call = ReplicaCall::List {
            partition,
            after,
            limit: page_rows(limit),
        };
        let page = self.page(slice, call).await?;
        let rows = visible(page.rows).map(|(key, row)| (key.sort().to_vec(), row));
        Ok(Listing {
            rows: rows.collect(),
            next: page.next.map(|key| key.sort().to_vec()),
            stale: page.stale,
            unreadable: page.unreadable,
        })
    }

    pub(super) async fn scan(
        self: &Arc<Self>,
        prefix: Vec<u8>,
        heads: bool,
        cursor: Option<ScanCursor>,
        limit: usize,
    ) -> Result<ScanPage, RowError> {
        let start = PullPlace::START;
        let PullPlace { slice, after } = cursor.map_or(start, |cursor| cursor.place().clone());
        let last = self.core.placement().run_from(slice);
        let call = ReplicaCall::Scan {
            first: slice,
            last,
            prefix,
            heads,
            after,
            limit: page_rows(limit),
        };
        let page = self.page(slice, call).await?;
        let next = match page.next {
            Some(key) => Some(PullPlace {
                slice: slice_of_row(&key),
                after: Some(key),
            }),
            None => Slice::new(last.index() + 1).map(|slice| PullPlace { slice, after: None }),
        };
        Ok(ScanPage {
            rows: visible(page.rows).collect(),
            next: next.map(ScanCursor::at),
            stale: page.stale,
            unreadable: page.unreadable,
        })
    }

    /// A page of a slice's replicas, with what they do not agree on read row by row.
    async fn page(self: &Arc<Self>, slice: Slice, call: ReplicaCall) -> Result<Page, RowError> {
        let replicas = self.core.placement().preference_list(slice).to_vec();
        if replicas.is_empty() {
            return Err(self.not_founded());
        }
        let live = replicas.iter().copied().filter(|id| self.is_reachable(*id));
        let live = live.collect();
        let holds = replicas.contains(&self.core.life().member);
        let machine = Paging::new(now(), call.clone(), self.core.epoch(), replicas, live);
        let page = match self.driven(machine).await? {
            Ok(page) => page,
            Err(failure) if holds => match self.core.own_page(call).await? {
                Some(page) => page,
                None => return Err(failure.into()),
            },
            Err(failure) => return Err(failure.into()),
        };
        settle(page, |key, intent| {
            let this = self.clone();
            async move { this.read_as(&key, intent).await }
        })
        .await
    }

    /// Tells the replicas, also those that are slower than a majority.
    pub(super) async fn put_leases(self: &Arc<Self>, news: Vec<LeaseNews>) -> LeasesPut {
        let placement = self.core.placement();
        let write = LeaseWrite::new(
            now(),
            self.core.epoch(),
            news,
            |slice| placement.preference_list(slice).to_vec(),
            |member| self.holds_leases(member),
        );
        let (told, outcome) = oneshot::channel();
        let this = self.clone();
        tokio::spawn(async move { this.drive_to_rest(write, told).await });
        outcome.await.unwrap_or_default()
    }

    pub(super) async fn leases_of(&self, keys: &[LeaseKey]) -> Vec<Vec<Lease>> {
        let placement = self.core.placement();
        let read = LeaseRead::new(
            now(),
            self.core.epoch(),
            keys.to_vec(),
            |slice| placement.preference_list(slice).to_vec(),
            |member| self.holds_leases(member),
        );
        self.drive(read).await
    }

    /// Whether to ask a member about leases. Of itself it always knows some, whether it votes or not.
    fn holds_leases(&self, member: MemberId) -> bool {
        member == self.core.life().member || self.is_reachable(member)
    }

    /// Runs a machine until nothing is left to do, which may be long after it has its outcome.
    async fn drive_to_rest<M: Machine>(&self, mut machine: M, told: oneshot::Sender<M::Outcome>) {
        let (reply, mut inputs) = mpsc::channel(MACHINE_INPUTS_MAX);
        let mut told = Some(told);
        loop {
            while let Some(action) = machine.poll_action() {
                match action {
                    Action::Send { to, request } => self.links.ask(to, request, &reply),
                    Action::Finish(outcome) => {
                        // Who asked may be gone.
                        _ = told.take().map(|told| told.send(outcome));
                    }
                }
            }
            let Some(timeout) = machine.poll_timeout() else {
                return;
            };
            tokio::select! {
                biased;
                Some(input) = inputs.recv() => machine.handle(now(), input),
                () = tokio::time::sleep_until(timeout.into()) => machine.handle_timeout(now()),
            }
        }
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("core", &self.core)
            .finish_non_exhaustive()
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

/// A page with its disputed and its damaged rows read. One that cannot be read now is shown as the newest that was seen
/// of it, and the page says so: the others are no less right for it.
async fn settle<F>(mut page: Page, read: impl Fn(RowKey, Intent) -> F) -> Result<Page, RowError>
where
    F: Future<Output = Result<RowState, RowError>> + Send + 'static,
{
    let (disputed, damaged) = (take(&mut page.disputed), take(&mut page.damaged));
    let disputed = read_each(disputed, ROW_DEADLINE, |key| read(key, Intent::Read));
    // It may be for good that nobody can read these.
    let damaged = read_each(damaged, ROW_PHASE_TIMEOUT, |key| read(key, Intent::Look));
    let (disputed, damaged) = tokio::join!(disputed, damaged);
    for (rows, unknown) in [
        (disputed?, &mut page.stale),
        (damaged?, &mut page.unreadable),
    ] {
        for (row, known) in rows {
            *unknown |= !known;
            page.rows.push(row);
        }
    }
    page.rows
        .sort_by_cached_key(|row| super::row_key::encode(&row.key));
    Ok(page)
}

/// Reads rows, some at once and all within that time: each as it is now, or as it was given, and whether it is known.
async fn read_each<F>(
    rows: Vec<ReplicaRow>,
    time: Duration,
    read: impl Fn(RowKey) -> F,
) -> Result<Vec<(ReplicaRow, bool)>, RowError>
where
    F: Future<Output = Result<RowState, RowError>> + Send + 'static,
{
    let deadline = tokio::time::Instant::now() + time;
    let mut left: BTreeMap<_, _> = rows.into_iter().map(|row| (row.key.clone(), row)).collect();
    let (mut keys, mut known) = (left.keys().cloned().collect::<Vec<_>>(), Vec::new());
    let mut reading = JoinSet::new();
    loop {
        while reading.len() < DISPUTED_AT_ONCE
            && let Some(key) = keys.pop()
        {
            let read = read(key.clone());
            reading.spawn(async move { (key, read.await) });
        }
        match timeout_at(deadline, reading.join_next()).await {
            Ok(Some(Ok((key, Ok(state))))) => {
                left.remove(&key);
                known.push((ReplicaRow::of_state(key, state), true));
            }
            Ok(Some(Ok((_, Err(error))))) if !error.is_transient() => return Err(error),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    known.extend(left.into_values().map(|row| (row, false)));
    Ok(known)
}

/// Keys and rows, without those that are deleted or were never written.
fn visible(rows: Vec<ReplicaRow>) -> impl Iterator<Item = (RowKey, Row)> {
    rows.into_iter()
        .filter_map(|ReplicaRow { key, state, .. }| {
            let row = Row::from_state(state).filter(|row| row.value.is_some())?;
            Some((key, row))
        })
}

fn page_rows(limit: usize) -> u16 {
    u16::try_from(limit)
        .unwrap_or(u16::MAX)
        .clamp(1, REPLICA_PAGE_ROWS)
}

/// Later than any machine waits.
fn far() -> Instant {
    now() + Duration::from_secs(3600)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::StoreError;

    fn row(sort: &str, value: &str) -> ReplicaRow {
        let key = RowKey::new("p", sort).unwrap();
        let request = crate::wire::ring::RequestKey {
            peer: crate::identity::PeerId::from_bytes([1; 32]),
            request: crate::identity::RequestId::from_bytes([1; 16]),
        };
        let state = RowState::default().next(Some(value.into()), request);
        ReplicaRow::of_state(key, state)
    }

    fn shown(page: Page) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = visible(page.rows);
        rows.map(|(key, row)| (key.sort().to_vec(), row.value.unwrap()))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn rows_that_nobody_can_settle_are_shown_as_they_were_seen_and_hold_nobody_up() {
        // Of `n` nobody says anything.
        let settled = async |disputed: &[&str], damaged: &[&str], trouble: fn() -> RowError| {
            let rows = |of: &[&str]| of.iter().map(|sort| row(sort, "newest")).collect();
            let page = Page {
                rows: vec![row("b", "agreed")],
                disputed: rows(disputed),
                damaged: rows(damaged),
                ..Page::default()
            };
            settle(page, |key, _| async move {
                match key.sort() {
                    b"a" => Err(trouble()),
                    b"n" => std::future::pending().await,
                    sort => Ok(row(std::str::from_utf8(sort).unwrap(), "read").state),
                }
            })
            .await
        };
        let expected = |rows: &[(&str, &str)]| -> Vec<(Vec<u8>, Vec<u8>)> {
            let rows = rows.iter();
            rows.map(|(sort, value)| ((*sort).into(), (*value).into()))
                .collect()
        };
        let contended = || RowError::Contended;
        let shown_with = |other| expected(&[("a", "newest"), ("b", "agreed"), other]);
        let page = settled(&["a", "c"], &[], contended).await.unwrap();
        assert_eq!((page.stale, page.unreadable), (true, false));
        assert_eq!(shown(page), shown_with(("c", "read")));
        let page = settled(&[], &["a", "c"], contended).await.unwrap();
        assert_eq!((page.stale, page.unreadable), (false, true));
        assert_eq!(shown(page), shown_with(("c", "read")));
        let began = tokio::time::Instant::now();
        let page = settled(&["c"], &["a", "n"], contended).await.unwrap();
        assert_eq!((page.stale, page.unreadable), (false, true));
        assert_eq!(began.elapsed(), ROW_PHASE_TIMEOUT);
        let page = settled(&["a", "n"], &[], contended).await.unwrap();
        assert_eq!((page.stale, page.unreadable), (true, false));
        assert_eq!(shown(page), shown_with(("n", "newest")));
        // With its own store gone, a member has nothing to show.
        let failed = settled(&["a"], &[], || StoreError::Closed.into()).await;
        assert!(matches!(failed, Err(RowError::Store(_))), "{failed:?}");
    }
}
