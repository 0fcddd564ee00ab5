//! Which chunk to ask whom for next. Pure. Every chunk that is wanted is in exactly one place: had, asked of
//! one source, or missing; whatever becomes of a source, its chunks are missing again or had.

use std::collections::{BTreeMap, BTreeSet};

use crate::content::{Bitfield, ChunkIndex, Layout};

/// The chunks of one download.
#[derive(Debug)]
pub(super) struct Picker {
    layout: Layout,
    had: Bitfield,
    /// Asked for, and of which source.
    asked: BTreeMap<u32, SourceId>,
    /// Below this every chunk is had or asked for, but for those in `returned`.
    next: u32,
    /// Missing again after they had been asked for.
    returned: BTreeSet<u32>,
}

/// A source of chunks, as the picker knows it.
pub(super) type SourceId = u64;

impl Picker {
    /// All chunks of `layout` but those in `had`, which is of its length.
    pub(super) fn new(layout: Layout, had: Bitfield) -> Self {
        Self {
            layout,
            had,
            asked: BTreeMap::new(),
            next: 0,
            returned: BTreeSet::new(),
        }
    }

    /// The next chunk to ask `source` for, of those that it `holds`; in the order of the file, so that it is
    /// read and written in one sweep.
    pub(super) fn pick(
        &mut self,
        source: SourceId,
        holds: impl Fn(u32) -> bool,
    ) -> Option<ChunkIndex> {
        let index = match self.returned.iter().copied().find(|&index| holds(index)) {
            Some(index) => {
                self.returned.remove(&index);
                index
            }
            None => self.pick_new(holds)?,
        };
        let chunk = self.layout.chunk(index)?;
        self.asked.insert(index, source);
        Some(chunk)
    }

    /// `chunk` is had now. Whether it was not before.
    pub(super) fn have(&mut self, chunk: ChunkIndex) -> bool {
        self.asked.remove(&chunk.get());
        self.returned.remove(&chunk.get());
        self.had.set(chunk.get())
    }

    /// `chunk`, asked of `source`, does not come from it.
    pub(super) fn give_back(&mut self, source: SourceId, chunk: ChunkIndex) {
        if self.asked.get(&chunk.get()) == Some(&source) {
            self.asked.remove(&chunk.get());
            self.returned.insert(chunk.get());
        }
    }

    /// Nothing more comes from `source`.
    pub(super) fn give_back_all(&mut self, source: SourceId) {
        let returned = &mut self.returned;
        self.asked.retain(|&index, &mut of| {
            if of == source {
                returned.insert(index);
            }
            of != source
        });
    }

    /// The chunks that are had.
    pub(super) const fn had(&self) -> &Bitfield {
        &self.had
    }

    /// Whether all chunks are had.
    pub(super) fn is_complete(&self) -> bool {
        self.had.is_complete()
    }

    fn pick_new(&mut self, holds: impl Fn(u32) -> bool) -> Option<u32> {
        let count = self.layout.chunk_count();
        let taken =
            |picker: &Self, index| picker.had.get(index) || picker.asked.contains_key(&index);
        while self.next < count && taken(self, self.next) {
            self.next += 1;
        }
        (self.next..count)
            .find(|&index| !taken(self, index) && !self.returned.contains(&index) && holds(index))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::content::CHUNK_SIZE;

    fn picker(chunks: u32) -> Picker {
        let layout = Layout::new(u64::from(chunks) * u64::from(CHUNK_SIZE)).unwrap();
        Picker::new(layout, Bitfield::new(chunks))
    }

    #[test]
    fn each_chunk_is_asked_for_once_and_what_fails_again() {
        let mut picker = picker(3);
        let picked: Vec<_> = (0..4).map(|_| picker.pick(1, |_| true)).collect();
        let indexes: Vec<_> = picked.iter().flatten().map(|chunk| chunk.get()).collect();
        assert_eq!(indexes, [0, 1, 2]);
        let chunk = picked[1].unwrap();
        picker.give_back(2, chunk);
        assert_eq!(picker.pick(2, |_| true), None, "it was not asked of 2");
        picker.give_back(1, chunk);
        assert_eq!(picker.pick(2, |_| true), Some(chunk));
        picker.give_back_all(1);
        let rest: Vec<_> = std::iter::from_fn(|| picker.pick(3, |_| true))
            .map(ChunkIndex::get)
            .collect();
        assert_eq!(rest, [0, 2]);
    }

    #[test]
    fn nobody_is_asked_for_what_it_does_not_hold() {
        let mut picker = picker(4);
        assert_eq!(picker.pick(1, |index| index == 2).unwrap().get(), 2);
        assert_eq!(picker.pick(1, |index| index == 2), None);
        assert_eq!(picker.pick(2, |_| true).unwrap().get(), 0);
    }

    proptest! {
        #[test]
        fn whatever_happens_every_chunk_is_had_in_the_end(
            acts in proptest::collection::vec((0u8..4, 0u64..3, 0u32..40), 0..300)
        ) {
            let mut picker = picker(40);
            for (act, source, index) in acts {
                let chunk = picker.layout.chunk(index).unwrap();
                match act {
                    0 => if let Some(chunk) = picker.pick(source, |at| at % 3 != source as u32) {
                        prop_assert!(!picker.had.get(chunk.get()));
                    },
                    1 => { picker.have(chunk); }
                    2 => picker.give_back(source, chunk),
                    _ => picker.give_back_all(source),
                }
            }
            (0..3).for_each(|source| picker.give_back_all(source));
            let mut rounds = 0;
            while let Some(chunk) = picker.pick(9, |_| true) {
                prop_assert!(picker.have(chunk), "{chunk:?} was had");
                rounds += 1;
                prop_assert!(rounds <= 40);
            }
            prop_assert!(picker.is_complete());
        }
    }
}
