//! What makes a restart visible. A packet of a connection that this process does not know is answered
//! with a stateless reset, which the other side believes only from whoever made the connection's ids;
//! so the two keys behind them outlive the process. Then the other side learns of a restart with its next
//! packet, instead of waiting for the idle timeout.
//!
//! Two endpoints never share keys: a packet for one, shown to the other, would make it reset the first
//! one's connection.

use std::path::Path;
use std::sync::Arc;

use quinn::ConnectionIdGenerator;
use quinn_proto::HashedConnectionIdGenerator;
use ring::{hkdf, hmac};
use zeroize::Zeroizing;

use super::settings::Profile;
use crate::identity::key_file::{KeyFileError, load_or_create_seed};

/// The keys of an endpoint's reset tokens and connection ids.
pub(super) struct ResetKeys {
    reset: hmac::Key,
    connection_ids: u64,
}

impl ResetKeys {
    /// The keys kept in `dir` for the endpoint of this kind, made if there are none.
    ///
    /// # Errors
    ///
    /// If the file is not safe to use or cannot be read or made.
    pub(super) fn load_or_create(dir: &Path, profile: Profile) -> Result<Self, KeyFileError> {
        let name = match profile {
            Profile::Tracker => "tracker.reset",
            Profile::Ring => "ring.reset",
            Profile::Peer => "peer.reset",
        };
        load_or_create_seed(&dir.join(name)).map(|seed| Self::from_seed(&seed))
    }

    /// The keys that follow from `seed`.
    pub(super) fn from_seed(seed: &[u8; 32]) -> Self {
        let seed = hkdf::Salt::new(hkdf::HKDF_SHA256, b"p2pshare/reset/1").extract(seed);
        let mut reset = Zeroizing::new([0; 32]);
        let mut connection_ids = [0; 8];
        fill(&seed, b"reset key", reset.as_mut());
        fill(&seed, b"connection ids", &mut connection_ids);
        Self {
            reset: hmac::Key::new(hmac::HMAC_SHA256, reset.as_ref()),
            connection_ids: u64::from_le_bytes(connection_ids),
        }
    }

    pub(super) fn reset_key(&self) -> Arc<hmac::Key> {
        Arc::new(self.reset.clone())
    }

    pub(super) fn connection_ids(
        &self,
    ) -> impl Fn() -> Box<dyn ConnectionIdGenerator> + Send + Sync + use<> {
        let key = self.connection_ids;
        move || Box::new(HashedConnectionIdGenerator::from_key(key))
    }
}

fn fill(seed: &hkdf::Prk, label: &[u8], output: &mut [u8]) {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    #[expect(
        clippy::expect_used,
        reason = "HKDF-SHA256 fails only beyond 8,160 bytes of output"
    )]
    seed.expand(&[label], Length(output.len()))
        .and_then(|filled| filled.fill(output))
        .expect("at most 32 bytes of output");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_per_kind_and_the_same_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let ids = |profile| {
            let keys = ResetKeys::load_or_create(dir.path(), profile).unwrap();
            keys.connection_ids
        };
        let (tracker, ring) = (ids(Profile::Tracker), ids(Profile::Ring));
        assert_ne!(tracker, ring);
        assert_eq!(tracker, ids(Profile::Tracker));
        assert_eq!(ring, ids(Profile::Ring));
    }

    #[test]
    fn ids_of_the_same_key_are_recognised() {
        let make = |seed| ResetKeys::from_seed(&[seed; 32]).connection_ids()();
        let id = make(1).generate_cid();
        assert!(make(1).validate(&id).is_ok());
        assert!(make(2).validate(&id).is_err());
    }
}
