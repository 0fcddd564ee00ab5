//! The secrets of a member: its own key, and the key of its ring, which whoever founds it makes.
//!
//! **Invariant.** A key of the ring is made only where there are no rows yet, and never replaces one. Its calls block
//! for as long as the disk takes.

use std::io;
use std::path::Path;

use super::builder::DhtBindError;
use crate::identity::TrackerAddr;
use crate::identity::key::SigningKey;
use crate::identity::key_file::{self, KeyFileError};
use crate::identity::ring_key::RingKey;

/// The member's own key and that of the ring, made where there is none yet. `listed` are the founders that are asked
/// for, if any are; `founders` those of a ring that is founded now.
pub(super) fn open(
    data_dir: &Path,
    ring_key: &Path,
    founders: Vec<TrackerAddr>,
    listed: &[TrackerAddr],
) -> Result<(SigningKey, RingKey), DhtBindError> {
    let ring_key = match key_file::read_ring_key(ring_key)? {
        Some(key) => {
            if !data_dir.join("db").exists() {
                check_founders(listed, ring_key, &key)?;
            }
            key
        }
        // A new one would not be the one of the rows, and stand where theirs has to be put back.
        None if data_dir.join("db").exists() => {
            return Err(KeyFileError::Missing {
                path: ring_key.to_owned(),
                data: data_dir.to_owned(),
            }
            .into());
        }
        None => {
            if let Some(folder) = ring_key.parent().filter(|dir| !dir.as_os_str().is_empty()) {
                key_file::create_private_dir(folder)?;
            }
            let made = RingKey::generate(&ring::rand::SystemRandom::new(), founders)
                .map_err(DhtBindError::secret)?;
            match key_file::create_ring_key(ring_key, &made) {
                Ok(()) => made,
                // Another tracker that was started at the same moment was first; its key is the ring's.
                Err(KeyFileError::Exists { .. }) => key_file::read_ring_key(ring_key)?
                    .ok_or_else(|| DhtBindError::secret(io::Error::other("ring.key went away")))?,
                Err(error) => return Err(error.into()),
            }
        }
    };
    key_file::create_private_dir(data_dir)?;
    let key = key_file::load_or_create_identity(&data_dir.join("key"))?;
    Ok((key, ring_key))
}

/// Refuses a list, if there is one, of others than those that the key says are to found its ring.
pub(super) fn check_founders(
    list: &[TrackerAddr],
    ring_key: &Path,
    key: &RingKey,
) -> Result<(), DhtBindError> {
    let founders = key.founders();
    let same = list.len() == founders.len() && list.iter().all(|addr| founders.contains(addr));
    if list.is_empty() || same {
        return Ok(());
    }
    Err(DhtBindError::OtherFounders {
        list: list.to_vec(),
        ring_key: ring_key.to_owned(),
        founders: founders.to_vec(),
    })
}
