//! What trackers say to each other about leases. The unit is a *slot*: what one session of one peer says in one
//! slice, under one number and with one end. It travels as an interval, all that changed in it behind one number up
//! to another, so that whoever lacks what came before can tell; an interval from 0 is the whole slot.
//!
//! **Invariant.** Every list and every payload is bounded when it is read back, besides the frame around it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{KeyError, Slice};
use crate::identity::{PeerId, SessionId};
use crate::limits::{
    LEASE_GET_KEYS_MAX, LEASE_PAYLOAD_BYTES_MAX, LEASE_SLICES_PER_LIST_MAX, LEASE_SLOT_ENTRIES_MAX,
    LEASES_PER_ANSWER_MAX,
};

/// What a lease is about; the same bytes at every peer that has something to say about it.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>")]
pub struct LeaseKey(Vec<u8>);

impl LeaseKey {
    /// Bytes in a lease key; at least one.
    pub const BYTES_MAX: usize = 255;

    /// The key with these bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when there are none, or too many.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        KeyError::check("lease key", &bytes, 1, Self::BYTES_MAX)?;
        Ok(Self(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseKey({})", self.0.escape_ascii())
    }
}

impl TryFrom<Vec<u8>> for LeaseKey {
    type Error = KeyError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, KeyError> {
        Self::new(bytes)
    }
}

/// Who says something: one session of one peer, the only writer of its slots.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub(crate) struct LeaseOwner {
    pub(crate) peer: PeerId,
    pub(crate) session: SessionId,
}

/// One slot. Pages go through them in this order.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
pub(crate) struct LeasePlace {
    pub(crate) owner: LeaseOwner,
    pub(crate) slice: Slice,
}

/// What one session says anew in some slices, all of it under one number. [`LeaseSession`] makes it.
///
/// [`LeaseSession`]: crate::LeaseSession
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct LeaseNews {
    pub(crate) owner: LeaseOwner,
    /// Higher than in anything that this session said before in one of these slices.
    pub(crate) number: u64,
    /// Milliseconds until it no longer counts, by the clock of whoever receives it.
    pub(crate) expires_in: u32,
    #[serde(deserialize_with = "bounded::<_, _, LEASE_SLICES_PER_LIST_MAX>")]
    pub(crate) slices: Vec<SliceNews>,
}

/// What changed in one slot.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct SliceNews {
    pub(crate) slice: Slice,
    /// All that changed behind this number is here; with 0, all there is.
    pub(crate) after: u64,
    #[serde(deserialize_with = "bounded::<_, _, LEASE_SLOT_ENTRIES_MAX>")]
    pub(crate) entries: Vec<SlotEntry>,
}

/// What a session says under a key.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct SlotEntry {
    pub(crate) key: LeaseKey,
    /// What it says, or that it has nothing to say any more.
    #[serde(deserialize_with = "payload")]
    pub(crate) payload: Option<Vec<u8>>,
}

/// The numbers of some slots of one session.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct SessionVector {
    pub(crate) owner: LeaseOwner,
    #[serde(deserialize_with = "bounded::<_, _, LEASE_SLICES_PER_LIST_MAX>")]
    pub(crate) slices: Vec<(Slice, u64)>,
}

/// What one session of one peer says under one key, as it is read.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct LeaseEntry {
    /// Who says it; only that peer writes this entry.
    pub(crate) peer: PeerId,
    /// In which of its sessions.
    pub(crate) session: SessionId,
    /// Of the slot that it stands in.
    pub(crate) number: u64,
    /// Milliseconds until it no longer counts, by the clock of whoever receives it.
    pub(crate) expires_in: u32,
    /// What it says, or that it has nothing to say any more.
    #[serde(deserialize_with = "payload")]
    pub(crate) payload: Option<Vec<u8>>,
}

impl LeaseEntry {
    pub(crate) const fn owner(&self) -> LeaseOwner {
        LeaseOwner {
            peer: self.peer,
            session: self.session,
        }
    }
}

/// A list of news or of vectors: each is for one session, or one run of slots.
pub(super) fn lists<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    bounded::<D, T, LEASE_SLICES_PER_LIST_MAX>(from)
}

/// The keys of one question.
pub(super) fn keys<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<LeaseKey>, D::Error> {
    bounded::<D, LeaseKey, LEASE_GET_KEYS_MAX>(from)
}

/// What is said under each of the keys of one question.
pub(super) fn found<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Vec<LeaseEntry>>, D::Error> {
    #[derive(Deserialize)]
    struct One(
        #[serde(deserialize_with = "bounded::<_, _, LEASES_PER_ANSWER_MAX>")] Vec<LeaseEntry>,
    );
    let found = bounded::<D, One, LEASE_GET_KEYS_MAX>(from)?;
    Ok(found.into_iter().map(|One(entries)| entries).collect())
}

/// A list of at most so many.
pub(super) fn bounded<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    struct Bounded<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = seq.next_element()? {
                if list.len() == MAX {
                    return Err(A::Error::custom("a list is too long"));
                }
                list.push(item);
            }
            Ok(list)
        }
    }

    from.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

fn payload<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
    #[derive(Deserialize)]
    struct Bytes(#[serde(deserialize_with = "bounded::<_, _, LEASE_PAYLOAD_BYTES_MAX>")] Vec<u8>);
    Ok(Option::<Bytes>::deserialize(from)?.map(|Bytes(bytes)| bytes))
}

#[cfg(test)]
pub(super) mod tests;
