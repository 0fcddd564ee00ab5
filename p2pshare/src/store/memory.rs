//! The engine in memory, for tests: it can fail, and it can forget what was not synced.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::backend::{Backend, Change, Changes, Durability, KeyRange, Visit};
use super::{StoreError, Table};

/// A disk that stays when the store over it is gone. A clone is the same disk.
#[derive(Clone, Default)]
pub(crate) struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    open: bool,
    visible: BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>,
    synced: BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>,
    unsynced: Vec<Changes>,
    commits: u64,
    fail_at: Option<u64>,
}

impl MemoryDisk {
    /// Makes the `nth` commit from now fail (1 is the next).
    pub(crate) fn fail_commit(&self, nth: u64) {
        let mut state = self.lock();
        state.fail_at = Some(state.commits + nth);
    }

    /// What a power cut does: everything that was not synced is gone.
    pub(crate) fn lose_power(&self) {
        let mut state = self.lock();
        state.visible = state.synced.clone();
        state.unsynced.clear();
    }

    /// Another disk with what was synced to this one by now.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::default();
        let synced = self.lock().synced.clone();
        let mut state = copy.lock();
        (state.visible, state.synced) = (synced.clone(), synced);
        drop(state);
        copy
    }

    /// The number of commits asked for so far.
    pub(crate) fn commits(&self) -> u64 {
        self.lock().commits
    }

    /// Writes past the store, as a foreign program would.
    pub(crate) fn plant(&self, table: Table, key: &[u8], value: &[u8]) {
        let mut state = self.lock();
        for tables in [0, 1] {
            let tables = if tables == 0 {
                &mut state.visible
            } else {
                &mut state.synced
            };
            tables
                .entry(table)
                .or_default()
                .insert(key.to_vec(), value.to_vec());
        }
    }

    /// The keys and values of a table, as they are.
    pub(crate) fn rows(&self, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = self.lock().visible.get(&table).cloned();
        rows.into_iter().flatten().collect()
    }

    /// Whether a store is open over it.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().open
    }

    /// Opens the disk, which only one store at a time may do.
    pub(super) fn open(&self) -> Result<OpenMemory, StoreError> {
        let mut state = self.lock();
        if state.open {
            return Err(StoreError::Locked {
                path: "memory".into(),
            });
        }
        state.open = true;
        Ok(OpenMemory { disk: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one open handle of a [`MemoryDisk`].
pub(super) struct OpenMemory {
    disk: MemoryDisk,
}

impl Drop for OpenMemory {
    fn drop(&mut self) {
        self.disk.lock().open = false;
    }
}

impl Backend for OpenMemory {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let state = self.disk.lock();
        Ok(state
            .visible
            .get(&table)
            .and_then(|rows| rows.get(key))
            .cloned())
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let state = self.disk.lock();
        let rows = state.visible.get(&table).into_iter().flat_map(|rows| {
            rows.range(range.start.clone()..)
                .take_while(|(key, _)| range.end.as_ref().is_none_or(|end| *key < end))
        });
        for (key, value) in rows {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, changes: &Changes, durability: Durability) -> Result<(), StoreError> {
        let mut state = self.disk.lock();
        let state = &mut *state;
        state.commits += 1;
        if state.fail_at == Some(state.commits) {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(StoreError::io("write to the store", full));
        }
        apply(&mut state.visible, changes);
        state.unsynced.push(changes.clone());
        if durability == Durability::Synced {
            for changes in state.unsynced.drain(..) {
                apply(&mut state.synced, &changes);
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut state = self.disk.lock();
        let state = &mut *state;
        for changes in state.unsynced.drain(..) {
            apply(&mut state.synced, &changes);
        }
        Ok(())
    }
}

fn apply(tables: &mut BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>, changes: &Changes) {
    for (table, key, change) in changes.iter() {
        let rows = tables.entry(table).or_default();
        match change {
            Change::Put(value) => rows.insert(key.clone(), value.clone()),
            Change::Remove => rows.remove(key),
        };
    }
}
