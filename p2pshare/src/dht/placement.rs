//! Where a row lives: consistent hashing with virtual nodes.
//!
//! The circle is the first 64 bits of SHA-256. A partition key falls into one of 2^14 slices, the first
//! 14 bits of its hash; a member stands at [`TOKENS_PER_MEMBER`] points of its own; a slice belongs to the first
//! members met clockwise from its start. Members and the key alone decide this, so that every tracker
//! comes to the same answer, and one member more or fewer moves only what becomes, or was, its own.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use crate::identity::MemberId;
use crate::limits::{REPLICAS_MAX, TOKENS_PER_MEMBER};
use crate::wire::ring::{LeaseKey, RowKey, Slice};

/// The slice of a partition key.
pub(crate) fn slice_of(partition: &[u8]) -> Slice {
    let [high, low, ..] = hash(&[partition]);
    Slice::from_first_bits(u16::from_be_bytes([high, low]))
}

/// The slice of a row.
pub(crate) fn slice_of_row(key: &RowKey) -> Slice {
    slice_of(key.partition())
}

/// The slice of a lease.
pub(crate) fn slice_of_lease(key: &LeaseKey) -> Slice {
    slice_of(key.as_bytes())
}

/// Which members hold which slices.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// The holders of each slice, one slice after the other.
    holders: Vec<MemberId>,
    /// How many a slice has.
    replicas: usize,
}

impl Placement {
    /// Puts the members on the circle.
    pub(crate) fn new(members: &BTreeSet<MemberId>) -> Self {
        let points: BTreeMap<u64, MemberId> = members
            .iter()
            .flat_map(|member| {
                (0..TOKENS_PER_MEMBER).map(move |token| (point(*member, token), *member))
            })
            .collect();
        let replicas = members.len().min(REPLICAS_MAX);
        let holders = Slice::all().flat_map(|slice| {
            let start = u64::from(slice.index()) << (u64::BITS - Slice::BITS);
            let clockwise = points.range(start..).chain(points.range(..start));
            first_different(clockwise.map(|(_, member)| *member), replicas)
        });
        Self {
            holders: holders.collect(),
            replicas,
        }
    }

    /// The members that hold a slice: the first [`REPLICAS_MAX`] different ones clockwise from its start, or
    /// all when there are fewer. The first of them is where coordinators meet.
    pub(crate) fn preference_list(&self, slice: Slice) -> &[MemberId] {
        let first = usize::from(slice.index()) * self.replicas;
        self.holders
            .get(first..first + self.replicas)
            .unwrap_or(&[])
    }

    /// The last slice from `first` on, without a gap, that the same members hold.
    pub(crate) fn run_from(&self, first: Slice) -> Slice {
        let list = self.preference_list(first);
        let holds = |member| list.contains(member);
        let same = (first.index()..Slice::COUNT)
            .filter_map(Slice::new)
            .take_while(|slice| self.preference_list(*slice).iter().all(holds));
        same.last().unwrap_or(first)
    }
}

fn first_different(members: impl Iterator<Item = MemberId>, count: usize) -> Vec<MemberId> {
    let mut list = Vec::with_capacity(count);
    for member in members {
        if list.len() == count {
            break;
        }
        if !list.contains(&member) {
            list.push(member);
        }
    }
    list
}

/// Where a member's token stands.
fn point(member: MemberId, token: u16) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash(&[
        b"p2pshare/token/1\0",
        member.as_bytes(),
        &token.to_be_bytes(),
    ]);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(seed: u8, count: u8) -> BTreeSet<MemberId> {
        (0..count)
            .map(|i| {
                let mut id = [seed; 16];
                id[0] = i;
                MemberId::from_bytes(id)
            })
            .collect()
    }

    fn owned(members: &BTreeSet<MemberId>) -> BTreeSet<(Slice, MemberId)> {
        let placement = Placement::new(members);
        Slice::all()
            .flat_map(|slice| {
                let list = placement.preference_list(slice).to_vec();
                list.into_iter().map(move |member| (slice, member))
            })
            .collect()
    }

    #[test]
    fn the_slice_of_a_key_never_changes() {
        // SHA-256("abc") begins ba78: 1011 1010 0111 10|00.
        assert_eq!(slice_of(b"abc").index(), 0xba78 >> 2);
        assert_eq!(slice_of(b"").index(), 0xe3b0 >> 2);
    }

    #[test]
    fn a_ring_of_one_holds_everything() {
        let one = members(7, 1);
        let placement = Placement::new(&one);
        for slice in Slice::all() {
            assert_eq!(
                placement.preference_list(slice),
                one.iter().copied().collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_ring_of_nobody_holds_nothing() {
        let slice = Slice::new(0).unwrap();
        assert!(
            Placement::new(&BTreeSet::new())
                .preference_list(slice)
                .is_empty()
        );
    }

    #[test]
    fn points_never_change() {
        assert_eq!(
            point(MemberId::from_bytes([1; 16]), 0),
            0x1e99_4a14_3a21_201a
        );
    }

    #[test]
    fn one_member_more_moves_its_fair_share_on_the_average() {
        const SEEDS: u8 = 12;
        for count in [4, 5, 8, 16] {
            let share = |seed| {
                let mut all = members(seed, count);
                let placement = Placement::new(&all);
                let newcomer = all.pop_last().unwrap();
                let moved = Slice::all()
                    .filter(|slice| placement.preference_list(*slice).contains(&newcomer));
                moved.count() as f64 / (f64::from(Slice::COUNT) * placement.replicas as f64)
            };
            let shares: Vec<f64> = (0..SEEDS).map(share).collect();
            let (fair, mean) = (
                1.0 / f64::from(count),
                shares.iter().sum::<f64>() / f64::from(SEEDS),
            );
            println!(
                "of {count}: {:.3} of what is fair, {shares:.3?}",
                mean / fair
            );
            assert!((mean / fair - 1.0).abs() < 0.1, "{mean} of {fair}");
            assert!(
                shares.iter().all(|share| *share < 1.5 * fair),
                "{shares:?} of {fair}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn every_slice_has_as_many_different_members_as_there_can_be(
            seed in any::<u8>(),
            count in 1..8u8,
        ) {
            let members = members(seed, count);
            let placement = Placement::new(&members);
            for slice in Slice::all() {
                let list = placement.preference_list(slice);
                let different: BTreeSet<_> = list.iter().copied().collect();
                prop_assert_eq!(list.len(), usize::from(count).min(REPLICAS_MAX));
                prop_assert_eq!(different.len(), list.len());
                prop_assert!(different.is_subset(&members));
            }
        }

        #[test]
        fn one_member_more_moves_its_own_share_and_nothing_else(
            seed in any::<u8>(),
            count in 3..20u8,
        ) {
            let after = members(seed, count + 1);
            let mut before = after.clone();
            let newcomer = before.pop_last().unwrap();
            let (old, new) = (owned(&before), owned(&after));
            let moved: Vec<_> = new.difference(&old).collect();
            prop_assert!(moved.iter().all(|(_, member)| *member == newcomer));
            let share = moved.len() as f64 / new.len() as f64;
            let fair = 1.0 / f64::from(count + 1);
            prop_assert!(share < 1.5 * fair && share > 0.6 * fair, "{share} of {fair}");
        }
    }
}
