//! Which chunks of a file someone holds: one bit for each.
//!
//! The invariant: bits beyond the length are zero, and the count is that of the bits set. What arrives from outside is
//! refused when it would break it. An index beyond the end is never held and cannot be set, so no index panics.

use std::fmt;
use std::iter;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A set of positions below a fixed length.
///
/// As bytes, position `i` is bit `i % 8`, counted from the least significant, of byte `i / 8`. Serialised as the length
/// and those bytes, and checked when it is read back; whoever receives one compares its length with that of the file.
#[derive(Clone, Eq, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Encoded", into = "Encoded")]
pub(crate) struct Bitfield {
    len: u32,
    count: u32,
    words: Vec<u64>,
}

impl Bitfield {
    /// The empty set of positions below `len`.
    pub(crate) fn new(len: u32) -> Self {
        Self {
            len,
            count: 0,
            words: vec![0; len.div_ceil(64) as usize],
        }
    }

    /// The full set of positions below `len`.
    pub(crate) fn full(len: u32) -> Self {
        let mut words = vec![u64::MAX; len.div_ceil(64) as usize];
        if let Some(last) = words.last_mut() {
            *last = last_word_mask(len);
        }
        Self {
            len,
            count: len,
            words,
        }
    }

    /// Reads the set of positions below `len` from its bytes.
    ///
    /// # Errors
    /// [`BitfieldError`] when there are more or fewer bytes than `len` needs, or a bit beyond `len` is set.
    pub(crate) fn from_bytes(len: u32, bytes: &[u8]) -> Result<Self, BitfieldError> {
        let needed = len.div_ceil(8) as usize;
        if bytes.len() != needed {
            return Err(BitfieldError::WrongSize {
                len,
                needed,
                found: bytes.len(),
            });
        }
        let words: Vec<u64> = bytes
            .chunks(8)
            .map(|chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                u64::from_le_bytes(word)
            })
            .collect();
        if words
            .last()
            .is_some_and(|last| last & !last_word_mask(len) != 0)
        {
            return Err(BitfieldError::BeyondEnd { len });
        }
        let count = words.iter().map(|word| word.count_ones()).sum();
        Ok(Self { len, count, words })
    }

    /// The bytes of the set, as many as its length needs.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        bytes.truncate(self.len.div_ceil(8) as usize);
        bytes
    }

    /// The length: positions are below it.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// How many positions are in the set.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Whether every position is in the set.
    pub(crate) fn is_complete(&self) -> bool {
        self.count == self.len
    }

    /// Whether no position is in the set.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether `index` is in the set; never so beyond the end.
    pub(crate) fn get(&self, index: u32) -> bool {
        index < self.len && self.words[index as usize / 64] & bit(index) != 0
    }

    /// Puts `index` into the set. Returns whether that changed it; beyond the end it does not.
    pub(crate) fn set(&mut self, index: u32) -> bool {
        let changes = index < self.len && !self.get(index);
        if changes {
            self.words[index as usize / 64] |= bit(index);
            self.count += 1;
        }
        changes
    }

    /// Takes `index` out of the set. Returns whether that changed it.
    pub(crate) fn clear(&mut self, index: u32) -> bool {
        let changes = self.get(index);
        if changes {
            self.words[index as usize / 64] &= !bit(index);
            self.count -= 1;
        }
        changes
    }

    /// Puts all positions of `other`, which has the same length, into the set.
    pub(crate) fn unite(&mut self, other: &Self) {
        debug_assert_eq!(self.len, other.len, "bitfields of two different files");
        for (ours, theirs) in iter::zip(&mut self.words, &other.words) {
            *ours |= theirs;
        }
        self.count = self.words.iter().map(|word| word.count_ones()).sum();
    }

    /// The positions in the set, in ascending order.
    pub(crate) fn iter_set(&self) -> impl Iterator<Item = u32> + '_ {
        positions(self.words.iter().copied())
    }

    /// The first position of `range` that is in this set and that `other` lacks. Both have the same length.
    pub(crate) fn first_lacked_by(&self, other: &Self, range: Range<u32>) -> Option<u32> {
        self.first(other, range, |ours, theirs| ours & !theirs)
    }

    /// The first position of `range` that is in both sets. Both have the same length.
    pub(crate) fn first_common(&self, other: &Self, range: Range<u32>) -> Option<u32> {
        self.first(other, range, |ours, theirs| ours & theirs)
    }

    fn first(
        &self,
        other: &Self,
        range: Range<u32>,
        select: impl Fn(u64, u64) -> u64,
    ) -> Option<u32> {
        debug_assert_eq!(self.len, other.len, "bitfields of two different files");
        let end = range.end.min(self.len);
        let (from, to) = (range.start as usize / 64, end.div_ceil(64) as usize);
        let (ours, theirs) = (self.words.get(from..to)?, other.words.get(from..to)?);
        let mut mask = u64::MAX << (range.start % 64);
        let (place, selected) = iter::zip(ours, theirs)
            .map(|(&ours, &theirs)| select(ours, theirs) & std::mem::replace(&mut mask, u64::MAX))
            .enumerate()
            .find(|(_, selected)| *selected != 0)?;
        // Fits: a length is a `u32`.
        let first = (from + place) as u32 * 64 + selected.trailing_zeros();
        (first < end).then_some(first)
    }

    /// The positions that are not in the set, in ascending order.
    pub(crate) fn iter_missing(&self) -> impl Iterator<Item = u32> + '_ {
        let last = self.words.len().saturating_sub(1);
        positions(self.words.iter().enumerate().map(move |(i, word)| {
            let mask = if i == last {
                last_word_mask(self.len)
            } else {
                u64::MAX
            };
            !word & mask
        }))
    }

    /// The positions in this set that `other` lacks, in ascending order. Both have the same length.
    pub(crate) fn iter_lacked_by<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u32> + 'a {
        debug_assert_eq!(self.len, other.len, "bitfields of two different files");
        positions(iter::zip(&self.words, &other.words).map(|(ours, theirs)| ours & !theirs))
    }
}

impl fmt::Debug for Bitfield {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bitfield({} of {})", self.count, self.len)
    }
}

/// Bytes that are not a set of positions below the length given.
#[derive(Copy, Clone, Eq, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BitfieldError {
    /// There are more or fewer bytes than the length needs.
    #[error("a bitfield of {len} bits has {needed} bytes, not {found}")]
    WrongSize {
        /// The length in bits.
        len: u32,
        /// The bytes that it needs.
        needed: usize,
        /// The bytes that there are.
        found: usize,
    },
    /// A bit beyond the length is set.
    #[error("a bitfield of {len} bits has a bit set beyond its end")]
    BeyondEnd {
        /// The length in bits.
        len: u32,
    },
}

/// The form in which a bitfield is serialised.
#[derive(Serialize, Deserialize)]
struct Encoded {
    len: u32,
    bytes: Vec<u8>,
}

impl TryFrom<Encoded> for Bitfield {
    type Error = BitfieldError;

    fn try_from(encoded: Encoded) -> Result<Self, Self::Error> {
        Self::from_bytes(encoded.len, &encoded.bytes)
    }
}

impl From<Bitfield> for Encoded {
    fn from(bitfield: Bitfield) -> Self {
        Self {
            len: bitfield.len,
            bytes: bitfield.to_bytes(),
        }
    }
}

/// The bit of `index` within its word.
const fn bit(index: u32) -> u64 {
    1 << (index % 64)
}

/// The bits of the last word that lie below `len`.
const fn last_word_mask(len: u32) -> u64 {
    match len % 64 {
        0 => u64::MAX,
        used => (1 << used) - 1,
    }
}

/// The positions of the bits set in `words`.
fn positions(words: impl Iterator<Item = u64>) -> impl Iterator<Item = u32> {
    words.enumerate().flat_map(|(i, word)| {
        // Fits: a length is a `u32`, so the last word begins below `u32::MAX`.
        let base = i as u32 * 64;
        let nonzero = |rest: u64| Some(rest).filter(|rest| *rest != 0);
        iter::successors(nonzero(word), move |rest| nonzero(rest & (rest - 1)))
            .map(move |rest| base + rest.trailing_zeros())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Every way of looking at `bitfield` agrees with the set that it stands for.
    fn assert_same(bitfield: &Bitfield, model: &BTreeSet<u32>) {
        let len = bitfield.len();
        assert_eq!(bitfield.count() as usize, model.len());
        assert_eq!(bitfield.is_empty(), model.is_empty());
        assert_eq!(bitfield.is_complete(), model.len() == len as usize);
        assert!(bitfield.iter_set().eq(model.iter().copied()));
        assert!(
            bitfield
                .iter_missing()
                .eq((0..len).filter(|i| !model.contains(i)))
        );
        assert!((0..len + 70).all(|i| bitfield.get(i) == model.contains(&i)));
        assert_eq!(
            Bitfield::from_bytes(len, &bitfield.to_bytes()).as_ref(),
            Ok(bitfield)
        );
        let serialised = postcard::to_stdvec(bitfield).unwrap();
        assert_eq!(
            postcard::from_bytes::<Bitfield>(&serialised).as_ref(),
            Ok(bitfield)
        );
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_positions(len in 0u32..300, changes in vec((any::<bool>(), 0u32..310), 0..200)) {
            let mut bitfield = Bitfield::new(len);
            let mut model = BTreeSet::new();
            for (set, index) in changes {
                if set {
                    prop_assert_eq!(bitfield.set(index), index < len && model.insert(index));
                } else {
                    prop_assert_eq!(bitfield.clear(index), model.remove(&index));
                }
            }
            assert_same(&bitfield, &model);
        }

        #[test]
        fn what_another_lacks(len in 0u32..300, ours in vec(0u32..300, 0..100), theirs in vec(0u32..300, 0..100)) {
            let [ours, theirs] = [ours, theirs].map(|indices| {
                let mut bitfield = Bitfield::new(len);
                indices.into_iter().for_each(|i| { bitfield.set(i); });
                bitfield
            });
            let expected = (0..len).filter(|i| ours.get(*i) && !theirs.get(*i));
            prop_assert!(ours.iter_lacked_by(&theirs).eq(expected.clone()));
            let common = (0..len).filter(|i| ours.get(*i) && theirs.get(*i));
            for (start, end) in [(0, len), (len / 3, len), (0, len / 2), (len / 2, len + 70)] {
                let first = expected.clone().find(|i| (start..end).contains(i));
                prop_assert_eq!(ours.first_lacked_by(&theirs, start..end), first);
                let first = common.clone().find(|i| (start..end).contains(i));
                prop_assert_eq!(ours.first_common(&theirs, start..end), first);
            }
        }

        #[test]
        fn any_bytes_are_refused_or_read_as_they_are(len in 0u32..100, bytes in vec(any::<u8>(), 0..14)) {
            let beyond = (len..bytes.len() as u32 * 8).any(|i| bytes[i as usize / 8] & (1 << (i % 8)) != 0);
            match Bitfield::from_bytes(len, &bytes) {
                Ok(bitfield) => {
                    prop_assert_eq!(bitfield.to_bytes(), bytes);
                    prop_assert!(!beyond);
                }
                Err(BitfieldError::WrongSize { needed, found, .. }) => {
                    prop_assert_eq!(found, bytes.len());
                    prop_assert_ne!(found, needed);
                }
                Err(BitfieldError::BeyondEnd { .. }) => prop_assert!(beyond),
            }
        }
    }

    #[test]
    fn full_is_every_position_and_no_more() {
        for len in [0, 1, 63, 64, 65, 128, 200] {
            assert_same(&Bitfield::full(len), &(0..len).collect());
        }
    }

    #[test]
    fn a_file_of_one_tebibyte() {
        let len = 1 << 21;
        let mut bitfield = Bitfield::full(len);
        assert!(bitfield.is_complete());
        assert!(bitfield.clear(len / 2));
        assert!(!bitfield.set(len));
        assert!(bitfield.iter_missing().eq([len / 2]));
        assert_eq!(bitfield.count(), len - 1);
        assert_eq!(bitfield.to_bytes().len(), 256 * 1024);
        assert_eq!(
            postcard::from_bytes::<Bitfield>(&postcard::to_stdvec(&bitfield).unwrap()),
            Ok(bitfield)
        );
    }

    #[test]
    fn serialised_form_is_length_and_bytes() {
        let mut bitfield = Bitfield::new(10);
        bitfield.set(0);
        bitfield.set(3);
        bitfield.set(9);
        assert_eq!(bitfield.to_bytes(), [0b0000_1001, 0b0000_0010]);
        assert_eq!(
            postcard::to_stdvec(&bitfield).unwrap(),
            [10, 2, 0b0000_1001, 0b0000_0010]
        );
        // A bit beyond the end, a byte too many, a byte too few, and a length that nothing stands behind.
        for wrong in [
            &[10, 2, 9, 4][..],
            &[10, 3, 9, 2, 0],
            &[10, 1, 9],
            &[255, 255, 255, 255, 15, 2, 9, 2],
        ] {
            assert!(
                postcard::from_bytes::<Bitfield>(wrong).is_err(),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn errors_say_what_was_wrong() {
        assert_eq!(
            Bitfield::from_bytes(10, &[1]).unwrap_err().to_string(),
            "a bitfield of 10 bits has 2 bytes, not 1"
        );
        assert_eq!(
            Bitfield::from_bytes(10, &[0, 4]).unwrap_err().to_string(),
            "a bitfield of 10 bits has a bit set beyond its end"
        );
    }
}
