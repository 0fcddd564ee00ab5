//! What peers say of what they hold, and what is said of that to those who look for it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{
    content::{Bitfield, FileId, Hasher},
    identity::{FileName, GroupName, PeerId},
    limits::{
        ANNOUNCED_ADDRS_MAX, ANNOUNCED_BITFIELD_BYTES_MAX, ANNOUNCED_SWARMS_MAX,
        ANNOUNCEMENT_NUMBER_MAX,
    },
};

/// Where a peer can be reached, and what it holds, whole or since the last time.
///
/// A set that does not fit in one announcement is sent in several: the first with `anew`, which drops
/// what was known, and the others without. The answer to the last one tells by its [`SetDigest`] whether
/// the tracker holds now what the peer means to have told it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Announcement {
    /// Higher than in any announcement of this peer before it, to whichever tracker; an older one changes
    /// nothing. At most [`ANNOUNCEMENT_NUMBER_MAX`].
    pub(crate) number: u64,
    /// At most [`ANNOUNCED_ADDRS_MAX`].
    pub(crate) addrs: Vec<SocketAddr>,
    /// Whether what was announced before is dropped.
    pub(crate) anew: bool,
    /// At most [`crate::limits::ANNOUNCED_SWARMS_MAX`] a time.
    pub(crate) swarms: Vec<SwarmEntry>,
}

/// What a peer holds of one file.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct SwarmEntry {
    pub(crate) group: GroupName,
    pub(crate) name: FileName,
    pub(crate) id: FileId,
    pub(crate) holding: Holding,
}

/// How much of a file a peer holds.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum Holding {
    /// Nothing any more.
    Nothing,
    /// All of it.
    Complete,
    /// The chunks whose bits are set, as [`Bitfield::to_bytes`] gives them, none of them in a download that has just begun;
    /// for a file whose bits are more than an announcement takes, no bits: there is something.
    Partial(Vec<u8>),
}

impl Holding {
    /// Whether that is anything.
    pub(crate) fn is_something(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Complete => true,
            Self::Partial(bits) => bits.is_empty() || bits.iter().any(|&byte| byte != 0),
        }
    }

    /// Whether that can be announced of a file of so many chunks.
    pub(crate) fn is_of(&self, chunks: u32) -> bool {
        match self {
            Self::Nothing | Self::Complete => true,
            Self::Partial(bits) if bits.is_empty() => {
                chunks.div_ceil(8) as usize > ANNOUNCED_BITFIELD_BYTES_MAX
            }
            Self::Partial(bits) => Bitfield::from_bytes(chunks, bits).is_ok(),
        }
    }
}

/// The name under which a peer announces something: a group, whatever its case, and a file.
pub(crate) type SwarmPlace = (String, FileName);

/// What a whole set of announced entries comes to: the sum, modulo 2^128, of the first 16 bytes of the SHA-256
/// of each, so that it changes with one of them at no more cost than that one.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct SetDigest(u128);

/// A peer that holds (part of) a file, or is about to, and is online.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) peer: PeerId,
    pub(crate) addrs: Vec<SocketAddr>,
    pub(crate) holding: Holding,
}

/// How much of a file can be had from those who are online right now.
///
/// It is what they announced within the last minute, whoever asks counted if it holds something. What of a file above
/// 64 GiB somebody has is not announced, and only those who are connected tell it each other.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Availability {
    /// Chunks of the file.
    pub chunks: u32,
    /// How many peers are online with the file or a part of it.
    pub holders: u32,
    /// Of these, how many have all of it.
    pub whole: u32,
    /// How many have a part, and did not say which.
    pub untold: u32,
    /// How many of those with a part have each chunk, 255 standing for as many and more; empty if nobody with a part
    /// said which.
    pub(crate) parts: Vec<u8>,
}

impl Availability {
    /// How many are known to have a chunk; nobody has one beyond the end. 255 of those who have a part stand for as
    /// many and more.
    #[must_use]
    pub fn holders_of(&self, chunk: u32) -> u32 {
        match chunk < self.chunks {
            true => self.whole.saturating_add(self.parts_of(chunk)),
            false => 0,
        }
    }

    /// How many are known to have each chunk, in the order of the file: of chunks in a row that equally many have, how
    /// many chunks and how many holders.
    #[must_use]
    pub fn runs(&self) -> Vec<(u32, u32)> {
        if self.parts.is_empty() {
            return vec![(self.chunks, self.whole)];
        }
        let equal = self.parts.chunk_by(|a, b| a == b);
        let run = |run: &[u8]| {
            let length = u32::try_from(run.len()).unwrap_or(u32::MAX);
            let parts = run.first().copied().unwrap_or(0);
            (length, self.whole.saturating_add(parts.into()))
        };
        equal.map(run).collect()
    }

    /// The same, chunk by chunk.
    pub(crate) fn counts(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.chunks).map(|chunk| self.holders_of(chunk))
    }

    /// How many times the whole file is there, put together from all who are online: what the rarest chunk comes to.
    #[must_use]
    pub fn copies(&self) -> u32 {
        // Those who have the whole need not be added to each.
        let rarest = self.parts.iter().min().copied().unwrap_or(0);
        self.whole.saturating_add(rarest.into())
    }

    /// Whether every chunk is known to be with somebody, so that the file can be completed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.copies() > 0
    }

    /// How many chunks that are not in `had` nobody is known to have; none as long as somebody may have them who did
    /// not say so.
    pub(crate) fn out_of_reach(&self, had: &Bitfield) -> u32 {
        if self.whole > 0 || self.untold > 0 {
            return 0;
        }
        let lost = had
            .iter_missing()
            .filter(|&chunk| self.parts_of(chunk) == 0);
        u32::try_from(lost.count()).unwrap_or(u32::MAX)
    }

    /// Whether it makes sense, for a file of so many chunks.
    pub(crate) fn is_of(&self, chunks: u32) -> bool {
        let told = self.parts.len();
        self.chunks == chunks && (told == 0 || u32::try_from(told) == Ok(chunks))
    }

    fn parts_of(&self, chunk: u32) -> u32 {
        self.parts.get(chunk as usize).copied().unwrap_or(0).into()
    }
}

impl SwarmEntry {
    pub(crate) fn place(&self) -> SwarmPlace {
        (self.group.folded(), self.name.clone())
    }
}

impl SetDigest {
    /// An entry came into the set.
    pub(crate) fn add(&mut self, place: &SwarmPlace, id: FileId, holding: &Holding) {
        self.0 = self.0.wrapping_add(entry_digest(place, id, holding));
    }

    /// An entry went out of the set.
    pub(crate) fn remove(&mut self, place: &SwarmPlace, id: FileId, holding: &Holding) {
        self.0 = self.0.wrapping_sub(entry_digest(place, id, holding));
    }
}

/// What one entry comes to. Names are followed by a byte that none contains.
fn entry_digest((group, name): &SwarmPlace, id: FileId, holding: &Holding) -> u128 {
    let mut hasher = Hasher::new();
    hasher.update(b"p2pshare/announced/1\0");
    hasher.update(group.as_bytes());
    hasher.update(b"\0");
    hasher.update(name.as_str().as_bytes());
    hasher.update(b"\0");
    hasher.update(id.as_bytes());
    match holding {
        Holding::Nothing => hasher.update(b"\0"),
        Holding::Complete => hasher.update(b"\x01"),
        Holding::Partial(bits) => {
            hasher.update(b"\x02");
            hasher.update(bits);
        }
    }
    let digest = hasher.finish();
    let first = digest.as_bytes().iter().take(16);
    first.fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}

impl Announcement {
    /// Whether it keeps its bounds.
    pub(crate) fn is_within_bounds(&self) -> bool {
        self.number <= ANNOUNCEMENT_NUMBER_MAX
            && self.addrs.len() <= ANNOUNCED_ADDRS_MAX
            && self.swarms.len() <= ANNOUNCED_SWARMS_MAX
            && self.swarms.iter().all(|entry| match &entry.holding {
                Holding::Nothing | Holding::Complete => true,
                Holding::Partial(bits) => bits.len() <= ANNOUNCED_BITFIELD_BYTES_MAX,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> SwarmPlace {
        ("photos".to_owned(), FileName::new(name).unwrap())
    }

    #[test]
    fn a_digest_is_that_of_the_set_however_it_came_about() {
        let id = |i| FileId::from_bytes([i; 32]);
        let part = Holding::Partial(vec![1, 2]);
        let mut straight = SetDigest::default();
        straight.add(&place("a"), id(1), &Holding::Complete);
        straight.add(&place("b"), id(2), &part);
        let mut around = SetDigest::default();
        around.add(&place("b"), id(2), &part);
        around.add(&place("c"), id(3), &Holding::Complete);
        around.add(&place("a"), id(1), &Holding::Complete);
        assert_ne!(straight, around);
        around.remove(&place("c"), id(3), &Holding::Complete);
        assert_eq!(straight, around);
        // Each of what an entry says counts.
        for (name, i, holding) in [
            ("a", 1, part.clone()),
            ("a", 1, Holding::Partial(vec![1])),
            ("a", 2, Holding::Complete),
            ("c", 1, Holding::Complete),
        ] {
            let mut other = straight;
            other.remove(&place("a"), id(1), &Holding::Complete);
            other.add(&place(name), id(i), &holding);
            assert_ne!(other, straight, "{name} {i} {holding:?}");
        }
    }

    #[test]
    fn the_digest_of_an_entry_is_as_it_is_written_down() {
        let mut digest = SetDigest::default();
        let id = FileId::from_bytes([0x1d; 32]);
        digest.add(&place("a.jpg"), id, &Holding::Partial(vec![5]));
        let text = [
            b"p2pshare/announced/1\0photos\0a.jpg\0",
            &[0x1d; 32][..],
            &[2, 5],
        ]
        .concat();
        let sha256 = crate::content::Digest::of(&text).to_string();
        assert_eq!(format!("{:032x}", digest.0), sha256[..32]);
    }

    fn availability(whole: u32, untold: u32, parts: &[u8]) -> Availability {
        let told = u32::from(!parts.is_empty());
        Availability {
            chunks: 4,
            holders: whole.saturating_add(untold + told),
            whole,
            untold,
            parts: parts.to_vec(),
        }
    }

    #[test]
    fn what_can_be_had_is_what_somebody_has() {
        let none = Bitfield::new(4);
        let mut had = none.clone();
        had.set(1);
        for (of, copies, lost, lost_beside_had) in [
            (availability(0, 0, &[]), 0, 4, 3),
            (availability(0, 0, &[1, 0, 2, 0]), 0, 2, 1),
            (availability(0, 0, &[1, 3, 2, 1]), 1, 0, 0),
            (availability(0, 1, &[1, 0, 2, 0]), 0, 0, 0),
            (availability(2, 0, &[]), 2, 0, 0),
            (availability(2, 0, &[1, 1, 2, 1]), 3, 0, 0),
        ] {
            assert_eq!(of.copies(), copies, "{of:?}");
            assert_eq!(of.is_complete(), copies > 0, "{of:?}");
            assert_eq!(of.counts().min(), Some(copies), "{of:?}");
            let runs = of.runs().into_iter();
            let chunk_by_chunk = runs.flat_map(|(length, n)| (0..length).map(move |_| n));
            assert!(chunk_by_chunk.eq(of.counts()), "{of:?}");
            assert_eq!(of.out_of_reach(&none), lost, "{of:?}");
            assert_eq!(of.out_of_reach(&had), lost_beside_had, "{of:?}");
            assert!(of.is_of(4) && !of.is_of(5), "{of:?}");
        }
        assert!(!availability(1, 0, &[1]).is_of(4));
        let most = availability(u32::MAX, 0, &[255; 4]);
        assert_eq!((most.holders_of(3), most.holders_of(4)), (u32::MAX, 0));
    }
}
