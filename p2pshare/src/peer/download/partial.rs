//! The partial file of a download, and the thread that writes it. It is a regular file of this user, reached
//! without following links, locked against a second download, and named beside the destination; nothing is
//! ever renamed over a destination unless that was asked for.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, IoSlice},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};
use tokio::sync::mpsc;

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
    file: Arc<File>,
    path: PathBuf,
    dest: PathBuf,
    layout: Layout,
}

/// A chunk to be written, in the pieces in which it arrived.
pub(super) struct Write {
    pub(super) chunk: ChunkIndex,
    pub(super) pieces: Vec<Bytes>,
}

/// What became of a [`Write`].
pub(super) type Written = Result<ChunkIndex, DownloadError>;

impl Partial {
    /// Opens, or creates, the partial file of `dest`, as long as the file will be. A file that is there is
    /// taken for a partial one only if it is `known` to be one: it might be somebody's. Blocks.
    pub(super) fn open(dest: &Path, layout: Layout, known: bool) -> Result<Self, DownloadError> {
        let path = partial_path(dest);
        let failed = |cause: io::Error| io_error(&path, cause);
        let mut flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if !known {
            flags |= OFlags::EXCL;
        }
        let file = match rustix::fs::open(&path, flags, Mode::from_raw_mode(0o666)) {
            Ok(file) => file,
            Err(rustix::io::Errno::EXIST) => return Err(DownloadError::InTheWay { path }),
            Err(error) => return Err(failed(error.into())),
        };
        Self::take(File::from(file), path, dest, layout)
    }

    /// Opens the finished file at `dest` to be mended where it stands, or creates it, as long as the file has to
    /// be: what it is too long is cut off. Blocks.
    pub(super) fn open_in_place(dest: &Path, layout: Layout) -> Result<Self, DownloadError> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(dest, flags, Mode::from_raw_mode(0o666))
            .map_err(|error| io_error(dest, error.into()))?;
        Self::take(File::from(file), dest.to_owned(), dest, layout)
    }

    /// Makes sure that nobody else writes to the file that was opened at `path`, and that there is room.
    fn take(file: File, path: PathBuf, dest: &Path, layout: Layout) -> Result<Self, DownloadError> {
        let failed = |cause: io::Error| io_error(&path, cause);
        let metadata = file.metadata().map_err(failed)?;
        let own = metadata.uid() == rustix::process::geteuid().as_raw();
        if !metadata.is_file() || !own || metadata.nlink() != 1 {
            let cause = "it is not a plain file of this user alone; move it away";
            return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, cause)));
        }
        let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // A download that ended between the opening and the lock took the file to its destination.
        let still_there = std::fs::symlink_metadata(&path)
            .is_ok_and(|now| (now.dev(), now.ino()) == (metadata.dev(), metadata.ino()));
        if !locked || !still_there {
            return Err(DownloadError::AlreadyRunning {
                dest: dest.to_owned(),
            });
        }
        check_space(dest, &path, &file, &metadata, layout)?;
        file.set_len(layout.length()).map_err(failed)?;
        Ok(Self {
            file: Arc::new(file),
            path,
            dest: dest.to_owned(),
            layout,
        })
    }

    /// Refuses a destination beside which something stands where its partial file would be. Blocks.
    pub(super) fn refuse_what_is_in_the_way(dest: &Path) -> Result<(), DownloadError> {
        let path = partial_path(dest);
        match std::fs::symlink_metadata(&path) {
            Ok(_) => Err(DownloadError::InTheWay { path }),
            Err(_) => Ok(()),
        }
    }

    /// Of the chunks in `claimed`, those whose bytes are right, by as many threads as there are cores. Blocks.
    pub(super) fn verify(
        &self,
        claimed: &Bitfield,
        digest: impl Fn(ChunkIndex) -> Option<Digest> + Sync,
    ) -> Result<Bitfield, DownloadError> {
        let source = Source::open(&self.path).map_err(|cause| io_error(&self.path, cause))?;
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

    /// Starts the thread that writes chunks, and stops after the first that cannot be written. Dropping the
    /// sender ends it, once what was sent is written.
    pub(super) fn start_writer(&self) -> (mpsc::Sender<Write>, mpsc::Receiver<Written>) {
        let (sender, mut writes) = mpsc::channel::<Write>(WRITE_QUEUE_CHUNKS);
        let (done, written) = mpsc::channel(WRITE_QUEUE_CHUNKS);
        let (file, path, layout) = (self.file.clone(), self.path.clone(), self.layout);
        tokio::task::spawn_blocking(move || {
            while let Some(Write { chunk, pieces }) = writes.blocking_recv() {
                let result = write_all_at(&file, &pieces, layout.offset(chunk));
                let failed = result.is_err();
                let result = result
                    .map(|()| chunk)
                    .map_err(|cause| io_error(&path, cause));
                if done.blocking_send(result).is_err() || failed {
                    return;
                }
            }
        });
        (sender, written)
    }

    /// The SHA-256 of the whole. Blocks.
    pub(super) fn sha256(&self) -> Result<Digest, DownloadError> {
        let failed = |cause| io_error(&self.path, cause);
        let source = Source::open(&self.path).map_err(failed)?;
        let (pool, mut hasher) = (BufferPool::default(), crate::content::Hasher::new());
        for chunk in self.layout.chunks() {
            let bytes = source
                .read_chunk(self.layout, chunk, &pool)
                .map_err(failed)?;
            hasher.update(&bytes);
        }
        Ok(hasher.finish())
    }

    /// Brings what was written to the disk. Blocks.
    pub(super) fn sync(&self) -> Result<(), DownloadError> {
        let synced = self.file.sync_all();
        synced.map_err(|cause| io_error(&self.path, cause))
    }

    /// Syncs the file and renames it to the destination, replacing what is there only with `force`. Blocks.
    pub(super) fn put_in_place(self, force: bool) -> Result<(), DownloadError> {
        let failed = |cause: io::Error| io_error(&self.path, cause);
        self.sync()?;
        if force {
            std::fs::rename(&self.path, &self.dest).map_err(failed)?;
        } else {
            self.rename_to_free_place()?;
        }
        if let Some(folder) = self.dest.parent() {
            let folder = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(failed)?;
        }
        Ok(())
    }

    fn rename_to_free_place(&self) -> Result<(), DownloadError> {
        let renamed =
            rustix::fs::renameat_with(CWD, &self.path, CWD, &self.dest, RenameFlags::NOREPLACE);
        match renamed {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::EXIST) => Err(DownloadError::DestinationExists {
                dest: self.dest.clone(),
            }),
            // Some file systems cannot do that; a hard link does not replace either.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                let linked = std::fs::hard_link(&self.path, &self.dest);
                linked.map_err(|cause| match cause.kind() {
                    io::ErrorKind::AlreadyExists => DownloadError::DestinationExists {
                        dest: self.dest.clone(),
                    },
                    _ => io_error(&self.dest, cause),
                })?;
                std::fs::remove_file(&self.path).map_err(|cause| io_error(&self.path, cause))
            }
            Err(error) => Err(io_error(&self.dest, error.into())),
        }
    }
}

/// Where the partial file of `dest` is: beside it, with `.p2part` behind its name. Of a name that gets too
/// long by that, the end makes place for its own digest.
pub(super) fn partial_path(dest: &Path) -> PathBuf {
    let name = dest.file_name().unwrap_or_default().as_bytes();
    let mut partial = name.to_vec();
    if name.len() + SUFFIX.len() > FILE_NAME_BYTES_MAX {
        let digest = Digest::of(name).to_string();
        partial.truncate(FILE_NAME_BYTES_MAX - SUFFIX.len() - 1 - DIGEST_DIGITS);
        partial.push(b'.');
        partial.extend_from_slice(&digest.as_bytes()[..DIGEST_DIGITS]);
    }
    partial.extend_from_slice(SUFFIX.as_bytes());
    dest.with_file_name(OsString::from_vec(partial))
}

fn check_space(
    dest: &Path,
    path: &Path,
    file: &File,
    metadata: &std::fs::Metadata,
    layout: Layout,
) -> Result<(), DownloadError> {
    let disk = rustix::fs::fstatvfs(file).map_err(|error| io_error(path, error.into()))?;
    let available = disk.f_bavail.saturating_mul(disk.f_frsize);
    let needed = layout.length().saturating_sub(metadata.blocks() * 512);
    if needed <= available {
        return Ok(());
    }
    if metadata.len() == 0 {
        // It was made just now, and is of no use.
        let _ = std::fs::remove_file(path);
    }
    Err(DownloadError::NoSpace {
        dest: dest.to_owned(),
        needed,
        available,
    })
}

fn write_all_at(file: &File, pieces: &[Bytes], mut offset: u64) -> io::Result<()> {
    for pieces in pieces.chunks(PIECES_PER_WRITE) {
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            let written = match rustix::io::pwritev(file, rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(rustix::io::Errno::INTR) => continue,
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
mod tests {
    use super::*;
    use crate::content::CHUNK_SIZE;

    fn layout(bytes: u64) -> Layout {
        Layout::new(bytes).unwrap()
    }

    #[tokio::test]
    async fn chunks_in_pieces_land_where_they_belong() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("f");
        let content: Vec<u8> = (0..CHUNK_SIZE as usize + 999)
            .map(|i| (i % 251) as u8)
            .collect();
        let layout = layout(content.len() as u64);
        let partial = Partial::open(&dest, layout, false).unwrap();
        let (writes, mut written) = partial.start_writer();
        for chunk in layout.chunks().rev() {
            let start = layout.offset(chunk) as usize;
            let end = start + layout.chunk_len(chunk) as usize;
            let pieces = content[start..end]
                .chunks(700)
                .map(Bytes::copy_from_slice)
                .collect();
            writes.send(Write { chunk, pieces }).await.unwrap();
            assert_eq!(written.recv().await.unwrap().unwrap(), chunk);
        }
        let all = Bitfield::full(layout.chunk_count());
        let digest = |chunk: ChunkIndex| {
            let start = layout.offset(chunk) as usize;
            let end = start + layout.chunk_len(chunk) as usize;
            (chunk.get() == 0).then(|| Digest::of(&content[start..end]))
        };
        let verified = partial.verify(&all, digest).unwrap();
        assert_eq!(verified.iter_set().collect::<Vec<_>>(), [0]);
        assert_eq!(partial.sha256().unwrap(), Digest::of(&content));
        partial.put_in_place(false).unwrap();
        assert_eq!(std::fs::read(&dest).unwrap(), content);
        assert!(!partial_path(&dest).exists());
    }

    #[test]
    fn a_destination_is_replaced_only_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("f");
        let partial = Partial::open(&dest, layout(5), false).unwrap();
        std::fs::write(&dest, b"mine").unwrap();
        assert!(matches!(
            partial.put_in_place(false),
            Err(DownloadError::DestinationExists { .. })
        ));
        assert_eq!(std::fs::read(&dest).unwrap(), b"mine");
        let partial = Partial::open(&dest, layout(5), true).unwrap();
        partial.put_in_place(true).unwrap();
        assert_eq!(std::fs::read(&dest).unwrap(), [0; 5]);
    }

    #[test]
    fn one_download_at_a_time_and_no_links() {
        let dir = tempfile::tempdir().unwrap();
        let (dest, victim) = (dir.path().join("f"), dir.path().join("victim"));
        let first = Partial::open(&dest, layout(5), false).unwrap();
        assert!(matches!(
            Partial::open(&dest, layout(5), true),
            Err(DownloadError::AlreadyRunning { .. })
        ));
        drop(first);
        std::fs::write(&victim, b"precious").unwrap();
        std::fs::remove_file(partial_path(&dest)).unwrap();
        std::os::unix::fs::symlink(&victim, partial_path(&dest)).unwrap();
        assert!(Partial::open(&dest, layout(5), true).is_err());
        std::fs::remove_file(partial_path(&dest)).unwrap();
        std::fs::hard_link(&victim, partial_path(&dest)).unwrap();
        assert!(Partial::open(&dest, layout(5), true).is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn a_file_that_is_not_known_to_be_partial_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("f");
        std::fs::write(partial_path(&dest), b"mine").unwrap();
        assert!(matches!(
            Partial::open(&dest, layout(5), false),
            Err(DownloadError::InTheWay { .. })
        ));
        assert_eq!(std::fs::read(partial_path(&dest)).unwrap(), b"mine");
    }

    #[test]
    fn no_space_is_said_before_anything_is_fetched() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("f");
        let huge = layout(crate::content::MAX_LENGTH);
        assert!(matches!(
            Partial::open(&dest, huge, false),
            Err(DownloadError::NoSpace { .. })
        ));
        assert!(!partial_path(&dest).exists());
    }

    #[test]
    fn long_names_get_partial_names_that_fit_and_differ() {
        let (one, two) = ("x".repeat(255), "x".repeat(254) + "y");
        let partials = [one, two].map(|name| partial_path(&Path::new("/d").join(name)));
        assert_ne!(partials[0], partials[1]);
        for partial in partials {
            assert_eq!(partial.file_name().unwrap().len(), 255);
            assert_eq!(partial.parent().unwrap(), Path::new("/d"));
        }
        assert_eq!(partial_path(Path::new("/d/a")), Path::new("/d/a.p2part"));
    }
}
