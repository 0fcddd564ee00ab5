//! Ed25519 keys. A secret key is its 32-byte seed (RFC 8032) and nothing else, so that it can be
//! derived, stored and handed to TLS without a second form; a public key is 32 bytes that need not
//! be a point of the curve: such a key verifies nothing.

use std::fmt;
use std::sync::Arc;

use ring::rand::SecureRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a seed.
pub(crate) const SEED_LEN: usize = 32;

/// Bytes of a signature.
pub(crate) const SIGNATURE_LEN: usize = 64;

/// A secret Ed25519 key. Clones share one copy of the seed, which is wiped with the last of them.
#[derive(Clone)]
pub(crate) struct SigningKey(Arc<Secret>);

struct Secret {
    seed: Zeroizing<[u8; SEED_LEN]>,
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// The key of `seed`; every seed is a valid key.
    pub(crate) fn from_seed(seed: &[u8; SEED_LEN]) -> Self {
        #[expect(
            clippy::expect_used,
            reason = "ring refuses a seed only for its length, which the type fixes"
        )]
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed of 32 bytes");
        Self(Arc::new(Secret {
            seed: Zeroizing::new(*seed),
            pair,
        }))
    }

    /// A new key from `random`.
    ///
    /// # Errors
    ///
    /// If the source of randomness fails.
    pub(crate) fn generate(random: &dyn SecureRandom) -> Result<Self, NoRandomness> {
        let mut seed = Zeroizing::new([0; SEED_LEN]);
        random.fill(seed.as_mut()).map_err(|_| NoRandomness)?;
        Ok(Self::from_seed(&seed))
    }

    /// The seed, for whoever stores the key.
    pub(crate) fn seed(&self) -> &[u8; SEED_LEN] {
        &self.0.seed
    }

    /// The public half.
    pub(crate) fn verifying_key(&self) -> VerifyingKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.pair.public_key().as_ref());
        VerifyingKey(bytes)
    }

    /// The signature of `message`; the same message always has the same one.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let mut bytes = [0; SIGNATURE_LEN];
        bytes.copy_from_slice(self.0.pair.sign(message).as_ref());
        bytes
    }

    /// The key as PKCS #8 version 1 (RFC 8410), the form that TLS libraries take.
    pub(crate) fn pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_PREFIX.len() + SEED_LEN));
        der.extend_from_slice(&PKCS8_PREFIX);
        der.extend_from_slice(self.seed());
        der
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey")
            .field(&self.verifying_key())
            .finish()
    }
}

/// A public Ed25519 key.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct VerifyingKey([u8; 32]);

impl VerifyingKey {
    /// The key with these bytes, which are not checked before a signature is.
    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the key.
    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Checks that `signature` was made over `message` with the secret half.
    ///
    /// # Errors
    ///
    /// If it was not, or if this is not a key at all.
    pub(crate) fn verify(
        &self,
        message: &[u8],
        signature: &[u8; SIGNATURE_LEN],
    ) -> Result<(), BadSignature> {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(message, signature)
            .map_err(|_| BadSignature)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey(")?;
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ")")
    }
}

/// A signature does not belong to the message and the key.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Error)]
#[error("the signature is not valid")]
pub(crate) struct BadSignature;

/// The operating system gave no random bytes; nothing was made.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Error)]
#[error("the operating system gave no random bytes")]
pub(crate) struct NoRandomness;

/// `SEQUENCE { INTEGER 0, SEQUENCE { OID 1.3.101.112 }, OCTET STRING { OCTET STRING (32 bytes) } }`
/// up to the seed.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use data_encoding::HEXLOWER;
    use ring::rand::SystemRandom;

    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        HEXLOWER
            .decode(text.as_bytes())
            .unwrap()
            .try_into()
            .unwrap()
    }

    /// Seed, public key, message, signature: RFC 8032, section 7.1, tests 1 to 3.
    const RFC_8032: [[&str; 4]; 3] = [
        [
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ],
        [
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ],
        [
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ],
    ];

    #[test]
    fn signs_as_the_rfc_does() {
        for [seed, public, message, signature] in RFC_8032 {
            let message = HEXLOWER.decode(message.as_bytes()).unwrap();
            let key = SigningKey::from_seed(&hex(seed));
            assert_eq!(key.verifying_key().as_bytes(), &hex::<32>(public));
            assert_eq!(key.sign(&message), hex::<64>(signature));
            key.verifying_key()
                .verify(&message, &hex(signature))
                .unwrap();
        }
    }

    #[test]
    fn a_changed_message_signature_or_key_is_refused() {
        let key = SigningKey::from_seed(&[7; 32]);
        let public = key.verifying_key();
        let signature = key.sign(b"message");
        assert_eq!(public.verify(b"Message", &signature), Err(BadSignature));
        for bit in 0..SIGNATURE_LEN * 8 {
            let mut changed = signature;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(public.verify(b"message", &changed), Err(BadSignature));
        }
        let other = SigningKey::from_seed(&[8; 32]).verifying_key();
        assert_eq!(other.verify(b"message", &signature), Err(BadSignature));
        let no_point = VerifyingKey::from_bytes([0xff; 32]);
        assert_eq!(no_point.verify(b"message", &signature), Err(BadSignature));
    }

    #[test]
    fn generated_keys_differ_and_keep_their_seed() {
        let random = SystemRandom::new();
        let one = SigningKey::generate(&random).unwrap();
        let two = SigningKey::generate(&random).unwrap();
        assert_ne!(one.verifying_key(), two.verifying_key());
        let again = SigningKey::from_seed(one.seed());
        assert_eq!(again.verifying_key(), one.verifying_key());
    }

    #[test]
    fn debug_shows_the_public_key_alone() {
        let key = SigningKey::from_seed(&hex(RFC_8032[0][0]));
        let shown = format!("{key:?}");
        assert_eq!(
            shown,
            format!("SigningKey(VerifyingKey({}))", RFC_8032[0][1])
        );
    }

    #[test]
    fn pkcs8_is_what_ring_reads() {
        let key = SigningKey::from_seed(&[7; 32]);
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key.pkcs8_der()).unwrap();
        assert_eq!(
            pair.public_key().as_ref(),
            key.verifying_key().as_bytes().as_slice()
        );
    }
}
