//! Which chunk to ask whom for next, and what to ask somebody else for as well. Pure: the time is an argument,
//! counted from whenever the download began.
//!
//! Every chunk is in exactly one place: had, arrived (verified, and about to be written), asked of the one
//! source it is expected of, or missing. Whatever becomes of a source, what is expected of it is missing
//! again, or expected of another that was asked for it too.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{
    content::{Bitfield, CHUNK_SIZE, ChunkIndex, Layout},
    limits::{
        CHUNK_WINDOW, CHUNK_WINDOW_FIRST, CHUNK_WINDOW_TIME, DUPLICATE_BYTES_SHARE_MAX,
        SLOW_SOURCE_PATIENCE, STUCK_SOURCE_PATIENCE,
    },
};

/// The chunks of one download.
#[derive(Debug)]
pub(super) struct Picker {
    layout: Layout,
    had: Bitfield,
    /// All but the missing ones.
    taken: Bitfield,
    /// Asked for, and of whom each is expected; it is in that source's queue.
    asked: BTreeMap<u32, SourceId>,
    /// Chunks that are in more than one queue, and how many bytes of each are risked.
    doubled: BTreeMap<u32, u64>,
    sources: BTreeMap<SourceId, Asked>,
    /// Where the sweep over the file begins.
    start: u32,
    /// Bytes that were asked for twice and may come twice.
    risked_bytes: u64,
    news: bool,
}

/// A source of chunks, as the picker knows it.
pub(super) type SourceId = u64;

/// What one source was asked for.
#[derive(Debug, Default)]
struct Asked {
    /// Not answered yet, in order.
    queue: VecDeque<u32>,
    /// Since when the first of them is awaited.
    since: Duration,
    pace: Pace,
    /// Of the queue, what another gives instead, and the source has not been told.
    unwanted: Vec<u32>,
}

/// How fast chunks come, those that came last counting most.
#[derive(Copy, Clone, Debug, Default)]
struct Pace {
    bytes: f64,
    seconds: f64,
}

impl Pace {
    fn note(&mut self, bytes: u32, time: Duration) {
        self.bytes = self.bytes * PACE_KEPT + f64::from(bytes);
        self.seconds = self.seconds * PACE_KEPT + time.as_secs_f64();
    }

    /// Seconds for one chunk, once any came.
    fn chunk_time(&self) -> Option<f64> {
        (self.bytes > 0.0).then(|| f64::from(CHUNK_SIZE) * self.seconds / self.bytes)
    }
}

impl Asked {
    /// How many chunks it may be asked for at once.
    fn window(&self) -> usize {
        match self.pace.chunk_time() {
            // A time of zero gives the largest one.
            Some(time) => {
                ((CHUNK_WINDOW_TIME.as_secs_f64() / time) as usize).clamp(1, CHUNK_WINDOW)
            }
            None => CHUNK_WINDOW_FIRST,
        }
    }

    /// For how long the first answer has been awaited, in seconds.
    fn waited(&self, now: Duration) -> f64 {
        match self.queue.is_empty() {
            true => 0.0,
            false => now.saturating_sub(self.since).as_secs_f64(),
        }
    }

    /// Seconds for one chunk, as far as can be told: at least what it has taken already.
    fn chunk_time(&self, now: Duration) -> f64 {
        self.waited(now)
            .max(self.pace.chunk_time().unwrap_or_default())
    }

    /// Seconds until the first answer is complete. What is overdue may take as long again as it took.
    fn rest(&self, now: Duration) -> f64 {
        let waited = self.waited(now);
        match self.pace.chunk_time() {
            Some(time) if time > waited => time - waited,
            _ => waited,
        }
    }
}

impl Picker {
    /// All chunks of `layout` but those in `had`, which is of its length.
    pub(super) fn new(layout: Layout, had: Bitfield) -> Self {
        Self {
            layout,
            taken: had.clone(),
            had,
            asked: BTreeMap::new(),
            doubled: BTreeMap::new(),
            sources: BTreeMap::new(),
            start: 0,
            risked_bytes: 0,
            news: false,
        }
    }

    /// Goes on from the missing chunk that the `dice` chose, over the end of the file and up to it again: of
    /// two who download the same, each then has what the other lacks.
    pub(super) fn diverge(&mut self, dice: u32) {
        let missing = self.layout.chunk_count() - self.taken.count();
        let chosen = dice.checked_rem(missing).unwrap_or_default();
        self.start = self.taken.iter_missing().nth(chosen as usize).unwrap_or(0);
    }

    /// What to ask `source` for next, of the chunks that it `holds`: what is missing, in the order of the
    /// file, so that it is read and written in one sweep, as long as it is asked for no more than it gives in
    /// a while, and would not be what the end waits for; and what is expected of a slower one, if it would
    /// have nothing to do otherwise.
    pub(super) fn pick(
        &mut self,
        source: SourceId,
        holds: &Bitfield,
        now: Duration,
    ) -> Option<ChunkIndex> {
        let asked = self.sources.entry(source).or_default();
        if asked.queue.len() >= asked.window() {
            return None;
        }
        let picked = match self.would_hold_up(source, now) {
            true => None,
            false => self.missing(source, holds),
        };
        let index = match picked {
            Some(index) => index,
            None => self.take_over(source, holds, now)?,
        };
        let chunk = self.layout.chunk(index)?;
        self.taken.set(index);
        self.asked.insert(index, source);
        let asked = self.sources.entry(source).or_default();
        if asked.queue.is_empty() {
            asked.since = now;
        }
        asked.queue.push_back(index);
        Some(chunk)
    }

    /// `source` gave `chunk`, and it is right. Whether it was still to come; it is about to be written then.
    pub(super) fn deliver(&mut self, source: SourceId, chunk: ChunkIndex, now: Duration) -> bool {
        let (index, bytes) = (chunk.get(), self.layout.chunk_len(chunk));
        let taken_from = self.answered(source, index, now);
        if let (Some(waited), Some(asked)) = (taken_from, self.sources.get_mut(&source)) {
            asked.pace.note(bytes, waited);
        }
        if self.doubled.remove(&index).is_some() {
            for other in self.sources.values_mut() {
                if other.queue.contains(&index) && !other.unwanted.contains(&index) {
                    other.unwanted.push(index);
                    self.news = true;
                }
            }
        }
        self.asked.remove(&index).is_some() | self.taken.set(index)
    }

    /// `source` does not give `chunk` after all.
    pub(super) fn refuse(&mut self, source: SourceId, chunk: ChunkIndex, now: Duration) {
        self.answered(source, chunk.get(), now);
        if let Some(risked) = self.doubled.get_mut(&chunk.get()) {
            // It does not come twice.
            let safe = u64::from(CHUNK_SIZE).min(*risked);
            *risked -= safe;
            self.risked_bytes -= safe;
        }
        self.expect_no_more(source, chunk.get());
    }

    /// Nothing more comes from `source`.
    pub(super) fn leave(&mut self, source: SourceId) {
        let Some(left) = self.sources.remove(&source) else {
            return;
        };
        for index in left.queue {
            self.expect_no_more(source, index);
        }
    }

    /// `chunk` is written. Whether it was not before.
    pub(super) fn have(&mut self, chunk: ChunkIndex) -> bool {
        self.asked.remove(&chunk.get());
        self.taken.set(chunk.get());
        self.had.set(chunk.get())
    }

    /// What `source` was asked for and others give instead, each chunk once.
    pub(super) fn take_unwanted(&mut self, source: SourceId) -> Vec<u32> {
        let asked = self.sources.get_mut(&source);
        asked.map_or_else(Vec::new, |asked| std::mem::take(&mut asked.unwanted))
    }

    /// Whether, since this was asked last, something came about that a source has to look at: it can be asked
    /// for what is missing again, or should give up something.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// The chunks that are had.
    pub(super) const fn had(&self) -> &Bitfield {
        &self.had
    }

    /// Whether all chunks are had.
    pub(super) fn is_complete(&self) -> bool {
        self.had.is_complete()
    }

    /// Whether nothing is expected of anybody.
    pub(super) fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }

    /// How many chunks are not had.
    pub(super) fn missing_count(&self) -> u32 {
        self.layout.chunk_count() - self.had.count()
    }

    /// How many of the chunks of `holds` are still to come.
    pub(super) fn needed_of(&self, holds: &Bitfield) -> usize {
        holds.iter_lacked_by(&self.had).count()
    }

    /// The first missing chunk that `source` holds and was not asked for before.
    fn missing(&self, source: SourceId, holds: &Bitfield) -> Option<u32> {
        let queue = &self.sources.get(&source)?.queue;
        let count = self.layout.chunk_count();
        [self.start..count, 0..self.start]
            .into_iter()
            .find_map(|mut range| {
                loop {
                    let index = holds.first_lacked_by(&self.taken, range.clone())?;
                    if !queue.contains(&index) {
                        return Some(index);
                    }
                    range.start = index + 1;
                }
            })
    }

    /// Whether faster sources, which are all at work, would be through with everything before `source` were
    /// with one more chunk.
    fn would_hold_up(&self, source: SourceId, now: Duration) -> bool {
        let Some(asked) = self.sources.get(&source) else {
            return false;
        };
        let own = asked.chunk_time(now);
        let faster = self.sources.iter().filter_map(|(id, other)| {
            let time = other.chunk_time(now);
            let faster = *id != source && !other.queue.is_empty() && time > 0.0;
            (faster && time * CLEARLY_SLOWER <= own).then_some(1.0 / time)
        });
        let chunks_per_second: f64 = faster.sum();
        let missing = self.layout.chunk_count() - self.taken.count();
        let rest = f64::from(missing) + self.asked.len() as f64;
        chunks_per_second > 0.0 && own * (asked.queue.len() + 1) as f64 > rest / chunks_per_second
    }

    /// A chunk that is expected of a source so slow that `source`, which is not asked for anything, would be
    /// sooner: the one that would come last. What has not begun to come is left to the faster one, what may
    /// have is asked of both; more than [`DUPLICATE_BYTES_SHARE_MAX`] only where it hardly comes from the slow
    /// one.
    fn take_over(&mut self, source: SourceId, holds: &Bitfield, now: Duration) -> Option<u32> {
        let asked = self.sources.get(&source)?;
        if !asked.queue.is_empty() {
            return None;
        }
        let own = asked.pace.chunk_time().unwrap_or(CHUNK_TIME_GUESSED);
        let allowed = self.risked_bytes + u64::from(CHUNK_SIZE)
            <= self.layout.length() / DUPLICATE_BYTES_SHARE_MAX;
        let patience = SLOW_SOURCE_PATIENCE.as_secs_f64();
        let mut latest: Option<(f64, SourceId, bool, u32)> = None;
        for (&victim, asked) in self.sources.iter().filter(|(id, _)| **id != source) {
            let (rest, time) = (asked.rest(now), asked.chunk_time(now));
            let stuck = rest >= STUCK_SOURCE_PATIENCE.as_secs_f64();
            if time < own * CLEARLY_SLOWER {
                continue;
            }
            for (place, &index) in asked.queue.iter().enumerate() {
                let due = rest + place as f64 * time;
                let sooner = match place {
                    0 => due >= patience.max(own * CLEARLY_SLOWER) && allowed,
                    _ => due - time >= own * MARGIN && (allowed || time >= patience),
                };
                let may_come = place == 0 || time < patience;
                if (sooner || stuck)
                    && self.asked.get(&index) == Some(&victim)
                    && holds.get(index)
                    && latest.is_none_or(|(latest, ..)| due > latest)
                {
                    latest = Some((due, victim, may_come, index));
                }
            }
        }
        let (_, victim, may_come, index) = latest?;
        let risked = match may_come {
            true => u64::from(CHUNK_SIZE),
            false => 0,
        };
        self.risked_bytes += risked;
        *self.doubled.entry(index).or_default() += risked;
        let asked = self.sources.get_mut(&victim)?;
        if asked.queue.front() != Some(&index) {
            asked.unwanted.push(index);
            self.news = true;
        }
        Some(index)
    }

    /// Takes a chunk out of the queue of `source`. How long it was awaited, if it was the first.
    fn answered(&mut self, source: SourceId, index: u32, now: Duration) -> Option<Duration> {
        let asked = self.sources.get_mut(&source)?;
        let place = asked.queue.iter().position(|&asked| asked == index)?;
        asked.queue.remove(place);
        asked.unwanted.retain(|&unwanted| unwanted != index);
        match place {
            0 => Some(now.saturating_sub(std::mem::replace(&mut asked.since, now))),
            _ => None,
        }
    }

    /// A chunk that is in the queue of `source` no more is expected of another that was asked for it, or is
    /// missing.
    fn expect_no_more(&mut self, source: SourceId, index: u32) {
        let mut others = self
            .sources
            .iter()
            .filter(|(id, asked)| **id != source && asked.queue.contains(&index));
        let other = others.next().map(|(id, _)| *id);
        if others.next().is_none() {
            self.doubled.remove(&index);
        }
        if self.asked.get(&index) != Some(&source) {
            return;
        }
        match other {
            Some(other) => self.asked.insert(index, other),
            None => {
                self.taken.clear(index);
                self.news = true;
                self.asked.remove(&index)
            }
        };
    }
}

/// How much of what was known of a pace counts after another chunk.
const PACE_KEPT: f64 = 0.75;
/// How often as long as another's a chunk takes from one that is clearly slower.
const CLEARLY_SLOWER: f64 = 2.0;
/// How often the time that it should take a chunk has before it would come in vain.
const MARGIN: f64 = 1.5;
/// Seconds that a chunk is thought to take from a source that gave none yet.
const CHUNK_TIME_GUESSED: f64 = 0.5;

#[cfg(test)]
mod tests;
