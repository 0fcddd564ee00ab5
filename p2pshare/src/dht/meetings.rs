//! When a member next compares what it has with each of the others: at once when one comes within reach, soon again
//! when not all came of it that should have, and otherwise now and then.
//!
//! **Invariant.** Whoever is within reach has a turn, which is due no later than an interval after the last one was over,
//! jitter aside. Turns are one at a time, so that one that is due waits for the end of those before it, however long
//! they take.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::identity::MemberId;
use crate::limits::MEETING_RETRY_FIRST;

/// The turns of the others.
#[derive(Debug)]
pub(super) struct Meetings {
    /// How often each has its turn, more or less.
    every: Duration,
    turns: BTreeMap<MemberId, Turn>,
}

#[derive(Copy, Clone, Debug)]
struct Turn {
    at: Instant,
    /// How often in a row not all came of it.
    failures: u32,
}

impl Meetings {
    pub(super) fn new(every: Duration) -> Self {
        Self {
            every,
            turns: BTreeMap::new(),
        }
    }

    /// These and no others are within reach.
    pub(super) fn reach(&mut self, now: Instant, others: &BTreeSet<MemberId>) {
        self.turns.retain(|other, _| others.contains(other));
        for other in others {
            let at_once = Turn {
                at: now,
                failures: 0,
            };
            self.turns.entry(*other).or_insert(at_once);
        }
    }

    /// Whose turn comes first, and when.
    pub(super) fn next(&self) -> Option<(Instant, MemberId)> {
        let turns = self.turns.iter().map(|(other, turn)| (turn.at, *other));
        turns.min()
    }

    /// The turn of `other` is over; `whole` says whether all came of it. `jitter` is what the pause until the next
    /// one is multiplied by, about 1.
    pub(super) fn over(&mut self, now: Instant, other: MemberId, whole: bool, jitter: f64) {
        let Some(turn) = self.turns.get_mut(&other) else {
            return;
        };
        turn.failures = if whole { 0 } else { turn.failures + 1 };
        let pause = match turn.failures.checked_sub(1) {
            None => self.every,
            Some(before) => MEETING_RETRY_FIRST
                .saturating_mul(1 << before.min(16))
                .min(self.every),
        };
        turn.at = now + pause.mul_f64(jitter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(60);

    fn id(number: u8) -> MemberId {
        MemberId::from_bytes([number; 16])
    }

    #[test]
    fn whoever_comes_within_reach_has_its_turn_at_once_and_then_now_and_then() {
        let (mut meetings, now) = (Meetings::new(EVERY), Instant::now());
        assert_eq!(meetings.next(), None);
        meetings.reach(now, &[id(1)].into());
        assert_eq!(meetings.next(), Some((now, id(1))));
        meetings.over(now, id(1), true, 1.0);
        let (at, _) = meetings.next().unwrap();
        assert_eq!(at, now + EVERY);
        // Another one does not move it, and it stays while it is within reach.
        meetings.reach(now, &[id(1), id(2)].into());
        assert_eq!(meetings.next(), Some((now, id(2))));
        meetings.over(now, id(2), true, 1.0);
        meetings.reach(now, &[id(1)].into());
        assert_eq!(meetings.next(), Some((at, id(1))));
        // Gone and come back.
        meetings.reach(now, &BTreeSet::new());
        assert_eq!(meetings.next(), None);
        meetings.reach(now, &[id(1)].into());
        assert_eq!(meetings.next(), Some((now, id(1))));
    }

    #[test]
    fn what_did_not_come_whole_is_tried_again_soon_and_ever_later() {
        let (mut meetings, now) = (Meetings::new(EVERY), Instant::now());
        meetings.reach(now, &[id(1)].into());
        for failures in 0..40u32 {
            meetings.over(now, id(1), false, 1.0);
            let pause = meetings.next().unwrap().0 - now;
            let expected = (MEETING_RETRY_FIRST * (1 << failures.min(10))).min(EVERY);
            assert_eq!(pause, expected);
        }
        meetings.over(now, id(1), true, 1.0);
        meetings.over(now, id(1), false, 1.0);
        assert_eq!(meetings.next(), Some((now + MEETING_RETRY_FIRST, id(1))));
        // A pause of another length, so that no two members keep the same time.
        meetings.over(now, id(1), true, 0.75);
        assert_eq!(meetings.next(), Some((now + EVERY * 3 / 4, id(1))));
    }
}
