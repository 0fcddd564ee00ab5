//! What can go wrong with a store, and whether anything was changed by it.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a store could not be opened, read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another handle of this one, has the folder open. Nothing was changed;
    /// stop the other one and try again.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The folder of the store.
        path: PathBuf,
    },
    /// The folder was written by a program that this version does not understand. Nothing was
    /// changed.
    #[error("{} holds {}, and this version reads format {expected}", path.display(), describe(*found))]
    WrongFormat {
        /// The folder of the store.
        path: PathBuf,
        /// The format found there, or `None` when it is no store of p2pshare at all.
        found: Option<u16>,
        /// The format that this version reads and writes.
        expected: u16,
    },
    /// The folder belongs to the other kind of program: a tracker's store was opened by a peer, or
    /// the reverse. Nothing was changed.
    #[error("{} is the store of a {found}, not of a {expected}", path.display())]
    WrongKind {
        /// The folder of the store.
        path: PathBuf,
        /// Whose store it is.
        found: &'static str,
        /// Whose store was asked for.
        expected: &'static str,
    },
    /// The engine failed to do what it was asked. A read changed nothing; a write that failed poisons
    /// the store, and later calls say so.
    #[error("cannot {doing}: {}", plain(&**source))]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the engine said.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// Stored bytes do not decode. Nothing was changed.
    #[error("a stored row of table {table} is damaged: {what}")]
    Corrupt {
        /// The table that holds the row.
        table: &'static str,
        /// What does not fit.
        what: &'static str,
    },
    /// A key or a value is empty where it must not be, or larger than a store takes. The change it
    /// belongs to was not made.
    #[error("a {what} of {len} bytes does not fit in the store (most: {max})")]
    TooLarge {
        /// `key` or `value`.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The most that is taken, in bytes.
        max: usize,
    },
    /// The store was opened without this table. Nothing was changed. It is a mistake of the caller.
    #[error("this store has no table {table}")]
    NoSuchTable {
        /// The table asked for.
        table: &'static str,
    },
    /// Another copy of this store is, or was, in use: what a later life of its member has promised is not here.
    /// Whoever starts again from it learns that first.
    #[error("another tracker runs, or ran, as this one: a later life of it has spoken")]
    Superseded,
    /// Another tracker remembers more of what this one has said than is here: the disk has lost what it had synced.
    /// Whoever starts again from it learns that first.
    #[error(
        "the disk of this tracker has lost what it had: another one remembers more; start it again, and it learns that anew"
    )]
    Forgotten,
    /// A job panicked inside the writer. Nothing of its batch was committed.
    #[error("a job panicked in the writer of the store")]
    JobPanicked,
    /// The writer went away with the runtime it ran on. Whether the last batch is on disk is not
    /// known.
    #[error("the writer of the store was stopped from outside")]
    WriterLost,
    /// A commit failed, or a job panicked, now or earlier. Whether the changes of the batch that
    /// failed are on disk is not known; later ones were not made. Only a new process, which reads
    /// back what the disk has, can go on.
    #[error("the store failed and takes nothing more until it is opened again: {cause}")]
    Poisoned {
        /// The first failure.
        #[source]
        cause: Arc<StoreError>,
    },
    /// The store was shut down. Nothing was changed.
    #[error("the store is shut down")]
    Closed,
}

/// Why the orderly end of a handle was not one. It has ended even so.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// A task had panicked: a fault of this library.
    #[error("a task had panicked")]
    Panicked,
    /// The store had failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StoreError {
    /// Whether a read found that what is on disk is not what was written, or cannot be read; other rows may be sound.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Io { .. })
    }

    /// An engine's error under the name of what was being done.
    pub(super) fn io(doing: &'static str, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Io {
            doing,
            source: Arc::new(source),
        }
    }
}

/// What the system said, where that is at the bottom of it: the engine shows its own errors as a programmer would.
fn plain(error: &(dyn Error + 'static)) -> String {
    let mut at = error;
    while !at.is::<io::Error>()
        && let Some(source) = at.source()
    {
        at = source;
    }
    at.to_string()
}

fn describe(found: Option<u16>) -> String {
    match found {
        Some(version) => format!("a store of format {version}"),
        None => "something that is not a store of p2pshare".to_owned(),
    }
}
