//! The ring's time: the median of what its members' clocks say.
//!
//! Each member remembers what the others' clocks said, as told by their answers, and how long ago that was by a
//! clock that nobody sets. Its own clock is one voice among them: so one wrong clock of three moves nothing,
//! not even the member's own at the moment when it is set, and two members that an hour lies between agree on
//! the middle.
//!
//! **Invariant.** It never goes back once all members have been heard, or have had time to be: what one wrong clock
//! said while others were silent does not last.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::planted::{Fault, planted};
use crate::identity::MemberId;
use crate::limits::CLOCKS_PATIENCE;
use crate::time::Timestamp;

/// What one member knows of the others' clocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct RingTime {
    heard: BTreeMap<MemberId, Heard>,
    /// What it never goes behind.
    told: Timestamp,
    /// When it was asked first.
    began: Option<Instant>,
}

/// What a clock said.
#[derive(Copy, Clone, Debug)]
struct Heard {
    /// In milliseconds.
    said: i64,
    at: Instant,
    /// How exactly that is known.
    round_trip: Duration,
}

impl Heard {
    /// What it says now, in milliseconds.
    fn says(&self, now: Instant) -> i64 {
        let since = now.saturating_duration_since(self.at).as_millis();
        self.said
            .saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
    }
}

impl RingTime {
    /// Hears what a member's clock said, in an answer that came after `round_trip` and now.
    pub(crate) fn hear(
        &mut self,
        from: MemberId,
        theirs: Timestamp,
        round_trip: Duration,
        now: Instant,
    ) {
        let half = i64::try_from(round_trip.as_millis() / 2).unwrap_or(i64::MAX);
        let news = Heard {
            said: millis(theirs).saturating_add(half),
            at: now,
            round_trip,
        };
        let known = self.heard.entry(from).or_insert(news);
        // A quick answer tells more than a slow one, unless the clock was set since.
        let drift = known.says(now).saturating_sub(news.said).unsigned_abs();
        let inexact = (round_trip + known.round_trip).as_millis();
        if round_trip <= known.round_trip || u128::from(drift) > inexact {
            *known = news;
        }
    }

    /// Keeps only what is known of these members.
    pub(crate) fn retain(&mut self, is_member: impl Fn(MemberId) -> bool) {
        self.heard.retain(|member, _| is_member(*member));
    }

    /// The ring's time now, when this member's clock says `own`, in a ring of so many members.
    pub(crate) fn now(&mut self, own: Timestamp, now: Instant, members: usize) -> Timestamp {
        let is_settled = self.is_settled(now, members);
        let mut clocks: Vec<i64> = self.heard.values().map(|heard| heard.says(now)).collect();
        clocks.push(millis(own));
        clocks.sort_unstable();
        let middle = clocks.len() / 2;
        let median = match clocks.len() % 2 {
            _ if planted(Fault::OwnClockBelieved) => millis(own),
            0 => clocks[middle - 1].midpoint(clocks[middle]),
            _ => clocks[middle],
        };
        let time = Timestamp::from_millis(u64::try_from(median).unwrap_or(0));
        if planted(Fault::TimeGoesBack) {
            return time;
        }
        let time = self.told.max(time);
        if is_settled {
            self.told = time;
        }
        time
    }

    /// Whether all of so many members were heard, or have had time to be since this was asked first.
    pub(crate) fn is_settled(&mut self, now: Instant, members: usize) -> bool {
        let began = *self.began.get_or_insert(now);
        let is_late = now.saturating_duration_since(began) >= CLOCKS_PATIENCE;
        is_late || self.heard.len() + 1 >= members
    }
}

fn millis(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const SOON: Duration = Duration::from_millis(2);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn id(i: u8) -> MemberId {
        MemberId::from_bytes([i; 16])
    }

    #[test]
    fn one_wrong_clock_of_three_moves_nobody() {
        let (right, now) = (10 * HOUR, Instant::now());
        for wrong in [right + HOUR, right - HOUR] {
            let mut one = RingTime::default();
            one.hear(id(2), at(right), SOON, now);
            one.hear(id(3), at(wrong), SOON, now);
            assert!(one.now(at(right), now, 3).as_millis().abs_diff(right) <= 2);
            let mut three = RingTime::default();
            three.hear(id(1), at(right), SOON, now);
            three.hear(id(2), at(right), SOON, now);
            assert!(three.now(at(wrong), now, 3).as_millis().abs_diff(right) <= 2);
        }
    }

    #[test]
    fn a_clock_that_is_set_moves_not_even_its_own_member() {
        let (right, now) = (10 * HOUR, Instant::now());
        let mut time = RingTime::default();
        time.hear(id(2), at(right), SOON, now);
        time.hear(id(3), at(right), SOON, now);
        assert!(time.now(at(right), now, 3).as_millis().abs_diff(right) <= 2);
        let (later, now) = (right + 60_000, now + Duration::from_secs(60));
        let told = time.now(at(later + HOUR), now, 3);
        assert!(told.as_millis().abs_diff(later) <= 2, "{told:?}");
    }

    #[test]
    fn two_agree_on_the_middle_and_one_on_itself() {
        let (early, late, now) = (10 * HOUR, 11 * HOUR, Instant::now());
        let (mut one, mut two) = (RingTime::default(), RingTime::default());
        one.hear(id(2), at(late), Duration::ZERO, now);
        two.hear(id(1), at(early), Duration::ZERO, now);
        assert_eq!(one.now(at(early), now, 3), two.now(at(late), now, 3));
        assert_eq!(one.now(at(early), now, 3), at(early + HOUR / 2));
        assert_eq!(RingTime::default().now(at(early), now, 1), at(early));
    }

    #[test]
    fn it_never_goes_back_although_clocks_do() {
        let (mut time, now) = (RingTime::default(), Instant::now());
        assert_eq!(time.now(at(HOUR), now, 1), at(HOUR));
        assert_eq!(time.now(at(1), now, 1), at(HOUR));
        time.hear(id(2), at(1), SOON, now);
        time.hear(id(3), at(1), SOON, now);
        assert_eq!(time.now(at(HOUR), now, 1), at(HOUR));
        let later = now + Duration::from_millis(2 * HOUR);
        assert_eq!(
            time.now(at(3 * HOUR), later, 1).as_millis() / 10,
            2 * HOUR / 10
        );
    }

    #[test]
    fn a_quick_answer_tells_more_than_a_slow_one() {
        let (mut time, now) = (RingTime::default(), Instant::now());
        time.hear(id(2), at(2_000), SOON, now);
        time.hear(id(2), at(2_300), Duration::from_secs(1), now);
        assert_eq!(time.heard[&id(2)].says(now), 2_001);
        // Set anew: no delay explains that.
        time.hear(id(2), at(9_000), Duration::from_secs(1), now);
        assert_eq!(time.heard[&id(2)].says(now), 9_500);
    }

    #[test]
    fn what_one_wrong_clock_said_before_the_others_does_not_last() {
        let (right, now) = (10 * HOUR, Instant::now());
        for wrong in [right + HOUR, right - HOUR] {
            // Its own clock is wrong, or that of whom it hears first.
            for (own, first) in [(wrong, right), (right, wrong)] {
                let mut time = RingTime::default();
                assert_eq!(time.now(at(own), now, 3), at(own));
                time.hear(id(2), at(first), Duration::ZERO, now);
                assert_ne!(time.now(at(own), now, 3), at(right));
                time.hear(id(3), at(right), Duration::ZERO, now);
                assert_eq!(time.now(at(own), now, 3), at(right));
            }
        }
        // Whoever is heard by nobody has no other time than its own, and keeps it.
        let mut time = RingTime::default();
        time.now(at(right), now, 3);
        let later = now + CLOCKS_PATIENCE;
        assert_eq!(time.now(at(right), later, 3), at(right));
        assert_eq!(time.now(at(right - HOUR), later, 3), at(right));
    }
}
