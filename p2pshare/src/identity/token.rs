//! Signed statements: a [`Credential`] (this peer is logged in as that user), a [`Grant`] (this peer may
//! read that group) and a [`TrackerCertificate`] (this key is a tracker of that ring).
//!
//! A signature covers `"p2pshare/<kind>/1\0"` and then the claims' bytes, so that a token of one kind is
//! never one of another; a token is bound to the key of the peer it was given to, so that a copy is of no
//! use to anybody else. Opening a token says who signed it and nothing about time: whoever uses it
//! checks that too.

use std::marker::PhantomData;

use serde::{Deserialize, Deserializer, Serialize, de, de::DeserializeOwned};

use super::{
    id::{MemberId, PeerId, RingId, SessionId},
    key::{SigningKey, VerifyingKey},
    name::{GroupName, UserName},
};
use crate::{
    limits::{CLOCK_TOLERANCE, TOKEN_BYTES_MAX},
    time::Timestamp,
};

/// What a token says, and the kind that its signature is bound to.
pub(crate) trait Claims: Serialize + DeserializeOwned {
    /// The name of the kind in what is signed.
    const KIND: &'static str;
}

/// Claims and the signature over them, as they travel and are kept.
#[derive(Serialize)]
pub(crate) struct Signed<T> {
    claims: Vec<u8>,
    #[serde(with = "signature_bytes")]
    signature: [u8; 64],
    #[serde(skip)]
    kind: PhantomData<fn() -> T>,
}

/// Why a token is worth nothing.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TokenError {
    /// It was not signed by this key as this kind of token.
    #[error("the signature does not fit")]
    BadSignature,
    /// The signer wrote claims that this version cannot read.
    #[error("the claims cannot be read")]
    BadClaims,
    /// It is of another ring.
    #[error("it is of another ring")]
    OtherRing,
    /// It was given to another peer.
    #[error("it was given to another peer")]
    OtherPeer,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
}

impl<T: Claims> Signed<T> {
    /// Signs `claims` with `key`.
    pub(crate) fn sign(claims: &T, key: &SigningKey) -> Self {
        #[expect(
            clippy::expect_used,
            reason = "claims are plain data, which always encodes"
        )]
        let claims = postcard::to_allocvec(claims).expect("claims are plain data");
        debug_assert!(claims.len() <= TOKEN_BYTES_MAX);
        let signature = key.sign(&signed_message(T::KIND, &claims));
        Self {
            claims,
            signature,
            kind: PhantomData,
        }
    }

    /// The claims, if `key` signed them.
    pub(crate) fn open(&self, key: &VerifyingKey) -> Result<T, TokenError> {
        key.verify(&signed_message(T::KIND, &self.claims), &self.signature)
            .map_err(|_| TokenError::BadSignature)?;
        self.peek()
    }

    /// The claims, whoever signed them: only for a token that this process itself was given and keeps.
    pub(crate) fn peek(&self) -> Result<T, TokenError> {
        match postcard::take_from_bytes(&self.claims) {
            Ok((claims, [])) => Ok(claims),
            _ => Err(TokenError::BadClaims),
        }
    }
}

impl Signed<TrackerCertificate> {
    /// The claims, if they are of the ring that they name and signed by its authority: a ring's id is its
    /// authority's key.
    pub(crate) fn open_as_own_ring(&self) -> Result<TrackerCertificate, TokenError> {
        let TrackerCertificate::V1 { ring, .. } = self.peek()?;
        self.open(&VerifyingKey::from(ring))
    }
}

/// This peer is logged in as that user. Given at login, bound to the peer's key.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum Credential {
    /// The first form.
    V1 {
        /// The ring that it is of.
        ring: RingId,
        /// Who logged in.
        user: UserName,
        /// The peer that it was given to.
        peer: PeerId,
        /// The row that has to exist for it to count.
        session: SessionId,
        /// The account's generation, which a change of password raises.
        generation: u64,
        /// When it was signed.
        issued: Timestamp,
        /// When it ends.
        expires: Timestamp,
    },
}

/// This peer may read that group. Minted by a tracker after a majority read of the membership.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum Grant {
    /// The first form.
    V1 {
        /// The ring that it is of.
        ring: RingId,
        /// The group.
        group: GroupName,
        /// The user.
        user: UserName,
        /// The peer that it was given to.
        peer: PeerId,
        /// What the user is in the group.
        role: Role,
        /// When it ends.
        expires: Timestamp,
    },
}

/// This key is a tracker of that ring, and that other key signs the ring's tokens.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum TrackerCertificate {
    /// The first form.
    V1 {
        /// The ring, whose authority signs this.
        ring: RingId,
        /// The tracker as a member of the ring.
        member: MemberId,
        /// The tracker's TLS key.
        peer: PeerId,
        /// The key that signs credentials and grants.
        token_key: VerifyingKey,
        /// When it was signed.
        issued: Timestamp,
    },
}

/// What a user is in a group.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Role {
    /// The one who made the group, or to whom it was transferred.
    Owner,
    /// An accepted member.
    Member,
    /// Anybody who is logged in, where the group is open.
    Guest,
}

impl Claims for Credential {
    const KIND: &'static str = "credential";
}

impl Claims for Grant {
    const KIND: &'static str = "grant";
}

impl Claims for TrackerCertificate {
    const KIND: &'static str = "tracker";
}

impl Grant {
    /// Whether this grant lets `peer` of `ring` read `group` at `now`.
    pub(crate) fn check(
        &self,
        ring: RingId,
        group: &GroupName,
        peer: PeerId,
        now: Timestamp,
    ) -> Result<(), TokenError> {
        let Self::V1 {
            ring: of_ring,
            group: of_group,
            peer: of_peer,
            expires,
            ..
        } = self;
        if *of_ring != ring || of_group != group {
            return Err(TokenError::OtherRing);
        }
        if *of_peer != peer {
            return Err(TokenError::OtherPeer);
        }
        if is_over(*expires, now) {
            return Err(TokenError::Expired);
        }
        Ok(())
    }
}

impl Credential {
    /// Whether this credential is of `ring`, was given to `peer`, and is not over at `now`. Whether its
    /// session still exists is for the account's rows to say.
    pub(crate) fn check(
        &self,
        ring: RingId,
        peer: PeerId,
        now: Timestamp,
    ) -> Result<(), TokenError> {
        let Self::V1 {
            ring: of_ring,
            peer: of_peer,
            expires,
            ..
        } = self;
        if *of_ring != ring {
            return Err(TokenError::OtherRing);
        }
        if *of_peer != peer {
            return Err(TokenError::OtherPeer);
        }
        if is_over(*expires, now) {
            return Err(TokenError::Expired);
        }
        Ok(())
    }
}

fn is_over(expires: Timestamp, now: Timestamp) -> bool {
    expires.saturating_add(CLOCK_TOLERANCE) <= now
}

fn signed_message(kind: &str, claims: &[u8]) -> Vec<u8> {
    [b"p2pshare/", kind.as_bytes(), b"/1\0", claims].concat()
}

impl<T> Clone for Signed<T> {
    fn clone(&self) -> Self {
        Self {
            claims: self.claims.clone(),
            signature: self.signature,
            kind: PhantomData,
        }
    }
}

impl<T> PartialEq for Signed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.claims == other.claims && self.signature == other.signature
    }
}

impl<T> Eq for Signed<T> {}

impl<T> std::fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signed(..)")
    }
}

impl<'de, T> Deserialize<'de> for Signed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Form<'a> {
            #[serde(borrow)]
            claims: &'a [u8],
            #[serde(with = "signature_bytes")]
            signature: [u8; 64],
        }
        let form = Form::deserialize(deserializer)?;
        if form.claims.len() > TOKEN_BYTES_MAX {
            return Err(de::Error::custom("a token is longer than any can be"));
        }
        Ok(Self {
            claims: form.claims.to_vec(),
            signature: form.signature,
            kind: PhantomData,
        })
    }
}

/// 64 bytes as two halves, since serde's arrays end at 32.
mod signature_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 64], s: S) -> Result<S::Ok, S::Error> {
        let (left, right) = bytes.split_at(32);
        let halves: (Result<[u8; 32], _>, Result<[u8; 32], _>) =
            (left.try_into(), right.try_into());
        match halves {
            (Ok(left), Ok(right)) => (left, right).serialize(s),
            _ => Err(serde::ser::Error::custom("64 bytes are two times 32")),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 64], D::Error> {
        let (left, right) = <([u8; 32], [u8; 32])>::deserialize(d)?;
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&left);
        bytes[32..].copy_from_slice(&right);
        Ok(bytes)
    }
}

/// Samples of every token, and their golden bytes.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;
    use crate::golden::{Golden, assert_every_variant, variants};

    variants!(Credential { V1 });
    variants!(Grant { V1 });
    variants!(TrackerCertificate { V1 });

    /// Signs with the key that signs every sample: that of the seed of 32 bytes 07.
    pub(crate) fn signed<T: Claims>(claims: &T) -> Signed<T> {
        Signed::sign(claims, &key())
    }

    pub(crate) fn key() -> SigningKey {
        SigningKey::from_seed(&[7; 32])
    }

    pub(crate) fn credential() -> Credential {
        Credential::V1 {
            ring: RingId::from_bytes([1; 32]),
            user: UserName::new("Alice").unwrap(),
            peer: PeerId::from_bytes([0xee; 32]),
            session: SessionId::from_bytes([0xdd; 16]),
            generation: 300,
            issued: Timestamp::from_millis(1_700_000_000_000),
            expires: Timestamp::from_millis(1_702_592_000_000),
        }
    }

    pub(crate) fn grant() -> Grant {
        grant_of(Role::Member)
    }

    fn grant_of(role: Role) -> Grant {
        Grant::V1 {
            ring: RingId::from_bytes([1; 32]),
            group: GroupName::new("Photos").unwrap(),
            user: UserName::new("Bob").unwrap(),
            peer: PeerId::from_bytes([0xee; 32]),
            role,
            expires: Timestamp::from_millis(1_700_000_600_000),
        }
    }

    pub(crate) fn certificate() -> TrackerCertificate {
        TrackerCertificate::V1 {
            ring: key().verifying_key().into(),
            member: MemberId::from_bytes([0xb0; 16]),
            peer: PeerId::from_bytes([0x77; 32]),
            token_key: SigningKey::from_seed(&[8; 32]).verifying_key(),
            issued: Timestamp::from_millis(1_700_000_000_000),
        }
    }

    #[test]
    fn golden_bytes() {
        let roles = [
            ("grant_of_owner", Role::Owner),
            ("grant_of_member", Role::Member),
            ("grant_of_guest", Role::Guest),
        ];
        assert_every_variant(roles.iter().map(|(_, role)| role));
        let grants = roles.map(|(name, role)| (name, grant_of(role)));
        let mut golden = Golden::open("token");
        golden.values("claims", &[("credential", credential())]);
        golden.values("claims", &grants);
        golden.values("claims", &[("certificate", certificate())]);
        golden.value_saying("signed/credential", &signed(&credential()), &credential());
        golden.value_saying("signed/grant", &signed(&grant()), &grant());
        golden.value_saying(
            "signed/certificate",
            &signed(&certificate()),
            &certificate(),
        );
        golden.finish();
    }

    #[test]
    fn a_token_that_is_too_long_is_refused() {
        let of = |bytes: usize| {
            let token = Signed::<Grant> {
                claims: vec![0; bytes],
                signature: [0; 64],
                kind: PhantomData,
            };
            postcard::from_bytes::<Signed<Grant>>(&postcard::to_allocvec(&token).unwrap()).is_ok()
        };
        assert!(of(TOKEN_BYTES_MAX));
        assert!(!of(TOKEN_BYTES_MAX + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: RingId = RingId::from_bytes([1; 32]);
    const PEER: PeerId = PeerId::from_bytes([2; 32]);

    fn key() -> SigningKey {
        SigningKey::from_seed(&[7; 32])
    }

    fn grant(expires: u64) -> Grant {
        Grant::V1 {
            ring: RING,
            group: GroupName::new("photos").unwrap(),
            user: UserName::new("bob").unwrap(),
            peer: PEER,
            role: Role::Member,
            expires: Timestamp::from_millis(expires),
        }
    }

    fn credential() -> Credential {
        Credential::V1 {
            ring: RING,
            user: UserName::new("bob").unwrap(),
            peer: PEER,
            session: SessionId::from_bytes([3; 16]),
            generation: 1,
            issued: Timestamp::from_millis(5),
            expires: Timestamp::from_millis(1_000_000),
        }
    }

    #[test]
    fn opens_with_its_key_alone() {
        let token = Signed::sign(&grant(9), &key());
        assert_eq!(token.open(&key().verifying_key()), Ok(grant(9)));
        let other = SigningKey::from_seed(&[8; 32]);
        assert_eq!(
            token.open(&other.verifying_key()),
            Err(TokenError::BadSignature)
        );
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = postcard::to_allocvec(&Signed::sign(&grant(9), &key())).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(token) = postcard::from_bytes::<Signed<Grant>>(&bytes) {
                assert!(token.open(&key().verifying_key()).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_credential_is_no_grant() {
        let bytes = postcard::to_allocvec(&Signed::sign(&credential(), &key())).unwrap();
        let token = postcard::from_bytes::<Signed<Grant>>(&bytes).unwrap();
        assert_eq!(
            token.open(&key().verifying_key()),
            Err(TokenError::BadSignature)
        );
    }

    #[test]
    fn a_grant_is_for_one_ring_group_peer_and_time() {
        let (group, now) = (
            GroupName::new("photos").unwrap(),
            Timestamp::from_millis(1_000),
        );
        let other = GroupName::new("music").unwrap();
        let expired = grant(999);
        let cases = [
            (grant(1_000), RING, &group, PEER, now, Ok(())),
            (
                grant(1_000),
                RingId::from_bytes([9; 32]),
                &group,
                PEER,
                now,
                Err(TokenError::OtherRing),
            ),
            (
                grant(1_000),
                RING,
                &other,
                PEER,
                now,
                Err(TokenError::OtherRing),
            ),
            (
                grant(1_000),
                RING,
                &group,
                PeerId::from_bytes([9; 32]),
                now,
                Err(TokenError::OtherPeer),
            ),
            (
                expired,
                RING,
                &group,
                PEER,
                Timestamp::from_millis(61_000),
                Err(TokenError::Expired),
            ),
            (
                grant(1_000),
                RING,
                &group,
                PEER,
                Timestamp::from_millis(60_999),
                Ok(()),
            ),
        ];
        for (index, (grant, ring, group, peer, now, expected)) in cases.into_iter().enumerate() {
            assert_eq!(
                grant.check(ring, group, peer, now),
                expected,
                "case {index}"
            );
        }
    }

    #[test]
    fn a_credential_is_for_one_ring_peer_and_time() {
        let now = Timestamp::from_millis(1_000_000);
        assert_eq!(credential().check(RING, PEER, now), Ok(()));
        let other = PeerId::from_bytes([9; 32]);
        assert_eq!(
            credential().check(RING, other, now),
            Err(TokenError::OtherPeer)
        );
        let late = now.saturating_add(CLOCK_TOLERANCE);
        assert_eq!(
            credential().check(RING, PEER, late),
            Err(TokenError::Expired)
        );
    }

    #[test]
    fn a_trackers_certificate_carries_its_own_proof() {
        let authority = key();
        let ring = RingId::from_bytes(*authority.verifying_key().as_bytes());
        let claims = TrackerCertificate::V1 {
            ring,
            member: MemberId::from_bytes([4; 16]),
            peer: PEER,
            token_key: authority.verifying_key(),
            issued: Timestamp::from_millis(1),
        };
        assert_eq!(
            Signed::sign(&claims, &authority).open_as_own_ring(),
            Ok(claims.clone())
        );
        let impostor = SigningKey::from_seed(&[8; 32]);
        assert_eq!(
            Signed::sign(&claims, &impostor).open_as_own_ring(),
            Err(TokenError::BadSignature)
        );
    }
}
