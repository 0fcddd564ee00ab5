//! How rare each chunk is, and the missing ones by that. A chunk counts as often as a connected source that has
//! only a part holds it, or a source says that it gave it to somebody; or as often as the tracker knows of
//! holders, whichever is more. Whoever holds everything makes no chunk rarer than another and does not count.
//!
//! The invariant: a chunk that was [put](Rarity::put) and not [taken](Rarity::take) is in the set of exactly one
//! class, that of its count. So to find the rarest is to look through a few sets, in the order of the file.

use std::ops::Range;

use rand::{RngExt as _, rngs::SmallRng};

use crate::{content::Bitfield, limits::SOURCES_HELD_MAX};

/// The counts of all chunks, and the missing ones by class.
#[derive(Debug)]
pub(super) struct Rarity {
    /// How often each counts because of connected sources.
    seen: Vec<u8>,
    /// The class of each by what the tracker knows, if it knows anything.
    announced: Vec<u8>,
    classes: Vec<Bitfield>,
}

impl Rarity {
    /// No chunk was seen yet, and all that are not in `taken` are missing.
    pub(super) fn new(taken: &Bitfield) -> Self {
        let count = taken.len();
        let mut rarest = Bitfield::full(count);
        for index in taken.iter_set() {
            rarest.clear(index);
        }
        Self {
            seen: vec![0; count as usize],
            announced: Vec::new(),
            classes: vec![rarest],
        }
    }

    /// A chunk is missing again.
    pub(super) fn put(&mut self, index: u32) {
        let class = self.class(index);
        while self.classes.len() <= class {
            self.classes.push(Bitfield::new(self.seen.len() as u32));
        }
        self.classes[class].set(index);
    }

    /// A chunk is missing no more.
    pub(super) fn take(&mut self, index: u32) {
        let class = self.class(index);
        if let Some(class) = self.classes.get_mut(class) {
            class.clear(index);
        }
    }

    /// A chunk counts once more.
    pub(super) fn more(&mut self, index: u32) {
        self.recount(index, |seen| seen.saturating_add(1));
    }

    /// A chunk counts once less.
    pub(super) fn less(&mut self, index: u32) {
        self.recount(index, |seen| seen.saturating_sub(1));
    }

    fn recount(&mut self, index: u32, change: impl Fn(u8) -> u8) {
        let before = self.class(index);
        let Some(seen) = self.seen.get_mut(index as usize) else {
            return;
        };
        *seen = change(*seen);
        if self.class(index) == before {
            return;
        }
        let class = self.classes.get_mut(before);
        if class.is_some_and(|class| class.clear(index)) {
            self.put(index);
        }
    }

    /// How many hold each chunk, as the tracker knows, of which only the differences count; nothing if there are none.
    pub(super) fn announce(&mut self, holders: &[u16]) {
        let count = self.seen.len();
        let says_nothing = holders.is_empty() && self.announced.is_empty();
        if says_nothing || !(holders.is_empty() || holders.len() == count) {
            return;
        }
        self.announced.resize(count, 0);
        let fewest = holders.iter().copied().min().unwrap_or_default();
        let holders = holders.iter().map(|holders| holders - fewest);
        let classes = holders.map(class_of).chain(std::iter::repeat(0));
        for (index, announced) in (0..count as u32).zip(classes) {
            if self.announced[index as usize] == announced {
                continue;
            }
            let class = self.class(index);
            let class = self.classes.get_mut(class);
            let missing = class.is_some_and(|class| class.clear(index));
            self.announced[index as usize] = announced;
            if missing {
                self.put(index);
            }
        }
    }

    /// One of the rarest missing chunks that are in `holds` and in a range, which is not empty: the one at `next`, so
    /// that files are read and written in runs, or one at a place that the dice choose.
    pub(super) fn rarest(
        &self,
        holds: &Bitfield,
        range: Range<u32>,
        next: u32,
        dice: &mut SmallRng,
    ) -> Option<u32> {
        let classes = self.classes.iter().filter(|class| !class.is_empty());
        classes.into_iter().find_map(|class| {
            if range.contains(&next) && class.get(next) && holds.get(next) {
                return Some(next);
            }
            let mut place = dice.random_range(range.clone());
            // The first one after any place is mostly where somebody else's run goes on.
            for _ in 0..PLACES_TRIED {
                if class.get(place) && holds.get(place) {
                    return Some(place);
                }
                place = dice.random_range(range.clone());
            }
            let after = class.first_common(holds, place..range.end);
            after.or_else(|| class.first_common(holds, range.start..place))
        })
    }

    /// Checks that all counts are as they should be, and every missing chunk is where it belongs.
    #[cfg(test)]
    pub(super) fn check(&self, taken: &Bitfield, seen: impl Fn(u32) -> u8) {
        for index in 0..taken.len() {
            assert_eq!(self.seen[index as usize], seen(index), "chunk {index}");
            let of = (0..self.classes.len()).filter(|&class| self.classes[class].get(index));
            let missing = (!taken.get(index)).then(|| self.class(index));
            assert!(of.eq(missing), "chunk {index}");
        }
    }

    fn class(&self, index: u32) -> usize {
        let of = |counts: &[u8]| counts.get(index as usize).copied().unwrap_or_default();
        class_of(u16::from(of(&self.seen))).max(of(&self.announced)) as usize
    }
}

/// The class of a count: each has its own as long as they are few, then each doubling.
const fn class_of(count: u16) -> u8 {
    match count.checked_ilog2() {
        Some(log) if log > FINE_BITS => (EXACT + log - FINE_BITS - 1) as u8,
        _ => count as u8,
    }
}

/// Counts that have a class of their own: 0 up to twice the power of two of these bits.
const FINE_BITS: u32 = 2;
/// How many places are tried before what comes after one is taken.
const PLACES_TRIED: usize = 16;
const EXACT: u32 = 1 << (FINE_BITS + 1);
// Each source counts at most twice, and what is counted can be taken off again.
const _: () = assert!(2 * SOURCES_HELD_MAX < u8::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_all_with_a_part_have_gone_no_chunk_is_rarer_than_another() {
        let none = Bitfield::new(4);
        let mut rarity = Rarity::new(&none);
        let counts = [9, 9, 1, 9];
        rarity.announce(&counts);
        let classes = |rarity: &Rarity| [0, 1, 2, 3].map(|index| rarity.class(index));
        assert_eq!(classes(&rarity), [8, 8, 0, 8]);
        rarity.announce(&counts[1..]);
        assert_eq!(classes(&rarity), [8, 8, 0, 8], "it is of another file");
        rarity.announce(&[]);
        assert_eq!(classes(&rarity), [0; 4]);
        rarity.check(&none, |_| 0);
    }

    #[test]
    fn few_holders_are_told_apart_and_many_roughly() {
        let classes = [0, 1, 7, 8, 15, 16, 1000, u16::MAX].map(class_of);
        assert_eq!(classes, [0, 1, 7, 8, 8, 9, 14, 20]);
        assert!((0..u16::MAX).all(|count| class_of(count) <= class_of(count + 1)));
    }
}
