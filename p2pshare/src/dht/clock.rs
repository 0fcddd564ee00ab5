//! The ring's time: the median of what its members' clocks say.
//!
//! Each member remembers how far the others' clocks are from its own, as told by their answers, and adds the
//! median of these distances, its own zero among them, to its own clock. So one wrong clock of three moves
//! nothing, and two members that an hour lies between agree on the middle.
//!
//! **Invariant.** It never goes back.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::identity::MemberId;
use crate::time::Timestamp;

/// What one member knows of the others' clocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct RingTime {
    /// How many milliseconds the clocks of others are ahead of this member's, and how exactly that is known.
    ahead: BTreeMap<MemberId, (i64, Duration)>,
    told: Timestamp,
}

impl RingTime {
    /// Hears what a member's clock said, in an answer that came after `round_trip` and now, at `own` on this
    /// member's clock.
    pub(crate) fn hear(
        &mut self,
        from: MemberId,
        theirs: Timestamp,
        round_trip: Duration,
        own: Timestamp,
    ) {
        let half = i64::try_from(round_trip.as_millis() / 2).unwrap_or(i64::MAX);
        let ahead = millis(theirs)
            .saturating_add(half)
            .saturating_sub(millis(own));
        let news = (ahead, round_trip);
        let known = self.ahead.entry(from).or_insert(news);
        // A quick answer tells more than a slow one, unless the clock was set since.
        let drift = (known.0.saturating_sub(ahead)).unsigned_abs();
        if round_trip <= known.1 || u128::from(drift) > (round_trip + known.1).as_millis() {
            *known = news;
        }
    }

    /// Keeps only what is known of these members.
    pub(crate) fn retain(&mut self, is_member: impl Fn(MemberId) -> bool) {
        self.ahead.retain(|member, _| is_member(*member));
    }

    /// The ring's time when this member's clock says `own`.
    pub(crate) fn now(&mut self, own: Timestamp) -> Timestamp {
        let mut ahead: Vec<i64> = self.ahead.values().map(|(ahead, _)| *ahead).collect();
        ahead.push(0);
        ahead.sort_unstable();
        let middle = ahead.len() / 2;
        let median = match ahead.len() % 2 {
            0 => ahead[middle - 1].midpoint(ahead[middle]),
            _ => ahead[middle],
        };
        let now = u64::try_from(millis(own).saturating_add(median)).unwrap_or(0);
        self.told = self.told.max(Timestamp::from_millis(now));
        self.told
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
        let right = 10 * HOUR;
        for wrong in [right + HOUR, right - HOUR] {
            let mut one = RingTime::default();
            one.hear(id(2), at(right), SOON, at(right));
            one.hear(id(3), at(wrong), SOON, at(right));
            assert!(one.now(at(right)).as_millis().abs_diff(right) <= 2);
            let mut three = RingTime::default();
            three.hear(id(1), at(right), SOON, at(wrong));
            three.hear(id(2), at(right), SOON, at(wrong));
            assert!(three.now(at(wrong)).as_millis().abs_diff(right) <= 2);
        }
    }

    #[test]
    fn two_agree_on_the_middle_and_one_on_itself() {
        let (early, late) = (10 * HOUR, 11 * HOUR);
        let (mut one, mut two) = (RingTime::default(), RingTime::default());
        one.hear(id(2), at(late), Duration::ZERO, at(early));
        two.hear(id(1), at(early), Duration::ZERO, at(late));
        assert_eq!(one.now(at(early)), two.now(at(late)));
        assert_eq!(one.now(at(early)), at(early + HOUR / 2));
        assert_eq!(RingTime::default().now(at(early)), at(early));
    }

    #[test]
    fn it_never_goes_back_although_clocks_do() {
        let mut time = RingTime::default();
        assert_eq!(time.now(at(HOUR)), at(HOUR));
        assert_eq!(time.now(at(1)), at(HOUR));
        time.hear(id(2), at(1), SOON, at(HOUR));
        time.hear(id(3), at(1), SOON, at(HOUR));
        assert_eq!(time.now(at(HOUR)), at(HOUR));
        assert_eq!(time.now(at(3 * HOUR)).as_millis() / 10, 2 * HOUR / 10);
    }

    #[test]
    fn a_quick_answer_tells_more_than_a_slow_one() {
        let mut time = RingTime::default();
        time.hear(id(2), at(2_000), SOON, at(1_000));
        time.hear(id(2), at(2_300), Duration::from_secs(1), at(1_000));
        assert_eq!(time.ahead[&id(2)].0, 1_001);
        // Set anew: no delay explains that.
        time.hear(id(2), at(9_000), Duration::from_secs(1), at(1_000));
        assert_eq!(time.ahead[&id(2)].0, 8_500);
    }
}
