//! What one session of a peer has said in the ring, as far as the tracker knows that speaks for it: the number
//! of each slot, and no more than that.
//!
//! **Invariant.** Numbers rise. The interval of a slot begins where the last one ended, or at 0, and one from
//! 0 holds all that the session says there.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use super::{LeaseError, LeasesPut};
use crate::dht::placement::slice_of_lease;
use crate::identity::{PeerId, SessionId};
use crate::limits::LEASE_LIFE_MAX;
use crate::wire::ring::{LeaseKey, LeaseNews, LeaseOwner, Slice, SliceNews, SlotEntry};

/// One session of a peer, as the one that speaks for it in the ring: it makes the news for
/// [`DhtNode::put_leases`](crate::DhtNode::put_leases).
///
/// Whoever speaks for the same session later (the peer has moved to another tracker) begins with
/// [`LeaseSession::whole`] and a higher number.
#[derive(Debug)]
pub struct LeaseSession {
    owner: LeaseOwner,
    /// The highest that was used.
    number: u64,
    slots: BTreeMap<Slice, Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    number: u64,
    /// Of the keys under which something is said.
    hashes: Vec<u64>,
}

impl LeaseSession {
    /// A session that has said nothing yet.
    #[must_use]
    pub const fn new(peer: PeerId, session: SessionId) -> Self {
        Self {
            owner: LeaseOwner { peer, session },
            number: 0,
            slots: BTreeMap::new(),
        }
    }

    /// Says something under each of these keys, or with `None` nothing any more, for `life` (at most two
    /// minutes); under `number`, or a higher one when that was used. The rest stands as it was.
    ///
    /// # Errors
    ///
    /// [`LeaseError::TooLarge`].
    pub fn change(
        &mut self,
        number: u64,
        life: Duration,
        changes: impl IntoIterator<Item = (LeaseKey, Option<Arc<[u8]>>)>,
    ) -> Result<LeaseNews, LeaseError> {
        let slots = by_slice(changes)?;
        self.number = number.max(self.number.saturating_add(1));
        let slices = slots
            .into_iter()
            .map(|(slice, entries)| {
                let slot = self.slots.entry(slice).or_default();
                let after = std::mem::replace(&mut slot.number, self.number);
                slot.take(&entries);
                if slot.hashes.is_empty() {
                    self.slots.remove(&slice);
                }
                let entries = match after {
                    0 => entries
                        .into_iter()
                        .filter(|e| e.payload.is_some())
                        .collect(),
                    _ => entries,
                };
                SliceNews {
                    slice,
                    after,
                    entries,
                }
            })
            .collect();
        Ok(self.news(life, slices))
    }

    /// Says again what was said, for `life` from now.
    pub fn renew(&mut self, number: u64, life: Duration) -> LeaseNews {
        self.number = number.max(self.number.saturating_add(1));
        let slices = self
            .slots
            .iter_mut()
            .map(|(slice, slot)| SliceNews {
                slice: *slice,
                after: std::mem::replace(&mut slot.number, self.number),
                entries: Vec::new(),
            })
            .collect();
        self.news(life, slices)
    }

    /// Says all that there is to say, in place of all that was said.
    ///
    /// # Errors
    ///
    /// [`LeaseError::TooLarge`].
    pub fn whole(
        &mut self,
        number: u64,
        life: Duration,
        all: impl IntoIterator<Item = (LeaseKey, Arc<[u8]>)>,
    ) -> Result<LeaseNews, LeaseError> {
        let slots = by_slice(all.into_iter().map(|(key, payload)| (key, Some(payload))))?;
        let slices = self.slots.keys().chain(slots.keys()).copied().collect();
        Ok(self.say_whole(number, life, &slices, slots))
    }

    /// Says once more, all of it, what some replica could not take when it was `put`, since it lacks what came
    /// before. `None` if there is no such replica.
    pub(crate) fn again(
        &mut self,
        life: Duration,
        put: &LeasesPut,
        all: impl IntoIterator<Item = (LeaseKey, Arc<[u8]>)>,
    ) -> Option<LeaseNews> {
        let is_lacking = |key: &LeaseKey| put.lacking.contains(&slice_of_lease(key));
        let all = all.into_iter().map(|(key, payload)| (key, Some(payload)));
        let slots = by_slice(all.filter(|(key, _)| is_lacking(key))).ok()?;
        (!put.lacking.is_empty()).then(|| self.say_whole(0, life, &put.lacking, slots))
    }

    fn say_whole(
        &mut self,
        number: u64,
        life: Duration,
        slices: &BTreeSet<Slice>,
        mut slots: BTreeMap<Slice, Vec<SlotEntry>>,
    ) -> LeaseNews {
        self.number = number.max(self.number.saturating_add(1));
        let slices = slices
            .iter()
            .map(|slice| {
                let entries = slots.remove(slice).unwrap_or_default();
                self.slots.remove(slice);
                if !entries.is_empty() {
                    let mut slot = Slot {
                        number: self.number,
                        hashes: Vec::new(),
                    };
                    slot.take(&entries);
                    self.slots.insert(*slice, slot);
                }
                SliceNews {
                    slice: *slice,
                    after: 0,
                    entries,
                }
            })
            .collect();
        self.news(life, slices)
    }

    fn news(&self, life: Duration, slices: Vec<SliceNews>) -> LeaseNews {
        let life = life.min(LEASE_LIFE_MAX).as_millis();
        LeaseNews {
            owner: self.owner,
            number: self.number,
            expires_in: u32::try_from(life).unwrap_or(u32::MAX),
            slices,
        }
    }
}

impl Slot {
    fn take(&mut self, entries: &[SlotEntry]) {
        for entry in entries {
            let hash = hash(&entry.key);
            match (&entry.payload, self.hashes.iter().position(|h| *h == hash)) {
                (Some(_), None) => self.hashes.push(hash),
                (None, Some(at)) => drop(self.hashes.swap_remove(at)),
                _ => {}
            }
        }
    }
}

/// Each key once, the last time it is named, by slice.
fn by_slice(
    entries: impl IntoIterator<Item = (LeaseKey, Option<Arc<[u8]>>)>,
) -> Result<BTreeMap<Slice, Vec<SlotEntry>>, LeaseError> {
    let mut slots: BTreeMap<Slice, BTreeMap<LeaseKey, Option<_>>> = BTreeMap::new();
    for (key, payload) in entries {
        LeaseError::check(payload.as_ref().map_or(0, |payload| payload.len()))?;
        let slot = slots.entry(slice_of_lease(&key)).or_default();
        slot.insert(key, payload);
    }
    let entry = |(key, payload): (LeaseKey, Option<Arc<[u8]>>)| SlotEntry {
        key,
        payload: payload.map(|payload| payload.to_vec()),
    };
    let slots = slots.into_iter();
    Ok(slots
        .map(|(slice, slot)| (slice, slot.into_iter().map(entry).collect()))
        .collect())
}

fn hash(key: &LeaseKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
