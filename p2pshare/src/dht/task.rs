//! What a coordinator is given and what it gives: who proposes, what is wanted of which row, and how it ended.
//!
//! **Invariant.** A round of one life of one member is handed out once, so that no two proposals share a
//! ballot.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::planted::{Fault, planted};
use super::register::Change;
use crate::identity::MemberId;
use crate::limits::{BALLOT_ROUNDS_APART_MAX, SETTLED_SETS_MAX};
use crate::wire::ring::{Epoch, RowKey, RowState, Version};

/// Who proposes: one member in one of its lives.
#[derive(Clone, Debug)]
pub(crate) struct Proposer {
    /// The member.
    pub(crate) member: MemberId,
    /// Its life; no two share a number.
    pub(crate) incarnation: u64,
    /// Hands out the rounds of this life, each once.
    pub(crate) rounds: Arc<Rounds>,
}

/// The rounds that one life of one member has used. A ballot is a round of it, so that two proposals
/// share no ballot, even two of the same row at the same time.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    last: AtomicU64,
    /// The highest epoch in which a majority of a set of replicas is known to be.
    settled: Mutex<BTreeMap<Vec<MemberId>, Epoch>>,
}

impl Rounds {
    /// Notes that a majority of `replicas` has promised something in this epoch, and returns whether a majority
    /// was known to be in it before. If not, some of them may have promised before the others were in it, and
    /// have forgotten it since, in a life before one that returned unheard: what they promise next counts.
    pub(crate) fn settle(&self, replicas: &[MemberId], epoch: Epoch) -> bool {
        if epoch.returns == 0 {
            return true;
        }
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if settled.len() >= SETTLED_SETS_MAX && !settled.contains_key(replicas) {
            settled.clear();
        }
        let known = settled.insert(replicas.to_vec(), epoch);
        known.is_some_and(|known| known >= epoch)
    }

    /// A round above `floor` that was never handed out before.
    pub(crate) fn above(&self, floor: u64) -> u64 {
        if planted(Fault::RoundReused) {
            return floor + 1;
        }
        self.last.fetch_max(floor, Ordering::Relaxed);
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Hands out only rounds above `refused` from now on, so that what begins next is not refused for the same
    /// reason: a repair that a majority takes would never reach the one who refuses it. Not if that is further
    /// ahead than anybody can be: then it returns false.
    pub(crate) fn pass(&self, refused: u64) -> bool {
        let apart = refused.saturating_sub(self.last.load(Ordering::Relaxed));
        let follows = apart <= BALLOT_ROUNDS_APART_MAX;
        if follows {
            self.last.fetch_max(refused, Ordering::Relaxed);
        }
        follows
    }
}

/// What is wanted of a row.
#[derive(Clone, Debug)]
pub(crate) enum Intent {
    /// Its state.
    Read,
    /// The same, if it can be told at once: nothing is tried again that too few replicas can do.
    Look,
    /// A change of it.
    Change(Change),
    /// That these replicas have what a majority agrees on, which they are part of.
    Repair { of: Vec<MemberId> },
}

/// What is wanted of which row, under which list of members.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) key: RowKey,
    pub(crate) intent: Intent,
    pub(crate) epoch: Epoch,
    /// The members that hold the row.
    pub(crate) replicas: Vec<MemberId>,
    /// How many of them are thought alive.
    pub(crate) reachable: usize,
    /// The highest round that is known to be used at this row; zero if none is known.
    pub(crate) round: u64,
}

/// How it ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// The state that was read, or that the replicas were repaired to.
    Read(RowState),
    /// The change was made.
    Applied(Version),
    /// The change had been made before.
    AlreadyApplied(Version),
    /// The change was not made: the row has another version.
    Conflict(RowState),
}

/// Why it did not end well.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// Nothing was changed: too few replicas.
    InsufficientReplicas {
        reachable: usize,
        members: usize,
        needed: usize,
    },
    /// Nothing was changed: others kept changing the row, or this member has too much to do.
    Contended,
    /// Nothing was changed: the ring has a later epoch.
    StaleEpoch(Epoch),
    /// It may have been changed, or may yet be.
    OutcomeUnknown,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_epoch_is_settled_once_a_majority_of_the_same_replicas_was_in_it() {
        let (rounds, id) = (Rounds::default(), |i| MemberId::from_bytes([i; 16]));
        let (one, other) = ([id(1), id(2), id(3)], [id(1), id(2), id(4)]);
        let returned = Epoch::FOUNDING.next_return();
        assert!(rounds.settle(&one, Epoch::FOUNDING));
        assert!(!rounds.settle(&one, returned));
        assert!(rounds.settle(&one, returned));
        assert!(!rounds.settle(&other, returned));
        assert!(!rounds.settle(&one, returned.next_return()));
    }

    #[test]
    fn a_round_is_handed_out_once_and_is_above_what_it_has_to_pass() {
        let rounds = Rounds::default();
        let mut seen = BTreeSet::new();
        for floor in [0, 0, 7, 3, 7, 7, 100, 0] {
            let round = rounds.above(floor);
            assert!(round > floor);
            assert!(seen.insert(round));
        }
        assert!(rounds.pass(1000) && rounds.above(0) > 1000);
        // Nobody can be there.
        assert!(!rounds.pass(u64::MAX) && rounds.above(0) < 2000);
    }
}
