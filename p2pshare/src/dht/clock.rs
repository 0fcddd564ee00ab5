//! The ring's time: the median of what its members' clocks say.
//!
//! Each member remembers what the others' clocks said, as told by their answers, and how long ago that was by a
//! clock that nobody sets. Its own clock is one voice among them: so one wrong clock of three moves nothing,
//! not even the member's own at the moment when it is set, and of two that an hour lies between the middle counts.
//! A member that was not heard yet counts as late: then the median can only come to be later, and needs not to go
//! back for the one who is heard last. Before a majority was heard nothing is known. Where most members begin anew
//! and one that is away is missing, a clock that is late has the say, but not over what the ring's time was: a life
//! begins with that, as the disk has it.
//!
//! Members tell each other what they make of it too, and nobody stays behind what another tells. So all that speak
//! with each other have one time, also where one of them has heard a clock that the others have not, and where
//! most clocks were set back: then they come down to the median together, at half the speed of time.
//!
//! **Invariant.** Once it is known it never goes back, and never stands still; over the lives of a member it goes back
//! by no more than lies between two notes of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::planted::{Fault, planted};
use crate::identity::MemberId;
use crate::time::{RingClock, Timestamp};
use crate::wire::ring::Clocks;

/// What one member knows of the others' clocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct RingTime {
    heard: BTreeMap<MemberId, Heard>,
    /// What was the ring's time before this life.
    past: Timestamp,
    /// The ring's time, once it is known.
    clock: Option<RingClock>,
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
    /// Of a life before which it was once `past`.
    pub(crate) fn after(past: Timestamp) -> Self {
        Self {
            past,
            ..Self::default()
        }
    }

    /// Hears what a member told of the time, in an answer that came after `round_trip` and now.
    pub(crate) fn hear(
        &mut self,
        from: MemberId,
        theirs: Clocks,
        round_trip: Duration,
        now: Instant,
    ) {
        let half = i64::try_from(round_trip.as_millis() / 2).unwrap_or(i64::MAX);
        let news = Heard {
            said: millis(theirs.own).saturating_add(half),
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
        // Of that, what it was under way does not count: two that told each other would be carried away.
        if let Some(ring) = theirs.ring
            && !planted(Fault::OthersTimeIgnored)
        {
            let begun = self.begin(ring, now);
            let clock = self.clock.get_or_insert(begun);
            clock.raise(ring, now);
        }
    }

    /// Keeps only what is known of these members.
    pub(crate) fn retain(&mut self, is_member: impl Fn(MemberId) -> bool) {
        self.heard.retain(|member, _| is_member(*member));
    }

    /// The ring's time now, when this member's clock says `own`, in a ring of so many members; once it is known.
    pub(crate) fn now(
        &mut self,
        own: Timestamp,
        now: Instant,
        members: usize,
    ) -> Option<Timestamp> {
        if let Some(median) = self.median(own, now, members) {
            match &mut self.clock {
                Some(clock) if !planted(Fault::TimeGoesBack) => clock.update(median, now),
                _ => self.clock = Some(self.begin(median, now)),
            }
        }
        self.clock.map(|clock| clock.now(now))
    }

    /// The ring's time once something is known of it.
    fn begin(&self, known: Timestamp, now: Instant) -> RingClock {
        let mut clock = RingClock::new(known, now);
        clock.raise(self.past, now);
        clock
    }

    /// The median of the clocks, or what it is at least as long as some were not heard. `None` if so many were not
    /// that nothing is known.
    fn median(&self, own: Timestamp, now: Instant, members: usize) -> Option<Timestamp> {
        let mut clocks: Vec<i64> = self.heard.values().map(|heard| heard.says(now)).collect();
        clocks.push(millis(own));
        clocks.sort_unstable_by(|one, other| other.cmp(one));
        let (later, earlier) = (members.saturating_sub(1) / 2, members / 2);
        let median = clocks.get(later)?.midpoint(*clocks.get(earlier)?);
        let median = match planted(Fault::OwnClockBelieved) {
            true => millis(own),
            false => median,
        };
        Some(Timestamp::from_millis(u64::try_from(median).unwrap_or(0)))
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
    const RIGHT: u64 = 10 * HOUR;

    /// A member that hears others and is heard by them, which takes no time.
    struct Member {
        time: RingTime,
        id: MemberId,
        /// What its clock said at the beginning.
        clock: u64,
    }

    impl Member {
        fn new(i: u8, clock: u64) -> Self {
            let (time, id) = (RingTime::default(), id(i));
            Self { time, id, clock }
        }

        /// What it tells, so long after the beginning, of a ring of three.
        fn tells(&mut self, began: Instant, after: Duration) -> Clocks {
            let own = at(self.clock).saturating_add(after);
            let ring = self.time.now(own, began + after, 3);
            Clocks { own, ring }
        }

        fn hears(&mut self, other: &mut Self, began: Instant, after: Duration) {
            let told = other.tells(began, after);
            self.time
                .hear(other.id, told, Duration::ZERO, began + after);
        }

        /// How far the ring's time is from the right one, in milliseconds.
        fn off(&mut self, began: Instant, after: Duration) -> i64 {
            let told = self.tells(began, after).ring.unwrap();
            millis(told) - millis(at(RIGHT).saturating_add(after))
        }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn own(millis: u64) -> Clocks {
        let (own, ring) = (at(millis), None);
        Clocks { own, ring }
    }

    fn id(i: u8) -> MemberId {
        MemberId::from_bytes([i; 16])
    }

    #[test]
    fn one_wrong_clock_of_three_moves_nobody() {
        let (right, now) = (RIGHT, Instant::now());
        for wrong in [right + HOUR, right - HOUR] {
            let mut one = RingTime::default();
            one.hear(id(2), own(right), SOON, now);
            one.hear(id(3), own(wrong), SOON, now);
            let told = one.now(at(right), now, 3).unwrap();
            assert!(told.as_millis().abs_diff(right) <= 2);
            let mut three = RingTime::default();
            three.hear(id(1), own(right), SOON, now);
            three.hear(id(2), own(right), SOON, now);
            let told = three.now(at(wrong), now, 3).unwrap();
            assert!(told.as_millis().abs_diff(right) <= 2);
        }
    }

    #[test]
    fn a_clock_that_is_set_moves_not_even_its_own_member() {
        let (right, now) = (RIGHT, Instant::now());
        let mut time = RingTime::default();
        time.hear(id(2), own(right), SOON, now);
        time.hear(id(3), own(right), SOON, now);
        assert!(
            time.now(at(right), now, 3)
                .unwrap()
                .as_millis()
                .abs_diff(right)
                <= 2
        );
        let (later, now) = (right + 60_000, now + Duration::from_secs(60));
        for wrong in [later + HOUR, later - HOUR] {
            let told = time.now(at(wrong), now, 3).unwrap();
            assert!(told.as_millis().abs_diff(later) <= 2, "{told:?}");
        }
    }

    #[test]
    fn a_ring_of_two_has_the_middle_and_one_alone_its_own_clock() {
        let (early, late, now) = (10 * HOUR, 11 * HOUR, Instant::now());
        let (mut one, mut two) = (RingTime::default(), RingTime::default());
        assert_eq!(one.now(at(early), now, 2), None);
        one.hear(id(2), own(late), Duration::ZERO, now);
        two.hear(id(1), own(early), Duration::ZERO, now);
        assert_eq!(one.now(at(early), now, 2), two.now(at(late), now, 2));
        assert_eq!(one.now(at(early), now, 2), Some(at(early + HOUR / 2)));
        let alone = RingTime::default().now(at(early), now, 1);
        assert_eq!(alone, Some(at(early)));
    }

    #[test]
    fn a_clock_that_is_set_back_an_hour_slows_the_time_of_a_ring_of_one_and_stops_it_never() {
        let (mut time, began) = (RingTime::default(), Instant::now());
        assert_eq!(time.now(at(2 * HOUR), began, 1), Some(at(2 * HOUR)));
        let mut before = 2 * HOUR;
        for second in 1..=3 * 3600 {
            let now = began + Duration::from_secs(second);
            let told = time.now(at(HOUR + second * 1000), now, 1).unwrap();
            let told = told.as_millis();
            assert!(told >= before + 500, "{} ms in a second", told - before);
            assert!(told <= before + 1000);
            before = told;
        }
        assert_eq!(before, 4 * HOUR, "it never came back to its clock");
    }

    #[test]
    fn a_quick_answer_tells_more_than_a_slow_one() {
        let (mut time, now) = (RingTime::default(), Instant::now());
        time.hear(id(2), own(2_000), SOON, now);
        time.hear(id(2), own(2_300), Duration::from_secs(1), now);
        assert_eq!(time.heard[&id(2)].says(now), 2_001);
        // Set anew: no delay explains that.
        time.hear(id(2), own(9_000), Duration::from_secs(1), now);
        assert_eq!(time.heard[&id(2)].says(now), 9_500);
    }

    #[test]
    fn whoever_is_heard_late_splits_no_ring_and_turns_nothing_back() {
        let began = Instant::now();
        for wrong in [RIGHT + HOUR, RIGHT - HOUR] {
            let (mut a, mut b) = (Member::new(1, RIGHT), Member::new(2, RIGHT));
            let mut c = Member::new(3, wrong);
            assert_eq!(a.tells(began, Duration::ZERO).ring, None, "of one alone");
            let mut before = [i64::MIN; 2];
            for second in 0..600 {
                let after = Duration::from_secs(second);
                a.hears(&mut c, began, after);
                c.hears(&mut a, began, after);
                let offs = [a.off(began, after), c.off(began, after)];
                assert_eq!(offs[0], offs[1]);
                assert!(before <= offs, "it went back");
                before = offs;
                // The third comes after a minute, and is heard by one of them first.
                if second >= 60 {
                    b.hears(&mut a, began, after);
                    b.hears(&mut c, began, after);
                    c.hears(&mut b, began, after);
                    assert_eq!((b.off(began, after), c.off(began, after)), (0, 0));
                    a.hears(&mut c, began, after);
                    assert_eq!(a.off(began, after), 0);
                    before = [0; 2];
                }
            }
        }
    }

    #[test]
    fn one_that_begins_anew_has_the_time_of_those_that_know_more_clocks() {
        let (began, day) = (Instant::now(), Duration::from_secs(86_400));
        for wrong in [RIGHT + HOUR, RIGHT - HOUR] {
            let (mut b, mut c) = (Member::new(2, RIGHT), Member::new(3, wrong));
            let mut a = Member::new(1, RIGHT);
            c.hears(&mut a, began, Duration::ZERO);
            c.hears(&mut b, began, Duration::ZERO);
            assert_eq!(c.off(began, Duration::ZERO), 0);
            // The one whose clock is right too is away since.
            let mut anew = Member::new(1, RIGHT);
            anew.hears(&mut c, began, day);
            assert_eq!(anew.off(began, day), 0);
        }
    }

    #[test]
    fn a_life_begins_with_what_the_time_was_also_where_a_late_clock_has_the_say() {
        let (began, past) = (Instant::now(), at(RIGHT));
        let (early, later) = (own(RIGHT - HOUR), own(RIGHT + 1_000));
        let (mut a, mut b) = (RingTime::after(past), RingTime::after(past));
        a.hear(id(2), later, Duration::ZERO, began);
        b.hear(id(1), early, Duration::ZERO, began);
        assert_eq!(a.now(early.own, began, 3), Some(past));
        assert_eq!(b.now(later.own, began, 3), Some(past));
        // One that knows nothing of it hears of it, and goes by its own past if that is later.
        let told = Clocks {
            own: early.own,
            ring: Some(past),
        };
        for (own, expected) in [(0, RIGHT), (RIGHT + 5, RIGHT + 5)] {
            let mut c = RingTime::after(at(own));
            c.hear(id(1), told, Duration::ZERO, began);
            assert_eq!(c.now(early.own, began, 3), Some(at(expected)));
        }
        let soon = began + Duration::from_secs(10);
        let late = early.own.saturating_add(Duration::from_secs(10));
        assert_eq!(a.now(late, soon, 3), Some(at(RIGHT + 5_000)));
        assert_eq!(RingTime::after(past).now(early.own, began, 3), None);
    }

    #[test]
    fn all_come_down_together_when_most_clocks_are_set_back() {
        let began = Instant::now();
        let mut members = [1, 2, 3].map(|i| Member::new(i, RIGHT + HOUR));
        let talk = |members: &mut [Member; 3], after| {
            for (one, other) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
                let told = members[other].tells(began, after);
                let from = members[other].id;
                let time = &mut members[one].time;
                time.hear(from, told, Duration::ZERO, began + after);
            }
        };
        talk(&mut members, Duration::ZERO);
        members[0].clock = RIGHT;
        members[1].clock = RIGHT;
        for second in (0..=3 * 3600).step_by(20) {
            let after = Duration::from_secs(second);
            if second == 600 {
                // It knows nothing of what was, but by the others.
                members[2].time = RingTime::default();
            }
            talk(&mut members, after);
            let ahead = (3_600_000 - 500 * second as i64).max(0);
            for member in &mut members {
                let off = member.off(began, after);
                assert!((off - ahead).abs() <= 20_000, "{off} ms off in {second} s");
            }
        }
    }
}
