//! One replica of the rows: what it promises, accepts and tells, in one of its lives.
//!
//! **Invariants.** What it accepted is on disk, and what it promised is on disk or beneath a ceiling that is,
//! before it says so. It answers nobody who speaks in an epoch lower than the highest it has seen, and
//! remembers that one across restarts. Until it votes it has no say: it may have forgotten what it said.
//!
//! **A row that cannot be read** is one of which it has forgotten what it accepted, but not all: that was beneath the
//! ceiling of promises. So it takes nothing for that row up to there, as it may have promised that, and answers no
//! question about it, as if it had not heard it. What it is told to accept above is newer than what it lost, and
//! makes the row whole: a replica may be silent about a row for as long as it likes, and forget what it accepted once
//! it accepts something above it. In pages such a row has [`Ballot::ZERO`], which nobody ever accepts.
//!
//! It runs inside the store's writer, one request after the other, so that each sees what those before it
//! did; what only reads may run beside it, on what is committed.

mod pages;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::pages::own_page;
use self::pages::{scan, tree_rows};
use super::hash_tree::{self, HashTree};
use super::placement::{Placement, slice_of_row};
use super::planted::{Fault, planted};
use super::promises::Promises;
use super::register::Register;
use super::row_key;
use crate::identity::MemberId;
use crate::limits::{
    BALLOT_ROUNDS_APART_MAX, DAMAGED_ROWS_MAX, STORE_VALUE_BYTES_MAX, TREE_SLICES_PER_GROUP,
};
use crate::store::{StoreError, Table, Transaction};
use crate::wire::ring::{
    Ballot, Epoch, PullPlace, ReplicaAnswer, ReplicaCall, ReplicaRequest, ReplicaRow, RowKey,
    RowState, Slice, StoredRegister, Sum, TreeNode,
};

/// The replica of a member, in one of its lives: what of it is in memory.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    me: MemberId,
    placement: Arc<Placement>,
    /// The highest epoch seen, as on disk.
    epoch: Epoch,
    /// Whether it takes part in decisions.
    votes: bool,
    promises: Promises,
    tree: HashTree,
    /// How many rows there are.
    rows: u64,
    /// Who raised the epoch to what it is, if it was by a fence in this life: an answer may be lost.
    fenced_by: Option<(MemberId, u64)>,
    /// Rows that cannot be read, and the highest round that may have been accepted for each.
    damaged: BTreeMap<RowKey, u64>,
    /// Rows that cannot be read and are known to add nothing to their leaves of the tree.
    uncounted: BTreeSet<RowKey>,
}

impl Replica {
    /// The replica over a store, at the beginning of a life. It does not vote yet.
    pub(crate) fn open(
        tx: &mut Transaction<'_>,
        me: MemberId,
        placement: Arc<Placement>,
    ) -> Result<Self, StoreError> {
        let ceiling = decode_number(tx.get(Table::Meta, CEILING_KEY)?)?;
        let counted = tx.get(Table::Meta, ROWS_KEY)?;
        let loaded = match counted {
            Some(_) => HashTree::load(tx)?,
            None => None,
        };
        let (tree, rows) = match loaded {
            Some(tree) => (tree, decode_number(counted)?),
            // The disk is empty, or older than the tree and the count, or the tree is damaged.
            None => {
                let (tree, rows) = HashTree::build(tx)?;
                tx.put(Table::Meta, ROWS_KEY, rows.to_be_bytes())?;
                (tree, rows)
            }
        };
        Ok(Self {
            me,
            fenced_by: None,
            placement,
            epoch: decode_fence(tx.get(Table::Meta, FENCE_KEY)?)?,
            votes: false,
            promises: Promises::after_restart(ceiling),
            tree,
            rows,
            damaged: BTreeMap::new(),
            uncounted: BTreeSet::new(),
        })
    }

    /// The highest epoch that it has seen.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether it takes part in decisions.
    pub(crate) fn votes(&self) -> bool {
        self.votes
    }

    /// Lets it take part: it has forgotten nothing, or has learnt it again.
    pub(crate) fn begin_to_vote(&mut self) {
        self.votes = true;
    }

    /// All that it goes by beside its disk, as long as that can be read.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> impl std::fmt::Debug {
        (self.epoch, self.votes, &self.promises, self.fenced_by)
    }

    /// The hash tree over its rows.
    #[cfg(any(test, feature = "__sim"))]
    pub(crate) fn tree(&self) -> &HashTree {
        &self.tree
    }

    /// Holds the rows of a slice against the hash tree, and mends that. Says how many leaves were wrong.
    pub(crate) fn scrub(
        &mut self,
        tx: &mut Transaction<'_>,
        slice: Slice,
    ) -> Result<u32, StoreError> {
        let (wrong, damaged) = self.tree.scrub(tx, slice)?;
        let leaves = wrong.count_ones();
        if leaves > 0 {
            tracing::error!(
                ?slice,
                leaves,
                ?damaged,
                "rows on disk are not what they were"
            );
        }
        damaged.into_iter().for_each(|key| self.leave_out(key));
        Ok(leaves)
    }

    /// Whether a row that cannot be read is known to add nothing to the tree, so that a comparison shows that it lacks.
    pub(crate) fn is_left_out(&self, key: &RowKey) -> bool {
        self.uncounted.contains(key)
    }

    /// Notes that so of those of these rows that can still not be read.
    pub(crate) fn leave_out_damaged(&mut self, tx: &Transaction<'_>, keys: Vec<RowKey>) {
        let damaged = |key: &RowKey| register(tx, key).is_err_and(|error| error.is_damage());
        let damaged = keys.into_iter().filter(damaged);
        damaged.for_each(|key| self.leave_out(key));
    }

    fn leave_out(&mut self, key: RowKey) {
        if self.uncounted.len() >= DAMAGED_ROWS_MAX {
            self.uncounted.clear();
        }
        self.uncounted.insert(key);
    }

    /// How many rows it has, the deleted ones among them.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether a request has to run in the writer of a replica that has seen no epoch above `seen`.
    pub(crate) fn writes(seen: Epoch, request: &ReplicaRequest) -> bool {
        let writes = matches!(
            request.call,
            ReplicaCall::Prepare { .. }
                | ReplicaCall::Accept { .. }
                | ReplicaCall::Fence { .. }
                | ReplicaCall::Install { .. }
        );
        writes || request.epoch > seen
    }

    /// Answers a request from inside a job of the writer. The answer may be told when the job is durable.
    pub(crate) fn write(
        &mut self,
        tx: &mut Transaction<'_>,
        from: MemberId,
        request: ReplicaRequest,
    ) -> Result<ReplicaAnswer, StoreError> {
        let before = self.epoch;
        if self.is_over(&request) {
            return Ok(ReplicaAnswer::StaleEpoch { highest: before });
        }
        if request.epoch.is_absurd(before) {
            tracing::error!(epoch = ?request.epoch, ?from, "an epoch is far above all others");
            return Ok(ReplicaAnswer::Unavailable);
        }
        let is_fence = matches!(request.call, ReplicaCall::Fence { .. });
        if is_fence && (!self.votes || from == self.me) {
            return Ok(ReplicaAnswer::Unavailable);
        }
        self.raise_epoch(tx, request.epoch)?;
        match request.call {
            ReplicaCall::Fence { incarnation } => {
                let asked = Some((from, incarnation));
                if request.epoch > before {
                    self.fenced_by = asked;
                }
                match self.fenced_by == asked {
                    true => Ok(ReplicaAnswer::Fenced {
                        epoch: request.epoch,
                    }),
                    false => Ok(ReplicaAnswer::StaleEpoch { highest: before }),
                }
            }
            ReplicaCall::Install { rows } if from == self.me && !self.votes => {
                for row in rows {
                    self.install(tx, row)?;
                }
                Ok(ReplicaAnswer::Done)
            }
            ReplicaCall::Prepare { ballot, .. } | ReplicaCall::Accept { ballot, .. }
                if self.is_absurd(ballot) =>
            {
                tracing::error!(?ballot, ?from, "a round is far above all others");
                Ok(ReplicaAnswer::Unavailable)
            }
            ReplicaCall::Prepare { key, ballot } if self.decides(&key) => {
                self.prepare(tx, key, ballot)
            }
            ReplicaCall::Accept { key, ballot, state } if self.decides(&key) => {
                self.accept(tx, &key, ballot, state)
            }
            call => self.answer(tx, request.epoch, call),
        }
    }

    /// Answers a request that only reads, from what is committed.
    pub(crate) fn read(
        &self,
        view: &Transaction<'_>,
        request: ReplicaRequest,
    ) -> Result<ReplicaAnswer, StoreError> {
        if self.is_over(&request) {
            return Ok(ReplicaAnswer::StaleEpoch {
                highest: self.epoch,
            });
        }
        self.answer(view, request.epoch, request.call)
    }

    /// Whether it is asked in an epoch that is over.
    fn is_over(&self, request: &ReplicaRequest) -> bool {
        let unasked = planted(Fault::StaleEpochAccepted)
            && matches!(request.call, ReplicaCall::Accept { .. });
        request.epoch < self.epoch && !unasked && !planted(Fault::NoFence)
    }

    /// Remembers an epoch if it is the highest seen.
    pub(crate) fn raise_epoch(
        &mut self,
        tx: &mut Transaction<'_>,
        epoch: Epoch,
    ) -> Result<(), StoreError> {
        if epoch > self.epoch {
            if !planted(Fault::FenceNotKept) {
                tx.put(Table::Meta, FENCE_KEY, encode_fence(epoch))?;
            }
            self.epoch = epoch;
            self.fenced_by = None;
        }
        Ok(())
    }

    /// Whether it has a say about this row.
    fn decides(&self, key: &RowKey) -> bool {
        self.votes && self.holds(slice_of_row(key), self.me)
    }

    fn holds(&self, slice: Slice, member: MemberId) -> bool {
        self.placement.preference_list(slice).contains(&member)
    }

    /// Whether this member and `with` both hold a slice.
    fn shares(&self, slice: Slice, with: MemberId) -> bool {
        let list = self.placement.preference_list(slice);
        list.contains(&self.me) && list.contains(&with)
    }

    /// Whether nobody who does everything right can have come to this ballot.
    fn is_absurd(&self, ballot: Ballot) -> bool {
        let apart = ballot.round.saturating_sub(self.promises.ceiling());
        apart > BALLOT_ROUNDS_APART_MAX
    }

    /// The register of a row; of one that cannot be read, the ballot up to which it may have promised and accepted.
    fn register(
        &mut self,
        tx: &Transaction<'_>,
        key: &RowKey,
    ) -> Result<Result<Register, Ballot>, StoreError> {
        match register(tx, key) {
            Ok(mut register) => {
                register.promised = register.promised.max(self.promises.of(key));
                Ok(Ok(register))
            }
            Err(error) if error.is_damage() => {
                let highest = Ballot::last_of(self.note_damage(key, &error));
                Ok(Err(highest.max(self.promises.of(key))))
            }
            Err(error) => Err(error),
        }
    }

    /// The highest round that it may have accepted for a row that cannot be read.
    fn note_damage(&mut self, key: &RowKey, error: &StoreError) -> u64 {
        if let Some(highest) = self.damaged.get(key) {
            return *highest;
        }
        tracing::error!(%error, table = Table::Rows.name(), ?key, "a row on disk is damaged");
        if self.damaged.len() >= DAMAGED_ROWS_MAX {
            self.damaged.clear();
        }
        let highest = self.promises.ceiling();
        self.damaged.insert(key.clone(), highest);
        highest
    }

    fn prepare(
        &mut self,
        tx: &mut Transaction<'_>,
        key: RowKey,
        ballot: Ballot,
    ) -> Result<ReplicaAnswer, StoreError> {
        let mut register = match self.register(tx, &key)? {
            Ok(register) => register,
            Err(promised) if ballot <= promised => {
                return Ok(ReplicaAnswer::Refused { ballot, promised });
            }
            Err(_) => return Ok(ReplicaAnswer::Unavailable),
        };
        if let Err(promised) = register.prepare(ballot) {
            return Ok(ReplicaAnswer::Refused { ballot, promised });
        }
        let ceiling = self.promises.make(key, ballot);
        keep_ceiling(tx, ceiling)?;
        Ok(ReplicaAnswer::Promised {
            ballot,
            accepted: register.accepted,
            state: register.state,
        })
    }

    fn accept(
        &mut self,
        tx: &mut Transaction<'_>,
        key: &RowKey,
        ballot: Ballot,
        state: RowState,
    ) -> Result<ReplicaAnswer, StoreError> {
        let mut register = match self.register(tx, key)? {
            Ok(register) => register,
            Err(promised) if ballot <= promised => {
                return Ok(ReplicaAnswer::Refused { ballot, promised });
            }
            Err(_) => {
                self.heal(tx, key, Register::of(ballot, state))?;
                self.promises.settle(key, ballot);
                return Ok(ReplicaAnswer::Accepted { ballot });
            }
        };
        let before = register.accepted;
        if let Err(promised) = register.accept(ballot, state) {
            return Ok(ReplicaAnswer::Refused { ballot, promised });
        }
        self.store(tx, key, before, register)?;
        self.promises.settle(key, ballot);
        Ok(ReplicaAnswer::Accepted { ballot })
    }

    /// Takes what another replica has accepted, if it is newer, or that it can no longer read it.
    pub(crate) fn install(
        &mut self,
        tx: &mut Transaction<'_>,
        row: ReplicaRow,
    ) -> Result<(), StoreError> {
        if row.is_damaged() {
            return self.lose(tx, &row.key);
        }
        let next = Register::of(row.accepted, row.state);
        let before = match register(tx, &row.key) {
            Ok(register) => register.accepted,
            // Whoever is given rows has made void what it accepted before.
            Err(error) if error.is_damage() => return self.heal(tx, &row.key, next),
            Err(error) => return Err(error),
        };
        if row.accepted <= before && !planted(Fault::InstallOverwrites) {
            return Ok(());
        }
        self.store(tx, &row.key, before, next)
    }

    /// Has a row for one that cannot be read: whoever could tell what was accepted for it cannot read it either.
    fn lose(&mut self, tx: &mut Transaction<'_>, key: &RowKey) -> Result<(), StoreError> {
        let place = row_key::encode(key);
        let stored = match tx.get(Table::Rows, &place) {
            Ok(Some(stored)) if stored == LOST => return Ok(()),
            Ok(None) => {
                self.rows += 1;
                tx.put(Table::Meta, ROWS_KEY, self.rows.to_be_bytes())?;
                Ok(None)
            }
            stored => stored,
        };
        tracing::error!(
            ?key,
            "a row is damaged at another tracker too, and cannot be learnt again"
        );
        match stored.and_then(decode_register) {
            Ok(Register { accepted, .. }) => self.tree.change(tx, key, accepted, Ballot::ZERO)?,
            Err(error) if error.is_damage() => self.count_out(tx, key)?,
            Err(error) => return Err(error),
        }
        tx.put(Table::Rows, place, LOST)?;
        self.leave_out(key.clone());
        Ok(())
    }

    /// Writes the register of a row that could not be read.
    fn heal(
        &mut self,
        tx: &mut Transaction<'_>,
        key: &RowKey,
        register: Register,
    ) -> Result<(), StoreError> {
        tracing::warn!(?key, "a row that was damaged on disk is whole again");
        self.count_out(tx, key)?;
        self.tree.change(tx, key, Ballot::ZERO, register.accepted)?;
        self.put(tx, key, register)
    }

    /// Sees to it that a row that cannot be read adds nothing to its leaf. What it added is not known, so that, once for
    /// all such rows of a slice, its leaves are added up anew.
    fn count_out(&mut self, tx: &mut Transaction<'_>, key: &RowKey) -> Result<(), StoreError> {
        if self.is_left_out(key) {
            return Ok(());
        }
        match self.scrub(tx, slice_of_row(key)) {
            // Others of the slice cannot be read at all; the next scrub sees to it.
            Err(error) if error.is_damage() => Ok(()),
            scrubbed => scrubbed.map(drop),
        }
    }

    fn put(
        &mut self,
        tx: &mut Transaction<'_>,
        key: &RowKey,
        register: Register,
    ) -> Result<(), StoreError> {
        // Whatever was known of its damage is over.
        self.damaged.remove(key);
        self.uncounted.remove(key);
        let Register {
            accepted, state, ..
        } = register;
        let ceiling = self.promises.cover(accepted.round);
        keep_ceiling(tx, ceiling)?;
        let value = encode(&StoredRegister::V1 { accepted, state });
        tx.put(Table::Rows, row_key::encode(key), value)
    }

    /// Writes a register, and its leaf of the hash tree with it.
    fn store(
        &mut self,
        tx: &mut Transaction<'_>,
        key: &RowKey,
        before: Ballot,
        register: Register,
    ) -> Result<(), StoreError> {
        if !planted(Fault::LeafNotUpdated) {
            self.tree.change(tx, key, before, register.accepted)?;
        }
        if planted(Fault::DeleteRemovesRow) && register.state.value().is_none() {
            return tx.remove(Table::Rows, row_key::encode(key));
        }
        if before == Ballot::ZERO {
            self.rows += 1;
            tx.put(Table::Meta, ROWS_KEY, self.rows.to_be_bytes())?;
        }
        self.put(tx, key, register)
    }

    /// Answers what only reads.
    fn answer(
        &self,
        view: &Transaction<'_>,
        epoch: Epoch,
        call: ReplicaCall,
    ) -> Result<ReplicaAnswer, StoreError> {
        match call {
            _ if !self.votes => Ok(ReplicaAnswer::Unavailable),
            ReplicaCall::Read { key } if self.decides(&key) => {
                let Register {
                    accepted, state, ..
                } = register(view, &key)?;
                Ok(ReplicaAnswer::Row { accepted, state })
            }
            call @ (ReplicaCall::List { .. } | ReplicaCall::Scan { .. }) => own_page(view, call),
            ReplicaCall::Pull { with, place, limit } => {
                let slice = place.slice;
                let pulled = self.pull(view, with, &place, limit);
                let pulled = pulled.map(|(rows, next)| ReplicaAnswer::Pulled {
                    epoch,
                    asked: place,
                    rows,
                    next,
                });
                or_unreadable(slice, pulled)
            }
            ReplicaCall::TreeGroups { with } => {
                let groups = 0..Slice::COUNT / TREE_SLICES_PER_GROUP;
                let sum = |group: u16| hash_tree::add(self.sums(group as u8, with));
                Ok(ReplicaAnswer::Sums {
                    of: TreeNode::Root,
                    sums: groups.map(sum).collect(),
                })
            }
            ReplicaCall::TreeSlices { with, group }
                if u16::from(group) < Slice::COUNT / TREE_SLICES_PER_GROUP =>
            {
                Ok(ReplicaAnswer::Sums {
                    of: TreeNode::Group(group),
                    sums: self.sums(group, with).collect(),
                })
            }
            ReplicaCall::TreeLeaves { slice } => Ok(ReplicaAnswer::Sums {
                of: TreeNode::Slice(slice),
                sums: self.tree.leaves(slice).to_vec(),
            }),
            ReplicaCall::TreeRows {
                slice,
                leaves,
                after,
            } => or_unreadable(slice, tree_rows(view, slice, leaves, after)),
            _ => Ok(ReplicaAnswer::Unavailable),
        }
    }

    fn sums(&self, group: u8, with: MemberId) -> impl Iterator<Item = Sum> {
        Slice::of_group(group).map(move |slice| match self.shares(slice, with) {
            true => self.tree.slice(slice),
            false => 0,
        })
    }

    /// A page of the rows that this member and `with` hold: of the next slices in a row that they do. And where
    /// to go on.
    fn pull(
        &self,
        view: &Transaction<'_>,
        with: MemberId,
        place: &PullPlace,
        limit: u16,
    ) -> Result<(Vec<ReplicaRow>, Option<PullPlace>), StoreError> {
        let mut shared = (place.slice.index()..Slice::COUNT)
            .filter_map(Slice::new)
            .filter(|slice| self.shares(*slice, with))
            .peekable();
        let Some(first) = shared.next() else {
            return Ok((Vec::new(), None));
        };
        let mut last = first;
        while let Some(next) = shared.next_if(|next| next.index() == last.index() + 1) {
            last = next;
        }
        let after = place.after.clone();
        let after = after.filter(|key| slice_of_row(key) >= first);
        let (rows, seen) = scan(view, (first, last), b"", false, after, limit)?;
        let next = match seen {
            Some(key) => Some(PullPlace {
                slice: slice_of_row(&key),
                after: Some(key),
            }),
            None => shared.next().map(|slice| PullPlace { slice, after: None }),
        };
        Ok((rows, next))
    }
}

/// The answer, or that the disk cannot be read there.
fn or_unreadable(
    slice: Slice,
    answer: Result<ReplicaAnswer, StoreError>,
) -> Result<ReplicaAnswer, StoreError> {
    match answer {
        Err(error) if error.is_damage() => {
            tracing::error!(%error, ?slice, "a part of the disk cannot be read");
            Ok(ReplicaAnswer::Unreadable { slice })
        }
        answer => answer,
    }
}

/// The register of a row, as it is in the store.
pub(crate) fn register(tx: &Transaction<'_>, key: &RowKey) -> Result<Register, StoreError> {
    decode_register(tx.get(Table::Rows, &row_key::encode(key))?)
}

fn decode_number(row: Option<Vec<u8>>) -> Result<u64, StoreError> {
    let Some(row) = row else {
        return Ok(0);
    };
    let bytes = row.try_into().map_err(|_| StoreError::Corrupt {
        table: Table::Meta.name(),
        what: "a number is not 8 bytes",
    })?;
    Ok(u64::from_be_bytes(bytes))
}

fn encode_fence(epoch: Epoch) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&epoch.list.to_be_bytes());
    bytes[8..].copy_from_slice(&epoch.returns.to_be_bytes());
    bytes
}

fn decode_fence(row: Option<Vec<u8>>) -> Result<Epoch, StoreError> {
    let Some(row) = row else {
        return Ok(Epoch::FOUNDING);
    };
    let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
    let epoch = match row.len() {
        8 => number(&row).map(|list| Epoch { list, returns: 0 }),
        16 => number(&row[..8])
            .zip(number(&row[8..]))
            .map(|(list, returns)| Epoch { list, returns }),
        _ => None,
    };
    epoch.ok_or(StoreError::Corrupt {
        table: Table::Meta.name(),
        what: "the highest epoch is none",
    })
}

fn decode_register(row: Option<Vec<u8>>) -> Result<Register, StoreError> {
    let Some(row) = row else {
        return Ok(Register::default());
    };
    let StoredRegister::V1 { accepted, state } = decode(Table::Rows, &row)?;
    Ok(Register::of(accepted, state))
}

/// Remembers a new ceiling of promises, if there is one.
fn keep_ceiling(tx: &mut Transaction<'_>, ceiling: Option<u64>) -> Result<(), StoreError> {
    match ceiling.filter(|_| !planted(Fault::CeilingNotKept)) {
        Some(ceiling) => tx.put(Table::Meta, CEILING_KEY, ceiling.to_be_bytes()),
        None => Ok(()),
    }
}

/// A row as it is on disk; if what was accepted for it cannot be read, one that [is damaged](ReplicaRow::is_damaged).
pub(crate) fn decode_row((key, value): (Vec<u8>, Vec<u8>)) -> Result<ReplicaRow, StoreError> {
    let damaged = StoreError::Corrupt {
        table: Table::Rows.name(),
        what: "a key is none of a row",
    };
    let key = row_key::decode(&key).ok_or(damaged)?;
    let Register {
        accepted, state, ..
    } = decode_register(Some(value)).unwrap_or_default();
    Ok(ReplicaRow {
        key,
        accepted,
        state,
    })
}

/// The bytes of a stored value.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "stored values are plain data, which always encodes"
    )]
    postcard::to_allocvec(value).expect("stored values are plain data")
}

/// The stored value with exactly these bytes.
pub(crate) fn decode<T: DeserializeOwned>(table: Table, bytes: &[u8]) -> Result<T, StoreError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(StoreError::Corrupt {
            table: table.name(),
            what: "a value does not decode",
        }),
    }
}

/// What stands on disk for a row that is lost: no register.
const LOST: [u8; 0] = [];
const FENCE_KEY: &[u8] = b"fence";
const CEILING_KEY: &[u8] = b"ceiling";
const ROWS_KEY: &[u8] = b"rows";

const _: () = assert!(RowState::VALUE_BYTES_MAX + 2 * 1024 < STORE_VALUE_BYTES_MAX);

#[cfg(test)]
mod tests;
