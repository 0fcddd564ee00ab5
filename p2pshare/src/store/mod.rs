//! The durable store: named tables of ordered rows, changed by one writer, one synced batch at a time.
//!
//! **Invariant**: a durable write is answered, and visible to readers, only once it is on disk. Jobs
//! run one after the other in the writer, each seeing what the ones before it wrote, so reading and
//! then writing is one step; as many as are waiting share one commit and one sync. A commit that fails
//! poisons the store: what the disk holds is then only known by opening it again.
//!
//! The writer is a task on the blocking threads of tokio that lives as long as there are jobs: at most
//! one at a time. (A thread of its own would be idle mostly, and tokio's paused clock, which waits for
//! blocking tasks, would run ahead of it in tests.)

mod backend;
mod disk;
mod error;
mod format;
#[cfg(test)]
mod memory;
#[cfg(any(test, feature = "__internals", feature = "__sim"))]
mod model;
#[cfg(test)]
mod tests;
mod transaction;
mod writer;

use std::path::Path;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use backend::{Backend, Changes, Durability, PageBuilder};
use disk::Disk;
use writer::Inner;

pub(crate) use backend::{KeyRange, Page, PageLimit};
pub use error::{ShutdownError, StoreError};
#[cfg(test)]
pub(crate) use memory::MemoryDisk;
#[cfg(any(test, feature = "__internals", feature = "__sim"))]
pub(crate) use model::ModelDisk;
pub(crate) use transaction::Transaction;

/// A handle of an open store; clones are the same store.
///
/// Dropping the last clone closes the store once the jobs that were handed in are done;
/// [`Store::shutdown`] does so at once and waits.
#[derive(Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

impl Store {
    /// Opens, or creates, the store in the folder `path`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] when it is open elsewhere, [`StoreError::WrongFormat`] and
    /// [`StoreError::WrongKind`] when the folder holds something else; nothing was changed then.
    /// [`StoreError::Io`] when the disk fails.
    pub(crate) async fn open(path: &Path, kind: StoreKind) -> Result<Self, StoreError> {
        let path = path.to_owned();
        Self::open_with(kind, path.clone(), move || {
            Disk::open(&path, kind).map(|disk| Arc::new(disk) as Arc<dyn Backend>)
        })
        .await
    }

    /// Opens a store over a disk in memory.
    #[cfg(test)]
    pub(crate) async fn open_memory(
        disk: &MemoryDisk,
        kind: StoreKind,
    ) -> Result<Self, StoreError> {
        let disk = disk.clone();
        Self::open_with(kind, "memory".into(), move || {
            disk.open().map(|disk| Arc::new(disk) as Arc<dyn Backend>)
        })
        .await
    }

    async fn open_with(
        kind: StoreKind,
        path: std::path::PathBuf,
        open: impl FnOnce() -> Result<Arc<dyn Backend>, StoreError> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let opened = spawn_blocking(move || {
            let engine = open()?;
            let commits = format::check(&*engine, kind, &path)?;
            Ok((engine, commits))
        });
        let (engine, commits) = opened
            .await
            .map_err(|panic| StoreError::io("open the store", panic))??;
        Ok(Self {
            inner: Arc::new(Inner::new(engine, kind.tables(), commits)),
        })
    }

    /// Runs `job` in the writer and returns its answer once everything it wrote, and everything it
    /// could read, is synced to disk. A job that returns an error leaves no writes behind.
    ///
    /// Jobs run off the async threads, in the order in which they were handed in, and should be short.
    ///
    /// Cancel-safe in this sense: once the job is queued it runs to its end, awaited or not.
    ///
    /// # Errors
    ///
    /// What the job returned; [`StoreError::Poisoned`] when a commit failed, now or earlier (this
    /// job's writes may or may not be on disk if it was now); [`StoreError::Closed`].
    pub(crate) async fn write<R, F>(&self, job: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<R, StoreError> + Send + 'static,
    {
        Inner::submit(&self.inner, Durability::Synced, job).await
    }

    /// Like [`Store::write`], but answered once the operating system has the change: it survives the
    /// death of the process, not that of the machine, until the next durable write syncs it too.
    ///
    /// # Errors
    ///
    /// As [`Store::write`].
    pub(crate) async fn write_unsynced<R, F>(&self, job: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<R, StoreError> + Send + 'static,
    {
        Inner::submit(&self.inner, Durability::Buffered, job).await
    }

    /// The committed value of a key.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`StoreError::Poisoned`], [`StoreError::Closed`], [`StoreError::Io`].
    pub(crate) async fn get(
        &self,
        table: Table,
        key: impl Into<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key.into();
        self.inner
            .read(table, move |engine| engine.get(table, &key))
            .await
    }

    /// The first committed rows of a range, in key order, of one moment in time.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub(crate) async fn range(
        &self,
        table: Table,
        range: KeyRange,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        let read = move |engine: &dyn Backend| {
            let mut page = PageBuilder::new(limit);
            engine.scan(table, &range, &mut |key, value| page.push(key, value))?;
            Ok(page.finish())
        };
        self.inner.read(table, read).await
    }

    /// Runs `job` on what is committed, off the async threads.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// What the job returned, and as [`Store::get`].
    pub(crate) async fn view<R, F>(&self, job: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<R, StoreError> + Send + 'static,
    {
        let tables = self.inner.tables();
        let read = move |engine: &dyn Backend| {
            let mut nothing = Changes::default();
            job(&Transaction::new(engine, tables, &mut nothing))
        };
        self.inner.read(Table::Header, read).await
    }

    /// The same, on what was committed at one moment, whatever is committed while the job runs.
    ///
    /// # Errors
    ///
    /// As [`Store::view`].
    pub(crate) async fn view_of_one_moment<R, F>(&self, job: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<R, StoreError> + Send + 'static,
    {
        let tables = self.inner.tables();
        let read = move |engine: &dyn Backend| {
            let mut nothing = Changes::default();
            job(&Transaction::new(&*engine.snapshot(), tables, &mut nothing))
        };
        self.inner.read(Table::Header, read).await
    }

    /// The number of commits of this store that are on disk, over all its lives. It is at least that
    /// of any write already answered.
    pub(crate) fn commits(&self) -> u64 {
        self.inner.commits()
    }

    /// Waits until the store can no longer keep its promises, and says why. The process should end
    /// then. Pending for ever on a healthy store. Cancel-safe.
    pub(crate) async fn failed(&self) -> StoreError {
        self.inner.failed().await
    }

    /// Whether it can still keep its promises.
    ///
    /// # Errors
    ///
    /// [`StoreError::Poisoned`], [`StoreError::Closed`].
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.inner.engine().map(drop)
    }

    /// Takes no more jobs, finishes those handed in, syncs, and releases the folder. May be called
    /// again, from any clone, also after it was cancelled.
    ///
    /// # Errors
    ///
    /// [`StoreError::Poisoned`] when the store had failed; the folder is released even so.
    pub(crate) async fn shutdown(&self) -> Result<(), StoreError> {
        self.inner.shutdown().await
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("commits", &self.commits())
            .finish_non_exhaustive()
    }
}

/// Whose store it is, and so which tables it has.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum StoreKind {
    /// A tracker's: rows of the ring.
    Tracker,
    /// A peer's: what it shares and downloads.
    Peer,
}

impl StoreKind {
    /// The tables of such a store.
    pub(super) const fn tables(self) -> &'static [Table] {
        match self {
            Self::Tracker => &[Table::Meta, Table::Rows, Table::HashTree],
            Self::Peer => &[
                Table::Meta,
                Table::Shares,
                Table::DigestPages,
                Table::Downloads,
            ],
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Tracker => "tracker",
            Self::Peer => "peer",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Tracker => b'T',
            Self::Peer => b'P',
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Tracker, Self::Peer]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// A table: a map from keys to values in the order of the keys' bytes.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(crate) enum Table {
    /// The store's own: its format and the counter of its commits.
    Header,
    /// Single values: who this process is, and the like.
    Meta,
    /// The rows of the ring, by slice, partition and sort key.
    Rows,
    /// The leaves of the hash tree over those rows.
    HashTree,
    /// The files that a peer shares.
    Shares,
    /// Chunk digests of those files, in pages.
    DigestPages,
    /// Downloads under way and what they have verified.
    Downloads,
}

impl Table {
    const ALL: [Self; 7] = [
        Self::Header,
        Self::Meta,
        Self::Rows,
        Self::HashTree,
        Self::Shares,
        Self::DigestPages,
        Self::Downloads,
    ];

    /// Its name on disk.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Header => "store",
            Self::Meta => "meta",
            Self::Rows => "rows",
            Self::HashTree => "hash_tree",
            Self::Shares => "shares",
            Self::DigestPages => "digest_pages",
            Self::Downloads => "downloads",
        }
    }
}
