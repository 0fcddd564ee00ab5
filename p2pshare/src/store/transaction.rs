//! What a job sees while it runs in the writer: the tables as they will be after the batch.
//!
//! A job reads its own writes and those of the jobs before it in the batch, so a read followed by a
//! write is one step for everybody. A job that fails takes its writes back and leaves the others'.

use std::ops::ControlFlow;

use super::backend::{Change, Changes, KeyRange, Page, PageBuilder, PageLimit, View};
use super::{StoreError, Table};
use crate::limits::{STORE_KEY_BYTES_MAX, STORE_VALUE_BYTES_MAX};

/// The view of one job.
pub(crate) struct Transaction<'a> {
    engine: &'a dyn View,
    tables: &'a [Table],
    changes: &'a mut Changes,
    undo: Vec<Undo>,
}

/// What to put back when the job fails.
struct Undo {
    table: Table,
    key: Vec<u8>,
    before: Option<Change>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(engine: &'a dyn View, tables: &'a [Table], changes: &'a mut Changes) -> Self {
        Self {
            engine,
            tables,
            changes,
            undo: Vec::new(),
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] when the engine cannot read, [`StoreError::NoSuchTable`].
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.check(table)?;
        match self.changes.get(table, key) {
            Some(change) => Ok(change.value().cloned()),
            None => self.engine.get(table, key),
        }
    }

    /// The first rows of a range, in key order.
    ///
    /// # Errors
    ///
    /// As [`Transaction::get`].
    pub(crate) fn range(
        &self,
        table: Table,
        range: &KeyRange,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        self.check(table)?;
        let mut page = PageBuilder::new(limit);
        if range.is_empty() {
            return Ok(page.finish());
        }
        let mut changed = self
            .changes
            .tables
            .get(&table)
            .into_iter()
            .flat_map(|rows| rows.range(range.start.clone()..))
            .take_while(|(key, _)| range.end.as_ref().is_none_or(|end| *key < end))
            .peekable();
        let mut stopped = false;
        self.engine.scan(table, range, &mut |key, value| {
            let mut replaced = false;
            while let Some((changed_key, change)) =
                changed.next_if(|(changed_key, _)| changed_key.as_slice() <= key)
            {
                replaced = changed_key.as_slice() == key;
                if let Some(value) = change.value()
                    && page.push(changed_key, value).is_break()
                {
                    stopped = true;
                    return ControlFlow::Break(());
                }
            }
            if !replaced && page.push(key, value).is_break() {
                stopped = true;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        while !stopped && let Some((key, change)) = changed.next() {
            if let Some(value) = change.value() {
                stopped = page.push(key, value).is_break();
            }
        }
        Ok(page.finish())
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`], [`StoreError::NoSuchTable`]; nothing was set.
    pub(crate) fn put(
        &mut self,
        table: Table,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let value = value.into();
        if value.len() > STORE_VALUE_BYTES_MAX {
            return Err(StoreError::TooLarge {
                what: "value",
                len: value.len(),
                max: STORE_VALUE_BYTES_MAX,
            });
        }
        self.set(table, key.into(), Change::Put(value))
    }

    /// Removes a key, which need not exist.
    ///
    /// # Errors
    ///
    /// As [`Transaction::put`].
    pub(crate) fn remove(
        &mut self,
        table: Table,
        key: impl Into<Vec<u8>>,
    ) -> Result<(), StoreError> {
        self.set(table, key.into(), Change::Remove)
    }

    fn set(&mut self, table: Table, key: Vec<u8>, change: Change) -> Result<(), StoreError> {
        self.check(table)?;
        if key.is_empty() || key.len() > STORE_KEY_BYTES_MAX {
            return Err(StoreError::TooLarge {
                what: "key",
                len: key.len(),
                max: STORE_KEY_BYTES_MAX,
            });
        }
        let before = self.changes.set(table, key.clone(), change);
        self.undo.push(Undo { table, key, before });
        Ok(())
    }

    /// Takes back what this job wrote.
    pub(super) fn roll_back(&mut self) {
        while let Some(Undo { table, key, before }) = self.undo.pop() {
            match before {
                Some(change) => {
                    self.changes.set(table, key, change);
                }
                None => self.changes.unset(table, &key),
            }
        }
    }

    /// The bytes that this job wrote, roughly.
    pub(super) fn written(&self) -> usize {
        self.undo
            .iter()
            .map(|Undo { table, key, .. }| {
                let value = self.changes.get(*table, key).and_then(Change::value);
                key.len() + value.map_or(0, Vec::len)
            })
            .sum()
    }

    fn check(&self, table: Table) -> Result<(), StoreError> {
        if self.tables.contains(&table) {
            Ok(())
        } else {
            Err(StoreError::NoSuchTable {
                table: table.name(),
            })
        }
    }
}
