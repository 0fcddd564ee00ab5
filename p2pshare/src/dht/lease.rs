//! Leases: what peers say about themselves, each for a while, merged without agreement.
//!
//! A session of a peer is the only writer of what it says, and numbers it. What it says in one slice of the
//! ring is a *slot*, with one number and one end; a replica's slot numbers are its **version vector** over
//! (peer, session). News are intervals: all that changed behind one number up to another (the delta-intervals
//! of Almeida, Shoker and Baquero, "Delta state replicated data types", 2018).
//!
//! **Invariant.** A replica takes an interval only if its slot is at the number where that begins, or past
//! it; so a number says exactly what is known, and whatever was lost or came too early shows as a lower one.
//! What one lacks and another has is found by comparing numbers, and given as whole slots.
//!
//! [`table`] is what one tracker knows; [`session`] makes the news of one session; [`mod@write`], [`read`] and
//! [`exchange`] are the machines that bring news to the replicas, ask them, and make two of them equal.

pub(crate) mod exchange;
pub(crate) mod read;
pub(crate) mod session;
pub(crate) mod table;
#[cfg(test)]
mod tests;
pub(crate) mod write;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::identity::{PeerId, SessionId};
use crate::limits::LEASE_PAYLOAD_BYTES_MAX;
use crate::wire::ring::{LeaseNews, LeaseOwner, Slice, SliceNews};

/// What one session of one peer says under a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// Who says it.
    pub peer: PeerId,
    /// In which of its sessions.
    pub session: SessionId,
    /// Higher than when it said something else here before.
    pub number: u64,
    /// How long it counts from now; at most two minutes.
    pub expires_in: Duration,
    /// What it says, at most 64 KiB.
    pub payload: Arc<[u8]>,
}

/// What became of news.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct LeasesPut {
    /// So many replicas, or more, now know each thing that was said. It may be none, when this member is
    /// cut off and no replica itself: say it again later.
    pub replicas: usize,
    /// Slots that some replica did not take, since it lacks what came before.
    pub(crate) lacking: BTreeSet<Slice>,
    /// Slots that some replica has no room for.
    pub(crate) refused: usize,
}

impl LeasesPut {
    /// Whether some replica did not take some of it since it lacks what came before.
    pub(crate) fn lacks_something(&self) -> bool {
        !self.lacking.is_empty()
    }

    /// Whether every replica that was reached took all of it.
    pub(crate) fn is_complete(&self) -> bool {
        self.replicas > 0 && self.lacking.is_empty() && self.refused == 0
    }
}

/// Why a lease was not said. Nothing was changed.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The payload is too long.
    #[error("a lease of {len} bytes; it has at most {max}")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// The most, in bytes.
        max: usize,
    },
}

impl LeaseError {
    pub(crate) const fn check(len: usize) -> Result<(), Self> {
        let max = LEASE_PAYLOAD_BYTES_MAX;
        match len <= max {
            true => Ok(()),
            false => Err(Self::TooLarge { len, max }),
        }
    }
}

/// Adds a slot to news, in the last of them if that has the same head, and gives about how many bytes that
/// adds on the wire.
pub(crate) fn push_slot(
    news: &mut Vec<LeaseNews>,
    owner: LeaseOwner,
    (number, expires_in): (u64, u32),
    slot: SliceNews,
) -> usize {
    let mut bytes = slot_bytes(&slot);
    match news.last_mut() {
        Some(last)
            if (last.owner, last.number, last.expires_in) == (owner, number, expires_in)
                && last.slices.len() < crate::limits::LEASE_SLICES_PER_LIST_MAX =>
        {
            last.slices.push(slot);
        }
        _ => {
            bytes += HEAD_BYTES;
            news.push(LeaseNews {
                owner,
                number,
                expires_in,
                slices: vec![slot],
            });
        }
    }
    bytes
}

/// Bytes of a slot on the wire, at most.
fn slot_bytes(slot: &SliceNews) -> usize {
    let entry = |entry: &crate::wire::ring::SlotEntry| {
        ENTRY_BYTES
            + entry.key.as_bytes().len()
            + entry.payload.as_ref().map_or(0, |payload| payload.len())
    };
    SLOT_BYTES + slot.entries.iter().map(entry).sum::<usize>()
}

/// Bytes on the wire, at most, of the head of news or of a vector; of a slot; of an entry beside what it says.
pub(crate) const HEAD_BYTES: usize = 48 + 10 + 5 + 3;
pub(crate) const SLOT_BYTES: usize = 3 + 10 + 3;
const ENTRY_BYTES: usize = 2 + 1 + 3;
