//! One page of a listing or a scan, as a majority of the replicas has it.
//!
//! Each replica gives a page; only up to the last row that all of them have looked at is the page of the
//! ring known. A row on which a majority agrees is read by that; one on which they do not is disputed, or if some replica
//! can no longer read it damaged, and whoever asked reads it by itself.
//!
//! **Invariant.** A row that was chosen before the page was asked for, and lies in what it covers, is in it or
//! is disputed or damaged: a majority that answers has a member of the majority that accepted it. Without a majority the
//! page is what the replicas that answered have, and says that it is stale.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::machine::{Action, Input, Machine};
use super::planted::{Fault, planted};
use super::quorum::{Count, Quorum, majority};
use super::row_key;
use super::task::Failure;
use crate::identity::MemberId;
use crate::limits::ROW_PHASE_TIMEOUT;
use crate::wire::ring::{
    Ballot, Epoch, ReplicaAnswer, ReplicaCall, ReplicaRequest, ReplicaRow, RowKey,
};

/// The machine.
#[derive(Debug)]
pub(crate) struct Paging {
    call: ReplicaCall,
    epoch: Epoch,
    replicas: Vec<MemberId>,
    live: BTreeSet<MemberId>,
    quorum: Quorum,
    pages: BTreeMap<MemberId, Part>,
    timeout: Instant,
    over: bool,
    actions: VecDeque<Action<Result<Page, Failure>>>,
}

/// What one replica has, up to `end` or to the end of all.
#[derive(Clone, Debug)]
struct Part {
    rows: Vec<ReplicaRow>,
    /// On disk, the key of the last row that it covers; `None` if it covers all.
    end: Option<RowKey>,
}

/// A page.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Page {
    /// The rows on which a majority agrees, in the order of the disk.
    pub(crate) rows: Vec<ReplicaRow>,
    /// Those that have to be read one by one, each as the newest that was seen of it.
    pub(crate) disputed: Vec<ReplicaRow>,
    /// The same, of those that some replica can no longer read.
    pub(crate) damaged: Vec<ReplicaRow>,
    /// Behind which key to go on; `None` when this was all.
    pub(crate) next: Option<RowKey>,
    /// Whether no majority answered.
    pub(crate) stale: bool,
    /// Whether there are rows that no majority can read.
    pub(crate) unreadable: bool,
}

impl Part {
    fn of(answer: ReplicaAnswer) -> Option<Self> {
        match answer {
            ReplicaAnswer::Rows { rows, more } => {
                let end = rows.last().filter(|_| more).map(|row| row.key.clone());
                Some(Self { rows, end })
            }
            ReplicaAnswer::Scanned { rows, next } => Some(Self { rows, end: next }),
            _ => None,
        }
    }
}

impl Page {
    /// What one replica answers, of which nobody knows whether it is still so.
    pub(crate) fn stale(answer: ReplicaAnswer) -> Option<Self> {
        let Part { rows, end } = Part::of(answer)?;
        Some(Self {
            rows,
            next: end,
            stale: true,
            ..Self::default()
        })
    }
}

impl Paging {
    /// Asks `replicas` for what `call` says, a `List` or a `Scan`. Those that are not `live` are not waited for.
    pub(crate) fn new(
        now: Instant,
        call: ReplicaCall,
        epoch: Epoch,
        replicas: Vec<MemberId>,
        live: BTreeSet<MemberId>,
    ) -> Self {
        let mut this = Self {
            call,
            epoch,
            quorum: Quorum::new(replicas.iter().copied()),
            replicas,
            live,
            pages: BTreeMap::new(),
            timeout: now + ROW_PHASE_TIMEOUT,
            over: false,
            actions: VecDeque::new(),
        };
        this.ask();
        this
    }

    fn ask(&mut self) {
        self.pages.clear();
        self.quorum = self.quorum.afresh();
        for to in self.replicas.clone() {
            let request = ReplicaRequest {
                epoch: self.epoch,
                call: self.call.clone(),
            };
            self.actions.push_back(Action::Send { to, request });
            if !self.live.contains(&to) {
                self.on_failure(to);
            }
        }
    }

    fn on_page(&mut self, from: MemberId, part: Part) {
        self.pages.insert(from, part);
        let count = self.quorum.agree(from);
        if count == Count::Reached || self.quorum.is_complete() {
            self.finish();
        }
    }

    fn on_failure(&mut self, from: MemberId) {
        let count = self.quorum.fail(from);
        if !self.over && count == Count::Impossible && self.quorum.is_complete() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        self.over = true;
        let members = self.replicas.len();
        let result = match self.pages.len() {
            0 => Err(Failure::InsufficientReplicas {
                reachable: 0,
                members,
                needed: majority(members),
            }),
            _ => Ok(self.merge()),
        };
        self.actions.push_back(Action::Finish(result));
    }

    fn merge(&mut self) -> Page {
        let needed = majority(self.replicas.len());
        let stale = self.pages.len() < needed;
        let ends = self.pages.values().filter_map(|part| part.end.clone());
        let next = ends.min_by_key(row_key::encode);
        let horizon = next.as_ref().map(row_key::encode);
        let mut found: BTreeMap<Vec<u8>, Vec<ReplicaRow>> = BTreeMap::new();
        for row in std::mem::take(&mut self.pages)
            .into_values()
            .flat_map(|p| p.rows)
        {
            let place = row_key::encode(&row.key);
            if horizon.as_ref().is_none_or(|horizon| place <= *horizon) {
                found.entry(place).or_default().push(row);
            }
        }
        if matches!(self.call, ReplicaCall::Scan { heads: true, .. }) {
            // A replica that lacks the first row of a partition shows the second.
            let mut seen: Option<Vec<u8>> = None;
            found.retain(|_, versions| {
                let partition = versions.first().map(|row| row.key.partition().to_vec());
                let first = seen != partition;
                seen = partition;
                first
            });
        }
        let mut page = Page {
            next,
            stale,
            ..Page::default()
        };
        for mut versions in found.into_values() {
            versions.sort_by_key(|row| row.accepted);
            let agreed = versions
                .iter()
                .filter(|row| !row.is_damaged() && count_of(&versions, row.accepted) >= needed)
                .max_by_key(|row| row.accepted)
                .cloned();
            let damaged = versions.iter().any(ReplicaRow::is_damaged);
            let newest = versions.pop();
            match (agreed, newest) {
                (None, Some(newest)) if !stale && !planted(Fault::ListingIgnoresDisputes) => {
                    match damaged {
                        true => page.damaged.push(newest),
                        false => page.disputed.push(newest),
                    }
                }
                (agreed, newest) => page.rows.extend(agreed.or(newest)),
            }
        }
        page
    }
}

fn count_of(versions: &[ReplicaRow], ballot: Ballot) -> usize {
    versions.iter().filter(|row| row.accepted == ballot).count()
}

impl Machine for Paging {
    type Outcome = Result<Page, Failure>;

    fn handle(&mut self, _: Instant, input: Input) {
        if self.over {
            return;
        }
        match input {
            Input::Failed { from } => self.on_failure(from),
            Input::Answer { from, answer } => match answer {
                ReplicaAnswer::StaleEpoch { highest } if highest.list == self.epoch.list => {
                    if highest > self.epoch {
                        self.epoch = highest;
                        self.ask();
                    }
                }
                ReplicaAnswer::StaleEpoch { highest } => {
                    self.over = true;
                    let failure = Err(Failure::StaleEpoch(highest));
                    self.actions.push_back(Action::Finish(failure));
                }
                answer => match Part::of(answer) {
                    Some(part) => self.on_page(from, part),
                    None => self.on_failure(from),
                },
            },
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if !self.over && now >= self.timeout {
            self.finish();
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        (!self.over).then_some(self.timeout)
    }

    fn poll_action(&mut self) -> Option<Action<Self::Outcome>> {
        self.actions.pop_front()
    }
}
