//! The hash tree of one replica, by which two replicas find what differs between them without sending it.
//!
//! Each of the 2^14 slices has [`TREE_LEAVES_PER_SLICE`] leaves, 128 slices make a group. A leaf is the sum,
//! modulo 2^128, of a hash of key and accepted ballot of each of its rows, and every other node is the sum of
//! the leaves below it. A sum does not depend on the order in which rows came, and a change of a row costs one
//! subtraction and one addition. (Merkle 1987; with sums in place of hashes of hashes, as Riak's TicTac trees.)
//! The members trust each other, so that nobody has to be kept from making two rows that cancel out.
//!
//! **Invariant.** A leaf is changed in the batch of the row, so that on disk the tree is always that of the rows.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::placement::slice_of_row;
use super::row_key;
use crate::limits::TREE_LEAVES_PER_SLICE;
use crate::store::{KeyRange, PageLimit, StoreError, Table, Transaction};
use crate::wire::ring::{Ballot, RowKey, Slice, Sum};

/// All leaves, in memory; those that are zero are left out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct HashTree {
    slices: BTreeMap<Slice, Leaves>,
}

type Leaves = [Sum; TREE_LEAVES_PER_SLICE as usize];

impl HashTree {
    /// The tree on disk.
    pub(crate) fn load(tx: &Transaction<'_>) -> Result<Self, StoreError> {
        let (mut tree, mut range) = (Self::default(), KeyRange::all());
        loop {
            let page = tx.range(Table::HashTree, &range, LOADED_AT_ONCE)?;
            for (key, value) in &page.rows {
                let (slice, leaf, sum) = decode(key, value).ok_or(StoreError::Corrupt {
                    table: Table::HashTree.name(),
                    what: "a leaf is none",
                })?;
                tree.set(slice, leaf, sum);
            }
            match page.rows.last().filter(|_| page.more) {
                Some((last, _)) => range = range.after(last),
                None => return Ok(tree),
            }
        }
    }

    /// Notes that a row has accepted `new` where it had `old` before; [`Ballot::ZERO`] is nothing.
    pub(crate) fn change(
        &mut self,
        tx: &mut Transaction<'_>,
        key: &RowKey,
        old: Ballot,
        new: Ballot,
    ) -> Result<(), StoreError> {
        let (slice, leaf) = (slice_of_row(key), leaf_of(key));
        let before = self.leaves(slice)[usize::from(leaf)];
        let sum = before
            .wrapping_sub(hash(key, old))
            .wrapping_add(hash(key, new));
        tx.put(Table::HashTree, disk_key(slice, leaf), sum.to_be_bytes())?;
        self.set(slice, leaf, sum);
        Ok(())
    }

    /// The leaves of a slice.
    pub(crate) fn leaves(&self, slice: Slice) -> Leaves {
        self.slices.get(&slice).copied().unwrap_or(NO_LEAVES)
    }

    /// The node of a slice.
    pub(crate) fn slice(&self, slice: Slice) -> Sum {
        self.slices
            .get(&slice)
            .map_or(0, |leaves| add(leaves.iter().copied()))
    }

    fn set(&mut self, slice: Slice, leaf: u8, sum: Sum) {
        let leaves = self.slices.entry(slice).or_insert(NO_LEAVES);
        if let Some(place) = leaves.get_mut(usize::from(leaf)) {
            *place = sum;
        }
        if *leaves == NO_LEAVES {
            self.slices.remove(&slice);
        }
    }
}

/// The node above `sums`.
pub(crate) fn add(sums: impl Iterator<Item = Sum>) -> Sum {
    sums.fold(0, Sum::wrapping_add)
}

/// The leaf of a row, within its slice. It follows from the whole key, so that the rows of a large partition
/// are spread.
pub(crate) fn leaf_of(key: &RowKey) -> u8 {
    let digest = Sha256::new()
        .chain_update(LEAF_LABEL)
        .chain_update(row_key::encode_within(key))
        .finalize();
    digest[0] % TREE_LEAVES_PER_SLICE
}

/// What a row with this accepted ballot adds to its leaf.
pub(crate) fn hash(key: &RowKey, accepted: Ballot) -> Sum {
    if accepted == Ballot::ZERO {
        return 0;
    }
    let Ballot {
        round,
        member,
        incarnation,
    } = accepted;
    let digest: [u8; 32] = Sha256::new()
        .chain_update(ROW_LABEL)
        .chain_update(round.to_be_bytes())
        .chain_update(member.as_bytes())
        .chain_update(incarnation.to_be_bytes())
        .chain_update(row_key::encode_within(key))
        .finalize()
        .into();
    let [high, _] = halves(digest);
    high
}

fn halves(digest: [u8; 32]) -> [Sum; 2] {
    let mut halves = [0; 2];
    for (index, byte) in digest.into_iter().enumerate() {
        halves[index / 16] = halves[index / 16] << 8 | Sum::from(byte);
    }
    halves
}

fn disk_key(slice: Slice, leaf: u8) -> [u8; 3] {
    let [high, low] = slice.index().to_be_bytes();
    [high, low, leaf]
}

fn decode(key: &[u8], value: &[u8]) -> Option<(Slice, u8, Sum)> {
    let [high, low, leaf] = *<&[u8; 3]>::try_from(key).ok()?;
    let slice = Slice::new(u16::from_be_bytes([high, low]))?;
    let sum = Sum::from_be_bytes(value.try_into().ok()?);
    (leaf < TREE_LEAVES_PER_SLICE).then_some((slice, leaf, sum))
}

const NO_LEAVES: Leaves = [0; TREE_LEAVES_PER_SLICE as usize];
const LEAF_LABEL: &[u8] = b"p2pshare/leaf/1\0";
const ROW_LABEL: &[u8] = b"p2pshare/leaf-row/1\0";
const LOADED_AT_ONCE: PageLimit = PageLimit {
    rows: 16 * 1024,
    bytes: 1 << 20,
};
