//! The log of a background peer: two files, each of at most 5 MiB, and the newest line is always in `peer.log`.
//!
//! Standard error is kept pointed at the newer file, so that the message of a panic lands there too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Appends to `peer.log`; when that is full it becomes `peer.log.1` and a new one begins.
pub(crate) struct RotatingLog {
    path: PathBuf,
    file: File,
    written: u64,
    limit: u64,
    takes_stderr: bool,
}

impl RotatingLog {
    /// Opens the log of the identity in `folder`.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        Self::with_limit(folder, LOG_FILE_BYTES)
    }

    /// Points standard error at the log, now and after every rotation.
    pub(crate) fn take_stderr(&mut self) -> io::Result<()> {
        rustix::stdio::dup2_stderr(&self.file)?;
        self.takes_stderr = true;
        Ok(())
    }

    fn with_limit(folder: &Path, limit: u64) -> io::Result<Self> {
        let path = folder.join("peer.log");
        let file = append_to(&path)?;
        let written = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            written,
            limit,
            takes_stderr: false,
        })
    }

    fn rotate(&mut self) -> io::Result<()> {
        fs::rename(&self.path, self.path.with_extension("log.1"))?;
        self.file = append_to(&self.path)?;
        self.written = 0;
        if self.takes_stderr {
            rustix::stdio::dup2_stderr(&self.file)?;
        }
        Ok(())
    }
}

impl Write for RotatingLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = line.len() as u64;
        if self.written > 0 && self.written.saturating_add(length) > self.limit {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.written = self.written.saturating_add(length);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Most bytes of one of the two files.
const LOG_FILE_BYTES: u64 = 5 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_two_files_and_the_newest_lines() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        let mut log = RotatingLog::with_limit(folder.path(), 10).unwrap();
        for line in ["one.\n", "two.\n", "three\n", "four\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(
            (read("peer.log.1").as_str(), read("peer.log").as_str()),
            ("three\n", "four\n")
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        // A restarted peer goes on where the file ended, and one long line is never cut.
        drop(log);
        let mut log = RotatingLog::with_limit(folder.path(), 10).unwrap();
        log.write_all(b"5.\n").unwrap();
        assert_eq!(read("peer.log"), "four\n5.\n");
        log.write_all(b"a line longer than a file\n").unwrap();
        assert_eq!(
            (read("peer.log.1").as_str(), read("peer.log").as_str()),
            ("four\n5.\n", "a line longer than a file\n")
        );
    }
}
