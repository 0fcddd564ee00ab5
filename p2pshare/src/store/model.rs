//! A disk for the simulator, without tasks or clocks: jobs run at once and are on disk when the one who runs
//! the world says so.
//!
//! What a job wrote is visible to later jobs, but to readers only after [`ModelDisk::sync`]. A crash keeps
//! the first few of the jobs that were not synced, a damaged journal loses the newest synced batches, and
//! everything is remembered as what would take it back.
//!
//! **Invariant.** What it holds follows from the calls alone: no order of a hash map, no chance of its own.

#[cfg(test)]
use std::collections::BTreeSet;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use super::backend::{Change, Changes, KeyRange, View, Visit};
use super::transaction::Transaction;
use super::{StoreError, StoreKind, Table, format};

/// The disk of one tracker.
#[derive(Clone, Default)]
pub(crate) struct ModelDisk {
    /// As the next job sees it.
    tables: Tables,
    /// What would take the newest batches back, the newest last: those of the jobs that are not synced,
    /// behind those that are.
    undo: VecDeque<Changes>,
    /// How many of them are not synced.
    unsynced: usize,
    /// Batches on disk.
    commits: u64,
}

/// Tables in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    tables: BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Where nothing can be read.
    #[cfg(test)]
    rotten: BTreeSet<(Table, Vec<u8>)>,
    /// How many rows scans have come upon.
    #[cfg(test)]
    scanned: std::cell::Cell<u64>,
}

impl ModelDisk {
    /// Runs a job over everything that was written so far. Its answer must be kept back until
    /// [`ModelDisk::sync`]. A job that fails leaves nothing behind.
    pub(crate) fn write<R>(
        &mut self,
        job: impl FnOnce(&mut Transaction<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let mut changes = Changes::default();
        let answer = job(&mut Transaction::new(&self.tables, TABLES, &mut changes))?;
        if !changes.is_empty() {
            let undo = self.tables.apply(&changes);
            self.undo.push_back(undo);
            self.unsynced += 1;
        }
        Ok(answer)
    }

    /// Runs `read` over what is on disk, without what is not synced.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&Transaction<'_>) -> R) -> R {
        let mut past = Changes::default();
        for undo in self.undo.iter().rev().take(self.unsynced) {
            for (table, key, change) in undo.iter() {
                past.set(table, key.clone(), change.clone());
            }
        }
        read(&Transaction::new(&self.tables, TABLES, &mut past))
    }

    /// Whether anything waits for [`ModelDisk::sync`].
    #[cfg(any(test, feature = "__sim"))]
    pub(crate) fn is_dirty(&self) -> bool {
        self.unsynced > 0
    }

    /// Everything that was written is on disk, as one batch.
    pub(crate) fn sync(&mut self) {
        if self.unsynced == 0 {
            return;
        }
        self.commits += 1;
        let mut counter = Changes::default();
        format::count(&mut counter, self.commits);
        let mut batch = self.tables.apply(&counter);
        for _ in 0..self.unsynced {
            for (table, key, change) in self.undo.pop_back().unwrap_or_default().iter() {
                batch.set(table, key.clone(), change.clone());
            }
        }
        self.unsynced = 0;
        self.undo.push_back(batch);
        if self.undo.len() > UNDO_MAX {
            self.undo.pop_front();
        }
    }

    /// Loses power: of the jobs that were not synced the first `kept` are on disk all the same.
    pub(crate) fn crash(&mut self, kept: usize) {
        while self.unsynced > kept {
            self.take_back();
            self.unsynced -= 1;
        }
        self.sync();
    }

    /// Loses the newest synced batches, as a journal does that was damaged in the middle. Returns how many
    /// could be lost.
    #[cfg(any(test, feature = "__sim"))]
    pub(crate) fn lose_tail(&mut self, batches: usize) -> usize {
        self.crash(0);
        let lost = batches.min(self.undo.len());
        for _ in 0..lost {
            self.take_back();
        }
        self.commits -= lost as u64;
        lost
    }

    /// The number of batches on disk, as the disk itself counts them.
    #[cfg(any(test, feature = "__sim"))]
    pub(crate) fn commits(&self) -> u64 {
        self.commits
    }

    /// Every row of a table, also those not synced.
    #[cfg(any(test, feature = "__internals"))]
    pub(crate) fn rows(&self, table: Table) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.tables.rows(table)
    }

    /// Makes everything that comes upon a key fail to read, as a damaged block of the engine does.
    #[cfg(test)]
    pub(crate) fn rot(&mut self, table: Table, key: &[u8]) {
        self.tables.rot(table, key);
    }

    /// How many rows scans have come upon so far.
    #[cfg(test)]
    pub(crate) fn scanned(&self) -> u64 {
        self.tables.scanned.get()
    }

    fn take_back(&mut self) {
        if let Some(undo) = self.undo.pop_back() {
            self.tables.apply(&undo);
        }
    }
}

impl Tables {
    /// Makes the changes, and returns those that take them back.
    pub(super) fn apply(&mut self, changes: &Changes) -> Changes {
        let mut undo = Changes::default();
        for (table, key, change) in changes.iter() {
            let rows = self.tables.entry(table).or_default();
            let before = match change {
                Change::Put(value) => rows.insert(key.clone(), value.clone()),
                Change::Remove => rows.remove(key),
            };
            undo.set(
                table,
                key.clone(),
                before.map_or(Change::Remove, Change::Put),
            );
        }
        undo
    }

    /// The keys and values of a table.
    #[cfg(any(test, feature = "__internals"))]
    pub(super) fn rows(&self, table: Table) -> impl Iterator<Item = (&[u8], &[u8])> {
        let rows = self.tables.get(&table).into_iter().flatten();
        rows.map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    #[cfg(test)]
    pub(super) fn rot(&mut self, table: Table, key: &[u8]) {
        self.rotten.insert((table, key.to_vec()));
    }

    /// Comes upon a key.
    #[cfg(test)]
    fn touch(&self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        match self.rotten.contains(&(table, key.to_vec())) {
            true => {
                let rotten = std::io::Error::from(std::io::ErrorKind::InvalidData);
                Err(StoreError::io("read from the store", rotten))
            }
            false => Ok(()),
        }
    }
}

impl View for Tables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        #[cfg(test)]
        self.touch(table, key)?;
        let rows = self.tables.get(&table);
        Ok(rows.and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        if range.is_empty() {
            return Ok(());
        }
        let end = range
            .end
            .as_deref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let within = (Bound::Included(range.start.as_slice()), end);
        let rows = self.tables.get(&table).into_iter();
        for (key, value) in rows.flat_map(|rows| rows.range::<[u8], _>(within)) {
            #[cfg(test)]
            {
                self.touch(table, key)?;
                self.scanned.set(self.scanned.get() + 1);
            }
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

const TABLES: &[Table] = StoreKind::Tracker.tables();
/// Batches that can be lost.
const UNDO_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::PageLimit;

    fn put(disk: &mut ModelDisk, key: u8, value: u8) {
        disk.write(|tx| tx.put(Table::Rows, [key], [value]))
            .unwrap();
    }

    fn seen(disk: &ModelDisk) -> Vec<(u8, u8)> {
        let limit = PageLimit {
            rows: 100,
            bytes: 1000,
        };
        let page = disk.read(|view| view.range(Table::Rows, &KeyRange::all(), limit).unwrap());
        page.rows
            .iter()
            .map(|(key, value)| (key[0], value[0]))
            .collect()
    }

    #[test]
    fn readers_see_what_is_synced_and_jobs_what_is_written() {
        let mut disk = ModelDisk::default();
        put(&mut disk, 1, 1);
        assert!(seen(&disk).is_empty());
        let found = disk.write(|tx| tx.get(Table::Rows, &[1])).unwrap();
        assert_eq!(found, Some(vec![1]));
        disk.sync();
        assert_eq!((seen(&disk), disk.commits()), (vec![(1, 1)], 1));
        let failed = disk.write(|tx| {
            tx.put(Table::Rows, [1], [9])?;
            Err::<(), _>(StoreError::Closed)
        });
        assert!(failed.is_err() && !disk.is_dirty());
    }

    #[test]
    fn a_damaged_journal_loses_whole_batches_and_their_count() {
        let mut disk = ModelDisk::default();
        for value in 1..=3 {
            put(&mut disk, 1, value);
            put(&mut disk, value + 1, 0);
            disk.sync();
        }
        assert_eq!(disk.lose_tail(2), 2);
        assert_eq!((seen(&disk), disk.commits()), (vec![(1, 1), (2, 0)], 1));
        assert_eq!(disk.lose_tail(9), 1);
        assert_eq!((seen(&disk), disk.commits()), (vec![], 0));
    }

    proptest! {
        #[test]
        fn a_crash_keeps_what_was_synced_and_the_first_of_the_rest(
            synced in proptest::collection::vec((0..4u8, any::<u8>()), 0..6),
            rest in proptest::collection::vec((0..4u8, any::<u8>()), 0..6),
            kept in 0..6usize,
        ) {
            let mut disk = ModelDisk::default();
            let mut expected = BTreeMap::new();
            for (key, value) in synced {
                put(&mut disk, key, value);
                expected.insert(key, value);
            }
            disk.sync();
            let before: Vec<_> = expected.clone().into_iter().collect();
            for (i, (key, value)) in rest.into_iter().enumerate() {
                put(&mut disk, key, value);
                if i < kept {
                    expected.insert(key, value);
                }
            }
            prop_assert_eq!(seen(&disk), before);
            disk.crash(kept);
            prop_assert_eq!(seen(&disk), expected.into_iter().collect::<Vec<_>>());
            prop_assert!(!disk.is_dirty());
        }
    }
}
