//! What one tracker knows of leases: slots, each with its number and its end, and who says what under a key.
//!
//! **Invariants.** A slot's number only rises while the slot is there, and it is raised only by an interval
//! that begins at it or before. A slot is gone when its time on the local monotonic clock is over, also an
//! empty one, which is kept that long so that a slower message cannot bring back what was withdrawn. Bytes are
//! bounded for each slot and in all, and sessions for each key; a slot for which there is no room is not
//! taken at all, so that it keeps the number of what is known of it, and is offered again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{HEAD_BYTES, SLOT_BYTES, push_slot};
use crate::dht::placement::slice_of_lease;
use crate::dht::planted::{Fault, planted};
use crate::limits::{
    LEASE_LIFE_MAX, LEASE_PAGE_BYTES, LEASE_PAGE_SLOTS, LEASE_PAYLOAD_BYTES_MAX,
    LEASE_SLOT_BYTES_MAX, LEASE_SLOT_ENTRIES_MAX, LEASE_TABLE_BYTES_MAX, LEASES_PER_ANSWER_MAX,
    LEASES_PER_KEY_MAX,
};
use crate::wire::ring::{
    LeaseEntry, LeaseKey, LeaseNews, LeaseOwner, LeasePlace, ReplicaAnswer, ReplicaCall,
    SessionVector, Slice, SliceNews, SlotEntry,
};

/// The leases that one tracker knows.
#[derive(Debug, Default)]
pub(crate) struct LeaseTable {
    sessions: BTreeMap<LeaseOwner, Session>,
    keys: BTreeMap<Arc<LeaseKey>, Said>,
    /// When to look next for slots of which session that have ended.
    looks: BTreeSet<(Instant, LeaseOwner)>,
    bytes: usize,
}

/// What is said under a key. `None` is what is said no more: it answers those who still ask another
/// replica that has not heard it.
type Said = BTreeMap<LeaseOwner, Option<Arc<[u8]>>>;

#[derive(Debug)]
struct Session {
    slots: BTreeMap<Slice, Slot>,
    /// Not later than the first end of a slot.
    look: Instant,
}

#[derive(Debug)]
struct Slot {
    number: u64,
    ends: Instant,
    keys: Vec<Arc<LeaseKey>>,
    /// Until when keys stay of which nothing is said any more, if there are any.
    gone_until: Option<Instant>,
}

/// What became of one slot of news.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum SlotTaken {
    /// The slot is at that number, or was past it.
    Taken,
    /// The slot is at this number, and lacks what came before the news.
    Gap(u64),
    /// There is no room for it, or it breaks a rule.
    Refused,
}

type Content = BTreeMap<Arc<LeaseKey>, Option<Arc<[u8]>>>;

impl LeaseTable {
    /// Answers a call about leases; `None` to any other. `shared` says which slices are of interest to the
    /// member that compares numbers.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        call: ReplicaCall,
        shared: impl FnMut(Slice) -> bool,
    ) -> Option<ReplicaAnswer> {
        self.expire(now);
        Some(match call {
            ReplicaCall::LeasePut(news) => self.put(now, news),
            ReplicaCall::LeaseGet { keys, after } => self.read(now, &keys, after),
            ReplicaCall::LeaseVectors { after, .. } => self.vectors(after, shared),
            ReplicaCall::LeaseLacking { known, after } => self.lacking(now, &known, after),
            _ => return None,
        })
    }

    /// Takes news in, slot by slot.
    fn put(&mut self, now: Instant, news: Vec<LeaseNews>) -> ReplicaAnswer {
        let (mut gaps, mut refused): (Vec<SessionVector>, u32) = (Vec::new(), 0);
        let last = news.last().and_then(|news| news.slices.last());
        let last = last.map(|slot| slot.slice);
        for LeaseNews {
            owner,
            number,
            expires_in,
            slices,
        } in news
        {
            let life = Duration::from_millis(expires_in.into());
            for slot in slices {
                let slice = slot.slice;
                match self.take(now, owner, (number, life), slot) {
                    SlotTaken::Taken => {}
                    SlotTaken::Gap(known) => push_number(&mut gaps, owner, (slice, known)),
                    SlotTaken::Refused => refused += 1,
                }
            }
        }
        ReplicaAnswer::LeasesTaken {
            last,
            gaps,
            refused,
        }
    }

    /// Takes one interval in.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        owner: LeaseOwner,
        (number, life): (u64, Duration),
        news: SliceNews,
    ) -> SlotTaken {
        self.expire(now);
        let SliceNews {
            slice,
            after,
            entries,
        } = news;
        let ends = match planted(Fault::LeaseNeverExpires) {
            true => now + LEASE_LIFE_MAX,
            false => now + life.min(LEASE_LIFE_MAX),
        };
        let session = self.sessions.get_mut(&owner);
        let slot = session.and_then(|session| session.slots.get_mut(&slice));
        let known = slot.as_ref().map_or(0, |slot| slot.number);
        if number <= known && !planted(Fault::LeaseNumbersIgnored) {
            return SlotTaken::Taken;
        }
        if after > known {
            return SlotTaken::Gap(known);
        }
        if life.is_zero() || after >= number {
            return SlotTaken::Refused;
        }
        if let Some(slot) = slot
            && after > 0
            && entries.is_empty()
        {
            (slot.number, slot.ends) = (number, ends);
            self.look_at(owner, ends);
            return SlotTaken::Taken;
        }
        let legal = |entry: &SlotEntry| {
            slice_of_lease(&entry.key) == slice
                && entry.payload.as_ref().map_or(0, Vec::len) <= LEASE_PAYLOAD_BYTES_MAX
        };
        if !entries.iter().all(legal) {
            return SlotTaken::Refused;
        }
        match self.replace(now, (owner, slice), after == 0, entries) {
            None => SlotTaken::Refused,
            Some(slot) => {
                (slot.number, slot.ends) = (number, ends);
                self.look_at(owner, ends);
                SlotTaken::Taken
            }
        }
    }

    /// Changes what a slot holds, or with `whole` replaces it, if there is room.
    fn replace(
        &mut self,
        now: Instant,
        (owner, slice): (LeaseOwner, Slice),
        whole: bool,
        entries: Vec<SlotEntry>,
    ) -> Option<&mut Slot> {
        let session = self.sessions.get(&owner);
        let slot = session.and_then(|session| session.slots.get(&slice));
        let mut gone_until = slot.and_then(|slot| slot.gone_until);
        let forget = gone_until.is_some_and(|until| until <= now);
        if forget {
            gone_until = None;
        }
        let before = slot.map(|slot| self.content(owner, slot));
        let empty = before.is_none();
        let before = before.unwrap_or_default();
        let mut next: Content = before
            .iter()
            .filter(|(_, payload)| payload.is_some() || !forget)
            .map(|(key, payload)| (key.clone(), payload.clone().filter(|_| !whole)))
            .collect();
        for SlotEntry { key, payload } in entries {
            match (next.get_mut(&key), payload) {
                (Some(known), payload) => *known = payload.map(Arc::from),
                (None, Some(payload)) => {
                    let key = match self.keys.get_key_value(&key) {
                        // A part of it is not taken: the number would say that it is known.
                        Some((_, said)) if said.len() >= LEASES_PER_KEY_MAX => return None,
                        Some((key, _)) => key.clone(),
                        None => Arc::new(key),
                    };
                    next.insert(key, Some(Arc::from(payload)));
                }
                (None, None) => {}
            }
        }
        let ended = |(key, payload): (&Arc<LeaseKey>, &Option<_>)| {
            payload.is_none() && before.get(key).is_some_and(Option::is_some)
        };
        if next.iter().any(ended) {
            gone_until = Some(now + LEASE_LIFE_MAX);
        }
        let said = |content: &Content| content.iter().map(said_bytes).sum::<usize>();
        let (old, new) = (said(&before), said(&next));
        let more = if empty { SLOT_MEMORY } else { 0 };
        let fits = next.len() <= LEASE_SLOT_ENTRIES_MAX
            && new - next.len() * SAID_MEMORY <= LEASE_SLOT_BYTES_MAX
            && self.bytes - old + new + more <= LEASE_TABLE_BYTES_MAX;
        if !fits {
            return None;
        }
        self.bytes = self.bytes - old + new + more;
        for key in before.keys().filter(|key| !next.contains_key(*key)) {
            self.unsay(owner, key);
        }
        let keys = next.keys().cloned().collect();
        for (key, payload) in next {
            self.keys.entry(key).or_default().insert(owner, payload);
        }
        let session = self.sessions.entry(owner).or_insert_with(|| Session {
            slots: BTreeMap::new(),
            look: now + LEASE_LIFE_MAX,
        });
        let slot = session.slots.entry(slice).or_insert(Slot {
            number: 0,
            ends: now,
            keys: Vec::new(),
            gone_until: None,
        });
        (slot.keys, slot.gone_until) = (keys, gone_until);
        Some(slot)
    }

    fn content(&self, owner: LeaseOwner, slot: &Slot) -> Content {
        let payload = |key| self.keys.get(key).and_then(|said| said.get(&owner));
        slot.keys
            .iter()
            .map(|key| (key.clone(), payload(key).cloned().flatten()))
            .collect()
    }

    fn unsay(&mut self, owner: LeaseOwner, key: &Arc<LeaseKey>) {
        if let Some(said) = self.keys.get_mut(key) {
            said.remove(&owner);
            if said.is_empty() {
                self.keys.remove(key);
            }
        }
    }

    /// Sees to it that a slot that ends then is found.
    fn look_at(&mut self, owner: LeaseOwner, ends: Instant) {
        let Some(session) = self.sessions.get_mut(&owner) else {
            return;
        };
        if ends < session.look {
            self.looks.remove(&(session.look, owner));
            session.look = ends;
        }
        self.looks.insert((session.look, owner));
    }

    /// Forgets what has ended.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((look, _)) = self.looks.first()
            && *look <= now
            && let Some((_, owner)) = self.looks.pop_first()
        {
            let Some(session) = self.sessions.get_mut(&owner) else {
                continue;
            };
            let ended = session.slots.iter().filter(|(_, slot)| slot.ends <= now);
            let ended: Vec<Slice> = ended.map(|(slice, _)| *slice).collect();
            let remove = |slice| session.slots.remove(&slice);
            let ended: Vec<Slot> = ended.into_iter().filter_map(remove).collect();
            match session.slots.values().map(|slot| slot.ends).min() {
                Some(next) => {
                    session.look = next;
                    self.looks.insert((next, owner));
                }
                None => drop(self.sessions.remove(&owner)),
            }
            for slot in ended {
                let content = self.content(owner, &slot);
                self.bytes -= SLOT_MEMORY + content.iter().map(said_bytes).sum::<usize>();
                for key in content.keys() {
                    self.unsay(owner, key);
                }
            }
        }
    }

    /// What is said under the keys, a page of it: behind the session `after` under the first of them.
    fn read(&self, now: Instant, keys: &[LeaseKey], after: Option<LeaseOwner>) -> ReplicaAnswer {
        let (mut found, mut bytes, mut count) = (Vec::new(), 0, 0);
        let mut behind = after;
        let mut more = false;
        'keys: for key in keys {
            let mut entries = Vec::new();
            let start = behind.take().map_or(Bound::Unbounded, Bound::Excluded);
            let said = self.keys.get(key).into_iter();
            for (owner, payload) in said.flat_map(|said| said.range((start, Bound::Unbounded))) {
                let Some(entry) = self.entry(now, key, *owner, payload.as_ref()) else {
                    continue;
                };
                if count == LEASES_PER_ANSWER_MAX || bytes >= LEASE_PAGE_BYTES {
                    more = true;
                    found.push(entries);
                    break 'keys;
                }
                count += 1;
                bytes += READ_BYTES + entry.payload.as_ref().map_or(0, Vec::len);
                entries.push(entry);
            }
            found.push(entries);
        }
        ReplicaAnswer::Leases {
            keys: u16::try_from(keys.len()).unwrap_or(u16::MAX),
            after,
            found,
            more,
        }
    }

    fn entry(
        &self,
        now: Instant,
        key: &LeaseKey,
        owner: LeaseOwner,
        payload: Option<&Arc<[u8]>>,
    ) -> Option<LeaseEntry> {
        let slot = self.sessions.get(&owner)?.slots.get(&slice_of_lease(key))?;
        Some(LeaseEntry {
            peer: owner.peer,
            session: owner.session,
            number: slot.number,
            expires_in: left(now, slot)?,
            payload: payload.map(|payload| payload.to_vec()),
        })
    }

    /// The numbers of the slots behind `after` in shared slices, a page of them.
    fn vectors(
        &self,
        after: Option<LeasePlace>,
        mut shared: impl FnMut(Slice) -> bool,
    ) -> ReplicaAnswer {
        let (mut sessions, mut bytes, mut last) = (Vec::new(), 0, None);
        for (seen, (place, slot)) in self.behind(after).enumerate() {
            if seen == LEASE_PAGE_SLOTS || bytes >= LEASE_PAGE_BYTES {
                return ReplicaAnswer::LeaseVectors {
                    sessions,
                    next: last,
                };
            }
            last = Some(place);
            if shared(place.slice) {
                let heads = sessions.len();
                push_number(&mut sessions, place.owner, (place.slice, slot.number));
                bytes += SLOT_BYTES + (sessions.len() - heads) * HEAD_BYTES;
            }
        }
        let next = None;
        ReplicaAnswer::LeaseVectors { sessions, next }
    }

    fn behind(&self, after: Option<LeasePlace>) -> impl Iterator<Item = (LeasePlace, &Slot)> {
        let start = after.map_or(Bound::Unbounded, |after| Bound::Included(after.owner));
        let sessions = self.sessions.range((start, Bound::Unbounded));
        sessions.flat_map(move |(&owner, session)| {
            let start = match after {
                Some(after) if after.owner == owner => Bound::Excluded(after.slice),
                _ => Bound::Unbounded,
            };
            let slots = session.slots.range((start, Bound::Unbounded));
            slots.map(move |(&slice, slot)| (LeasePlace { owner, slice }, slot))
        })
    }

    /// The slots with higher numbers than those that are `known`, whole, a page of them: behind `after`.
    fn lacking(
        &self,
        now: Instant,
        known: &[SessionVector],
        after: Option<LeasePlace>,
    ) -> ReplicaAnswer {
        let (mut news, mut bytes, mut last) = (Vec::new(), 0, None);
        let places = known.iter().flat_map(|session| {
            let owner = session.owner;
            let place = move |&(slice, number)| (LeasePlace { owner, slice }, number);
            session.slices.iter().map(place)
        });
        for (place, number) in places {
            if after.is_some_and(|after| place <= after) {
                continue;
            }
            if bytes >= LEASE_PAGE_BYTES {
                return ReplicaAnswer::LeasesLacking { news, next: last };
            }
            last = Some(place);
            let session = self.sessions.get(&place.owner);
            let slot = session.and_then(|session| session.slots.get(&place.slice));
            if let Some(slot) = slot.filter(|slot| slot.number > number)
                && let Some(expires_in) = left(now, slot)
            {
                let content = self.content(place.owner, slot).into_iter();
                let entries = content.filter_map(|(key, payload)| {
                    Some(SlotEntry {
                        key: LeaseKey::clone(&key),
                        payload: Some(payload?.to_vec()),
                    })
                });
                let slot_news = SliceNews {
                    slice: place.slice,
                    after: 0,
                    entries: entries.collect(),
                };
                let head = (slot.number, expires_in);
                bytes += push_slot(&mut news, place.owner, head, slot_news);
            }
        }
        ReplicaAnswer::LeasesLacking { news, next: None }
    }

    /// Whether nothing is left, in any of its parts.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        let places = self.sessions.len() + self.keys.len() + self.looks.len();
        places + self.bytes == 0
    }

    /// How many sessions say something under a key.
    #[cfg(test)]
    pub(crate) fn sessions_under(&self, key: &LeaseKey) -> usize {
        self.keys.get(key).map_or(0, BTreeMap::len)
    }

    /// How many slots there are, and their bytes as they are counted.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.behind(None).count(), self.bytes)
    }
}

/// Adds the number of a slot to vectors.
pub(crate) fn push_number(
    vectors: &mut Vec<SessionVector>,
    owner: LeaseOwner,
    number: (Slice, u64),
) {
    match vectors.last_mut() {
        Some(last) if last.owner == owner => last.slices.push(number),
        _ => vectors.push(SessionVector {
            owner,
            slices: vec![number],
        }),
    }
}

/// Milliseconds that a slot still counts, if it does.
fn left(now: Instant, slot: &Slot) -> Option<u32> {
    let left = slot.ends.checked_duration_since(now)?.as_millis();
    u32::try_from(left).ok().filter(|left| *left > 0)
}

/// What is said under one key by one session takes in memory, roughly.
fn said_bytes((key, payload): (&Arc<LeaseKey>, &Option<Arc<[u8]>>)) -> usize {
    let payload = payload.as_ref().map_or(0, |payload| payload.len());
    SAID_MEMORY + key.as_bytes().len() + payload
}

/// What a slot takes in memory, roughly, and what one thing that is said takes beside its bytes.
const SLOT_MEMORY: usize = 192;
const SAID_MEMORY: usize = 192;
/// What an entry that is read takes on the wire beside its payload, at most.
const READ_BYTES: usize = 48 + 10 + 5 + 4;
