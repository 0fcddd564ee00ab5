//! Files on disk as the data path uses them: whole chunks read at their offsets into page-aligned buffers
//! that are used again, and a stamp by which a change is noticed. All calls here block.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    content::{CHUNK_SIZE, ChunkIndex, Layout},
    limits::BUFFERS_KEPT,
};

/// What of a file changes when its content does: its size and the time of its last modification.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) size: u64,
    modified: i64,
    modified_nanos: i64,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.size(),
            modified: metadata.mtime(),
            modified_nanos: metadata.mtime_nsec(),
        }
    }

    /// The stamp of no file of that size: of one whose content was found not to be what it should.
    pub(super) const fn of_none(size: u64) -> Self {
        Self {
            size,
            modified: i64::MIN,
            modified_nanos: 0,
        }
    }

    /// Whether it is the stamp of no file.
    pub(super) const fn is_of_none(&self) -> bool {
        self.modified == i64::MIN
    }

    #[cfg(test)]
    pub(super) const fn from_parts(size: u64, modified: i64, modified_nanos: i64) -> Self {
        Self {
            size,
            modified,
            modified_nanos,
        }
    }
}

/// A file that is read chunk by chunk, as long as it does not change.
#[derive(Debug)]
pub(super) struct Source {
    file: File,
    path: PathBuf,
    stamp: Stamp,
}

impl Source {
    /// Reads from `file`, which is at `path`.
    pub(super) fn of(file: File, path: &Path) -> io::Result<Self> {
        let stamp = Stamp::of(&file.metadata()?);
        let path = path.to_owned();
        Ok(Self { file, path, stamp })
    }

    /// Opens the regular file at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Without O_NONBLOCK, opening a pipe would wait for somebody to write to it.
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            stamp: Stamp::of(&metadata),
        })
    }

    /// As it was when it was opened.
    pub(super) const fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Whether the open file, and what is at its path, still are as they were.
    pub(super) fn is_unchanged(&self) -> io::Result<bool> {
        Ok(Stamp::of(&self.file.metadata()?) == self.stamp
            && Stamp::of(&std::fs::metadata(&self.path)?) == self.stamp)
    }

    /// Reads one chunk into a buffer of `pool`.
    pub(super) fn read_chunk(
        &self,
        layout: Layout,
        chunk: ChunkIndex,
        pool: &BufferPool,
    ) -> io::Result<Bytes> {
        let mut buffer = pool.take();
        buffer.length = layout.chunk_len(chunk) as usize;
        self.file
            .read_exact_at(buffer.as_mut(), layout.offset(chunk))?;
        Ok(Bytes::from_owner(buffer))
    }

    /// Whether the open file is still as it was.
    pub(super) fn is_same(&self) -> io::Result<bool> {
        Ok(self.stamp_now()? == self.stamp)
    }

    /// As the open file is now.
    pub(super) fn stamp_now(&self) -> io::Result<Stamp> {
        Ok(Stamp::of(&self.file.metadata()?))
    }
}

/// Buffers of one chunk each. A buffer comes back when the last [`Bytes`] of it is dropped; more than
/// [`BUFFERS_KEPT`] are not kept.
#[derive(Clone, Debug, Default)]
pub(super) struct BufferPool(Arc<Mutex<Vec<Vec<u8>>>>);

/// One buffer on loan. It begins on a page boundary: a read into anything else costs the kernel four times
/// as much.
struct Buffer {
    memory: Vec<u8>,
    start: usize,
    length: usize,
    pool: BufferPool,
}

impl BufferPool {
    fn take(&self) -> Buffer {
        let kept = self.kept().pop();
        let memory = kept.unwrap_or_else(|| vec![0; CHUNK_SIZE as usize + PAGE_BYTES]);
        let start = memory.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
        Buffer {
            memory,
            start,
            length: 0,
            pool: self.clone(),
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut kept = self.pool.kept();
        if kept.len() < BUFFERS_KEPT {
            kept.push(std::mem::take(&mut self.memory));
        }
    }
}

const PAGE_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_read_where_they_are_into_aligned_buffers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let content: Vec<u8> = (0..CHUNK_SIZE as usize + 10)
            .map(|i| (i * 7 / 3) as u8)
            .collect();
        std::fs::write(&path, &content).unwrap();
        let source = Source::open(&path).unwrap();
        let layout = Layout::new(source.stamp().size).unwrap();
        let pool = BufferPool::default();
        for (chunk, expected) in layout.chunks().zip(content.chunks(CHUNK_SIZE as usize)) {
            let bytes = source.read_chunk(layout, chunk, &pool).unwrap();
            assert_eq!(bytes, expected);
            assert_eq!(bytes.as_ptr() as usize % PAGE_BYTES, 0);
        }
        assert_eq!(pool.kept().len(), 1, "one buffer served both");
    }

    #[test]
    fn a_change_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"one").unwrap();
        let source = Source::open(&path).unwrap();
        assert!(source.is_unchanged().unwrap());
        std::fs::write(&path, b"one and two").unwrap();
        assert!(!source.is_unchanged().unwrap());
        assert!(!source.is_same().unwrap());
    }

    #[test]
    fn only_regular_files() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Source::open(dir.path()).is_err());
        assert!(Source::open(&dir.path().join("none")).is_err());
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(Source::open(&pipe).is_err(), "and it does not wait");
    }
}
