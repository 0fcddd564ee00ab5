//! What one peer has announced. Each place has one entry, as it was said last; there are never more entries, nor more
//! bytes of bitfields, than one peer may have; and the digest is that of exactly these entries.

use std::{collections::BTreeMap, ops::Bound};

use super::Swarm;
use crate::{
    content::FileId,
    identity::GroupName,
    limits::{ANNOUNCED_BYTES_PER_PEER_MAX, ANNOUNCED_ENTRY_BYTES, SWARMS_PER_PEER_MAX},
    wire::tracker::{Holding, SetDigest, SwarmEntry, SwarmPlace},
};

/// The entries of a peer.
#[derive(Default)]
pub(super) struct HeldSet {
    entries: BTreeMap<SwarmPlace, Held>,
    /// Bytes of all bitfields.
    bits: usize,
    digest: SetDigest,
}

/// One of them.
pub(super) struct Held {
    pub(super) group: GroupName,
    pub(super) id: FileId,
    pub(super) holding: Holding,
}

impl Held {
    pub(super) fn swarm(&self) -> Swarm {
        Swarm::new(&self.group, self.id)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.holding == Holding::Complete
    }
}

/// Bytes of the bitfield.
fn bits(holding: &Holding) -> usize {
    match holding {
        Holding::Partial(bits) => bits.len(),
        Holding::Nothing | Holding::Complete => 0,
    }
}

/// What an entry takes, if it is kept.
fn bytes(holding: &Holding) -> usize {
    match holding {
        Holding::Nothing => 0,
        Holding::Partial(_) | Holding::Complete => ANNOUNCED_ENTRY_BYTES + bits(holding),
    }
}

/// By how much what a peer holds grows with an entry.
pub(super) fn more(holds: Option<&HeldSet>, entry: &SwarmEntry) -> usize {
    let before = holds.and_then(|holds| holds.entries.get(&entry.place()));
    bytes(&entry.holding).saturating_sub(before.map_or(0, |held| bytes(&held.holding)))
}

impl HeldSet {
    /// Puts an entry into its place if there is room for it, where all take `most` at most; what stood there is gone in
    /// any case. Gives that, and whether what is said now is kept.
    pub(super) fn put(&mut self, entry: SwarmEntry, most: usize) -> (Option<Held>, bool) {
        let place = entry.place();
        let before = self.remove(&place);
        let held = Held {
            group: entry.group,
            id: entry.id,
            holding: entry.holding,
        };
        if held.holding == Holding::Nothing {
            return (before, true);
        }
        let has_room = self.entries.len() < SWARMS_PER_PEER_MAX
            && self.bits + bits(&held.holding) <= ANNOUNCED_BYTES_PER_PEER_MAX
            && self.bytes() + bytes(&held.holding) <= most;
        if has_room {
            self.bits += bits(&held.holding);
            self.digest.add(&place, held.id, &held.holding);
            self.entries.insert(place, held);
        }
        (before, has_room)
    }

    pub(super) fn remove(&mut self, place: &SwarmPlace) -> Option<Held> {
        let held = self.entries.remove(place)?;
        self.bits -= bits(&held.holding);
        self.digest.remove(place, held.id, &held.holding);
        Some(held)
    }

    /// What all of it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bits + self.entries.len() * ANNOUNCED_ENTRY_BYTES
    }

    pub(super) const fn digest(&self) -> SetDigest {
        self.digest
    }

    /// The swarms of what is held whole.
    pub(super) fn whole(&self) -> impl Iterator<Item = Swarm> {
        let whole = self.iter().filter(|held| held.is_whole());
        whole.map(Held::swarm)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.entries.values()
    }

    /// At most so many entries behind a place, and the place behind which to go on.
    pub(super) fn some_behind(
        &self,
        place: Option<SwarmPlace>,
        limit: usize,
    ) -> (Vec<SwarmEntry>, Option<SwarmPlace>) {
        let from = place.map_or(Bound::Unbounded, Bound::Excluded);
        let some: Vec<SwarmEntry> = self
            .entries
            .range((from, Bound::Unbounded))
            .take(limit)
            .map(|((_, name), held)| SwarmEntry {
                group: held.group.clone(),
                name: name.clone(),
                id: held.id,
                holding: held.holding.clone(),
            })
            .collect();
        let last = some.last().map(SwarmEntry::place);
        (some, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::FileName, limits::ANNOUNCED_BITFIELD_BYTES_MAX};

    fn entry(i: usize, holding: Holding) -> SwarmEntry {
        SwarmEntry {
            group: GroupName::new("Photos").unwrap(),
            name: FileName::new(&format!("{i}.jpg")).unwrap(),
            id: FileId::from_bytes([7; 32]),
            holding,
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_not_there_and_not_in_the_digest() {
        let part = |byte| Holding::Partial(vec![byte; ANNOUNCED_BITFIELD_BYTES_MAX]);
        let most = ANNOUNCED_BYTES_PER_PEER_MAX / ANNOUNCED_BITFIELD_BYTES_MAX;
        let mut held = HeldSet::default();
        for i in 0..most {
            assert!(held.put(entry(i, part(1)), usize::MAX).1, "{i}");
        }
        let full = held.digest();
        assert!(!held.put(entry(most, part(1)), usize::MAX).1);
        assert!(held.put(entry(most, Holding::Nothing), usize::MAX).1);
        assert_eq!(held.digest(), full);
        // One whose bits change takes its own place; one that takes none has room.
        assert!(held.put(entry(0, part(2)), usize::MAX).1);
        assert!(held.put(entry(most, Holding::Complete), usize::MAX).1);
        // What a larger entry stood for is not true any more, also where there is no room for it.
        let (before, kept) = held.put(entry(most, part(1)), usize::MAX);
        assert!(before.is_some() && !kept);
        held.put(entry(0, part(1)), usize::MAX);
        assert_eq!(held.digest(), full);
        assert_eq!(held.iter().count(), most);
        for i in 0..most {
            held.remove(&entry(i, Holding::Nothing).place());
        }
        assert_eq!((held.digest(), held.bytes()), (SetDigest::default(), 0));
    }
}
