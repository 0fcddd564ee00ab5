//! One page of a listing or a scan, as a majority of the replicas has it.
//!
//! Each replica gives a page; only up to the last row that all of them have looked at is the page of the
//! ring known. A row on which a majority agrees is read by that; one on which they do not is disputed, or if some replica
//! can no longer read it damaged, and whoever asked reads it by itself.
//!
//! **Invariant.** A row that was chosen before the page was asked for, and lies in what it covers, is in it or
//! is disputed or damaged: a majority that answers has a member of the majority that accepted it. Without a majority the
//! page is what the replicas that answered have, and says that it is stale; not before those that are thought alive have
//! failed for as long as a replica has to answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::machine::{Action, Input, Machine};
use super::planted::{Fault, planted};
use super::quorum::{Count, Quorum, majority};
use super::row_key;
use super::task::Failure;
use crate::identity::MemberId;
use crate::limits::{PAGE_PAUSE, ROW_PHASE_TIMEOUT};
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
    /// When those that have given no page are asked again.
    again: Option<Instant>,
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
            again: None,
            over: false,
            actions: VecDeque::new(),
        };
        this.ask(now);
        this
    }

    /// Asks those that have given no page; again, those alone that are live.
    fn ask(&mut self, now: Instant) {
        let again = self.again.take().is_some();
        self.quorum = self.quorum.afresh();
        for to in self.replicas.iter().copied() {
            if self.pages.contains_key(&to) {
                self.quorum.agree(to);
                continue;
            }
            let is_live = self.live.contains(&to);
            if !is_live {
                self.quorum.fail(to);
            }
            if is_live || !again {
                let request = ReplicaRequest {
                    epoch: self.epoch,
                    call: self.call.clone(),
                };
                self.actions.push_back(Action::Send { to, request });
            }
        }
        self.count(now);
    }

    fn on_page(&mut self, now: Instant, from: MemberId, part: Part) {
        self.pages.insert(from, part);
        self.quorum.agree(from);
        self.count(now);
    }

    fn on_failure(&mut self, now: Instant, from: MemberId) {
        self.quorum.fail(from);
        self.count(now);
    }

    fn count(&mut self, now: Instant) {
        let again = now + PAGE_PAUSE;
        if self.quorum.count() == Count::Reached {
            self.finish();
        } else if self.quorum.is_complete() {
            let may_be_there = self.live.iter().any(|id| !self.pages.contains_key(id));
            match may_be_there && again < self.timeout {
                true => self.again = Some(again),
                false => self.finish(),
            }
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

    fn handle(&mut self, now: Instant, input: Input) {
        if self.over {
            return;
        }
        match input {
            Input::Failed { from } => self.on_failure(now, from),
            Input::Answer { from, answer } => match answer {
                ReplicaAnswer::StaleEpoch { highest } if highest.list == self.epoch.list => {
                    if highest > self.epoch {
                        self.epoch = highest;
                        self.pages.clear();
                        self.ask(now);
                    }
                }
                ReplicaAnswer::StaleEpoch { highest } => {
                    self.over = true;
                    let failure = Err(Failure::StaleEpoch(highest));
                    self.actions.push_back(Action::Finish(failure));
                }
                answer => match Part::of(answer) {
                    Some(part) => self.on_page(now, from, part),
                    None => self.on_failure(now, from),
                },
            },
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.over {
            return;
        }
        if now >= self.timeout {
            self.finish();
        } else if self.again.is_some_and(|again| now >= again) {
            self.ask(now);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let next = self.again.unwrap_or(self.timeout);
        (!self.over).then_some(next)
    }

    fn poll_action(&mut self) -> Option<Action<Self::Outcome>> {
        self.actions.pop_front()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn id(i: u8) -> MemberId {
        MemberId::from_bytes([i; 16])
    }

    /// A listing that two of three have failed to give at once, the live among whom are `live`.
    fn begun(now: Instant, live: &[u8]) -> Paging {
        let call = ReplicaCall::List {
            partition: b"p".to_vec(),
            after: None,
            limit: 1,
        };
        let live = live.iter().copied().map(id).collect();
        let replicas = [1, 2, 3].map(id).to_vec();
        let mut paging = Paging::new(now, call, Epoch::FOUNDING, replicas, live);
        assert_eq!(asked(&mut paging), [1, 2, 3].map(id));
        paging.handle(now, page(1));
        for from in [2, 3].map(id) {
            paging.handle(now, Input::Failed { from });
        }
        paging
    }

    fn page(from: u8) -> Input {
        let (rows, more) = (Vec::new(), false);
        let answer = ReplicaAnswer::Rows { rows, more };
        let from = id(from);
        Input::Answer { from, answer }
    }

    fn asked(paging: &mut Paging) -> Vec<MemberId> {
        let actions = std::iter::from_fn(|| paging.poll_action());
        let asked = actions.map(|action| match action {
            Action::Send { to, .. } => to,
            Action::Finish(result) => panic!("{result:?}"),
        });
        asked.collect()
    }

    fn is_stale(paging: &mut Paging) -> bool {
        match paging.poll_action() {
            Some(Action::Finish(Ok(page))) => page.stale,
            action => panic!("{action:?}"),
        }
    }

    #[test]
    fn who_fails_and_is_thought_alive_is_asked_again_before_a_page_is_called_stale() {
        let start = Instant::now();
        let mut paging = begun(start, &[1, 2, 3]);
        for again in 1..=5 {
            assert_eq!(asked(&mut paging), []);
            let now = paging.poll_timeout().unwrap();
            assert_eq!(now, start + again * PAGE_PAUSE);
            paging.handle_timeout(now);
            assert_eq!(asked(&mut paging), [2, 3].map(id));
            let from = id(3);
            paging.handle(now, Input::Failed { from });
            if again == 5 {
                paging.handle(now, page(2));
                assert!(!is_stale(&mut paging));
                assert_eq!(paging.poll_timeout(), None);
            } else {
                paging.handle(now, Input::Failed { from: id(2) });
            }
        }
    }

    #[test]
    fn it_is_stale_at_once_where_too_few_are_alive_and_else_when_the_time_is_over() {
        let start = Instant::now();
        assert!(is_stale(&mut begun(start, &[1])));
        let mut paging = begun(start, &[1, 3]);
        let mut now = start;
        while now < start + ROW_PHASE_TIMEOUT - PAGE_PAUSE {
            now = paging.poll_timeout().unwrap();
            paging.handle_timeout(now);
            assert_eq!(asked(&mut paging), [id(3)]);
            paging.handle(now, Input::Failed { from: id(3) });
        }
        assert!(is_stale(&mut paging));
    }
}
