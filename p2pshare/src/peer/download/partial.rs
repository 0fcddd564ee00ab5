//! The partial file of a download, and the thread that writes it. It is a regular file of this user, reached
//! without following links, locked against a second download, and named beside the destination. A download
//! writes to no file that it did not make, and renames nothing over a destination unless that was asked for; a
//! repair writes where the finished file stands, and cuts nothing off it before all of it is right.

use std::{
    ffi::OsString,
    fs::{File, Metadata},
    io::{self, IoSlice},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::UNIX_EPOCH,
};

use bytes::Bytes;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::journal::Reserved;
use crate::{
    content::{Bitfield, ChunkIndex, Digest, Layout},
    limits::{FILE_NAME_BYTES_MAX, WRITE_QUEUE_CHUNKS},
    peer::{
        error::DownloadError,
        file::{BufferPool, Source},
    },
};

/// An open partial file. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Partial {
    open: Arc<Open>,
    path: PathBuf,
    dest: PathBuf,
    layout: Layout,
    /// Whether only its content can show that it is one.
    doubtful: bool,
    #[cfg(test)]
    faults: faults::Faults,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Where it was made to be mended; it is removed again if nothing comes.
    made_at: Option<PathBuf>,
    written: AtomicBool,
    /// Given back after the file was closed, and so unlocked.
    _reserved: Reserved,
}

impl Open {
    fn new(file: File, made_at: Option<PathBuf>, reserved: Reserved) -> Arc<Self> {
        Arc::new(Self {
            file,
            made_at,
            written: AtomicBool::new(false),
            _reserved: reserved,
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some(path) = &self.made_at else {
            return;
        };
        if !self.written.load(Ordering::Relaxed) && leads_to(path, &self.file).unwrap_or(false) {
            let removed = std::fs::remove_file(path);
            tracing::debug!(path = %path.display(), ?removed, "nothing came for a file that was gone");
        }
    }
}

/// By what a partial file is known again: a file that somebody else puts in its place differs.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) enum Mark {
    V1 {
        inode: u64,
        /// Nanoseconds since 1970, where the file system knows. The inode of a deleted file is soon used
        /// again.
        born: Option<u64>,
    },
}

/// What is remembered of a partial file before it is opened.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Known {
    /// There is none: whatever stands in its place is somebody's.
    None,
    /// It was about to be made.
    Begun,
    /// It was made, and this is it.
    Made(Mark),
}

/// A chunk to be written, in the pieces in which it arrived.
pub(super) struct Write {
    pub(super) chunk: ChunkIndex,
    pub(super) pieces: Vec<Bytes>,
}

/// What became of a [`Write`].
pub(super) type Written = Result<ChunkIndex, DownloadError>;

impl Mark {
    fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok();
        let born = born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        Self::V1 {
            inode: metadata.ino(),
            born: born.and_then(|born| u64::try_from(born.as_nanos()).ok()),
        }
    }
}

impl Partial {
    /// Opens, or creates, the partial file of `dest`. What is there is changed only if it is the one that is
    /// `known`, which its content may have to show: see [`claim`](Self::claim). Blocks.
    pub(super) fn open(
        dest: &Path,
        layout: Layout,
        known: Known,
        reserved: Reserved,
    ) -> Result<Self, DownloadError> {
        let path = partial_path(dest);
        let mut flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if known == Known::None {
            flags |= OFlags::EXCL;
        }
        let file = match rustix::fs::open(&path, flags, Mode::from_raw_mode(0o666)) {
            Ok(file) => File::from(file),
            // Something, a link, a folder, a socket.
            Err(Errno::EXIST | Errno::LOOP | Errno::ISDIR | Errno::NXIO) => {
                return Err(DownloadError::InTheWay { path });
            }
            Err(error) => return Err(io_error(&path, error.into())),
        };
        let metadata = file.metadata().map_err(|cause| io_error(&path, cause))?;
        if !is_plain(&metadata) {
            return Err(DownloadError::InTheWay { path });
        }
        lock(&file, &path, &metadata, dest)?;
        let is_blank = metadata.blocks() == 0 && [0, layout.length()].contains(&metadata.len());
        let partial = Self {
            open: Open::new(file, None, reserved),
            path,
            dest: dest.to_owned(),
            layout,
            doubtful: !is_blank && known != Known::Made(Mark::of(&metadata)),
            #[cfg(test)]
            faults: faults::Faults::default(),
        };
        if !partial.doubtful {
            partial.make_room(&metadata)?;
        }
        Ok(partial)
    }

    /// Opens the finished file at `dest` to be mended where it stands, or creates it, at least as long as the file
    /// has to be. What it is too long stays until it is [cut](Self::cut). Blocks.
    pub(super) fn open_in_place(
        dest: &Path,
        layout: Layout,
        reserved: Reserved,
    ) -> Result<Self, DownloadError> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let (file, made_at) = match rustix::fs::open(dest, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                let flags = flags | OFlags::CREATE | OFlags::EXCL;
                let file = rustix::fs::open(dest, flags, Mode::from_raw_mode(0o666));
                (file, Some(dest.to_owned()))
            }
            file => (file, None),
        };
        let file = File::from(file.map_err(|error| io_error(dest, error.into()))?);
        let metadata = file.metadata().map_err(|cause| io_error(dest, cause))?;
        if !is_plain(&metadata) {
            return Err(DownloadError::BadDestination {
                dest: dest.to_owned(),
                reason: "it is not a plain file of this user alone",
            });
        }
        lock(&file, dest, &metadata, dest)?;
        let partial = Self {
            open: Open::new(file, made_at, reserved),
            path: dest.to_owned(),
            dest: dest.to_owned(),
            layout,
            doubtful: false,
            #[cfg(test)]
            faults: faults::Faults::default(),
        };
        if metadata.len() < layout.length() {
            partial.make_room(&metadata)?;
        }
        Ok(partial)
    }

    /// Cuts off what a file that was mended is too long. Blocks.
    pub(super) fn cut(&self) -> Result<(), DownloadError> {
        let cut = self.file().set_len(self.layout.length());
        cut.map_err(|cause| self.failed(cause))
    }

    /// By what it is known again.
    pub(super) fn mark(&self) -> Result<Mark, DownloadError> {
        let metadata = self.file().metadata().map_err(|cause| self.failed(cause))?;
        Ok(Mark::of(&metadata))
    }

    /// Whether only its content can show that it is the one that is known.
    pub(super) const fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Refuses a file that is not known by its [`Mark`], as after a restoration or on a file system that
    /// numbers files anew, unless it has `right` chunks of the download. Blocks.
    pub(super) fn claim(&mut self, right: &Bitfield) -> Result<(), DownloadError> {
        if right.is_empty() {
            let path = self.path.clone();
            return Err(DownloadError::InTheWay { path });
        }
        let metadata = self.file().metadata().map_err(|cause| self.failed(cause))?;
        self.make_room(&metadata)?;
        self.doubtful = false;
        Ok(())
    }

    /// Refuses a destination beside which something stands where its partial file would be. Blocks.
    pub(super) fn refuse_what_is_in_the_way(dest: &Path) -> Result<(), DownloadError> {
        let path = partial_path(dest);
        match std::fs::symlink_metadata(&path) {
            Ok(_) => Err(DownloadError::InTheWay { path }),
            Err(_) => Ok(()),
        }
    }

    /// Removes the partial file that is known by `mark`: the whole is at `dest` already. Blocks.
    pub(super) fn discard(dest: &Path, mark: Mark) {
        let path = partial_path(dest);
        let Ok(metadata) = std::fs::symlink_metadata(&path) else {
            return;
        };
        if metadata.is_file() && Mark::of(&metadata) == mark {
            let removed = std::fs::remove_file(&path);
            tracing::debug!(path = %path.display(), ?removed, "a partial file was left over");
        }
    }

    /// Of the chunks in `claimed`, those whose bytes are right, by as many threads as there are cores. Blocks.
    pub(super) fn verify(
        &self,
        claimed: &Bitfield,
        digest: impl Fn(ChunkIndex) -> Option<Digest> + Sync,
    ) -> Result<Bitfield, DownloadError> {
        let source = self.source()?;
        let chunks: Vec<ChunkIndex> = claimed
            .iter_set()
            .filter_map(|index| self.layout.chunk(index))
            .collect();
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let share = chunks.len().div_ceil(threads).max(1);
        let (source, digest, layout) = (&source, &digest, self.layout);
        let mut right = Bitfield::new(layout.chunk_count());
        std::thread::scope(|scope| {
            let threads: Vec<_> = chunks
                .chunks(share)
                .map(|chunks| {
                    scope.spawn(move || {
                        let pool = BufferPool::default();
                        let is_right = |chunk: &&ChunkIndex| {
                            let bytes = source.read_chunk(layout, **chunk, &pool);
                            bytes.is_ok_and(|bytes| digest(**chunk) == Some(Digest::of(&bytes)))
                        };
                        chunks.iter().filter(is_right).copied().collect::<Vec<_>>()
                    })
                })
                .collect();
            for thread in threads {
                for chunk in thread.join().unwrap_or_default() {
                    right.set(chunk.get());
                }
            }
        });
        Ok(right)
    }

    /// For reading what is written, also when this is closed: it is opened anew, so that the lock does not last
    /// as long.
    pub(super) fn source(&self) -> Result<Source, DownloadError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = || {
            let file = File::from(rustix::fs::open(&self.path, flags, Mode::empty())?);
            let is_it = is_same(&file.metadata()?, &self.file().metadata()?);
            is_it.then(|| Source::of(file, &self.path)).transpose()
        };
        match open() {
            Ok(Some(source)) => Ok(source),
            Ok(None) => Err(DownloadError::InTheWay {
                path: self.path.clone(),
            }),
            Err(cause) => Err(self.failed(cause)),
        }
    }

    /// Starts the thread that writes chunks, and stops after the first that cannot be written. Dropping the
    /// sender ends it, once what was sent is written.
    pub(super) fn start_writer(&self) -> (mpsc::Sender<Write>, mpsc::Receiver<Written>) {
        let (sender, mut writes) = mpsc::channel::<Write>(WRITE_QUEUE_CHUNKS);
        let (done, written) = mpsc::channel(WRITE_QUEUE_CHUNKS);
        let partial = self.clone();
        tokio::task::spawn_blocking(move || {
            while let Some(Write { chunk, pieces }) = writes.blocking_recv() {
                let result = partial.write(chunk, &pieces);
                let failed = result.is_err();
                if done.blocking_send(result).is_err() || failed {
                    return;
                }
            }
        });
        (sender, written)
    }

    /// The SHA-256 of the whole, unless it is cancelled meanwhile. Blocks.
    pub(super) fn sha256(&self, cancel: &CancellationToken) -> Result<Digest, DownloadError> {
        let failed = |cause| io_error(&self.path, cause);
        let source = self.source()?;
        let (pool, mut hasher) = (BufferPool::default(), crate::content::Hasher::new());
        for chunk in self.layout.chunks() {
            if cancel.is_cancelled() {
                return Err(DownloadError::Cancelled);
            }
            let bytes = source
                .read_chunk(self.layout, chunk, &pool)
                .map_err(failed)?;
            hasher.update(&bytes);
        }
        Ok(hasher.finish())
    }

    /// Brings what was written to the disk. Blocks.
    pub(super) fn sync(&self) -> Result<(), DownloadError> {
        if let Err(cause) = self.may(Step::Sync).and_then(|()| self.file().sync_all()) {
            self.forget_what_is_cached();
            return Err(self.failed(cause));
        }
        Ok(())
    }

    /// Syncs the file, renames it to the destination, replacing what is there only with `force`, and syncs
    /// the folder. What took its place meanwhile is not it, and is left alone. Blocks.
    pub(super) fn put_in_place(self, force: bool) -> Result<(), DownloadError> {
        self.sync()?;
        match leads_to(&self.path, self.file()) {
            Ok(true) => {}
            Ok(false) => return Err(DownloadError::InTheWay { path: self.path }),
            Err(cause) => return Err(self.failed(cause)),
        }
        self.may(Step::Rename)
            .and_then(|()| self.rename(force))
            .map_err(|cause| self.not_renamed(cause))?;
        let folder = match self.dest.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        self.may(Step::SyncFolder)
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(|cause| io_error(folder, cause))
    }

    fn rename(&self, force: bool) -> io::Result<()> {
        if force {
            return std::fs::rename(&self.path, &self.dest);
        }
        match rustix::fs::renameat_with(CWD, &self.path, CWD, &self.dest, RenameFlags::NOREPLACE) {
            // Some file systems cannot do that; a hard link does not replace either.
            Err(Errno::INVAL | Errno::NOSYS) => {
                std::fs::hard_link(&self.path, &self.dest)?;
                std::fs::remove_file(&self.path)
            }
            renamed => Ok(renamed?),
        }
    }

    fn not_renamed(&self, cause: io::Error) -> DownloadError {
        let (dest, partial) = (self.dest.clone(), self.path.clone());
        match cause.kind() {
            io::ErrorKind::AlreadyExists => DownloadError::DestinationTaken { dest, partial },
            io::ErrorKind::NotFound => self.failed(cause),
            _ => io_error(&self.dest, cause),
        }
    }

    /// After a failed sync the system may hold in memory what never reached the disk, and call it clean: what
    /// is verified next has to come from the disk.
    fn forget_what_is_cached(&self) {
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::fs::fadvise(self.file(), 0, None, rustix::fs::Advice::DontNeed)
        {
            tracing::debug!(%error, "the cache of a partial file is kept");
        }
    }

    fn write(&self, chunk: ChunkIndex, pieces: &[Bytes]) -> Written {
        self.open.written.store(true, Ordering::Relaxed);
        self.may(Step::Write)
            .and_then(|()| write_all_at(self.file(), pieces, self.layout.offset(chunk)))
            .map_err(|cause| self.failed(cause))?;
        Ok(chunk)
    }

    /// Makes it as long as the file will be, if the disk has room for what is missing.
    fn make_room(&self, metadata: &Metadata) -> Result<(), DownloadError> {
        let needed = self.needed(metadata);
        let available = self.available().map_err(|cause| self.failed(cause))?;
        if needed > available {
            if metadata.len() == 0 && self.path != self.dest {
                // It was made just now, and is of no use.
                let _ = std::fs::remove_file(&self.path);
            }
            return Err(DownloadError::NoSpace {
                dest: self.dest.clone(),
                needed,
                available,
            });
        }
        let extended = self.file().set_len(self.layout.length());
        extended.map_err(|cause| self.failed(cause))
    }

    /// Bytes that the disk still has to take.
    fn needed(&self, metadata: &Metadata) -> u64 {
        self.layout.length().saturating_sub(metadata.blocks() * 512)
    }

    fn available(&self) -> io::Result<u64> {
        let disk = rustix::fs::fstatvfs(self.file())?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// The error for what failed at the partial file.
    fn failed(&self, cause: io::Error) -> DownloadError {
        let dest = self.dest.clone();
        match (cause.kind(), self.file().metadata()) {
            (io::ErrorKind::StorageFull, Ok(metadata)) => DownloadError::NoSpace {
                dest,
                needed: self.needed(&metadata),
                available: self.available().unwrap_or(0),
            },
            (io::ErrorKind::NotFound, _) => DownloadError::BadDestination {
                dest,
                reason: "its folder, or the partial file in it, is gone with what was downloaded",
            },
            _ => io_error(&self.path, cause),
        }
    }

    fn file(&self) -> &File {
        &self.open.file
    }

    /// Where a test makes the disk fail.
    fn may(&self, step: Step) -> io::Result<()> {
        #[cfg(test)]
        self.faults.strike(step)?;
        let _ = step;
        Ok(())
    }
}

/// What the disk is asked for.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Step {
    Write,
    Sync,
    Rename,
    SyncFolder,
}

/// Whether it is a file of this user alone that no other name leads to.
fn is_plain(metadata: &Metadata) -> bool {
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    metadata.is_file() && own && metadata.nlink() == 1
}

/// Locks the file that was opened at `path` against whoever else writes to it.
fn lock(file: &File, path: &Path, metadata: &Metadata, dest: &Path) -> Result<(), DownloadError> {
    let locked = rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive);
    if let Err(error) = locked {
        // Not every file system has locks.
        tracing::debug!(path = %path.display(), %error, "a file is not locked");
    }
    // A download that ended between the opening and the lock took the file to its destination.
    let still_there = std::fs::symlink_metadata(path).is_ok_and(|now| is_same(&now, metadata));
    if locked != Err(Errno::WOULDBLOCK) && still_there {
        return Ok(());
    }
    Err(DownloadError::AlreadyRunning {
        dest: dest.to_owned(),
    })
}

/// Where the partial file of `dest` is: beside it, with `.p2part` behind its name. Of a name that gets too
/// long by that, the end, from a character on, makes place for the name's own digest.
pub(super) fn partial_path(dest: &Path) -> PathBuf {
    let name = dest.file_name().unwrap_or_default().as_bytes();
    let mut partial = name.to_vec();
    if name.len() + SUFFIX.len() > FILE_NAME_BYTES_MAX {
        let digest = Digest::of(name).to_string();
        let kept = FILE_NAME_BYTES_MAX - SUFFIX.len() - 1 - DIGEST_DIGITS;
        // Some file systems refuse names that are not UTF-8.
        let kept = match std::str::from_utf8(name) {
            Ok(name) => (0..=kept).rfind(|&at| name.is_char_boundary(at)),
            Err(_) => Some(kept),
        };
        partial.truncate(kept.unwrap_or(0));
        partial.push(b'.');
        partial.extend_from_slice(&digest.as_bytes()[..DIGEST_DIGITS]);
    }
    partial.extend_from_slice(SUFFIX.as_bytes());
    dest.with_file_name(OsString::from_vec(partial))
}

/// Whether `path` itself, and no link, is the open file.
fn leads_to(path: &Path, file: &File) -> io::Result<bool> {
    Ok(is_same(
        &std::fs::symlink_metadata(path)?,
        &file.metadata()?,
    ))
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn write_all_at(file: &File, pieces: &[Bytes], mut offset: u64) -> io::Result<()> {
    for pieces in pieces.chunks(PIECES_PER_WRITE) {
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            let written = match rustix::io::pwritev(file, rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            offset += written as u64;
            IoSlice::advance_slices(&mut rest, written);
        }
    }
    Ok(())
}

fn io_error(path: &Path, cause: io::Error) -> DownloadError {
    DownloadError::Io {
        path: path.to_owned(),
        cause: Arc::new(cause),
    }
}

const SUFFIX: &str = ".p2part";
const DIGEST_DIGITS: usize = 16;
/// Below the least `IOV_MAX` of any system.
const PIECES_PER_WRITE: usize = 512;

#[cfg(test)]
mod faults {
    use super::{Arc, Errno, Step, io};
    use std::sync::Mutex;

    /// The faults of a disk, as a test plans them.
    #[derive(Clone, Debug, Default)]
    pub(super) struct Faults(Arc<Mutex<Option<(Step, Errno)>>>);

    impl Faults {
        /// Makes the next `step` fail.
        pub(super) fn plan(&self, step: Step, errno: Errno) {
            *self.0.lock().unwrap() = Some((step, errno));
        }

        pub(super) fn strike(&self, step: Step) -> io::Result<()> {
            let mut planned = self.0.lock().unwrap();
            match planned.take_if(|(planned, _)| *planned == step) {
                Some((_, errno)) => Err(errno.into()),
                None => Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
