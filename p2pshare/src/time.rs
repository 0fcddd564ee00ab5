//! Wall time as the ring tells it. A [`Timestamp`] is only ever compared with another of the ring;
//! how long something takes is measured by a monotonic clock and never by these.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, in the ring's time (the median of its members' clocks).
#[derive(
    Copy, Clone, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize,
)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The instant `millis` milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This instant moved `by` later, or the last one that can be told.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// How long after `earlier` this instant is; zero when it is not after it.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The ring's time as one party learnt it: a reading and the local monotonic instant at which it was made.
/// Whatever happens to the wall clock does not move it.
///
/// It never goes back and never stands still: where a reading is behind what it said before, it goes on at half
/// the speed until the reading has come up to it. So what expires does, and parties that differ come together.
#[derive(Copy, Clone, Debug)]
pub(crate) struct RingClock {
    at: Instant,
    /// What was read then, since the Unix epoch.
    read: Duration,
    /// What it said then at least. Not in whole milliseconds, lest half of few of them be none.
    least: Duration,
}

impl RingClock {
    /// A clock that said `read` at the monotonic instant `at`.
    pub(crate) const fn new(read: Timestamp, at: Instant) -> Self {
        let read = Duration::from_millis(read.0);
        let least = read;
        Self { at, read, least }
    }

    /// The ring's time at the monotonic instant `now`.
    pub(crate) fn now(&self, now: Instant) -> Timestamp {
        let millis = self.says(now).as_millis();
        Timestamp(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// Follows a newer reading.
    pub(crate) fn update(&mut self, read: Timestamp, at: Instant) {
        let least = self.says(at);
        *self = Self {
            least,
            ..Self::new(read, at)
        };
    }

    /// Goes to at least `least`, and follows the same reading as before.
    pub(crate) fn raise(&mut self, least: Timestamp, at: Instant) {
        let since = at.saturating_duration_since(self.at);
        *self = Self {
            at,
            read: self.read.saturating_add(since),
            least: self.says(at).max(Duration::from_millis(least.0)),
        };
    }

    fn says(&self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.at);
        let read = self.read.saturating_add(since);
        read.max(self.least.saturating_add(since / 2))
    }
}

/// How a [`Duration`] travels: as whole milliseconds. Serde's own form carries nanoseconds beyond a second over into
/// the seconds, so that one duration has many forms, some of them shorter than the one that is written.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let late = Timestamp::from_millis(u64::MAX);
        assert_eq!(late.saturating_add(Duration::from_secs(1)), late);
        assert_eq!(
            Timestamp::from_millis(1).saturating_since(late),
            Duration::ZERO
        );
    }

    #[test]
    fn a_ring_clock_goes_on_from_what_was_read() {
        let start = Instant::now();
        let clock = RingClock::new(Timestamp::from_millis(1_000), start);
        let later = start + Duration::from_millis(500);
        assert_eq!(clock.now(start), Timestamp::from_millis(1_000));
        assert_eq!(clock.now(later), Timestamp::from_millis(1_500));
    }

    #[test]
    fn a_ring_clock_that_is_ahead_of_what_is_read_slows_down_until_it_is_not() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut clock = RingClock::new(Timestamp::from_millis(9_000), start);
        // Read each millisecond, of which half is none.
        for millis in 0..=10_000 {
            let before = clock.now(at(millis));
            clock.update(Timestamp::from_millis(5_000 + millis), at(millis));
            assert_eq!(clock.now(at(millis)), before);
            let expected = (9_000 + millis / 2).max(5_000 + millis);
            assert_eq!(before.as_millis(), expected, "after {millis} ms");
        }
        // Forward it goes at once.
        clock.update(Timestamp::from_millis(60_000), at(10_000));
        assert_eq!(clock.now(at(10_001)), Timestamp::from_millis(60_001));
    }

    #[test]
    fn a_ring_clock_that_is_raised_comes_back_to_what_was_read() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut clock = RingClock::new(Timestamp::from_millis(1_000), start);
        clock.raise(Timestamp::from_millis(900), at(100));
        assert_eq!(clock.now(at(100)), Timestamp::from_millis(1_100));
        clock.raise(Timestamp::from_millis(1_600), at(200));
        assert_eq!(clock.now(at(200)), Timestamp::from_millis(1_600));
        assert_eq!(clock.now(at(600)), Timestamp::from_millis(1_800));
        assert_eq!(clock.now(at(1_100)), Timestamp::from_millis(2_100));
    }
}
