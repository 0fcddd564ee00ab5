//! Wall time as the ring tells it. A [`Timestamp`] is only ever compared with another of the ring;
//! how long something takes is measured by a monotonic clock and never by these.

use std::time::Duration;

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

/// The ring's time as one party learnt it: a reading of the ring's clock and the local monotonic
/// instant at which it was read. Whatever happens to the wall clock does not move it.
#[derive(Copy, Clone, Debug)]
pub(crate) struct RingClock {
    read: Timestamp,
    at: std::time::Instant,
}

impl RingClock {
    /// A clock that said `read` at the monotonic instant `at`.
    pub(crate) const fn new(read: Timestamp, at: std::time::Instant) -> Self {
        Self { read, at }
    }

    /// The ring's time at the monotonic instant `now`.
    pub(crate) fn now(&self, now: std::time::Instant) -> Timestamp {
        self.read
            .saturating_add(now.saturating_duration_since(self.at))
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
    use std::time::Instant;

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
}
