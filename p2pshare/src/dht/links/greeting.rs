//! Who is at the other end of a connection of the ring.
//!
//! **Invariant.** Whoever passes has shown, with a certificate of this ring, that the key of this very connection
//! is that of the member which he says he is.

use super::Trouble;
use crate::identity::token::TrackerCertificate;
use crate::identity::{PeerId, RingId};
use crate::transport::CloseCode;
use crate::wire::ring::Hello;

/// Why a hello proves nothing.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Unproved {
    /// The certificate is of another ring.
    #[error("the certificate is of another ring")]
    OtherRing,
    /// The ring did not sign it, or it cannot be read.
    #[error("the ring did not sign the certificate")]
    NotSigned,
    /// It is of another key than the connection's.
    #[error("the certificate is of another key than the connection's")]
    OtherKey,
    /// It is of another member than the one that the hello names.
    #[error("the certificate is of another member than the hello")]
    OtherMember,
}

impl Unproved {
    /// With what the connection is closed.
    pub(super) fn code(self) -> CloseCode {
        match self {
            Self::OtherRing => CloseCode::WrongRing,
            Self::NotSigned | Self::OtherKey | Self::OtherMember => CloseCode::Unauthenticated,
        }
    }
}

impl From<Unproved> for Trouble {
    fn from(unproved: Unproved) -> Self {
        match unproved {
            Unproved::OtherRing => Self::OtherRing,
            Unproved::NotSigned | Unproved::OtherKey | Unproved::OtherMember => Self::NotProved,
        }
    }
}

/// Checks that `hello` came from a tracker of `ring` whose connection has the key `peer`.
pub(super) fn check(hello: &Hello, ring: RingId, peer: PeerId) -> Result<(), Unproved> {
    let claimed = hello.certificate.peek().map_err(|_| Unproved::NotSigned)?;
    let TrackerCertificate::V1 {
        ring: of_ring,
        member,
        peer: of_peer,
        ..
    } = claimed;
    if of_ring != ring {
        return Err(Unproved::OtherRing);
    }
    if hello.certificate.open_as_own_ring().is_err() {
        return Err(Unproved::NotSigned);
    }
    if of_peer != peer {
        return Err(Unproved::OtherKey);
    }
    if member != hello.life.member {
        return Err(Unproved::OtherMember);
    }
    Ok(())
}
