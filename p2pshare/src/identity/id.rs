//! Identifiers: byte strings of fixed length, shown as lower-case hexadecimal. Each kind is a type of
//! its own, so that one can never be taken for another.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Serialize};

use super::key::VerifyingKey;

/// A text that is not the hexadecimal form of an identifier.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("'{text}' is not {digits} hexadecimal digits")]
pub struct IdError {
    text: String,
    digits: usize,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
        pub struct $name([u8; $len]);

        impl $name {
            /// The identifier with exactly these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let hex = data_encoding::HEXLOWER.encode(&self.0[..5]);
                write!(f, concat!(stringify!($name), "({}..)"), hex)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                HEXLOWER_PERMISSIVE
                    .decode(text.as_bytes())
                    .ok()
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or_else(|| IdError {
                        text: text.chars().take(80).collect(),
                        digits: $len * 2,
                    })
            }
        }
    };
}

byte_id! {
    /// A peer or tracker process: the Ed25519 public key of its TLS certificate.
    PeerId, 32
}
byte_id! {
    /// A ring of trackers: the Ed25519 public key of its authority.
    RingId, 32
}
byte_id! {
    /// A tracker as a member of its ring: random, and kept when its address changes.
    MemberId, 16
}
byte_id! {
    /// One login of one user from one peer.
    SessionId, 16
}
byte_id! {
    /// One change that somebody asked for: random, and the same in each retry of it.
    RequestId, 16
}

impl From<PeerId> for VerifyingKey {
    fn from(peer: PeerId) -> Self {
        Self::from_bytes(peer.0)
    }
}

impl From<RingId> for VerifyingKey {
    fn from(ring: RingId) -> Self {
        Self::from_bytes(ring.0)
    }
}

impl From<VerifyingKey> for PeerId {
    fn from(key: VerifyingKey) -> Self {
        Self(*key.as_bytes())
    }
}

impl From<VerifyingKey> for RingId {
    fn from(key: VerifyingKey) -> Self {
        Self(*key.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_there_and_back() {
        let id = SessionId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string(), "ab".repeat(16));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "ab", &"ab".repeat(17), &"zz".repeat(16), "é"] {
            let error = text.parse::<SessionId>().unwrap_err();
            assert!(
                error.to_string().ends_with("is not 32 hexadecimal digits"),
                "{error}"
            );
        }
    }
}
