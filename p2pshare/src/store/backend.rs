//! What the store asks of an engine: point reads, ordered scans, and one atomic commit.
//!
//! Two engines stand behind it, fjall on disk and an in-memory twin for tests. The contract that both
//! keep: a commit is all or nothing; with [`Durability::Synced`] it is on disk before it is visible;
//! after a commit that failed nothing more is asked of the engine.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{StoreError, Table};

/// When a commit counts as done.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(super) enum Durability {
    /// Handed to the operating system: survives the death of the process, not of the machine.
    Buffered,
    /// Synced to disk, together with every commit before it.
    Synced,
}

/// What can be read of tables.
pub(super) trait View {
    /// The value of one key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Shows the rows of a range in key order, from one consistent snapshot, until `visit` breaks.
    fn scan(&self, table: Table, range: &KeyRange, visit: &mut Visit<'_>)
    -> Result<(), StoreError>;
}

/// An engine that holds the tables.
pub(super) trait Backend: View + Send + Sync {
    /// The tables as they are at this moment, whatever becomes of them.
    fn snapshot(&self) -> Box<dyn View + '_>;

    /// Makes all changes at once.
    fn commit(&self, changes: &Changes, durability: Durability) -> Result<(), StoreError>;

    /// Syncs every commit so far.
    fn sync(&self) -> Result<(), StoreError>;
}

/// Is shown a key and its value, and says whether to go on.
pub(super) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// What becomes of one key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// It has this value.
    Put(Vec<u8>),
    /// It is not there.
    Remove,
}

impl Change {
    /// The value, if there is one.
    pub(super) fn value(&self) -> Option<&Vec<u8>> {
        match self {
            Self::Put(value) => Some(value),
            Self::Remove => None,
        }
    }
}

/// The changes of one batch, at most one for each table and key.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    pub(super) tables: BTreeMap<Table, BTreeMap<Vec<u8>, Change>>,
}

impl Changes {
    /// The change of one key, if there is one.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<&Change> {
        self.tables.get(&table)?.get(key)
    }

    /// Records a change and returns the one that it replaces.
    pub(super) fn set(&mut self, table: Table, key: Vec<u8>, change: Change) -> Option<Change> {
        self.tables.entry(table).or_default().insert(key, change)
    }

    /// Forgets the change of one key.
    pub(super) fn unset(&mut self, table: Table, key: &[u8]) {
        if let Some(rows) = self.tables.get_mut(&table) {
            rows.remove(key);
        }
    }

    /// Whether there is nothing to commit.
    pub(super) fn is_empty(&self) -> bool {
        self.tables.values().all(BTreeMap::is_empty)
    }

    /// Every change, in order of table and key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Table, &Vec<u8>, &Change)> {
        self.tables
            .iter()
            .flat_map(|(table, rows)| rows.iter().map(move |(key, change)| (*table, key, change)))
    }
}

/// Keys from `start` (inclusive) to `end` (exclusive; `None` is the end of the table).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct KeyRange {
    pub(super) start: Vec<u8>,
    pub(super) end: Option<Vec<u8>>,
}

impl KeyRange {
    /// The whole table.
    pub(crate) fn all() -> Self {
        Self {
            start: Vec::new(),
            end: None,
        }
    }

    /// Keys from `start` (inclusive) to `end` (exclusive).
    pub(crate) fn new(start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        Self {
            start: start.into(),
            end: Some(end.into()),
        }
    }

    /// Every key that begins with `prefix`.
    pub(crate) fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let start = prefix.into();
        let mut end = start.clone();
        // The first key behind a prefix is the prefix with its last byte below 0xff raised by one.
        while let Some(last) = end.pop() {
            if let Some(next) = last.checked_add(1) {
                end.push(next);
                return Self {
                    start,
                    end: Some(end),
                };
            }
        }
        Self { start, end: None }
    }

    /// Every key behind those that begin with `prefix`.
    pub(crate) fn behind_prefix(prefix: impl Into<Vec<u8>>) -> Self {
        match Self::prefix(prefix).end {
            Some(start) => Self { start, end: None },
            // Behind a prefix of 0xff there is nothing.
            None => Self {
                start: Vec::new(),
                end: Some(Vec::new()),
            },
        }
    }

    /// The part of this range that begins where `other` does, or later.
    pub(crate) fn behind(mut self, other: Self) -> Self {
        if other.is_empty() {
            return other;
        }
        self.start = self.start.max(other.start);
        self
    }

    /// The part of this range behind `key`.
    pub(crate) fn after(mut self, key: &[u8]) -> Self {
        let mut start = key.to_vec();
        start.push(0);
        if start > self.start {
            self.start = start;
        }
        self
    }

    /// Whether no key can be in it.
    pub(super) fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// How much one page of a range read may hold. At least one row is returned if there is one.
#[derive(Copy, Clone, Debug)]
pub(crate) struct PageLimit {
    /// The most rows.
    pub(crate) rows: usize,
    /// The most bytes of keys and values together.
    pub(crate) bytes: usize,
}

/// One page of rows in key order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Page {
    /// Keys and values.
    pub(crate) rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether the range holds more rows behind the last of these; go on with [`KeyRange::after`].
    pub(crate) more: bool,
}

/// Collects rows into a page until the limit is met.
pub(super) struct PageBuilder {
    page: Page,
    limit: PageLimit,
    bytes: usize,
}

impl PageBuilder {
    pub(super) fn new(limit: PageLimit) -> Self {
        Self {
            page: Page::default(),
            limit,
            bytes: 0,
        }
    }

    /// Takes a row, or notes that there are more and asks to stop.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) -> ControlFlow<()> {
        let bytes = self.bytes + key.len() + value.len();
        let fits = self.page.rows.len() < self.limit.rows.max(1) && bytes <= self.limit.bytes;
        if !self.page.rows.is_empty() && !fits {
            self.page.more = true;
            return ControlFlow::Break(());
        }
        self.bytes = bytes;
        self.page.rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    }

    pub(super) fn finish(self) -> Page {
        self.page
    }
}
