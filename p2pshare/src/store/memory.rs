//! The engine in memory, for tests: it can fail, and it can forget what was not synced.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::backend::{Backend, Change, Changes, Durability, KeyRange, View, Visit};
use super::model::Tables;
use super::{StoreError, Table};

/// A disk that stays when the store over it is gone. A clone is the same disk.
#[derive(Clone, Default)]
pub(crate) struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    open: bool,
    visible: Tables,
    synced: Tables,
    unsynced: Vec<Changes>,
    commits: u64,
    fail_at: Option<u64>,
    /// What snapshots wait for, and how many were taken.
    stalled: Option<Receiver<()>>,
    snapshots: u64,
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
        let mut planted = Changes::default();
        planted.set(table, key.to_vec(), Change::Put(value.to_vec()));
        state.visible.apply(&planted);
        state.synced.apply(&planted);
    }

    /// Makes everything that comes upon a key fail to read, as a damaged block of the engine does.
    pub(crate) fn rot(&self, table: Table, key: &[u8]) {
        self.lock().visible.rot(table, key);
    }

    /// Makes the next snapshot wait until something comes, or can come no more.
    pub(crate) fn stall_snapshot(&self, until: Receiver<()>) {
        self.lock().stalled = Some(until);
    }

    /// How many snapshots were taken.
    pub(crate) fn snapshots(&self) -> u64 {
        self.lock().snapshots
    }

    /// The keys and values of a table, as they are.
    pub(crate) fn rows(&self, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
        let state = self.lock();
        let rows = state.visible.rows(table);
        rows.map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect()
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

impl View for OpenMemory {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.disk.lock().visible.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.disk.lock().visible.scan(table, range, visit)
    }
}

impl Backend for OpenMemory {
    fn snapshot(&self) -> Box<dyn View + '_> {
        let mut state = self.disk.lock();
        state.snapshots += 1;
        let stalled = state.stalled.take();
        drop(state);
        _ = stalled.map(|until| until.recv());
        Box::new(self.disk.lock().visible.clone())
    }

    fn commit(&self, changes: &Changes, durability: Durability) -> Result<(), StoreError> {
        let mut state = self.disk.lock();
        let state = &mut *state;
        state.commits += 1;
        if state.fail_at == Some(state.commits) {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(StoreError::io("write to the store", full));
        }
        state.visible.apply(changes);
        state.unsynced.push(changes.clone());
        if durability == Durability::Synced {
            for changes in state.unsynced.drain(..) {
                state.synced.apply(&changes);
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut state = self.disk.lock();
        let state = &mut *state;
        for changes in state.unsynced.drain(..) {
            state.synced.apply(&changes);
        }
        Ok(())
    }
}
