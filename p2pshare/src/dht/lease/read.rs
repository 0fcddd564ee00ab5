//! Asks the replicas what is said under some keys, all at once, and merges it: of each session what its highest
//! number says.
//!
//! **Invariant.** It never fails, and never waits long: it is finished when a majority of each key's replicas
//! has answered, else after a short while with what there is, and if that is nothing, a little later. Where it is
//! too much for one read, the last keys are left to another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Lease;
use crate::dht::machine::{Action, Input, Machine};
use crate::dht::placement::slice_of_lease;
use crate::dht::quorum::majority;
use crate::identity::MemberId;
use crate::limits::{
    LEASE_GET_KEYS_MAX, LEASE_READ_BYTES_MAX, LEASE_READ_PATIENCE, LEASE_SILENCE_MAX,
};
use crate::wire::ring::{
    Epoch, LeaseEntry, LeaseKey, LeaseOwner, ReplicaAnswer, ReplicaCall, ReplicaRequest, Slice,
};

/// The machine.
#[derive(Debug)]
pub(crate) struct LeaseRead {
    epoch: Epoch,
    keys: Vec<LeaseKey>,
    found: Vec<BTreeMap<LeaseOwner, Found>>,
    bytes: usize,
    members: BTreeMap<MemberId, Asked>,
    /// The sets of members that hold the keys.
    groups: BTreeSet<Vec<MemberId>>,
    patience: Instant,
    deadline: Instant,
    finished: bool,
    actions: VecDeque<Action<Vec<Vec<Lease>>>>,
}

/// What the highest number of a session says.
#[derive(Debug)]
struct Found {
    number: u64,
    ends: Instant,
    payload: Option<Arc<[u8]>>,
}

/// What one member is asked, a page at a time.
#[derive(Debug, Default)]
struct Asked {
    /// Which keys it has still to answer, by their places.
    open: Vec<usize>,
    /// Behind which session under the first of them.
    after: Option<LeaseOwner>,
    failed: bool,
    /// Whether it was not asked for the rest as it is too much.
    cut_off: bool,
}

impl Asked {
    fn has_answered(&self) -> bool {
        self.open.is_empty() && !self.failed
    }

    fn is_over(&self) -> bool {
        self.failed || self.open.is_empty()
    }

    /// How many keys one question names.
    fn at_once(&self) -> usize {
        self.open.len().min(LEASE_GET_KEYS_MAX)
    }
}

impl LeaseRead {
    /// Begins. `replicas` gives the members that hold a slice, `reachable` whether to try one.
    pub(crate) fn new(
        now: Instant,
        epoch: Epoch,
        keys: Vec<LeaseKey>,
        mut replicas: impl FnMut(Slice) -> Vec<MemberId>,
        reachable: impl Fn(MemberId) -> bool,
    ) -> Self {
        let (mut members, mut groups) = (BTreeMap::<_, Asked>::new(), BTreeSet::new());
        for (at, key) in keys.iter().enumerate() {
            let mut group = replicas(slice_of_lease(key));
            group.sort_unstable();
            for member in &group {
                members.entry(*member).or_default().open.push(at);
            }
            groups.insert(group);
        }
        for (member, asked) in &mut members {
            asked.failed = !reachable(*member);
        }
        let mut this = Self {
            epoch,
            found: keys.iter().map(|_| BTreeMap::new()).collect(),
            keys,
            bytes: 0,
            members,
            groups,
            patience: now + LEASE_READ_PATIENCE,
            deadline: now + LEASE_SILENCE_MAX,
            finished: false,
            actions: VecDeque::new(),
        };
        for member in this.members.keys().copied().collect::<Vec<_>>() {
            this.ask(member);
        }
        this.finish_if_done(now);
        this
    }

    fn ask(&mut self, to: MemberId) {
        let Some(asked) = self.members.get(&to) else {
            return;
        };
        if asked.is_over() {
            return;
        }
        let some = asked.open.iter().take(asked.at_once());
        let keys = some.map(|at| self.keys[*at].clone()).collect();
        let after = asked.after;
        let request = ReplicaRequest {
            epoch: self.epoch,
            call: ReplicaCall::LeaseGet { keys, after },
        };
        self.actions.push_back(Action::Send { to, request });
    }

    /// Takes a page, if it is the one that was asked for.
    fn take(
        &mut self,
        now: Instant,
        from: MemberId,
        (keys, after): (u16, Option<LeaseOwner>),
        found: Vec<Vec<LeaseEntry>>,
        more: bool,
    ) {
        let Some(asked) = self.members.get_mut(&from) else {
            return;
        };
        let expected = (asked.at_once(), asked.after);
        if asked.is_over() || (usize::from(keys), after) != expected {
            return;
        }
        let answered = found.len().saturating_sub(usize::from(more));
        let last = found.last().and_then(|entries| entries.last());
        let behind = last.filter(|_| more).map(LeaseEntry::owner);
        let stuck = answered == 0 && behind <= after;
        if found.len() > expected.0 || stuck {
            asked.failed = true;
            return;
        }
        // A page that ends before it says anything of its last key asks for all of that key next.
        asked.after = behind.or(after.filter(|_| answered == 0));
        let places: Vec<usize> = asked.open.iter().copied().take(found.len()).collect();
        asked.open.drain(..answered);
        for (at, entries) in places.into_iter().zip(found) {
            for entry in entries {
                self.merge(now, at, entry);
            }
        }
        if self.bytes < LEASE_READ_BYTES_MAX {
            self.ask(from);
        } else if let Some(asked) = self.members.get_mut(&from) {
            asked.cut_off = !asked.open.is_empty();
            asked.failed = asked.cut_off;
        }
    }

    fn merge(&mut self, now: Instant, at: usize, entry: LeaseEntry) {
        let (owner, number) = (entry.owner(), entry.number);
        let known = self.found[at].get(&owner);
        if known.is_some_and(|known| known.number >= number) {
            return;
        }
        self.bytes += entry.payload.as_ref().map_or(0, Vec::len) + size_of::<LeaseEntry>();
        let found = Found {
            number,
            ends: now + Duration::from_millis(entry.expires_in.into()),
            payload: entry.payload.map(Arc::from),
        };
        self.found[at].insert(owner, found);
    }

    fn finish_if_done(&mut self, now: Instant) {
        let enough = |group: &Vec<MemberId>| {
            let asked = group.iter().filter_map(|member| self.members.get(member));
            let answers = asked.clone().filter(|asked| asked.has_answered()).count();
            answers >= majority(group.len())
                || asked.clone().all(Asked::is_over)
                || now >= self.patience && answers > 0
                || now >= self.deadline
        };
        if self.finished || !self.groups.iter().all(enough) {
            return;
        }
        self.finished = true;
        let lease = |(owner, found): (LeaseOwner, Found)| {
            let expires_in = found.ends.checked_duration_since(now)?;
            Some(Lease {
                peer: owner.peer,
                session: owner.session,
                number: found.number,
                expires_in,
                payload: found.payload?,
            })
        };
        let cut_off = self.members.values().filter(|asked| asked.cut_off);
        let left = cut_off.filter_map(|asked| asked.open.first()).min();
        if let Some(left) = left {
            self.found.truncate((*left).max(1));
        }
        let found = std::mem::take(&mut self.found).into_iter();
        let found = found
            .map(|found| found.into_iter().filter_map(lease).collect())
            .collect();
        self.actions.push_back(Action::Finish(found));
    }
}

impl Machine for LeaseRead {
    type Outcome = Vec<Vec<Lease>>;

    fn handle(&mut self, now: Instant, input: Input) {
        if self.finished {
            return;
        }
        match input {
            Input::Answer {
                from,
                answer:
                    ReplicaAnswer::Leases {
                        keys,
                        after,
                        found,
                        more,
                    },
            } => self.take(now, from, (keys, after), found, more),
            Input::Failed { from }
            | Input::Answer {
                from,
                answer: ReplicaAnswer::StaleEpoch { .. } | ReplicaAnswer::Unavailable,
            } => {
                if let Some(asked) = self.members.get_mut(&from) {
                    asked.failed |= !asked.open.is_empty();
                }
            }
            // Nothing that was asked here.
            Input::Answer { .. } => return,
        }
        self.finish_if_done(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.finish_if_done(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.finished {
            return None;
        }
        let asked = |member: &MemberId| self.members.get(member);
        let some = |group: &Vec<MemberId>| {
            let mut asked = group.iter().filter_map(asked);
            asked.clone().any(Asked::has_answered) || asked.all(|asked| asked.failed)
        };
        match self.groups.iter().all(some) {
            true => Some(self.patience),
            false => Some(self.deadline),
        }
    }

    fn poll_action(&mut self) -> Option<Action<Vec<Vec<Lease>>>> {
        self.actions.pop_front()
    }
}
