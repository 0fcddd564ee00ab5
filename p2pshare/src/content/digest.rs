//! SHA-256 digests: of a chunk, of a whole file, and the [`FileId`] that commits to a file's length and chunks.
//!
//! Both types are plain 32-byte values, written as 64 hexadecimal digits. Holding one proves nothing about the bytes
//! it was claimed for; see [`VerifiedPage`](super::VerifiedPage) for digests that were checked.

use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest, of a chunk or of a whole file.
///
/// Displayed as 64 lower-case hexadecimal digits, as `sha256sum` prints it; parsed in either case.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Digest([u8; Digest::LEN]);

impl Digest {
    /// The length of a digest in bytes: 32.
    pub const LEN: usize = 32;

    /// Takes 32 bytes as a digest, whatever they are.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Hashes `bytes` in one go.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .map_err(|_| ParseDigestError)?;
        bytes.try_into().map(Self).map_err(|_| ParseDigestError)
    }
}

/// The identity of a file's content: a digest over its length, its chunk size and the root of its hash tree.
///
/// Two files have the same id exactly when they have the same bytes. It is not the SHA-256 of the file.
/// Displayed as 64 lower-case hexadecimal digits; parsed in either case.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct FileId(Digest);

impl FileId {
    /// Takes 32 bytes as a file id, whatever they are.
    pub const fn from_bytes(bytes: [u8; Digest::LEN]) -> Self {
        Self(Digest(bytes))
    }

    /// The 32 bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; Digest::LEN] {
        self.0.as_bytes()
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileId({self})")
    }
}

impl FromStr for FileId {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A text that is not a digest or a file id.
#[derive(Copy, Clone, Eq, PartialEq, Debug, thiserror::Error)]
#[error("not 64 hexadecimal digits")]
#[non_exhaustive]
pub struct ParseDigestError;

/// Hashes bytes as they come, for a chunk in pieces or a file too large to hold.
#[derive(Clone, Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    /// A hasher that has seen nothing.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes taken, in the order in which they were taken.
    pub(crate) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_sha256sum() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), abc);
        let mut hasher = Hasher::new();
        hasher.update(b"a");
        hasher.update(b"");
        hasher.update(b"bc");
        assert_eq!(hasher.finish().to_string(), abc);
    }

    #[test]
    fn text_round_trips_in_either_case_and_nothing_else_is_taken() {
        let id = FileId::from_bytes(*Digest::of(b"x").as_bytes());
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        let text = id.to_string();
        for wrong in [
            "",
            &text[1..],
            &text[2..],
            &format!("{text}00"),
            &format!("g{}", &text[1..]),
        ] {
            assert_eq!(wrong.parse::<Digest>(), Err(ParseDigestError), "{wrong:?}");
            assert_eq!(wrong.parse::<FileId>(), Err(ParseDigestError), "{wrong:?}");
        }
    }

    #[test]
    fn serialised_form_is_the_32_bytes() {
        let digest = Digest::of(b"x");
        let id = FileId::from_bytes(*digest.as_bytes());
        assert_eq!(postcard::to_stdvec(&digest).unwrap(), digest.as_bytes());
        assert_eq!(postcard::to_stdvec(&id).unwrap(), digest.as_bytes());
        assert_eq!(postcard::from_bytes::<FileId>(digest.as_bytes()), Ok(id));
        assert!(postcard::from_bytes::<Digest>(&digest.as_bytes()[1..]).is_err());
    }
}
