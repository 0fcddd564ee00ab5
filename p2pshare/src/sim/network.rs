//! The network between the members of a world: who hears whom, how late, how often, and who learns that
//! nothing was heard.
//!
//! Messages overtake each other, since each has a delay of its own. A lost one is noticed by its sender at
//! once, as when a connection breaks, or never, so that only time tells.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::SmallRng;

/// How well messages travel.
#[derive(Clone, Debug)]
pub(super) struct Network {
    /// Who cannot be heard by whom: sender and receiver.
    cut: BTreeSet<(usize, usize)>,
    /// Of a thousand messages so many are lost.
    pub(super) lost: u32,
    /// Of a thousand messages so many come twice.
    pub(super) doubled: u32,
    /// Of a thousand messages so many are late by up to [`LATE_MAX`].
    pub(super) late: u32,
    /// The longest that the others take.
    pub(super) delay: Duration,
}

/// What becomes of one message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Fate {
    /// After how long it arrives, for each time that it does.
    pub(super) arrives: Vec<Duration>,
    /// After how long the sender learns that it did not.
    pub(super) failed: Option<Duration>,
}

impl Network {
    /// One without faults.
    pub(super) fn new() -> Self {
        Self {
            cut: BTreeSet::new(),
            lost: 0,
            doubled: 0,
            late: 0,
            delay: Duration::from_millis(4),
        }
    }

    /// No faults any more.
    pub(super) fn heal(&mut self) {
        *self = Self::new();
    }

    /// Nobody is cut off any more.
    pub(super) fn join(&mut self) {
        self.cut.clear();
    }

    /// From now on `from` is not heard by `to`.
    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// Whether two can speak with each other.
    pub(super) fn linked(&self, a: usize, b: usize) -> bool {
        !self.cut.contains(&(a, b)) && !self.cut.contains(&(b, a))
    }

    /// What becomes of a message.
    pub(super) fn fate(&self, rng: &mut SmallRng, from: usize, to: usize) -> Fate {
        if from == to {
            return Fate {
                arrives: vec![Duration::from_micros(rng.random_range(1..50))],
                failed: None,
            };
        }
        let one_in = |rng: &mut SmallRng, of_thousand| rng.random_range(0..1000) < of_thousand;
        if self.cut.contains(&(from, to)) || one_in(rng, self.lost) {
            return Fate {
                arrives: Vec::new(),
                failed: rng.random_bool(0.5).then(|| self.delay(rng)),
            };
        }
        let mut arrives = vec![self.delay(rng)];
        if one_in(rng, self.doubled) {
            arrives.push(self.delay(rng) * 4);
        }
        if one_in(rng, self.late) {
            let late = rng.random_range(0..LATE_MAX.as_micros() as u64);
            arrives[0] += Duration::from_micros(late);
        }
        Fate {
            arrives,
            failed: None,
        }
    }

    fn delay(&self, rng: &mut SmallRng) -> Duration {
        Duration::from_micros(rng.random_range(50..=self.delay.as_micros() as u64))
    }
}

/// The longest that a message is under way.
pub(super) const LATE_MAX: Duration = Duration::from_secs(8);
