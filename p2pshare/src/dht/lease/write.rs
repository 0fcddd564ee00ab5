//! Brings news of leases to the replicas of their slices.
//!
//! **Invariant.** It never fails: what is said is known to those replicas that could be reached, and how many
//! that are is the outcome. It is finished when a majority of each slice has all of it, or nobody is left
//! who might take it; after that it goes on until the others have it too, or are silent for too long.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::{LeasesPut, push_slot};
use crate::dht::machine::{Action, Input, Machine};
use crate::dht::quorum::majority;
use crate::identity::MemberId;
use crate::limits::{LEASE_PAGE_BYTES, LEASE_SILENCE_MAX};
use crate::wire::ring::{Epoch, LeaseNews, ReplicaAnswer, ReplicaCall, ReplicaRequest, Slice};

/// The machine.
#[derive(Debug)]
pub(crate) struct LeaseWrite {
    epoch: Epoch,
    members: BTreeMap<MemberId, Outbox>,
    /// The sets of members that hold the slices.
    groups: BTreeSet<Vec<MemberId>>,
    put: LeasesPut,
    /// When those who have not answered are given up.
    timeout: Instant,
    finished: bool,
    actions: VecDeque<Action<LeasesPut>>,
}

/// What one member is to be told, and how far that is. It is told one message at a time.
#[derive(Debug, Default)]
struct Outbox {
    waiting: VecDeque<Vec<LeaseNews>>,
    bytes: usize,
    /// The last slice of the message that is under way.
    under_way: Option<Slice>,
    /// It could not be told, or did not take, some of it.
    short: bool,
}

impl Outbox {
    fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_none()
    }

    fn has_all(&self) -> bool {
        self.is_done() && !self.short
    }

    fn fail(&mut self) {
        self.waiting.clear();
        self.under_way = None;
        self.short = true;
    }
}

impl LeaseWrite {
    /// Begins. `replicas` gives the members that hold a slice, `reachable` whether to try one.
    pub(crate) fn new(
        now: Instant,
        epoch: Epoch,
        news: Vec<LeaseNews>,
        mut replicas: impl FnMut(Slice) -> Vec<MemberId>,
        reachable: impl Fn(MemberId) -> bool,
    ) -> Self {
        let (mut members, mut groups) = (BTreeMap::<_, Outbox>::new(), BTreeSet::new());
        for news in news {
            let head = (news.number, news.expires_in);
            for slot in news.slices {
                let mut group = replicas(slot.slice);
                group.sort_unstable();
                for member in &group {
                    let outbox = members.entry(*member).or_default();
                    if outbox.bytes >= LEASE_PAGE_BYTES || outbox.waiting.is_empty() {
                        outbox.waiting.push_back(Vec::new());
                        outbox.bytes = 0;
                    }
                    if let Some(message) = outbox.waiting.back_mut() {
                        outbox.bytes += push_slot(message, news.owner, head, slot.clone());
                    }
                }
                groups.insert(group);
            }
        }
        for (_, outbox) in members
            .iter_mut()
            .filter(|(member, _)| !reachable(**member))
        {
            outbox.fail();
        }
        let mut this = Self {
            epoch,
            members,
            groups,
            put: LeasesPut::default(),
            timeout: now + LEASE_SILENCE_MAX,
            finished: false,
            actions: VecDeque::new(),
        };
        for member in this.members.keys().copied().collect::<Vec<_>>() {
            this.send_next(member);
        }
        this.finish_if_done();
        this
    }

    fn send_next(&mut self, to: MemberId) {
        let Some(outbox) = self.members.get_mut(&to) else {
            return;
        };
        let Some(news) = outbox.waiting.pop_front() else {
            return;
        };
        let last = news.last().and_then(|news| news.slices.last());
        outbox.under_way = last.map(|slot| slot.slice);
        let request = ReplicaRequest {
            epoch: self.epoch,
            call: ReplicaCall::LeasePut(news),
        };
        self.actions.push_back(Action::Send { to, request });
    }

    fn finish_if_done(&mut self) {
        let has_all = |member: &&MemberId| self.members.get(member).is_some_and(Outbox::has_all);
        let counts = self.groups.iter().map(|group| {
            let count = group.iter().filter(has_all).count();
            (count, majority(group.len()))
        });
        let reached = counts.clone().all(|(count, needed)| count >= needed);
        if self.finished || !(reached || self.is_settled()) {
            return;
        }
        self.put.replicas = counts.map(|(count, _)| count).min().unwrap_or_default();
        self.finished = true;
        self.actions
            .push_back(Action::Finish(std::mem::take(&mut self.put)));
    }

    fn is_settled(&self) -> bool {
        self.members.values().all(Outbox::is_done)
    }
}

impl Machine for LeaseWrite {
    type Outcome = LeasesPut;

    fn handle(&mut self, now: Instant, input: Input) {
        let (from, answer) = match input {
            Input::Answer { from, answer } => (from, Some(answer)),
            Input::Failed { from } => (from, None),
        };
        let outbox = self.members.get_mut(&from);
        let Some(outbox) = outbox.filter(|outbox| !outbox.is_done()) else {
            return;
        };
        match answer {
            Some(ReplicaAnswer::LeasesTaken {
                last,
                gaps,
                refused,
            }) => {
                if last.is_none() || last != outbox.under_way {
                    return;
                }
                outbox.under_way = None;
                outbox.short |= !gaps.is_empty() || refused > 0;
                let slices = gaps.into_iter().flat_map(|gap| gap.slices);
                self.put.lacking.extend(slices.map(|(slice, _)| slice));
                self.put.refused += refused as usize;
                self.timeout = now + LEASE_SILENCE_MAX;
                self.send_next(from);
            }
            Some(ReplicaAnswer::StaleEpoch { .. } | ReplicaAnswer::Unavailable) | None => {
                outbox.fail();
            }
            // Nothing that was asked here.
            Some(_) => return,
        }
        self.finish_if_done();
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|timeout| timeout <= now) {
            let open = self.members.values_mut().filter(|outbox| !outbox.is_done());
            open.for_each(Outbox::fail);
            self.finish_if_done();
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        (!self.is_settled()).then_some(self.timeout)
    }

    fn poll_action(&mut self) -> Option<Action<LeasesPut>> {
        self.actions.pop_front()
    }
}
