//! The engine on disk: fjall, sized down.
//!
//! fjall's defaults are those of a database server (32 MiB of cache, 64 MiB of memtable for each
//! keyspace, 512 MiB of journals). A tracker's rows and a peer's journal are small, so caches,
//! memtables and journals take the least that measured well.

use std::fs::DirBuilder;
use std::ops::Bound;
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use super::backend::{Backend, Change, Changes, Durability, KeyRange, View, Visit};
use super::{StoreError, StoreKind, Table};

pub(super) struct Disk {
    database: Database,
    tables: Vec<(Table, Keyspace)>,
}

impl Disk {
    /// Opens or creates a database in a folder of its own, which is created for this user alone.
    pub(super) fn open(path: &Path, kind: StoreKind) -> Result<Self, StoreError> {
        create_folder(path)?;
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .worker_threads(WORKERS)
            .max_cached_files(Some(OPEN_FILES))
            .max_journaling_size(JOURNAL_BYTES)
            .open()
            .map_err(|error| opening(path, error))?;
        let known: Vec<Table> = kind
            .tables()
            .iter()
            .copied()
            .chain([Table::Header])
            .collect();
        let foreign = database
            .list_keyspace_names()
            .iter()
            .any(|name| !Table::ALL.iter().any(|table| table.name() == &**name));
        if foreign {
            return Err(StoreError::WrongFormat {
                path: path.to_owned(),
                found: None,
                expected: super::format::VERSION,
            });
        }
        let mut tables = Vec::new();
        for table in known {
            let options =
                || KeyspaceCreateOptions::default().max_memtable_size(memtable_bytes(table));
            let keyspace = database
                .keyspace(table.name(), options)
                .map_err(|error| StoreError::io("open a table of the store", error))?;
            tables.push((table, keyspace));
        }
        Ok(Self { database, tables })
    }

    fn keyspace(&self, table: Table) -> Result<&Keyspace, StoreError> {
        self.tables
            .iter()
            .find_map(|(known, keyspace)| (*known == table).then_some(keyspace))
            .ok_or(StoreError::NoSuchTable {
                table: table.name(),
            })
    }
}

impl View for Disk {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if key.is_empty() {
            return Ok(None);
        }
        read(self.keyspace(table)?.get(key))
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.snapshot().scan(table, range, visit)
    }
}

/// What was on disk at one moment.
struct Moment<'a> {
    disk: &'a Disk,
    snapshot: Snapshot,
}

impl View for Moment<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if key.is_empty() {
            return Ok(None);
        }
        read(self.snapshot.get(self.disk.keyspace(table)?, key))
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
        let start = Bound::Included(range.start.as_slice());
        let end = range
            .end
            .as_deref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self
            .snapshot
            .range::<&[u8], _>(self.disk.keyspace(table)?, (start, end));
        for row in rows {
            let (key, value) = row
                .into_inner()
                .map_err(|error| StoreError::io("read from the store", error))?;
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn read(value: fjall::Result<Option<fjall::UserValue>>) -> Result<Option<Vec<u8>>, StoreError> {
    let value = value.map_err(|error| StoreError::io("read from the store", error))?;
    Ok(value.map(|value| value.to_vec()))
}

impl Backend for Disk {
    fn snapshot(&self) -> Box<dyn View + '_> {
        Box::new(Moment {
            disk: self,
            snapshot: self.database.snapshot(),
        })
    }

    fn commit(&self, changes: &Changes, durability: Durability) -> Result<(), StoreError> {
        let mode = match durability {
            Durability::Buffered => PersistMode::Buffer,
            Durability::Synced => PersistMode::SyncData,
        };
        let mut batch = self.database.batch().durability(Some(mode));
        for (table, key, change) in changes.iter() {
            let keyspace = self.keyspace(table)?;
            match change {
                Change::Put(value) => batch.insert(keyspace, key.as_slice(), value.as_slice()),
                Change::Remove => batch.remove(keyspace, key.as_slice()),
            }
        }
        batch
            .commit()
            .map_err(|error| StoreError::io("write to the store", error))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.database
            .persist(PersistMode::SyncData)
            .map_err(|error| StoreError::io("sync the store", error))
    }
}

fn create_folder(path: &Path) -> Result<(), StoreError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder
        .create(path)
        .map_err(|error| StoreError::io("create the folder of the store", error))
}

fn opening(path: &Path, error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Locked => StoreError::Locked {
            path: path.to_owned(),
        },
        fjall::Error::InvalidVersion(_) => StoreError::WrongFormat {
            path: path.to_owned(),
            found: None,
            expected: super::format::VERSION,
        },
        other => StoreError::io("open the store", other),
    }
}

/// Memory for rows that are not yet in a sorted table, in bytes. A full one is written out by a thread
/// of fjall's own.
fn memtable_bytes(table: Table) -> u64 {
    match table {
        Table::Rows | Table::DigestPages => 8 << 20,
        Table::HashTree => 2 << 20,
        Table::Header | Table::Meta | Table::Shares | Table::Downloads => 1 << 20,
    }
}

/// Cached blocks of sorted tables, in bytes.
const CACHE_BYTES: u64 = 8 << 20;
/// fjall's own threads: one writes memtables out, one compacts.
const WORKERS: usize = 2;
/// Files that fjall keeps open.
const OPEN_FILES: usize = 64;
/// Journals on disk, in bytes: the least that fjall takes. They are sparse.
const JOURNAL_BYTES: u64 = 64 << 20;
