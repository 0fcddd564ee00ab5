//! What replicas pass on of leases.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::KeyError;
use crate::identity::{PeerId, SessionId};

/// What a lease is about; the same bytes at every peer that has something to say about it.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>")]
pub struct LeaseKey(Vec<u8>);

impl LeaseKey {
    /// Bytes in a lease key; at least one.
    pub const BYTES_MAX: usize = 255;

    /// The key with these bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when there are none, or too many.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        KeyError::check("lease key", &bytes, 1, Self::BYTES_MAX)?;
        Ok(Self(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseKey({})", self.0.escape_ascii())
    }
}

impl TryFrom<Vec<u8>> for LeaseKey {
    type Error = KeyError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, KeyError> {
        Self::new(bytes)
    }
}

/// What one session of one peer says under a key, as replicas pass it on.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct LeaseEntry {
    /// Who says it; only that peer writes this entry.
    pub(crate) peer: PeerId,
    /// In which of its sessions.
    pub(crate) session: SessionId,
    /// Higher than in anything that this session said before.
    pub(crate) number: u64,
    /// Milliseconds until it no longer counts, by the clock of whoever receives it.
    pub(crate) expires_in: u32,
    /// What it says, or that it has nothing to say any more.
    pub(crate) payload: Option<Vec<u8>>,
}
