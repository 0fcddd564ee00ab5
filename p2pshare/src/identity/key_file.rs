//! Secrets on disk. A secret file is made once, whole and for its owner alone: written under another
//! name, synced, and linked to its own name, which never replaces what is there and never shows half of
//! it. It is read only if nobody but its owner could have read or written it.
//!
//! The one module of this room that touches files. Its calls block for as long as the disk takes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;
use zeroize::Zeroizing;

use super::key::{NoRandomness, SEED_LEN, SigningKey};
use super::ring_key::{RingKey, RingKeyError};
use crate::limits::RING_KEY_FILE_BYTES_MAX;

/// The signing key kept at `path`; a new one, kept there from now on, if there is no such file. Of
/// several processes that come at once, all get the same key.
///
/// # Errors
///
/// If the file is not safe to use or cannot be read or made.
pub(crate) fn load_or_create_identity(path: &Path) -> Result<SigningKey, KeyFileError> {
    load_or_create_seed(path).map(|seed| SigningKey::from_seed(&seed))
}

/// The 32 secret bytes kept at `path`; new random ones, kept there from now on, if there is no such file.
///
/// # Errors
///
/// If the file is not safe to use or cannot be read or made.
pub(crate) fn load_or_create_seed(path: &Path) -> Result<Zeroizing<[u8; SEED_LEN]>, KeyFileError> {
    if let Some(seed) = read_seed(path)? {
        return Ok(seed);
    }
    let mut seed = Zeroizing::new([0; SEED_LEN]);
    SystemRandom::new()
        .fill(seed.as_mut())
        .map_err(|_| NoRandomness)?;
    match create_secret(path, &encode_seed(&seed)) {
        Ok(()) => Ok(seed),
        Err(KeyFileError::Exists { .. }) => read_seed(path)?.ok_or_else(|| KeyFileError::Io {
            doing: "read",
            path: path.to_owned(),
            source: io::ErrorKind::NotFound.into(),
        }),
        Err(error) => Err(error),
    }
}

/// The ring key kept at `path`, or `None` if there is no such file.
///
/// # Errors
///
/// If the file is not safe to use, cannot be read, or is not a ring key.
pub(crate) fn read_ring_key(path: &Path) -> Result<Option<RingKey>, KeyFileError> {
    let Some(bytes) = read_secret(path, RING_KEY_FILE_BYTES_MAX)? else {
        return Ok(None);
    };
    RingKey::decode(&bytes)
        .map(Some)
        .map_err(|source| KeyFileError::RingKey {
            path: path.to_owned(),
            source,
        })
}

/// Keeps `key` at `path`, where nothing may be yet.
///
/// # Errors
///
/// [`KeyFileError::Exists`] if something is there, which is left alone; otherwise if the file cannot
/// be made.
pub(crate) fn create_ring_key(path: &Path, key: &RingKey) -> Result<(), KeyFileError> {
    create_secret(path, key.encode().as_bytes())
}

/// Makes the folder `path` and those above it that are missing, for their owner alone.
///
/// # Errors
///
/// If one of them cannot be made.
pub(crate) fn create_private_dir(path: &Path) -> Result<(), KeyFileError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = parent_of(path);
    create_private_dir(parent)?;
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_dir(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(failed("make the folder", path)(error)),
    }
}

/// The at most `bytes_max` bytes of the secret file at `path`, or `None` if there is no such file.
///
/// # Errors
///
/// If it is not a regular file of this user that is closed to everybody else, is too long, or cannot be
/// read.
pub(crate) fn read_secret(
    path: &Path,
    bytes_max: usize,
) -> Result<Option<Zeroizing<Vec<u8>>>, KeyFileError> {
    // Without NONBLOCK, opening a FIFO would wait for somebody to write into it.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(KeyFileError::NotAFile { path: path.into() }),
        Err(error) => return Err(failed("open", path)(error.into())),
    };
    let metadata = file.metadata().map_err(failed("read", path))?;
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile { path: path.into() });
    }
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own {
        return Err(KeyFileError::OtherOwner {
            path: path.into(),
            owner: metadata.uid(),
            own,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Open {
            path: path.into(),
            mode,
        });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
    file.take(bytes_max as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    if bytes.len() > bytes_max {
        return Err(KeyFileError::WrongSize {
            path: path.into(),
            bytes: metadata.len(),
            expected: bytes_max,
        });
    }
    Ok(Some(bytes))
}

/// Makes the secret file at `path`, durably, where nothing may be yet. Its folder has to exist.
///
/// # Errors
///
/// [`KeyFileError::Exists`] if something is there, which is left alone; otherwise if the file cannot
/// be made, and then there is none.
pub(crate) fn create_secret(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    let temporary = Temporary::create(path)?;
    temporary.fill(bytes).map_err(failed("write", path))?;
    match rustix::fs::linkat(CWD, &temporary.path, CWD, path, AtFlags::empty()) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Err(KeyFileError::Exists { path: path.into() }),
        Err(error) => return Err(failed("create", path)(error.into())),
    }
    drop(temporary);
    sync_dir(parent_of(path))
}

/// Puts the secret file at `path`, durably, in place of what is there, if anything is.
///
/// # Errors
///
/// If the file cannot be made; what was there is there still.
pub(crate) fn replace_secret(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    let temporary = Temporary::create(path)?;
    temporary.fill(bytes).map_err(failed("write", path))?;
    std::fs::rename(&temporary.path, path).map_err(failed("replace", path))?;
    sync_dir(parent_of(path))
}

/// Why a secret cannot be read or kept. Nothing was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum KeyFileError {
    /// It is a link, a folder or a device.
    #[error("{} is not a regular file: put the key itself there", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to another user.
    #[error(
        "{} belongs to user {owner}, and this process runs as user {own}: run it as that user, or `chown {own}` the file",
        path.display()
    )]
    OtherOwner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        own: u32,
    },
    /// Others than its owner may read or write it.
    #[error("{} is open to other users (mode {mode:04o}): `chmod 600` it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is longer or shorter than such a file is.
    #[error(
        "{} has {bytes} bytes, and such a key has {expected}: restore it from a copy, or move it away",
        path.display()
    )]
    WrongSize {
        /// The file.
        path: PathBuf,
        /// How many bytes it has.
        bytes: u64,
        /// How many it should have, or could have at most.
        expected: usize,
    },
    /// It is not a key of this version, or was damaged.
    #[error("{} is not a key or is damaged: restore it from a copy, or move it away", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// It is not a ring key.
    #[error("{} cannot be used as the ring key: {source}", path.display())]
    RingKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: RingKeyError,
    },
    /// It is gone, and what was kept under it is not.
    #[error(
        "{} is missing, and {} has data of its ring: restore it from a copy, or from another tracker of the ring",
        path.display(),
        data.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// Where the data is.
        data: PathBuf,
    },
    /// Something is there already.
    #[error("{} exists already and is not replaced", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// There is no randomness to make a key from.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// The file under its other name, which goes away with this.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    /// A new empty file in the folder of `path`.
    fn create(path: &Path) -> Result<Self, KeyFileError> {
        let mut suffix = [0; 8];
        SystemRandom::new()
            .fill(&mut suffix)
            .map_err(|_| NoRandomness)?;
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}", HEXLOWER.encode(&suffix)));
        let temporary = parent_of(path).join(name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::open(&temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| failed("create", path)(error.into()))?;
        Ok(Self {
            path: temporary,
            file: File::from(file),
        })
    }

    fn fill(&self, bytes: &[u8]) -> io::Result<()> {
        // A umask may have taken the owner's own bits away.
        rustix::fs::fchmod(&self.file, Mode::RUSR | Mode::WUSR)?;
        (&self.file).write_all(bytes)?;
        self.file.sync_all()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What stays behind is a secret file that nobody reads: worth no error.
        _ = std::fs::remove_file(&self.path);
    }
}

fn read_seed(path: &Path) -> Result<Option<Zeroizing<[u8; SEED_LEN]>>, KeyFileError> {
    let Some(bytes) = read_secret(path, SEED_FILE_BYTES)? else {
        return Ok(None);
    };
    if bytes.len() != SEED_FILE_BYTES {
        return Err(KeyFileError::WrongSize {
            path: path.into(),
            bytes: bytes.len() as u64,
            expected: SEED_FILE_BYTES,
        });
    }
    decode_seed(&bytes)
        .map(Some)
        .ok_or_else(|| KeyFileError::Damaged { path: path.into() })
}

/// The magic with the version in it, the seed, and the first 8 bytes of SHA-256 over both.
fn encode_seed(seed: &[u8; SEED_LEN]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(SEED_FILE_BYTES));
    bytes.extend_from_slice(SEED_MAGIC);
    bytes.extend_from_slice(seed);
    let check = digest(&SHA256, &bytes);
    bytes.extend_from_slice(&check.as_ref()[..8]);
    bytes
}

fn decode_seed(bytes: &[u8]) -> Option<Zeroizing<[u8; SEED_LEN]>> {
    let seed = bytes.strip_prefix(SEED_MAGIC)?.first_chunk()?;
    (encode_seed(seed)[..] == *bytes).then(|| Zeroizing::new(*seed))
}

/// Makes the names in a folder durable.
fn sync_dir(path: &Path) -> Result<(), KeyFileError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync the folder", path))
}

/// The folder that holds `path`; the current one for a bare name.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> KeyFileError {
    move |source| KeyFileError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

const SEED_MAGIC: &[u8; 16] = b"p2pshare/seed/1\0";
const SEED_FILE_BYTES: usize = SEED_MAGIC.len() + SEED_LEN + 8;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn names_in(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_identity_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let first = load_or_create_identity(&path).unwrap();
        let second = load_or_create_identity(&path).unwrap();
        assert_eq!(first.verifying_key(), second.verifying_key());
        assert_eq!(mode_of(&path), 0o600);
        assert_eq!(names_in(dir.path()), ["key"]);
    }

    #[test]
    fn of_many_who_come_at_once_all_get_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| load_or_create_identity(&path).unwrap()))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let first = keys[0].verifying_key();
        assert!(keys.iter().all(|key| key.verifying_key() == first));
        assert_eq!(names_in(dir.path()), ["key"]);
    }

    #[test]
    fn golden_seed_file() {
        let seed = std::array::from_fn(|index| index as u8);
        let bytes = encode_seed(&seed);
        assert_eq!(
            HEXLOWER.encode(&bytes),
            "70327073686172652f736565642f3100\
             000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\
             845998cdcc3a90a8"
        );
        assert_eq!(decode_seed(&bytes).as_deref(), Some(&seed));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_seed(&changed), None);
        }
    }

    #[test]
    fn a_ring_key_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ring.key");
        let random = SystemRandom::new();
        let one = RingKey::generate(&random, vec!["a:1".parse().unwrap()]).unwrap();
        let two = RingKey::generate(&random, vec!["b:1".parse().unwrap()]).unwrap();
        assert!(read_ring_key(&path).unwrap().is_none());
        create_ring_key(&path, &one).unwrap();
        let error = create_ring_key(&path, &two).unwrap_err();
        assert!(matches!(error, KeyFileError::Exists { .. }), "{error}");
        assert_eq!(read_ring_key(&path).unwrap().as_ref(), Some(&one));
        assert_eq!(mode_of(&path), 0o600);
        assert_eq!(names_in(dir.path()), ["ring.key"]);
    }

    #[test]
    fn a_dangling_link_is_neither_followed_nor_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        symlink(dir.path().join("elsewhere"), &path).unwrap();
        let error = load_or_create_identity(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::NotAFile { .. }), "{error}");
        let error = create_secret(&path, b"x").unwrap_err();
        assert!(matches!(error, KeyFileError::Exists { .. }), "{error}");
        assert_eq!(names_in(dir.path()), ["key"]);
    }

    #[test]
    fn refusals_name_the_file_and_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let refused = || {
            let error = load_or_create_identity(&path).unwrap_err().to_string();
            assert!(error.starts_with(path.to_str().unwrap()), "{error}");
            error
        };

        load_or_create_identity(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(refused().contains("`chmod 600`"));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();

        let whole = fs::read(&path).unwrap();
        for bytes in [&whole[1..], &[&whole[..], b"x"].concat(), b""] {
            fs::write(&path, bytes).unwrap();
            assert!(refused().contains("such a key has 56:"));
        }
        fs::write(&path, [0; SEED_FILE_BYTES]).unwrap();
        assert!(refused().contains("damaged"));

        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(refused().contains("not a regular file"));
    }

    #[cfg(target_os = "linux")] // elsewhere rustix cannot make one
    #[test]
    fn a_fifo_does_not_hang() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let error = load_or_create_identity(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::NotAFile { .. }), "{error}");
    }

    #[test]
    fn the_file_of_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return; // only root can make such a file
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        load_or_create_identity(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
        let error = load_or_create_identity(&path).unwrap_err().to_string();
        assert!(error.contains("belongs to user 12345"), "{error}");
    }

    #[test]
    fn private_folders_are_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one/two");
        create_private_dir(&path).unwrap();
        create_private_dir(&path).unwrap();
        assert_eq!(mode_of(&dir.path().join("one")), 0o700);
        assert_eq!(mode_of(&path), 0o700);
        fs::write(dir.path().join("file"), b"").unwrap();
        assert!(create_private_dir(&dir.path().join("file/three")).is_err());
    }
}
