use serde::de::DeserializeOwned;

use super::*;
use crate::golden::{Golden, assert_every_variant, variants};
use crate::identity::PeerId;
use crate::identity::key::SigningKey;
use crate::identity::token::{Signed, TrackerCertificate};
use crate::limits::REPLICA_BATCH_REQUESTS_MAX;
use crate::time::Timestamp;
use crate::wire::frame::encode;

variants!(ReplicaCall {
    Prepare,
    Accept,
    Read,
    List,
    Scan,
    Fence,
    Pull,
    Install,
    TreeGroups,
    TreeSlices,
    TreeLeaves,
    TreeRows,
    LeasePut,
    LeaseGet,
    LeaseVectors,
    LeaseLacking,
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
    Done,
    Sums,
    Pulled,
    Stamps,
    Fenced,
    LeasesTaken,
    Leases,
    LeaseVectors,
    LeasesLacking,
    Unreadable,
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

fn requests() -> Vec<(&'static str, ReplicaBatch)> {
    let (key, ballot, state) = (key(), ballot(7), state());
    let list = |after| ReplicaCall::List {
        partition: b"p".to_vec(),
        after,
        limit: 5,
    };
    let scan = |heads, after| ReplicaCall::Scan {
        first: Slice::FIRST,
        last: Slice::from_first_bits(u16::MAX),
        prefix: b"g/".to_vec(),
        heads,
        after,
        limit: 5,
    };
    let (with, slice) = (MemberId::from_bytes([0xa0; 16]), Slice::FIRST);
    let pull = |place| ReplicaCall::Pull {
        with,
        place,
        limit: 5,
    };
    let accept = ReplicaCall::Accept {
        key: key.clone(),
        ballot,
        state: state.clone(),
    };
    let prepare = ReplicaCall::Prepare {
        key: key.clone(),
        ballot,
    };
    let mut calls = vec![
        ("prepare", prepare),
        ("accept", accept),
        ("read", ReplicaCall::Read { key: key.clone() }),
        ("list", list(None)),
        ("list_on", list(Some(b"s".into()))),
        ("scan", scan(false, None)),
        ("scan_on", scan(true, Some(key.clone()))),
        ("fence", ReplicaCall::Fence { incarnation: 300 }),
        ("pull", pull(PullPlace::START)),
        ("pull_on", pull(place())),
        ("install", ReplicaCall::Install { rows: vec![row()] }),
        ("tree_groups", ReplicaCall::TreeGroups { with }),
        ("tree_slices", ReplicaCall::TreeSlices { with, group: 7 }),
        ("tree_leaves", ReplicaCall::TreeLeaves { slice }),
        (
            "tree_rows",
            ReplicaCall::TreeRows {
                slice,
                leaves: 0b101,
                after: Some(key),
            },
        ),
    ];
    calls.extend(lease::tests::calls());
    assert_every_variant(calls.iter().map(|(_, call)| call));
    let request = |(name, call)| {
        let epoch = Epoch {
            list: 300,
            returns: 5,
        };
        let batch = ReplicaBatch::new(vec![ReplicaRequest { epoch, call }]);
        (name, batch.unwrap())
    };
    calls.into_iter().map(request).collect()
}

fn row() -> ReplicaRow {
    ReplicaRow {
        key: key(),
        accepted: ballot(7),
        state: state(),
    }
}

fn place() -> PullPlace {
    PullPlace {
        slice: Slice::from_first_bits(0x2000),
        after: Some(key()),
    }
}

fn answers() -> Vec<(&'static str, ReplicaAnswers)> {
    let (ballot, zero) = (ballot(7), Ballot::ZERO);
    let highest = Epoch {
        list: 2,
        returns: 1,
    };
    let promised = ReplicaAnswer::Promised {
        ballot,
        accepted: zero,
        state: RowState::default(),
    };
    let refused = ReplicaAnswer::Refused {
        ballot: zero,
        promised: ballot,
    };
    let pulled = ReplicaAnswer::Pulled {
        epoch: highest,
        asked: PullPlace::START,
        rows: vec![row()],
        next: Some(place()),
    };
    let stamps = ReplicaAnswer::Stamps {
        slice: Slice::FIRST,
        after: None,
        rows: vec![(key(), ballot)],
        next: Some(key()),
    };
    let sums = ReplicaAnswer::Sums {
        of: TreeNode::Group(7),
        sums: vec![0, Sum::MAX],
    };
    let (accepted, state, rows) = (ballot, state(), vec![row()]);
    let next = Some(key());
    let mut answers = vec![
        ("promised", promised),
        ("accepted", ReplicaAnswer::Accepted { ballot }),
        ("refused", refused),
        ("row", ReplicaAnswer::Row { accepted, state }),
        (
            "rows",
            ReplicaAnswer::Rows {
                rows: rows.clone(),
                more: true,
            },
        ),
        ("scanned", ReplicaAnswer::Scanned { rows, next }),
        ("stale_epoch", ReplicaAnswer::StaleEpoch { highest }),
        ("unavailable", ReplicaAnswer::Unavailable),
        ("done", ReplicaAnswer::Done),
        ("sums", sums),
        ("pulled", pulled),
        ("stamps", stamps),
        ("fenced", ReplicaAnswer::Fenced { epoch: highest }),
    ];
    answers.extend(lease::tests::answers());
    let slice = Slice::FIRST;
    answers.push(("unreadable", ReplicaAnswer::Unreadable { slice }));
    assert_every_variant(answers.iter().map(|(_, answer)| answer));
    let answered = |(name, answer)| {
        let answers = ReplicaAnswers {
            answers: vec![answer],
            commits: 300,
            clocks: Clocks {
                own: Timestamp::from_millis(1_700_000_000_000),
                ring: Some(Timestamp::from_millis(1_700_000_000_001)),
            },
        };
        (name, answers)
    };
    answers.into_iter().map(answered).collect()
}

fn hello(standing: Standing) -> Hello {
    let key = SigningKey::from_seed(&[7; 32]);
    let certificate = TrackerCertificate::V1 {
        ring: key.verifying_key().into(),
        member: MemberId::from_bytes([0xb0; 16]),
        peer: PeerId::from_bytes([0xee; 32]),
        token_key: key.verifying_key(),
        issued: Timestamp::from_millis(1_700_000_000_000),
    };
    Hello {
        certificate: Signed::sign(&certificate, &key),
        life: Life {
            member: MemberId::from_bytes([0xb0; 16]),
            incarnation: 2,
        },
        addr: "tracker.example:9000".parse().unwrap(),
        commits: 300,
        clocks: Clocks {
            own: Timestamp::from_millis(1_700_000_000_000),
            ring: matches!(standing, Standing::Founded { .. })
                .then_some(Timestamp::from_millis(1_700_000_000_001)),
        },
        standing,
    }
}

fn founded() -> Standing {
    let member = |id| RingMember {
        id: MemberId::from_bytes([id; 16]),
        addr: format!("127.0.0.1:{}", 9000 + u16::from(id))
            .parse()
            .unwrap(),
    };
    Standing::Founded {
        record: RingRecord::new(Epoch::FOUNDING, vec![member(2), member(1)]).unwrap(),
        votes: true,
    }
}

#[test]
fn golden_bytes() {
    let entry = lease::tests::entry;
    let register = StoredRegister::V1 {
        accepted: ballot(7),
        state: state(),
    };
    let mut golden = Golden::open("ring");
    for (name, request) in requests() {
        golden.message(&format!("request/{name}"), &request);
    }
    for (name, answers) in answers() {
        golden.message(&format!("answer/{name}"), &answers);
    }
    golden.message("hello/empty", &hello(Standing::Empty));
    golden.message("hello/founded", &hello(founded()));
    let welcome = Welcome {
        hello: hello(founded()),
        incarnation: 1,
        commits: 299,
    };
    golden.message("welcome/founded", &welcome);
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
    let epoch = Epoch {
        list: u64::MAX,
        returns: u64::MAX,
    };
    let batch = ReplicaBatch::new(vec![ReplicaRequest { epoch, call }]).unwrap();
    assert!(encode(&batch).is_ok());
}

#[test]
fn a_round_that_no_ring_reaches_is_refused() {
    for (round, is_taken) in [
        (BALLOT_ROUND_MAX, true),
        (BALLOT_ROUND_MAX + 1, false),
        (u64::MAX, false),
    ] {
        let bytes = postcard::to_allocvec(&ballot(round)).unwrap();
        let decoded = postcard::from_bytes::<Ballot>(&bytes);
        assert_eq!(decoded.is_ok(), is_taken, "{round}");
    }
}

#[test]
fn more_requests_or_answers_than_a_batch_has_are_refused_while_they_are_read() {
    let clocks = Clocks {
        own: Timestamp::default(),
        ring: None,
    };
    let answers = |count| ReplicaAnswers {
        answers: vec![ReplicaAnswer::Done; count],
        commits: 0,
        clocks,
    };
    let taken = |count| {
        let bytes = postcard::to_allocvec(&answers(count)).unwrap();
        postcard::from_bytes::<ReplicaAnswers>(&bytes).is_ok()
    };
    assert!(taken(REPLICA_BATCH_REQUESTS_MAX));
    assert!(!taken(REPLICA_BATCH_REQUESTS_MAX + 1));
    let request = ReplicaRequest {
        epoch: Epoch::FOUNDING,
        call: ReplicaCall::Fence { incarnation: 1 },
    };
    let bytes = postcard::to_allocvec(&vec![request; REPLICA_BATCH_REQUESTS_MAX + 1]).unwrap();
    assert!(postcard::from_bytes::<ReplicaBatch>(&bytes).is_err());
}
