use serde::de::DeserializeOwned;

use super::*;
use crate::golden::{Golden, assert_every_variant, variants};
use crate::wire::frame::encode;

variants!(ReplicaCall {
    Prepare,
    Accept,
    Read,
    List,
    Scan,
});
variants!(ReplicaAnswer {
    Promised,
    Accepted,
    Refused,
    Row,
    Rows,
    Scanned,
    StaleEpoch,
    Unavailable,
});
variants!(StoredRegister { V1 });

fn key() -> RowKey {
    RowKey::new("g/a", "f").unwrap()
}

fn ballot(round: u64) -> Ballot {
    Ballot {
        round,
        member: MemberId::from_bytes([0xb0; 16]),
        incarnation: 2,
    }
}

fn state() -> RowState {
    let request = RequestKey {
        peer: PeerId::from_bytes([0xee; 32]),
        request: RequestId::from_bytes([0xcc; 16]),
    };
    RowState::default().next(Some(b"v".to_vec()), request)
}

fn requests() -> Vec<(&'static str, ReplicaRequest)> {
    let (key, ballot, state) = (key(), ballot(7), state());
    let list = |after| ReplicaCall::List {
        partition: b"p".to_vec(),
        after,
        limit: 5,
    };
    let scan = |heads, after| ReplicaCall::Scan {
        prefix: b"g/".to_vec(),
        heads,
        after,
        limit: 5,
    };
    let calls = vec![
        (
            "prepare",
            ReplicaCall::Prepare {
                key: key.clone(),
                ballot,
            },
        ),
        (
            "accept",
            ReplicaCall::Accept {
                key: key.clone(),
                ballot,
                state,
            },
        ),
        ("read", ReplicaCall::Read { key: key.clone() }),
        ("list", list(None)),
        ("list_on", list(Some(b"s".into()))),
        ("scan", scan(false, None)),
        ("scan_on", scan(true, Some(key))),
    ];
    assert_every_variant(calls.iter().map(|(_, call)| call));
    let request = |(name, call)| {
        let epoch = Epoch(300);
        (name, ReplicaRequest { epoch, call })
    };
    calls.into_iter().map(request).collect()
}

fn answers() -> [(&'static str, ReplicaAnswer); 8] {
    let (ballot, zero) = (ballot(7), Ballot::ZERO);
    let row = ReplicaRow {
        key: key(),
        accepted: ballot,
        state: state(),
    };
    [
        (
            "promised",
            ReplicaAnswer::Promised {
                ballot,
                accepted: zero,
                state: RowState::default(),
            },
        ),
        ("accepted", ReplicaAnswer::Accepted { ballot }),
        (
            "refused",
            ReplicaAnswer::Refused {
                ballot: zero,
                promised: ballot,
            },
        ),
        (
            "row",
            ReplicaAnswer::Row {
                accepted: ballot,
                state: state(),
            },
        ),
        (
            "rows",
            ReplicaAnswer::Rows {
                rows: vec![row.clone()],
                more: true,
            },
        ),
        (
            "scanned",
            ReplicaAnswer::Scanned {
                rows: vec![row],
                next: Some(key()),
            },
        ),
        (
            "stale_epoch",
            ReplicaAnswer::StaleEpoch { highest: Epoch(2) },
        ),
        ("unavailable", ReplicaAnswer::Unavailable),
    ]
}

#[test]
fn golden_bytes() {
    let entry = |payload| LeaseEntry {
        peer: PeerId::from_bytes([0xee; 32]),
        session: SessionId::from_bytes([0xdd; 16]),
        number: 300,
        expires_in: 60_000,
        payload,
    };
    let register = StoredRegister::V1(Register {
        promised: ballot(8),
        accepted: ballot(7),
        state: state(),
    });
    let mut golden = Golden::open("ring");
    for (name, request) in requests() {
        golden.message(&format!("request/{name}"), &request);
    }
    golden.messages("answer", &answers());
    golden.value("lease_entry", &entry(Some(b"x".to_vec())));
    golden.value("lease_entry_withdrawn", &entry(None));
    golden.values("stored", &[("register", register)]);
    golden.finish();
}

fn decodes<T: DeserializeOwned>(hex: &str) -> bool {
    let digits: String = hex.split_whitespace().collect();
    let bytes = data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap();
    matches!(postcard::take_from_bytes::<T>(&bytes), Ok((_, [])))
}

#[test]
fn what_breaks_a_bound_does_not_decode() {
    assert!(decodes::<Slice>("ff7f"));
    assert!(!decodes::<Slice>("808001"));
    assert!(decodes::<RowKey>("01 70 00"));
    assert!(!decodes::<RowKey>("00 00"));
    let long = "70".repeat(256);
    assert!(!decodes::<RowKey>(&format!("8002 {long} 00")));
    assert!(!decodes::<LeaseKey>("00"));
    assert!(!decodes::<LeaseKey>(&format!("8002 {long}")));
    // Never written and yet with a value; changed once and by nobody; remembered and never made.
    let request = "ee".repeat(48);
    assert!(decodes::<RowState>("00 00 00"));
    assert!(!decodes::<RowState>("00 01 01 76 00"));
    assert!(!decodes::<RowState>("01 00 00"));
    assert!(!decodes::<RowState>(&format!("00 00 01 {request}")));
    assert!(decodes::<RowState>(&format!("01 00 01 {request}")));
    let seventeen = request.repeat(17);
    assert!(decodes::<RowState>(&format!(
        "11 00 10 {}",
        request.repeat(16)
    )));
    assert!(!decodes::<RowState>(&format!("11 00 11 {seventeen}")));
    let huge = "76".repeat(RowState::VALUE_BYTES_MAX + 1);
    assert!(!decodes::<RowState>(&format!(
        "01 01 818001 {huge} 01 {request}"
    )));
}

#[test]
fn the_largest_messages_fit_their_frames() {
    let mut state = RowState::default();
    for _ in 0..RowState::RECENT_MAX {
        let request = RequestKey {
            peer: PeerId::from_bytes([1; 32]),
            request: RequestId::from_bytes([1; 16]),
        };
        state = state.next(Some(vec![0; RowState::VALUE_BYTES_MAX]), request);
    }
    let key = RowKey::new(
        [0; RowKey::PARTITION_BYTES_MAX],
        [0; RowKey::SORT_BYTES_MAX],
    )
    .unwrap();
    let ballot = Ballot {
        incarnation: u64::MAX,
        ..ballot(u64::MAX)
    };
    let call = ReplicaCall::Accept { key, ballot, state };
    assert!(
        encode(&ReplicaRequest {
            epoch: Epoch(u64::MAX),
            call
        })
        .is_ok()
    );
}
