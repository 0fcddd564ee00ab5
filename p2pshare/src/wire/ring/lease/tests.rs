//! Samples of every message about leases, and their bounds.

use serde::de::DeserializeOwned;

use super::*;
use crate::identity::MemberId;
use crate::wire::ring::{ReplicaAnswer, ReplicaCall};

fn owner() -> LeaseOwner {
    LeaseOwner {
        peer: PeerId::from_bytes([0xee; 32]),
        session: SessionId::from_bytes([0xdd; 16]),
    }
}

fn slice() -> Slice {
    Slice::new(0x2e9e).unwrap()
}

fn place() -> LeasePlace {
    LeasePlace {
        owner: owner(),
        slice: slice(),
    }
}

pub(in super::super) fn entry(payload: Option<Vec<u8>>) -> LeaseEntry {
    LeaseEntry {
        peer: owner().peer,
        session: owner().session,
        number: 300,
        expires_in: 60_000,
        payload,
    }
}

fn news(after: u64, entries: Vec<SlotEntry>) -> Vec<LeaseNews> {
    let slice = slice();
    vec![LeaseNews {
        owner: owner(),
        number: 300,
        expires_in: 60_000,
        slices: vec![SliceNews {
            slice,
            after,
            entries,
        }],
    }]
}

fn said(payload: Option<Vec<u8>>) -> SlotEntry {
    SlotEntry {
        key: LeaseKey::new("abc").unwrap(),
        payload,
    }
}

fn vector() -> Vec<SessionVector> {
    vec![SessionVector {
        owner: owner(),
        slices: vec![(slice(), 300)],
    }]
}

/// Calls about leases.
pub(in super::super) fn calls() -> Vec<(&'static str, ReplicaCall)> {
    let keys = vec![LeaseKey::new("abc").unwrap()];
    let (with, known) = (MemberId::from_bytes([0xb0; 16]), vector());
    let get = |after| ReplicaCall::LeaseGet {
        keys: keys.clone(),
        after,
    };
    let vectors = |after| ReplicaCall::LeaseVectors { with, after };
    let lacking = |after| ReplicaCall::LeaseLacking {
        known: known.clone(),
        after,
    };
    let whole = news(0, vec![said(Some(b"x".to_vec()))]);
    vec![
        ("lease_put", ReplicaCall::LeasePut(whole)),
        (
            "lease_put_change",
            ReplicaCall::LeasePut(news(299, vec![said(None)])),
        ),
        (
            "lease_put_renewal",
            ReplicaCall::LeasePut(news(299, Vec::new())),
        ),
        ("lease_get", get(None)),
        ("lease_get_on", get(Some(owner()))),
        ("lease_vectors", vectors(None)),
        ("lease_vectors_on", vectors(Some(place()))),
        ("lease_lacking", lacking(None)),
        ("lease_lacking_on", lacking(Some(place()))),
    ]
}

/// Answers about leases.
pub(in super::super) fn answers() -> Vec<(&'static str, ReplicaAnswer)> {
    let taken = ReplicaAnswer::LeasesTaken {
        last: Some(slice()),
        gaps: vector(),
        refused: 2,
    };
    let leases = ReplicaAnswer::Leases {
        keys: 1,
        after: Some(owner()),
        found: vec![vec![entry(Some(b"x".to_vec())), entry(None)]],
        more: true,
    };
    let vectors = ReplicaAnswer::LeaseVectors {
        sessions: vector(),
        next: Some(place()),
    };
    let lacking = ReplicaAnswer::LeasesLacking {
        news: news(0, vec![said(Some(b"x".to_vec()))]),
        next: None,
    };
    vec![
        ("leases_taken", taken),
        ("leases", leases),
        ("lease_vectors", vectors),
        ("leases_lacking", lacking),
    ]
}

fn comes_back<T: Serialize + DeserializeOwned>(value: &T) -> bool {
    let bytes = postcard::to_allocvec(value).unwrap();
    matches!(postcard::take_from_bytes::<T>(&bytes), Ok((_, [])))
}

#[test]
fn lists_and_payloads_have_bounds() {
    let payload = |len| said(Some(vec![0; len]));
    assert!(comes_back(&payload(LEASE_PAYLOAD_BYTES_MAX)));
    assert!(!comes_back(&payload(LEASE_PAYLOAD_BYTES_MAX + 1)));
    let read = |len| entry(Some(vec![0; len]));
    assert!(comes_back(&read(LEASE_PAYLOAD_BYTES_MAX)));
    assert!(!comes_back(&read(LEASE_PAYLOAD_BYTES_MAX + 1)));
    let put = |len| ReplicaCall::LeasePut(news(0, vec![said(None); len]));
    assert!(comes_back(&put(LEASE_SLOT_ENTRIES_MAX)));
    assert!(!comes_back(&put(LEASE_SLOT_ENTRIES_MAX + 1)));
    let key = LeaseKey::new("abc").unwrap();
    let get = |len| ReplicaCall::LeaseGet {
        keys: vec![key.clone(); len],
        after: None,
    };
    assert!(comes_back(&get(LEASE_GET_KEYS_MAX)));
    assert!(!comes_back(&get(LEASE_GET_KEYS_MAX + 1)));
    let known = |len| ReplicaCall::LeaseLacking {
        known: vec![SessionVector {
            owner: owner(),
            slices: vec![(slice(), 1); len],
        }],
        after: None,
    };
    assert!(comes_back(&known(LEASE_SLICES_PER_LIST_MAX)));
    assert!(!comes_back(&known(LEASE_SLICES_PER_LIST_MAX + 1)));
    let found = |len| ReplicaAnswer::Leases {
        keys: 1,
        after: None,
        found: vec![vec![entry(None); len]],
        more: false,
    };
    assert!(comes_back(&found(LEASES_PER_ANSWER_MAX)));
    assert!(!comes_back(&found(LEASES_PER_ANSWER_MAX + 1)));
    let found = |len| ReplicaAnswer::Leases {
        keys: 1,
        after: None,
        found: vec![Vec::new(); len],
        more: false,
    };
    assert!(comes_back(&found(LEASE_GET_KEYS_MAX)));
    assert!(!comes_back(&found(LEASE_GET_KEYS_MAX + 1)));
}
