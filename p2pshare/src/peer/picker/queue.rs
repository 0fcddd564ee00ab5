//! What one source was asked for, how fast it gives, and how much of it is asked for at once: what is under way
//! on the path in two round trips at that pace, and a little for whoever is slow to read it. A path on which
//! more comes is asked for more, one on which packets are lost slows down and is asked for less.

use std::{collections::VecDeque, time::Duration};

use crate::{
    content::{Bitfield, CHUNK_SIZE},
    limits::{CHUNK_WINDOW, CHUNK_WINDOW_FIRST, CHUNK_WINDOW_SLACK},
};

/// A source of chunks.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) holds: Bitfield,
    /// What it said that it gave to others, if it ever did.
    pub(super) gave: Option<Bitfield>,
    /// Whether it counts what it holds: it did not hold everything when it came.
    pub(super) counts: bool,
    /// Not answered yet, in order.
    pub(super) queue: VecDeque<u32>,
    /// Since when the first of them is awaited.
    pub(super) since: Duration,
    pub(super) pace: Pace,
    /// Whether it is to be asked for nothing more.
    pub(super) retired: bool,
    /// The shortest round trip of the path that was seen.
    pub(super) round_trip: Option<Duration>,
    /// The chunk after the one that it was asked for last.
    pub(super) next: u32,
    /// Of the queue, what another gives instead, and the source has not been told.
    pub(super) unwanted: Vec<u32>,
}

/// How fast chunks come, those that came last counting most.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Pace {
    bytes: f64,
    seconds: f64,
}

impl Pace {
    pub(super) fn note(&mut self, bytes: u32, time: Duration) {
        self.bytes = self.bytes * PACE_KEPT + f64::from(bytes);
        self.seconds = self.seconds * PACE_KEPT + time.as_secs_f64();
    }

    /// Seconds for one chunk, once any came.
    pub(super) fn chunk_time(&self) -> Option<f64> {
        (self.bytes > 0.0).then(|| f64::from(CHUNK_SIZE) * self.seconds / self.bytes)
    }
}

impl Asked {
    pub(super) fn new(holds: Bitfield) -> Self {
        Self {
            counts: !holds.is_complete(),
            holds,
            gave: None,
            queue: VecDeque::new(),
            since: Duration::ZERO,
            pace: Pace::default(),
            retired: false,
            round_trip: None,
            next: u32::MAX,
            unwanted: Vec::new(),
        }
    }

    /// How many chunks it may be asked for at once.
    pub(super) fn window(&self) -> usize {
        let Some(time) = self.pace.chunk_time() else {
            return CHUNK_WINDOW_FIRST;
        };
        let path = 2 * self.round_trip.unwrap_or_default() + CHUNK_WINDOW_SLACK;
        // A time of zero gives the largest one.
        let under_way = (path.as_secs_f64() / time - IDLE_SHARE).ceil();
        (under_way.max(0.0) as usize)
            .saturating_add(1)
            .min(CHUNK_WINDOW)
    }

    /// For how long the first answer has been awaited, in seconds.
    pub(super) fn waited(&self, now: Duration) -> f64 {
        match self.queue.is_empty() {
            true => 0.0,
            false => now.saturating_sub(self.since).as_secs_f64(),
        }
    }

    /// Seconds for one chunk, as far as can be told: at least what it has taken already.
    pub(super) fn chunk_time(&self, now: Duration) -> f64 {
        self.waited(now)
            .max(self.pace.chunk_time().unwrap_or_default())
    }

    /// Seconds until the first answer is complete. What is overdue may take as long again as it took.
    pub(super) fn rest(&self, now: Duration) -> f64 {
        let waited = self.waited(now);
        match self.pace.chunk_time() {
            Some(time) if time > waited => time - waited,
            _ => waited,
        }
    }

    /// It is asked for a chunk.
    pub(super) fn ask(&mut self, index: u32, now: Duration) {
        if self.queue.is_empty() {
            self.since = now;
        }
        self.queue.push_back(index);
        self.next = index.saturating_add(1);
    }

    /// Takes a chunk out of the queue. How long it was awaited, if it was the first.
    pub(super) fn answered(&mut self, index: u32, now: Duration) -> Option<Duration> {
        let place = self.queue.iter().position(|&asked| asked == index)?;
        self.queue.remove(place);
        self.unwanted.retain(|&unwanted| unwanted != index);
        match place {
            0 => Some(now.saturating_sub(std::mem::replace(&mut self.since, now))),
            _ => None,
        }
    }
}

/// How much of what was known of a pace counts after another chunk.
const PACE_KEPT: f64 = 0.75;
/// The share of its time that a slow path may idle, so that it need not be asked for two chunks at once.
const IDLE_SHARE: f64 = 1.0 / 16.0;
