//! The hash tree of one replica, by which two replicas find what differs between them without sending it.
//!
//! Each of the 2^14 slices has [`TREE_LEAVES_PER_SLICE`] leaves, 128 slices make a group. A leaf is the sum,
//! modulo 2^128, of a hash of key and accepted ballot of each of its rows, and every other node is the sum of
//! the leaves below it. A sum does not depend on the order in which rows came, and a change of a row costs one
//! subtraction and one addition. (Merkle 1987; with sums in place of hashes of hashes, as Riak's TicTac trees.)
//! The members trust each other, so that nobody has to be kept from making two rows that cancel out.
//!
//! **Invariant.** A leaf is changed in the batch of the row, so that on disk the tree is always that of the rows.
//! Since a disk may err all the same, the two are held against each other now and then, a slice at a time (the
//! *scrub*); a leaf that is not that of its rows becomes it, and the next comparison with another replica shows what
//! is missing.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::placement::slice_of_row;
use super::replica::decode_row;
use super::row_key;
use crate::limits::{DAMAGED_ROWS_MAX, TREE_LEAVES_PER_SLICE};
use crate::store::{KeyRange, PageLimit, StoreError, Table, Transaction};
use crate::wire::ring::{Ballot, ReplicaRow, RowKey, Slice, Sum};

/// All leaves, in memory; those that are zero are left out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct HashTree {
    slices: BTreeMap<Slice, Leaves>,
}

type Leaves = [Sum; TREE_LEAVES_PER_SLICE as usize];

impl HashTree {
    /// The tree on disk; `None` if something there is no leaf.
    pub(crate) fn load(tx: &Transaction<'_>) -> Result<Option<Self>, StoreError> {
        let (mut tree, mut range) = (Self::default(), KeyRange::all());
        loop {
            let page = tx.range(Table::HashTree, &range, LOADED_AT_ONCE)?;
            for (key, value) in &page.rows {
                let Some(((slice, leaf), sum)) = decode_key(key).zip(decode_sum(value)) else {
                    tracing::error!(?key, "a leaf of the hash tree on disk is damaged");
                    return Ok(None);
                };
                tree.set(slice, leaf, sum);
            }
            match page.rows.last().filter(|_| page.more) {
                Some((last, _)) => range = range.after(last),
                None => return Ok(Some(tree)),
            }
        }
    }

    /// Makes the tree of the rows on disk, for a disk that has none to go by, and says how many rows there are.
    pub(crate) fn build(tx: &mut Transaction<'_>) -> Result<(Self, u64), StoreError> {
        let (mut tree, mut count, mut range) = (Self::default(), 0, KeyRange::all());
        loop {
            let page = tx.range(Table::HashTree, &range, LOADED_AT_ONCE)?;
            for (key, _) in &page.rows {
                tx.remove(Table::HashTree, key.as_slice())?;
            }
            match page.rows.last().filter(|_| page.more) {
                Some((last, _)) => range = range.after(last),
                None => break,
            }
        }
        let last = Slice::new(Slice::COUNT - 1).unwrap_or(Slice::FIRST);
        each_row(tx, (Slice::FIRST, last), |key, accepted| {
            let (slice, leaf) = (slice_of_row(&key), leaf_of(&key));
            let sum = tree.leaves(slice)[usize::from(leaf)];
            tree.set(slice, leaf, sum.wrapping_add(hash(&key, accepted)));
            count += 1;
        })?;
        for (slice, leaves) in &tree.slices {
            for (leaf, sum) in (0..).zip(leaves).filter(|(_, sum)| **sum != 0) {
                tx.put(Table::HashTree, disk_key(*slice, leaf), sum.to_be_bytes())?;
            }
        }
        Ok((tree, count))
    }

    /// Makes the leaves of a slice, in memory and on disk, those of its rows. Says which were not: bit `i` stands
    /// for leaf `i`; and which rows cannot be read.
    pub(crate) fn scrub(
        &mut self,
        tx: &mut Transaction<'_>,
        slice: Slice,
    ) -> Result<(u64, Vec<RowKey>), StoreError> {
        let (sums, damaged) = sums_of_rows(tx, slice)?;
        let (remembered, stored) = (self.leaves(slice), stored(tx, slice)?);
        let mut mended = 0;
        for (leaf, sum) in (0..TREE_LEAVES_PER_SLICE).zip(sums) {
            let at = usize::from(leaf);
            if (remembered[at], stored[at]) != (sum, Some(sum)) {
                tx.put(Table::HashTree, disk_key(slice, leaf), sum.to_be_bytes())?;
                self.set(slice, leaf, sum);
                mended |= 1 << leaf;
            }
        }
        Ok((mended, damaged))
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

/// Whether the leaves of a slice on disk are those of its rows, and which of these cannot be read. The view has to be of
/// one moment.
pub(crate) fn examine(
    view: &Transaction<'_>,
    slice: Slice,
) -> Result<(bool, Vec<RowKey>), StoreError> {
    let (sums, damaged) = sums_of_rows(view, slice)?;
    Ok((stored(view, slice)? == sums.map(Some), damaged))
}

/// The leaves of a slice as its rows add up to them, and the rows that cannot be read any more, as far as that many are
/// of interest. Those add nothing.
fn sums_of_rows(view: &Transaction<'_>, slice: Slice) -> Result<(Leaves, Vec<RowKey>), StoreError> {
    let (mut sums, mut damaged) = (NO_LEAVES, Vec::new());
    each_row(view, (slice, slice), |key, accepted| {
        let sum = &mut sums[usize::from(leaf_of(&key))];
        *sum = sum.wrapping_add(hash(&key, accepted));
        if accepted == Ballot::ZERO && damaged.len() < DAMAGED_ROWS_MAX {
            damaged.push(key);
        }
    })?;
    Ok((sums, damaged))
}

/// The leaves of a slice as they are on disk; `None` where there is something else.
fn stored(
    view: &Transaction<'_>,
    slice: Slice,
) -> Result<[Option<Sum>; TREE_LEAVES_PER_SLICE as usize], StoreError> {
    let mut leaves = NO_LEAVES.map(Some);
    let range = KeyRange::prefix(slice.index().to_be_bytes());
    for (key, value) in &view.range(Table::HashTree, &range, LOADED_AT_ONCE)?.rows {
        // What is at no place of a leaf goes when the next life begins.
        if let Some((_, leaf)) = decode_key(key) {
            leaves[usize::from(leaf)] = decode_sum(value);
        }
    }
    Ok(leaves)
}

/// Shows keys and accepted ballots of all rows of some slices.
fn each_row(
    view: &Transaction<'_>,
    (first, last): (Slice, Slice),
    mut show: impl FnMut(RowKey, Ballot),
) -> Result<(), StoreError> {
    let mut range = row_key::slices(first, last);
    loop {
        let page = view.range(Table::Rows, &range, LOADED_AT_ONCE)?;
        let behind = page.rows.last().map(|(key, _)| key.clone());
        for stored in page.rows {
            let ReplicaRow { key, accepted, .. } = decode_row(stored)?;
            show(key, accepted);
        }
        match behind.filter(|_| page.more) {
            Some(last) => range = range.after(&last),
            None => return Ok(()),
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
    let digest = Sha256::new()
        .chain_update(ROW_LABEL)
        .chain_update(round.to_be_bytes())
        .chain_update(member.as_bytes())
        .chain_update(incarnation.to_be_bytes())
        .chain_update(row_key::encode_within(key))
        .finalize();
    let half = digest.iter().take(size_of::<Sum>());
    half.fold(0, |sum, byte| sum << 8 | Sum::from(*byte))
}

fn disk_key(slice: Slice, leaf: u8) -> [u8; 3] {
    let [high, low] = slice.index().to_be_bytes();
    [high, low, leaf]
}

fn decode_key(key: &[u8]) -> Option<(Slice, u8)> {
    let [high, low, leaf] = *<&[u8; 3]>::try_from(key).ok()?;
    let slice = Slice::new(u16::from_be_bytes([high, low]))?;
    (leaf < TREE_LEAVES_PER_SLICE).then_some((slice, leaf))
}

fn decode_sum(value: &[u8]) -> Option<Sum> {
    Some(Sum::from_be_bytes(value.try_into().ok()?))
}

const NO_LEAVES: Leaves = [0; TREE_LEAVES_PER_SLICE as usize];
const LEAF_LABEL: &[u8] = b"p2pshare/leaf/1\0";
const ROW_LABEL: &[u8] = b"p2pshare/leaf-row/1\0";
const LOADED_AT_ONCE: PageLimit = PageLimit {
    rows: 16 * 1024,
    bytes: 1 << 20,
};
