//! What a replica has promised and not yet seen accepted, in memory, beneath a ceiling on disk.
//!
//! A promise only ever forbids, so that to promise more than was asked is always safe. That makes promises
//! cheap: they are kept in memory alone as long as their rounds are at most a **ceiling** that is on disk, and
//! after a restart everything up to the ceiling counts as promised, for every row. And it bounds them: when
//! there are too many, the highest of their rounds becomes the **floor** beneath all rows. What is accepted is beneath
//! the ceiling too: so it bounds also what a replica accepted for a row that can no longer be read.
//!
//! **Invariant.** Whatever was promised in any life of this replica since it last lost its disk is promised
//! still.

use std::collections::HashMap;

use super::planted::{Fault, planted, room_for};
use crate::limits::{BALLOT_ROUND_MAX, PROMISE_ROUNDS_AT_ONCE, PROMISES_MAX};
use crate::wire::ring::{Ballot, RowKey};

/// The promises of one life.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promises {
    /// Every ballot of this round or a lower one is refused, for every row.
    floor: u64,
    /// As on disk.
    ceiling: u64,
    made: HashMap<RowKey, Ballot>,
}

impl Promises {
    /// Those of a life that begins with this ceiling on disk; zero when there is none.
    pub(crate) fn after_restart(ceiling: u64) -> Self {
        Self {
            floor: ceiling,
            ceiling,
            made: HashMap::new(),
        }
    }

    /// Below what nothing is taken for a row, as far as it is not its accepted ballot that says so.
    pub(crate) fn of(&self, key: &RowKey) -> Ballot {
        let floor = Ballot::last_of(self.floor);
        self.made.get(key).map_or(floor, |made| floor.max(*made))
    }

    /// Remembers a promise. If that gives a new ceiling, it has to be on disk before anybody hears of the
    /// promise.
    #[must_use]
    pub(crate) fn make(&mut self, key: RowKey, ballot: Ballot) -> Option<u64> {
        if self.made.len() >= room_for(PROMISES_MAX) && !self.made.contains_key(&key) {
            let rounds = self.made.drain().map(|(_, made)| made.round);
            let highest = rounds.fold(self.floor, u64::max);
            if !planted(Fault::FloorNotRaised) {
                self.floor = highest;
            }
        }
        self.made.insert(key, ballot);
        self.cover(ballot.round)
    }

    /// Raises the ceiling above a round that is promised or accepted, if it is not. The new one has to be on disk
    /// before anybody hears of that.
    #[must_use]
    pub(crate) fn cover(&mut self, round: u64) -> Option<u64> {
        if round <= self.ceiling {
            return None;
        }
        let ceiling = round.saturating_add(PROMISE_ROUNDS_AT_ONCE);
        self.ceiling = ceiling.min(BALLOT_ROUND_MAX).max(round);
        Some(self.ceiling)
    }

    /// No round was ever promised or accepted above this one.
    pub(crate) fn ceiling(&self) -> u64 {
        self.ceiling
    }

    /// Forgets the promise for a row that has accepted `ballot`, if it says no more than that.
    pub(crate) fn settle(&mut self, key: &RowKey, ballot: Ballot) {
        if self.made.get(key).is_some_and(|made| *made <= ballot) {
            self.made.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::MemberId;

    fn ballot(round: u64) -> Ballot {
        Ballot {
            round,
            member: MemberId::from_bytes([1; 16]),
            incarnation: 1,
        }
    }

    fn key(name: u32) -> RowKey {
        RowKey::new(name.to_be_bytes(), "s").unwrap()
    }

    #[test]
    fn a_promise_outlives_the_life_that_made_it() {
        let mut promises = Promises::default();
        assert_eq!(promises.of(&key(1)), Ballot::last_of(0));
        let ceiling = promises.make(key(1), ballot(5)).unwrap();
        assert_eq!(promises.of(&key(1)), ballot(5));
        assert!(promises.of(&key(2)) < ballot(1));
        // Nothing new for the disk, up to the ceiling.
        assert_eq!(promises.make(key(2), ballot(ceiling)), None);
        let next = Promises::after_restart(ceiling);
        for name in [1, 2, 3] {
            assert!(next.of(&key(name)) >= ballot(ceiling));
        }
        assert!(next.of(&key(1)) < ballot(ceiling + 1));
        assert!(promises.make(key(1), ballot(ceiling + 1)).unwrap() > ceiling + 1);
        // What it says it promised can be told to others.
        assert_eq!(
            promises.make(key(1), ballot(BALLOT_ROUND_MAX - 1)),
            Some(BALLOT_ROUND_MAX)
        );
    }

    #[test]
    fn a_promise_is_forgotten_once_the_accepted_ballot_says_as_much() {
        let mut promises = Promises::default();
        _ = promises.make(key(1), ballot(5));
        promises.settle(&key(1), ballot(4));
        assert_eq!(promises.of(&key(1)), ballot(5));
        promises.settle(&key(1), ballot(5));
        assert_eq!(promises.of(&key(1)), Ballot::last_of(0));
    }

    #[test]
    fn too_many_promises_become_a_floor_that_keeps_them_all() {
        let mut promises = Promises::default();
        let many = PROMISES_MAX as u32 + 1;
        for name in 0..many {
            _ = promises.make(key(name), ballot(u64::from(name) + 1));
        }
        assert!(promises.made.len() <= PROMISES_MAX);
        for name in 0..many {
            assert!(
                promises.of(&key(name)) >= ballot(u64::from(name) + 1),
                "{name}"
            );
        }
    }
}
