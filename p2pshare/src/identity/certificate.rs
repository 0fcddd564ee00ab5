//! The TLS certificate of a peer is an envelope for its key: self-signed, the same bytes whenever it is
//! made from the same key, and nothing in it but the key is ever read. A certificate with any other
//! kind of key than Ed25519 names nobody.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ED25519};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::ParsedCertificate;
use thiserror::Error;

use super::id::PeerId;
use super::key::SigningKey;

/// The certificate of `key`.
pub(crate) fn certificate_of(key: &SigningKey) -> CertificateDer<'static> {
    // The default dates (1975 to 4096) and a serial number that hashes the key stay: nobody reads them.
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let pkcs8 = key.pkcs8_der();
    #[expect(
        clippy::expect_used,
        reason = "the template is fixed and the key is valid by its type"
    )]
    let certificate =
        KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(&pkcs8[..]), &PKCS_ED25519)
            .and_then(|pair| params.self_signed(&pair))
            .expect("a fixed template and a valid key");
    certificate.der().clone()
}

/// Who presents `certificate`, provided that the handshake's signature is checked as well: the key
/// alone can be copied by anybody.
///
/// # Errors
///
/// If it is no X.509 certificate or its key is not an Ed25519 key.
pub(crate) fn peer_id_of(certificate: &CertificateDer<'_>) -> Result<PeerId, CertificateError> {
    let parsed =
        ParsedCertificate::try_from(certificate).map_err(|_| CertificateError::Malformed)?;
    let key_info = parsed.subject_public_key_info();
    key_info
        .strip_prefix(&ED25519_KEY_INFO)
        .and_then(|key| <[u8; 32]>::try_from(key).ok())
        .map(PeerId::from_bytes)
        .ok_or(CertificateError::NotEd25519)
}

/// Why a certificate names nobody.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub(crate) enum CertificateError {
    /// The bytes are no X.509 certificate.
    #[error("the certificate is malformed")]
    Malformed,
    /// The certificate is of a key that is not an Ed25519 key.
    #[error("the certificate's key is not an Ed25519 key")]
    NotEd25519,
}

/// `SEQUENCE { SEQUENCE { OID 1.3.101.112 }, BIT STRING (no unused bits, 32 bytes) }` up to the key.
const ED25519_KEY_INFO: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

#[cfg(test)]
mod tests {
    use rcgen::PKCS_ECDSA_P256_SHA256;

    use super::*;

    #[test]
    fn names_the_key_that_it_was_made_from() {
        for seed in 0..16 {
            let key = SigningKey::from_seed(&[seed; 32]);
            let certificate = certificate_of(&key);
            assert_eq!(
                peer_id_of(&certificate),
                Ok(PeerId::from(key.verifying_key()))
            );
            assert_eq!(certificate, certificate_of(&key));
        }
    }

    #[test]
    fn other_kinds_of_key_name_nobody() {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = CertificateParams::default().self_signed(&pair).unwrap();
        assert_eq!(
            peer_id_of(certificate.der()),
            Err(CertificateError::NotEd25519)
        );
        // A key of the same length on the same curve, but for another purpose: X25519.
        let mut bytes = certificate_of(&SigningKey::from_seed(&[7; 32])).to_vec();
        let start = bytes.windows(12).position(|at| at == ED25519_KEY_INFO);
        bytes[start.unwrap() + 8] = 0x6e;
        assert_eq!(
            peer_id_of(&CertificateDer::from(bytes)),
            Err(CertificateError::NotEd25519)
        );
    }

    #[test]
    fn truncated_and_trailing_bytes_are_refused() {
        let whole = certificate_of(&SigningKey::from_seed(&[7; 32])).to_vec();
        for length in 0..whole.len() {
            let cut = CertificateDer::from(&whole[..length]);
            assert_eq!(peer_id_of(&cut), Err(CertificateError::Malformed));
        }
        let longer = CertificateDer::from([&whole[..], &[0]].concat());
        assert_eq!(peer_id_of(&longer), Err(CertificateError::Malformed));
    }
}
