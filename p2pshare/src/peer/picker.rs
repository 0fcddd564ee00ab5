//! Which chunk to ask whom for next, and what to ask somebody else for as well. Pure: the time is an argument,
//! counted from whenever the download began, and the dice are seeded.
//!
//! Every chunk is in exactly one place: had, arrived (verified, and about to be written), asked of the one
//! source it is expected of, or missing. Whatever becomes of a source, what is expected of it is missing
//! again, or expected of another that was asked for it too.

mod endgame;
mod queue;
mod rarity;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use self::{queue::Asked, rarity::Rarity};
use crate::content::{Bitfield, CHUNK_SIZE, ChunkIndex, Layout};
use crate::limits::IN_ORDER_NEAR;

/// The chunks of one download.
#[derive(Debug)]
pub(crate) struct Picker {
    layout: Layout,
    order: Order,
    dice: SmallRng,
    had: Bitfield,
    /// Before it everything is had.
    front: u32,
    /// All but the missing ones.
    taken: Bitfield,
    rarity: Rarity,
    /// Asked for, and of whom each is expected; it is in that source's queue.
    asked: HashMap<u32, SourceId>,
    /// Chunks that are in more than one queue, and how many bytes of each are risked.
    doubled: BTreeMap<u32, u64>,
    sources: BTreeMap<SourceId, Asked>,
    /// Bytes that were asked for twice and may come twice.
    risked_bytes: u64,
    news: bool,
}

/// A source of chunks, as the picker knows it.
pub(crate) type SourceId = u64;

/// What is asked for first.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum Order {
    /// What the fewest have, and of that one run after the other.
    #[default]
    RarestFirst,
    /// What comes first in the file; of one who had everything and gives to others too, what is rarest near the first chunk
    /// that is not had, which is [`IN_ORDER_NEAR`] for each source. Else all who go through a file at one pace would ask for the
    /// same, and have nothing for each other.
    OfTheFile,
    /// Anything, for comparison.
    #[cfg(any(test, feature = "__sim"))]
    Random,
}

impl Picker {
    /// All chunks of `layout` but those in `had`, which is of its length.
    pub(crate) fn new(layout: Layout, had: Bitfield, order: Order, seed: u64) -> Self {
        Self {
            layout,
            order,
            dice: SmallRng::seed_from_u64(seed),
            taken: had.clone(),
            rarity: Rarity::new(&had),
            had,
            front: 0,
            asked: HashMap::new(),
            doubled: BTreeMap::new(),
            sources: BTreeMap::new(),
            risked_bytes: 0,
            news: false,
        }
    }

    /// How many are known to hold each chunk, some of whom may be connected; nothing means that nobody holds just a
    /// part, and another number of chunks says nothing.
    pub(crate) fn note_availability(&mut self, holders: &[u16]) {
        self.rarity.announce(holders);
    }

    /// Chunks can be asked of `source`, which holds these; they are of the layout's length.
    pub(crate) fn join(&mut self, source: SourceId, holds: Bitfield) {
        self.leave(source);
        let asked = Asked::new(holds);
        if asked.counts {
            asked.holds.iter_set().for_each(|i| self.rarity.more(i));
        }
        self.sources.insert(source, asked);
    }

    /// `source` tells of a chunk: that it has got it, or, if it had it, that it gave it to somebody else. Whether
    /// there is such a chunk, and this is new.
    pub(crate) fn learn(&mut self, source: SourceId, index: u32) -> bool {
        let Some(asked) = self.sources.get_mut(&source) else {
            return false;
        };
        let count = asked.holds.len();
        let gave = || Bitfield::new(count);
        let got = asked.holds.set(index);
        let is_new = got || asked.gave.get_or_insert_with(gave).set(index);
        if is_new {
            // Of one that held everything what it lacked for a while does not count either.
            if asked.counts || !got {
                self.rarity.more(index);
            }
            self.part_ways(source, index);
        }
        is_new
    }

    /// Whoever has, or gives to another, what is awaited here from somebody else may be on the very same way through
    /// the file, at the same pace, and so would not be met again before its end: another place is as good.
    fn part_ways(&mut self, source: SourceId, index: u32) {
        let awaited_from = self.asked.get(&index).filter(|of| **of != source);
        if let Some(asked) = awaited_from.and_then(|of| self.sources.get_mut(of)) {
            asked.next = u32::MAX;
        }
    }

    /// `source` was found not to have a chunk.
    pub(crate) fn lack(&mut self, source: SourceId, chunk: ChunkIndex, now: Duration) {
        if let Some(asked) = self.sources.get_mut(&source)
            && asked.holds.clear(chunk.get())
            && asked.counts
        {
            self.rarity.less(chunk.get());
        }
        self.refuse(source, chunk, now);
    }

    /// How long the path to `source` and back takes.
    pub(crate) fn note_round_trip(&mut self, source: SourceId, time: Duration) {
        if let Some(asked) = self.sources.get_mut(&source) {
            asked.round_trip = Some(asked.round_trip.map_or(time, |least| least.min(time)));
        }
    }

    /// What to ask `source` for next, of the chunks that it holds: what is missing, as long as it is asked for
    /// no more than is under way on its path, and would not be what the end waits for; and what is expected
    /// of a slower one, if it would have nothing to do otherwise.
    pub(crate) fn pick(&mut self, source: SourceId, now: Duration) -> Option<ChunkIndex> {
        let asked = self.sources.get(&source)?;
        if asked.retired || asked.queue.len() >= asked.window() {
            return None;
        }
        let index = match self.take_over_front(source, now) {
            Some(front) => front,
            None => {
                let missing = self.missing(source);
                match missing.filter(|&index| !self.would_hold_up(source, index, now)) {
                    Some(index) => index,
                    None => self.take_over(source, now)?,
                }
            }
        };
        let chunk = self.layout.chunk(index)?;
        self.take(index);
        self.asked.insert(index, source);
        if let Some(asked) = self.sources.get_mut(&source) {
            asked.ask(index, now);
        }
        Some(chunk)
    }

    /// `source` gave `chunk`, and it is right. Whether it was still to come; it is about to be written then.
    pub(crate) fn deliver(&mut self, source: SourceId, chunk: ChunkIndex, now: Duration) -> bool {
        let (index, bytes) = (chunk.get(), self.layout.chunk_len(chunk));
        if let Some(asked) = self.sources.get_mut(&source)
            && let Some(waited) = asked.answered(index, now)
        {
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
        self.asked.remove(&index).is_some() | self.take(index)
    }

    /// `source` does not give `chunk` after all.
    pub(crate) fn refuse(&mut self, source: SourceId, chunk: ChunkIndex, now: Duration) {
        if let Some(asked) = self.sources.get_mut(&source) {
            asked.answered(chunk.get(), now);
        }
        if let Some(risked) = self.doubled.get_mut(&chunk.get()) {
            // It does not come twice.
            let safe = u64::from(CHUNK_SIZE).min(*risked);
            *risked -= safe;
            self.risked_bytes -= safe;
        }
        self.expect_no_more(source, chunk.get());
    }

    /// Nothing more comes from `source`.
    pub(crate) fn leave(&mut self, source: SourceId) {
        let Some(left) = self.sources.remove(&source) else {
            return;
        };
        if left.counts {
            left.holds.iter_set().for_each(|i| self.rarity.less(i));
        }
        if let Some(gave) = &left.gave {
            gave.iter_set().for_each(|i| self.rarity.less(i));
        }
        for index in left.queue {
            self.expect_no_more(source, index);
        }
    }

    /// `source` is asked for nothing more: it gives what it was asked for, and may go then.
    fn retire(&mut self, source: SourceId) {
        if let Some(asked) = self.sources.get_mut(&source) {
            asked.retired = true;
            self.news |= asked.queue.is_empty();
        }
    }

    /// Whether `source` was retired.
    pub(crate) fn is_retired(&self, source: SourceId) -> bool {
        let asked = self.sources.get(&source);
        asked.is_some_and(|asked| asked.retired)
    }

    /// `chunk` is written. Whether it was not before.
    pub(crate) fn have(&mut self, chunk: ChunkIndex) -> bool {
        self.asked.remove(&chunk.get());
        self.take(chunk.get());
        self.had.set(chunk.get())
    }

    /// What `source` was asked for and others give instead, each chunk once.
    pub(crate) fn take_unwanted(&mut self, source: SourceId) -> Vec<u32> {
        let asked = self.sources.get_mut(&source);
        asked.map_or_else(Vec::new, |asked| std::mem::take(&mut asked.unwanted))
    }

    /// Whether, since this was asked last, something came about that a source has to look at: it can be asked
    /// for what is missing again, or should give up something.
    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// The chunks that are had.
    pub(crate) const fn had(&self) -> &Bitfield {
        &self.had
    }

    /// Whether all chunks are had.
    pub(crate) fn is_complete(&self) -> bool {
        self.had.is_complete()
    }

    /// Whether nothing is expected of anybody.
    pub(crate) fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }

    /// Whether a chunk is expected of anybody.
    pub(crate) fn is_awaited(&self, chunk: ChunkIndex) -> bool {
        self.asked.contains_key(&chunk.get())
    }

    /// How many chunks are not had.
    pub(crate) fn missing_count(&self) -> u32 {
        self.layout.chunk_count() - self.had.count()
    }

    /// How many of the chunks of `holds` are still to come.
    pub(crate) fn needed_of(&self, holds: &Bitfield) -> usize {
        holds.iter_lacked_by(&self.had).count()
    }

    /// Whether `source` holds anything that is still to come.
    pub(crate) fn is_needed(&self, source: SourceId) -> bool {
        let asked = self.sources.get(&source);
        asked.is_some_and(|asked| {
            asked
                .holds
                .first_lacked_by(&self.had, 0..u32::MAX)
                .is_some()
        })
    }

    /// Whether `source` holds what is still to come and no other has.
    fn is_alone(&self, source: SourceId) -> bool {
        let Some(asked) = self.sources.get(&source) else {
            return false;
        };
        let mut others = self.had.clone();
        for (id, other) in &self.sources {
            if *id != source {
                others.unite(&other.holds);
            }
        }
        asked.holds.first_lacked_by(&others, 0..u32::MAX).is_some()
    }

    /// Retires the one of these sources from which the least comes. One that alone has what is still to come is
    /// more seldom given up for that, and not by everybody at the same time. Whether there is one.
    pub(crate) fn retire_slowest(&mut self, sources: &[SourceId], now: Duration) -> bool {
        let mut slowest: Option<(f64, SourceId)> = None;
        for &source in sources {
            let asked = self.sources.get(&source).filter(|asked| !asked.retired);
            let Some(asked) = asked else {
                continue;
            };
            let pace = match asked.chunk_time(now) {
                0.0 => 0.0,
                time => 1.0 / time,
            };
            if self.is_alone(source) && !self.dice.random_ratio(1, ALONE_GIVEN_UP) {
                continue;
            }
            if slowest.is_none_or(|(least, _)| pace < least) {
                slowest = Some((pace, source));
            }
        }
        if let Some((_, slowest)) = slowest {
            self.retire(slowest);
        }
        slowest.is_some()
    }

    /// Whether more could be asked of `source` than is.
    #[cfg(any(test, feature = "__sim"))]
    pub(crate) fn has_room(&self, source: SourceId) -> bool {
        let asked = self.sources.get(&source);
        asked.is_some_and(|asked| asked.queue.len() < asked.window())
    }

    /// Whether nothing is asked of `source`.
    #[cfg(any(test, feature = "__sim"))]
    pub(crate) fn asks_nothing(&self, source: SourceId) -> bool {
        let asked = self.sources.get(&source);
        asked.is_none_or(|asked| asked.queue.is_empty())
    }

    /// The missing chunk to ask `source` for.
    fn missing(&mut self, source: SourceId) -> Option<u32> {
        let asked = self.sources.get(&source)?;
        let count = self.layout.chunk_count();
        match self.order {
            Order::RarestFirst => {
                let (holds, next) = (&asked.holds, asked.next);
                self.rarity.rarest(holds, 0..count, next, &mut self.dice)
            }
            Order::OfTheFile => self.in_order(source),
            #[cfg(any(test, feature = "__sim"))]
            Order::Random => {
                let place = self.dice.random_range(0..count);
                let after = asked.holds.first_lacked_by(&self.taken, place..count);
                after.or_else(|| asked.holds.first_lacked_by(&self.taken, 0..place))
            }
        }
    }

    /// The missing chunk to ask `source` for in the order of the file.
    fn in_order(&mut self, source: SourceId) -> Option<u32> {
        while self.had.get(self.front) {
            self.front += 1;
        }
        let asked = self.sources.get(&source)?;
        let (holds, next) = (&asked.holds, asked.next);
        let near = IN_ORDER_NEAR.saturating_mul(self.sources.len() as u32);
        let (count, near) = (self.layout.chunk_count(), self.front.saturating_add(near));
        let near = self.front..near.min(count);
        let is_shared = !asked.counts && asked.gave.is_some() && !near.is_empty();
        if is_shared && let Some(rarest) = self.rarity.rarest(holds, near, next, &mut self.dice) {
            return Some(rarest);
        }
        holds.first_lacked_by(&self.taken, self.front..count)
    }

    /// A chunk is not missing. Whether it was.
    fn take(&mut self, index: u32) -> bool {
        let was_missing = self.taken.set(index);
        if was_missing {
            self.rarity.take(index);
        }
        was_missing
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
            Some(other) => {
                self.asked.insert(index, other);
            }
            None => {
                self.asked.remove(&index);
                self.taken.clear(index);
                self.rarity.put(index);
                self.news = true;
            }
        }
    }
}

/// One of so many times a source is given up that alone has something.
const ALONE_GIVEN_UP: u32 = 4;

#[cfg(test)]
mod tests;
