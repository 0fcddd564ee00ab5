//! The ring key: 32 random bytes from which the ring's two signing keys follow by HKDF-SHA256, and the
//! addresses of the trackers that found the ring. Whoever has it *is* the ring; its public face is the
//! [`RingId`], the authority's public key, which depends on the secret alone.
//!
//! As a file it is text, so that an operator can look at it and carry it to another host, with a digest
//! over everything before it: a key that was damaged on the way is refused instead of being another ring.

use std::fmt;

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::rand::SecureRandom;
use thiserror::Error;
use zeroize::Zeroizing;

use super::id::RingId;
use super::key::{NoRandomness, SEED_LEN, SigningKey};
use super::tracker_list::TrackerAddr;
use crate::limits::{FOUNDERS_MAX, RING_KEY_FILE_BYTES_MAX};

/// The secret of a ring, and who founds it.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct RingKey {
    secret: Zeroizing<[u8; SECRET_BYTES]>,
    founders: Vec<TrackerAddr>,
}

impl RingKey {
    /// A new ring, founded by the trackers at `founders`.
    ///
    /// # Errors
    ///
    /// If there are no founders or too many, if one of them is named twice, or if the source of
    /// randomness fails.
    pub(crate) fn generate(
        random: &dyn SecureRandom,
        founders: Vec<TrackerAddr>,
    ) -> Result<Self, RingKeyError> {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        random.fill(secret.as_mut()).map_err(|_| NoRandomness)?;
        Self::new(secret, founders)
    }

    fn new(
        secret: Zeroizing<[u8; SECRET_BYTES]>,
        founders: Vec<TrackerAddr>,
    ) -> Result<Self, RingKeyError> {
        if founders.is_empty() || founders.len() > FOUNDERS_MAX {
            return Err(RingKeyError::FounderCount {
                found: founders.len(),
            });
        }
        for (index, founder) in founders.iter().enumerate() {
            if founders[..index].contains(founder) {
                return Err(RingKeyError::Founder { index: index + 1 });
            }
        }
        Ok(Self { secret, founders })
    }

    /// The key that signs the certificates of trackers.
    pub(crate) fn authority(&self) -> SigningKey {
        self.derive(AUTHORITY_LABEL)
    }

    /// The key that signs credentials and grants.
    pub(crate) fn token_key(&self) -> SigningKey {
        self.derive(TOKEN_LABEL)
    }

    /// The ring's public name.
    pub(crate) fn ring_id(&self) -> RingId {
        self.authority().verifying_key().into()
    }

    /// The addresses of the founding trackers, in the order of the list.
    pub(crate) fn founders(&self) -> &[TrackerAddr] {
        &self.founders
    }

    /// The text of the key's file.
    pub(crate) fn encode(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(RING_KEY_FILE_BYTES_MAX));
        text.push_str(FIRST_LINE);
        text.push_str("\nsecret ");
        HEXLOWER.encode_append(self.secret.as_ref(), &mut text);
        text.push('\n');
        for founder in &self.founders {
            text.push_str("founder ");
            text.push_str(&founder.to_string());
            text.push('\n');
        }
        let check = check_of(&text);
        text.push_str("check ");
        text.push_str(&check);
        text.push('\n');
        text
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// If the bytes are anything else, down to the last newline.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RingKeyError> {
        let text = std::str::from_utf8(bytes).map_err(|_| RingKeyError::NotARingKey)?;
        let first = text.split('\n').next().unwrap_or_default();
        if first != FIRST_LINE {
            return match first.strip_prefix(FIRST_WORDS) {
                Some(version) if is_number(version) => Err(RingKeyError::OtherVersion {
                    found: version.to_owned(),
                }),
                _ => Err(RingKeyError::NotARingKey),
            };
        }
        let (body, check) = text
            .strip_suffix('\n')
            .and_then(|text| text.rsplit_once("\ncheck "))
            .ok_or(RingKeyError::Damaged)?;
        let body = &text[..=body.len()];
        if check_of(body) != check {
            return Err(RingKeyError::Damaged);
        }
        let mut lines = body.lines().skip(1);
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        let hex = lines.next().and_then(|line| line.strip_prefix("secret "));
        match hex {
            Some(hex) if hex.len() == 2 * SECRET_BYTES => HEXLOWER
                .decode_mut(hex.as_bytes(), secret.as_mut())
                .map_err(|_| RingKeyError::Malformed { line: 2 })?,
            _ => return Err(RingKeyError::Malformed { line: 2 }),
        };
        let founders = lines
            .enumerate()
            .map(|(index, line)| {
                line.strip_prefix("founder ")
                    .and_then(|founder| founder.parse().ok())
                    .ok_or(RingKeyError::Malformed { line: index + 3 })
            })
            .collect::<Result<_, _>>()?;
        Self::new(secret, founders)
    }

    fn derive(&self, label: &[u8]) -> SigningKey {
        let mut seed = Zeroizing::new([0; SEED_LEN]);
        #[expect(
            clippy::expect_used,
            reason = "HKDF-SHA256 fails only beyond 8,160 bytes of output"
        )]
        Salt::new(HKDF_SHA256, SALT)
            .extract(self.secret.as_ref())
            .expand(&[label], Seed)
            .and_then(|output| output.fill(seed.as_mut()))
            .expect("32 bytes of output");
        SigningKey::from_seed(&seed)
    }
}

impl fmt::Debug for RingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingKey")
            .field("ring_id", &self.ring_id())
            .field("founders", &self.founders)
            .finish_non_exhaustive()
    }
}

/// Why something is not a ring key.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub(crate) enum RingKeyError {
    /// It does not begin as a ring key does.
    #[error("it is not a ring key")]
    NotARingKey,
    /// It is a ring key of a version that this program does not know.
    #[error("it is a ring key of version {found}, and this program reads version 1")]
    OtherVersion {
        /// The version that it says it has.
        found: String,
    },
    /// It ends too early, or its digest does not fit: it was cut, edited or garbled.
    #[error("it is damaged: copy it again from another tracker of the ring")]
    Damaged,
    /// A line is not what belongs there.
    #[error("its line {line} is malformed")]
    Malformed {
        /// Counted from 1.
        line: usize,
    },
    /// There must be at least one founder, and not more than [`FOUNDERS_MAX`].
    #[error("it names {found} founding trackers, and there can be 1 to {FOUNDERS_MAX}")]
    FounderCount {
        /// How many there are.
        found: usize,
    },
    /// A founder is named twice.
    #[error("it names its founding tracker {index} twice")]
    Founder {
        /// Counted from 1.
        index: usize,
    },
    /// There is no randomness to make a key from.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

struct Seed;

impl KeyType for Seed {
    fn len(&self) -> usize {
        SEED_LEN
    }
}

/// Hexadecimal of the first 8 bytes of SHA-256 over `body`.
fn check_of(body: &str) -> String {
    HEXLOWER.encode(&digest(&SHA256, body.as_bytes()).as_ref()[..8])
}

fn is_number(text: &str) -> bool {
    (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

const SECRET_BYTES: usize = 32;
const FIRST_WORDS: &str = "p2pshare ring key ";
const FIRST_LINE: &str = "p2pshare ring key 1";
const SALT: &[u8] = b"p2pshare/ring-key/1";
const AUTHORITY_LABEL: &[u8] = b"p2pshare/authority/1\0";
const TOKEN_LABEL: &[u8] = b"p2pshare/token/1\0";

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    fn key() -> RingKey {
        let secret = std::array::from_fn(|index| index as u8);
        let founders = ["127.0.0.1:9000", "[::1]:9000"].map(|addr| addr.parse().unwrap());
        let founders = founders.into();
        RingKey::new(Zeroizing::new(secret), founders).unwrap()
    }

    /// The file of the secret 00 01 .. 1f.
    const FILE: &str = "p2pshare ring key 1\n\
        secret 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n\
        founder 127.0.0.1:9000\n\
        founder [::1]:9000\n\
        check 2bf5aa68058d8619\n";

    /// With its digest made anew, so that it is the rest that is refused.
    fn sealed(body: &str) -> String {
        format!("{body}check {}\n", check_of(body))
    }

    #[test]
    fn derives_as_an_independent_implementation_does() {
        let hex = |key: &SigningKey| HEXLOWER.encode(key.seed());
        assert_eq!(
            hex(&key().authority()),
            "86f84b2fb238eeb0c76b6b6419f1f6ebfabb6dd1a0cadba9cff435e9791548f8"
        );
        assert_eq!(
            hex(&key().token_key()),
            "5ffaeab69c2fb04c76f5fbfc7981972a616cfe4d2b1923cdd4f64664c66cf2d9"
        );
        assert_eq!(
            key().ring_id().to_string(),
            "3c766e899013c3b7df1186715b5417f99bbbd2aee99c23e9786029b0b602e49f"
        );
        assert_eq!(
            HEXLOWER.encode(key().token_key().verifying_key().as_bytes()),
            "97287d47c5da129c396fe4f18e4618b24bfa1cdcab67aa02a21a9bb587d03698"
        );
    }

    #[test]
    fn golden_file() {
        assert_eq!(key().encode().as_str(), FILE);
        assert_eq!(RingKey::decode(FILE.as_bytes()), Ok(key()));
    }

    #[test]
    fn every_truncation_flip_and_trailing_byte_is_refused() {
        for length in 0..FILE.len() {
            assert!(RingKey::decode(&FILE.as_bytes()[..length]).is_err());
        }
        for index in 0..FILE.len() {
            let mut bytes = FILE.as_bytes().to_vec();
            bytes[index] ^= 1;
            assert!(RingKey::decode(&bytes).is_err(), "{index}");
        }
        for more in ["\n", " ", "check 2bf5aa68058d8619\n"] {
            assert!(RingKey::decode(format!("{FILE}{more}").as_bytes()).is_err());
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let decode = |text: &str| RingKey::decode(text.as_bytes()).unwrap_err();
        assert_eq!(decode("# trackers\n"), RingKeyError::NotARingKey);
        let found = "2".to_owned();
        assert_eq!(
            decode("p2pshare ring key 2\nx"),
            RingKeyError::OtherVersion { found }
        );
        assert_eq!(decode(&FILE.replace("9000", "9001")), RingKeyError::Damaged);
        assert_eq!(
            decode(&sealed("p2pshare ring key 1\nsecret 00\n")),
            RingKeyError::Malformed { line: 2 }
        );
        let secret = format!("p2pshare ring key 1\nsecret {}\n", "ab".repeat(32));
        assert_eq!(
            decode(&sealed(&secret)),
            RingKeyError::FounderCount { found: 0 }
        );
        assert_eq!(
            decode(&sealed(&format!(
                "{secret}founder a:1\nfounder b:1\nother\n"
            ))),
            RingKeyError::Malformed { line: 5 }
        );
        assert_eq!(
            decode(&sealed(&format!("{secret}founder a:1\nfounder a:1\n"))),
            RingKeyError::Founder { index: 2 }
        );
        let nobody = RingKey::generate(&SystemRandom::new(), Vec::new());
        assert_eq!(nobody, Err(RingKeyError::FounderCount { found: 0 }));
    }

    #[test]
    fn the_largest_key_fits_its_bound() {
        let label = "x".repeat(63);
        let founders = (0..FOUNDERS_MAX)
            .map(|index| format!("{label}.{label}.{label}.{}{index:03}:64535", "x".repeat(58)))
            .map(|addr| addr.parse().unwrap())
            .collect();
        let key = RingKey::generate(&SystemRandom::new(), founders).unwrap();
        let text = key.encode();
        assert!(text.len() <= RING_KEY_FILE_BYTES_MAX);
        assert_eq!(RingKey::decode(text.as_bytes()), Ok(key));
    }

    #[test]
    fn debug_hides_the_secret() {
        let shown = format!("{:?}", key());
        assert!(!shown.contains("000102"), "{shown}");
        assert!(shown.contains("127.0.0.1"), "{shown}");
    }
}
