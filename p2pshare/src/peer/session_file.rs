//! The session of a peer across restarts: who is logged in, under which credential, and what is needed of
//! the ring to serve others before a tracker answers. A secret file, replaced as a whole.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    identity::{
        RingId, UserName,
        key::VerifyingKey,
        key_file::{self, KeyFileError},
        token::{Credential, Signed},
    },
    limits::SESSION_FILE_BYTES_MAX,
};

/// What a session file holds.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) enum SessionFile {
    V1 {
        ring: RingId,
        token_key: VerifyingKey,
        user: UserName,
        credential: Signed<Credential>,
    },
}

/// Why a session file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionFileError {
    /// It cannot be read or written as a secret file.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// It cannot be deleted.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl SessionFile {
    /// The session at `path`, if there is one. One that cannot be understood is none: logging in again
    /// replaces it.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, SessionFileError> {
        let Some(bytes) = key_file::read_secret(path, SESSION_FILE_BYTES_MAX)? else {
            return Ok(None);
        };
        let session = Self::decode(&bytes);
        if session.is_none() {
            tracing::warn!(path = %path.display(), "a session file that cannot be read is ignored");
        }
        Ok(session)
    }

    /// Keeps the session at `path`, in place of the one that was there.
    pub(super) fn write(&self, path: &Path) -> Result<(), SessionFileError> {
        let bytes = self.encode().map_err(io::Error::other)?;
        Ok(key_file::replace_secret(path, &bytes)?)
    }

    /// Deletes the session at `path`, if there is one.
    pub(super) fn delete(path: &Path) -> Result<(), SessionFileError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn encode(&self) -> postcard::Result<Vec<u8>> {
        postcard::to_extend(self, MAGIC.to_vec())
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        match postcard::take_from_bytes(bytes.strip_prefix(MAGIC)?) {
            Ok((session, [])) => Some(session),
            _ => None,
        }
    }
}

/// The file's first bytes, with the version of its format.
const MAGIC: &[u8] = b"p2pshare session 1\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        golden::{Golden, assert_every_variant, variants},
        identity::{PeerId, SessionId, key::SigningKey},
        time::Timestamp,
    };

    variants!(SessionFile { V1 });

    #[test]
    fn golden_bytes() {
        let session = session("Alice");
        assert_every_variant([&session]);
        let mut golden = Golden::open("peer_session");
        golden.bytes(
            "session_file",
            &session,
            &session.encode().unwrap(),
            |bytes| SessionFile::decode(bytes)?.encode().ok(),
        );
        golden.finish();
    }

    fn session(user: &str) -> SessionFile {
        let key = SigningKey::from_seed(&[7; 32]);
        let (ring, user) = (RingId::from_bytes([1; 32]), UserName::new(user).unwrap());
        let credential = Credential::V1 {
            ring,
            user: user.clone(),
            peer: PeerId::from_bytes([2; 32]),
            session: SessionId::from_bytes([3; 16]),
            generation: 1,
            issued: Timestamp::from_millis(4),
            expires: Timestamp::from_millis(5),
        };
        SessionFile::V1 {
            ring,
            token_key: key.verifying_key(),
            user,
            credential: Signed::sign(&credential, &key),
        }
    }

    #[test]
    fn written_replaced_read_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session");
        assert!(SessionFile::read(&path).unwrap().is_none());
        for user in ["alice", "bob"] {
            session(user).write(&path).unwrap();
            assert_eq!(SessionFile::read(&path).unwrap(), Some(session(user)));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        SessionFile::delete(&path).unwrap();
        SessionFile::delete(&path).unwrap();
        assert!(SessionFile::read(&path).unwrap().is_none());
    }

    #[test]
    fn garbage_is_no_session() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session");
        key_file::create_secret(&path, b"p2pshare session 1\ngarbage").unwrap();
        assert!(SessionFile::read(&path).unwrap().is_none());
    }
}
