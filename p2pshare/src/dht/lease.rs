//! The leases that one tracker knows: what peers say about themselves, each for a while.
//!
//! **Invariants.** A session of a peer is the only writer of its own entries and numbers them; only a
//! higher number replaces one. An entry is gone when its time on the local monotonic clock is over, also
//! one that says nothing any more, which is kept that long so that a slower message cannot bring back
//! what it withdrew. Number and bytes of entries are bounded, in all and for each key.
//!
//! What a tracker knows of a slice is told by a version vector, the highest number of each session. Two
//! trackers exchange what the other's vector lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::placement::slice_of_lease;
use crate::identity::{PeerId, SessionId};
use crate::limits::{
    LEASE_LIFE_MAX, LEASE_PAYLOAD_BYTES_MAX, LEASE_TABLE_BYTES_MAX, LEASES_PER_KEY_MAX,
};
use crate::wire::ring::{LeaseEntry, LeaseKey, Slice};

/// What one session of one peer says under a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// Who says it.
    pub peer: PeerId,
    /// In which of its sessions.
    pub session: SessionId,
    /// Higher than in anything that this session said before.
    pub number: u64,
    /// How long it counts from now; at most two minutes.
    pub expires_in: Duration,
    /// What it says, at most 256 KiB.
    pub payload: Arc<[u8]>,
}

/// Why a lease was not taken. What was known before is unchanged.
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
    /// There are as many leases as this tracker holds, under this key or in all. Try again when some
    /// have expired.
    #[error("this tracker holds no more leases")]
    Full,
}

/// What one session has said up to which number.
pub(crate) type VersionVector = BTreeMap<(PeerId, SessionId), u64>;

/// The leases, by key and then by session.
#[derive(Debug, Default)]
pub(crate) struct LeaseTable {
    slices: BTreeMap<Slice, BTreeMap<LeaseKey, Entries>>,
    /// When which entry ends, the next one first.
    ends: BTreeSet<(Instant, LeaseKey, (PeerId, SessionId))>,
    bytes: usize,
}

type Entries = BTreeMap<(PeerId, SessionId), Entry>;

#[derive(Clone, Debug)]
struct Entry {
    number: u64,
    ends: Instant,
    /// `None` when the session has nothing to say any more.
    payload: Option<Arc<[u8]>>,
}

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.payload.as_ref().map_or(0, |payload| payload.len())
    }
}

impl LeaseTable {
    /// Takes what a session says, if its number is higher than what is known. Returns whether it was.
    pub(crate) fn put(
        &mut self,
        now: Instant,
        key: &LeaseKey,
        lease: Lease,
    ) -> Result<bool, LeaseError> {
        let Lease {
            peer,
            session,
            number,
            expires_in,
            payload,
        } = lease;
        let entry = Entry {
            number,
            ends: ends(now, expires_in),
            payload: Some(payload),
        };
        self.set(now, key, (peer, session), entry)
    }

    /// Withdraws what a session says, under the same rule.
    pub(crate) fn withdraw(
        &mut self,
        now: Instant,
        key: &LeaseKey,
        owner: (PeerId, SessionId),
        number: u64,
    ) -> Result<bool, LeaseError> {
        self.set(
            now,
            key,
            owner,
            Entry {
                number,
                ends: ends(now, LEASE_LIFE_MAX),
                payload: None,
            },
        )
    }

    /// Takes what another tracker knows, under the same rule.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a ring of several trackers uses it")
    )]
    pub(crate) fn merge(
        &mut self,
        now: Instant,
        key: &LeaseKey,
        news: LeaseEntry,
    ) -> Result<bool, LeaseError> {
        let LeaseEntry {
            peer,
            session,
            number,
            expires_in,
            payload,
        } = news;
        let ends = ends(now, Duration::from_millis(expires_in.into()));
        let entry = Entry {
            number,
            ends,
            payload: payload.map(Arc::from),
        };
        self.set(now, key, (peer, session), entry)
    }

    fn set(
        &mut self,
        now: Instant,
        key: &LeaseKey,
        owner: (PeerId, SessionId),
        entry: Entry,
    ) -> Result<bool, LeaseError> {
        self.expire(now);
        let len = entry.payload.as_ref().map_or(0, |payload| payload.len());
        if len > LEASE_PAYLOAD_BYTES_MAX {
            return Err(LeaseError::TooLarge {
                len,
                max: LEASE_PAYLOAD_BYTES_MAX,
            });
        }
        let entries = self.entries(key);
        let before = entries.and_then(|entries| entries.get(&owner));
        if before.is_some_and(|before| before.number >= entry.number) {
            return Ok(false);
        }
        let (before_bytes, before_ends) =
            before.map_or((0, None), |before| (before.bytes(), Some(before.ends)));
        let crowded =
            before.is_none() && entries.is_some_and(|entries| entries.len() >= LEASES_PER_KEY_MAX);
        let bytes = self.bytes - before_bytes + entry.bytes();
        if crowded || bytes > LEASE_TABLE_BYTES_MAX {
            return Err(LeaseError::Full);
        }
        self.bytes = bytes;
        if let Some(ends) = before_ends {
            self.ends.remove(&(ends, key.clone(), owner));
        }
        self.ends.insert((entry.ends, key.clone(), owner));
        let keys = self.slices.entry(slice_of_lease(key)).or_default();
        keys.entry(key.clone()).or_default().insert(owner, entry);
        Ok(true)
    }

    /// Everything that is said under a key, in no order that means anything.
    pub(crate) fn get(&self, now: Instant, key: &LeaseKey) -> Vec<Lease> {
        let entries = self.entries(key).into_iter().flatten();
        entries
            .filter_map(|(owner, entry)| lease(now, *owner, entry))
            .collect()
    }

    /// Forgets what has ended.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((ends, ..)) = self.ends.first()
            && *ends <= now
            && let Some((_, key, owner)) = self.ends.pop_first()
        {
            let slice = slice_of_lease(&key);
            let Some(keys) = self.slices.get_mut(&slice) else {
                continue;
            };
            let Some(entries) = keys.get_mut(&key) else {
                continue;
            };
            if let Some(entry) = entries.remove(&owner) {
                self.bytes -= entry.bytes();
            }
            if entries.is_empty() {
                keys.remove(&key);
            }
            if keys.is_empty() {
                self.slices.remove(&slice);
            }
        }
    }

    /// What is known of a slice: the highest number of each session.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a ring of several trackers uses it")
    )]
    pub(crate) fn vector(&self, slice: Slice) -> VersionVector {
        let mut vector = VersionVector::new();
        for (owner, entry) in self
            .slices
            .get(&slice)
            .into_iter()
            .flat_map(BTreeMap::values)
            .flatten()
        {
            let highest = vector.entry(*owner).or_default();
            *highest = entry.number.max(*highest);
        }
        vector
    }

    /// What is known of a slice and `vector` lacks, behind the key `after` and at most `limit` entries.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a ring of several trackers uses it")
    )]
    pub(crate) fn lacking(
        &self,
        now: Instant,
        slice: Slice,
        vector: &VersionVector,
        after: Option<&LeaseKey>,
        limit: usize,
    ) -> Vec<(LeaseKey, LeaseEntry)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.slices
            .get(&slice)
            .into_iter()
            .flat_map(|keys| keys.range((start, Bound::Unbounded)))
            .flat_map(|(key, entries)| entries.iter().map(move |entry| (key, entry)))
            .filter(|(_, (owner, entry))| {
                vector.get(owner).is_none_or(|known| entry.number > *known)
            })
            .filter_map(|(key, (owner, entry))| Some((key.clone(), news(now, *owner, entry)?)))
            .take(limit)
            .collect()
    }

    /// How many entries there are, and their bytes.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a ring of several trackers uses it")
    )]
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.ends.len(), self.bytes)
    }

    fn entries(&self, key: &LeaseKey) -> Option<&Entries> {
        self.slices.get(&slice_of_lease(key))?.get(key)
    }
}

/// What an entry says now, if it has not ended and says something.
fn lease(now: Instant, (peer, session): (PeerId, SessionId), entry: &Entry) -> Option<Lease> {
    let payload = entry.payload.clone()?;
    let expires_in = entry
        .ends
        .checked_duration_since(now)
        .filter(|left| !left.is_zero())?;
    Some(Lease {
        peer,
        session,
        number: entry.number,
        expires_in,
        payload,
    })
}

/// What another tracker is told of an entry, unless it has ended.
fn news(now: Instant, (peer, session): (PeerId, SessionId), entry: &Entry) -> Option<LeaseEntry> {
    let left = entry.ends.checked_duration_since(now)?;
    let expires_in = u32::try_from(left.as_millis())
        .ok()
        .filter(|left| *left > 0)?;
    let payload = entry.payload.as_ref().map(|payload| payload.to_vec());
    Some(LeaseEntry {
        peer,
        session,
        number: entry.number,
        expires_in,
        payload,
    })
}

fn ends(now: Instant, life: Duration) -> Instant {
    now + life.min(LEASE_LIFE_MAX)
}

/// What one entry takes beside its payload, roughly: its places in two trees, and its key twice.
const ENTRY_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(name: &str) -> LeaseKey {
        LeaseKey::new(name).unwrap()
    }

    fn owner(i: u8) -> (PeerId, SessionId) {
        (PeerId::from_bytes([i; 32]), SessionId::from_bytes([i; 16]))
    }

    fn lease(i: u8, number: u64, seconds: u64, payload: &str) -> Lease {
        let (peer, session) = owner(i);
        let expires_in = Duration::from_secs(seconds);
        Lease {
            peer,
            session,
            number,
            expires_in,
            payload: payload.as_bytes().into(),
        }
    }

    fn said(table: &LeaseTable, now: Instant, name: &str) -> Vec<String> {
        let leases = table.get(now, &key(name));
        leases
            .iter()
            .map(|lease| String::from_utf8(lease.payload.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn only_a_higher_number_of_the_same_session_replaces() {
        let (mut table, now) = (LeaseTable::default(), Instant::now());
        assert_eq!(table.put(now, &key("k"), lease(1, 5, 60, "a")), Ok(true));
        assert_eq!(table.put(now, &key("k"), lease(1, 5, 60, "b")), Ok(false));
        assert_eq!(table.put(now, &key("k"), lease(1, 4, 60, "c")), Ok(false));
        assert_eq!(table.put(now, &key("k"), lease(2, 1, 60, "d")), Ok(true));
        assert_eq!(said(&table, now, "k"), ["a", "d"]);
        assert_eq!(table.put(now, &key("k"), lease(1, 6, 60, "e")), Ok(true));
        assert_eq!(said(&table, now, "k"), ["e", "d"]);
        assert_eq!(said(&table, now, "other"), [""; 0]);
    }

    #[test]
    fn it_is_gone_when_its_time_is_over_and_leaves_nothing_behind() {
        let (mut table, now) = (LeaseTable::default(), Instant::now());
        table.put(now, &key("k"), lease(1, 1, 60, "a")).unwrap();
        table.put(now, &key("k"), lease(2, 1, 10_000, "b")).unwrap();
        let later = now + Duration::from_secs(59);
        assert_eq!(
            table.get(later, &key("k"))[0].expires_in,
            Duration::from_secs(1)
        );
        // Renewed, it counts from then.
        table.put(later, &key("k"), lease(1, 2, 60, "a")).unwrap();
        assert_eq!(
            said(&table, later + Duration::from_secs(59), "k"),
            ["a", "b"]
        );
        assert_eq!(said(&table, later + Duration::from_secs(60), "k"), ["b"]);
        assert_eq!(said(&table, now + LEASE_LIFE_MAX, "k"), [""; 0]);
        table.expire(now + LEASE_LIFE_MAX);
        assert_eq!(table.size(), (0, 0));
        assert!(table.slices.is_empty());
    }

    #[test]
    fn what_was_withdrawn_is_not_brought_back_by_a_slower_message() {
        let (mut table, now) = (LeaseTable::default(), Instant::now());
        table.put(now, &key("k"), lease(1, 1, 60, "a")).unwrap();
        assert_eq!(table.withdraw(now, &key("k"), owner(1), 3), Ok(true));
        assert_eq!(said(&table, now, "k"), [""; 0]);
        assert_eq!(table.put(now, &key("k"), lease(1, 2, 60, "a")), Ok(false));
        assert_eq!(table.put(now, &key("k"), lease(1, 4, 60, "b")), Ok(true));
        assert_eq!(said(&table, now, "k"), ["b"]);
    }

    #[test]
    fn it_is_bounded_by_key_and_by_payload() {
        let (mut table, now) = (LeaseTable::default(), Instant::now());
        let huge = Lease {
            payload: vec![0; LEASE_PAYLOAD_BYTES_MAX + 1].into(),
            ..lease(1, 1, 60, "")
        };
        let refused = LeaseError::TooLarge {
            len: LEASE_PAYLOAD_BYTES_MAX + 1,
            max: LEASE_PAYLOAD_BYTES_MAX,
        };
        assert_eq!(table.put(now, &key("k"), huge), Err(refused));
        for i in 0..LEASES_PER_KEY_MAX {
            let mut session = [0; 16];
            session[..8].copy_from_slice(&i.to_be_bytes());
            let session = SessionId::from_bytes(session);
            table
                .put(
                    now,
                    &key("k"),
                    Lease {
                        session,
                        ..lease(1, 1, 60, "a")
                    },
                )
                .unwrap();
        }
        assert_eq!(
            table.put(now, &key("k"), lease(2, 1, 60, "a")),
            Err(LeaseError::Full)
        );
        // Who is in may still speak, others have other keys, and time makes room.
        let renewed = Lease {
            session: SessionId::from_bytes([0; 16]),
            ..lease(1, 2, 90, "a")
        };
        assert_eq!(table.put(now, &key("k"), renewed), Ok(true));
        assert_eq!(
            table.put(now, &key("other"), lease(2, 1, 60, "a")),
            Ok(true)
        );
        let later = now + Duration::from_secs(60);
        assert_eq!(table.put(later, &key("k"), lease(2, 1, 60, "a")), Ok(true));
        assert_eq!(table.size().0, 2);
    }

    #[test]
    fn it_is_bounded_in_all() {
        let (mut table, now) = (LeaseTable::default(), Instant::now());
        let payload: Arc<[u8]> = vec![0; LEASE_PAYLOAD_BYTES_MAX].into();
        let mut put = |i: usize, number| {
            let lease = Lease {
                payload: payload.clone(),
                ..lease(1, number, 60, "")
            };
            table.put(now, &key(&i.to_string()), lease)
        };
        let fit = LEASE_TABLE_BYTES_MAX / (LEASE_PAYLOAD_BYTES_MAX + ENTRY_BYTES);
        for i in 0..fit {
            assert_eq!(put(i, 1), Ok(true));
        }
        assert_eq!(put(fit, 1), Err(LeaseError::Full));
        assert_eq!(put(0, 2), Ok(true));
    }

    #[test]
    fn a_lacking_page_goes_on_behind_a_key() {
        let (mut table, now) = (LeaseTable::default(), Instant::now());
        table.put(now, &key("k"), lease(1, 1, 60, "a")).unwrap();
        table.put(now, &key("k"), lease(2, 1, 60, "b")).unwrap();
        let slice = slice_of_lease(&key("k"));
        let none = VersionVector::new();
        assert_eq!(table.lacking(now, slice, &none, None, 10).len(), 2);
        assert_eq!(table.lacking(now, slice, &none, None, 1).len(), 1);
        assert_eq!(
            table.lacking(now, slice, &none, Some(&key("k")), 10).len(),
            0
        );
        let later = now + Duration::from_secs(60);
        assert_eq!(table.lacking(later, slice, &none, None, 10).len(), 0);
    }

    proptest! {
        /// Two tables that heard different things agree after each has told what the other lacks.
        #[test]
        fn exchange_by_vectors_makes_two_tables_equal(
            heard in proptest::collection::vec((any::<bool>(), 0..4u8, any::<bool>()), 0..60),
        ) {
            let now = Instant::now();
            let mut tables = [LeaseTable::default(), LeaseTable::default()];
            for (number, (second, i, gone)) in heard.into_iter().enumerate() {
                let table = &mut tables[usize::from(second)];
                let number = number as u64 + 1;
                match gone {
                    true => table.withdraw(now, &key("k"), owner(i), number).unwrap(),
                    false => table.put(now, &key("k"), lease(i, number, 120, "x")).unwrap(),
                };
            }
            let slice = slice_of_lease(&key("k"));
            for (from, to) in [(0, 1), (1, 0)] {
                let vector = tables[to].vector(slice);
                for (key, news) in tables[from].lacking(now, slice, &vector, None, usize::MAX) {
                    tables[to].merge(now, &key, news).unwrap();
                }
            }
            prop_assert_eq!(tables[0].vector(slice), tables[1].vector(slice));
            prop_assert_eq!(tables[0].get(now, &key("k")), tables[1].get(now, &key("k")));
        }
    }
}
