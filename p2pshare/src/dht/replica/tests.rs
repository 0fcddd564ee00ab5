//! What a replica promises is durable, and epochs fence it.

use super::*;
use crate::identity::{MemberId, PeerId, RequestId};
use crate::limits::SCAN_PAGES_MAX;
use crate::store::{MemoryDisk, StoreKind};
use crate::wire::ring::{Ballot, RequestKey};

async fn open(disk: &MemoryDisk) -> Replica {
    Replica::open(Store::open_memory(disk, StoreKind::Tracker).await.unwrap())
        .await
        .unwrap()
}

fn ballot(round: u64) -> Ballot {
    Ballot {
        round,
        member: MemberId::from_bytes([1; 16]),
        incarnation: 1,
    }
}

fn key() -> RowKey {
    RowKey::new("p", "s").unwrap()
}

fn state() -> RowState {
    let request = RequestKey {
        peer: PeerId::from_bytes([2; 32]),
        request: RequestId::from_bytes([3; 16]),
    };
    RowState::default().next(Some(b"v".to_vec()), request)
}

async fn ask(replica: &Replica, epoch: u64, call: ReplicaCall) -> ReplicaAnswer {
    replica
        .handle(ReplicaRequest {
            epoch: Epoch(epoch),
            call,
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn promises_and_acceptances_survive_a_power_cut() {
    let disk = MemoryDisk::default();
    let replica = open(&disk).await;
    let prepare = |round| ReplicaCall::Prepare {
        key: key(),
        ballot: ballot(round),
    };
    let accept = |round| ReplicaCall::Accept {
        key: key(),
        ballot: ballot(round),
        state: state(),
    };
    let promised = ask(&replica, 1, prepare(5)).await;
    let nothing = RowState::default();
    let expected = ReplicaAnswer::Promised {
        ballot: ballot(5),
        accepted: Ballot::ZERO,
        state: nothing,
    };
    assert_eq!(promised, expected);
    drop(replica);
    disk.lose_power();
    let replica = open(&disk).await;
    let refused = ReplicaAnswer::Refused {
        ballot: ballot(4),
        promised: ballot(5),
    };
    assert_eq!(ask(&replica, 1, prepare(4)).await, refused);
    assert_eq!(ask(&replica, 1, accept(4)).await, refused);
    let accepted = ReplicaAnswer::Accepted { ballot: ballot(5) };
    assert_eq!(ask(&replica, 1, accept(5)).await, accepted);
    drop(replica);
    disk.lose_power();
    let replica = open(&disk).await;
    let row = ReplicaAnswer::Row {
        accepted: ballot(5),
        state: state(),
    };
    assert_eq!(
        ask(&replica, 1, ReplicaCall::Read { key: key() }).await,
        row
    );
    let promised = ReplicaAnswer::Promised {
        ballot: ballot(6),
        accepted: ballot(5),
        state: state(),
    };
    assert_eq!(ask(&replica, 1, prepare(6)).await, promised);
}

#[tokio::test]
async fn an_epoch_once_seen_fences_all_below_it_for_ever() {
    let disk = MemoryDisk::default();
    let replica = open(&disk).await;
    let calls = [
        ReplicaCall::Read { key: key() },
        ReplicaCall::Prepare {
            key: key(),
            ballot: ballot(1),
        },
        ReplicaCall::Accept {
            key: key(),
            ballot: ballot(1),
            state: state(),
        },
        ReplicaCall::List {
            partition: b"p".to_vec(),
            after: None,
            limit: 1,
        },
        ReplicaCall::Scan {
            prefix: Vec::new(),
            heads: false,
            after: None,
            limit: 1,
        },
    ];
    for (seen, call) in calls.iter().enumerate() {
        let epoch = seen as u64 + 2;
        let stale = |answer: &ReplicaAnswer| matches!(answer, ReplicaAnswer::StaleEpoch { .. });
        assert!(!stale(&ask(&replica, epoch, call.clone()).await));
        for call in &calls {
            let refused = ask(&replica, epoch - 1, call.clone()).await;
            assert_eq!(
                refused,
                ReplicaAnswer::StaleEpoch {
                    highest: Epoch(epoch)
                }
            );
        }
    }
    drop(replica);
    disk.lose_power();
    let refused = ask(&open(&disk).await, 5, calls[0].clone()).await;
    assert_eq!(refused, ReplicaAnswer::StaleEpoch { highest: Epoch(6) });
}

#[tokio::test]
async fn a_register_has_golden_bytes() {
    let disk = MemoryDisk::default();
    let replica = open(&disk).await;
    let ballot = ballot(300);
    let accept = ReplicaCall::Accept {
        key: key(),
        ballot,
        state: state(),
    };
    ask(&replica, 1, accept).await;
    let stored = replica
        .store
        .get(Table::Rows, row_key::encode(&key()))
        .await
        .unwrap();
    let ballot = [&[0xac, 0x02][..], &[1; 16], &[1]].concat();
    let golden = [
        &[0][..],      // V1
        &ballot,       // promised: round 300, member, incarnation 1
        &ballot,       // accepted
        &[1],          // version
        &[1, 1, b'v'], // a value, its length, its bytes
        &[1],          // requests remembered
        &[2; 32],      // the peer
        &[3; 16],      // its request
    ];
    assert_eq!(stored, Some(golden.concat()));
}

#[tokio::test]
async fn a_damaged_row_is_an_error_and_no_answer() {
    let disk = MemoryDisk::default();
    disk.plant(Table::Header, b"format", b"p2pshareT\x00\x01");
    disk.plant(Table::Rows, &row_key::encode(&key()), &[0, 1, 2]);
    let replica = open(&disk).await;
    let epoch = Epoch::FOUNDING;
    for call in [
        ReplicaCall::Read { key: key() },
        ReplicaCall::Prepare {
            key: key(),
            ballot: ballot(1),
        },
        ReplicaCall::List {
            partition: b"p".to_vec(),
            after: None,
            limit: 1,
        },
    ] {
        let failed = replica.handle(ReplicaRequest { epoch, call }).await;
        assert!(matches!(
            failed,
            Err(StoreError::Corrupt { table: "rows", .. })
        ));
    }
}

#[tokio::test]
async fn one_answer_to_a_scan_reads_a_bounded_number_of_rows() {
    let disk = MemoryDisk::default();
    let replica = open(&disk).await;
    for i in 0..40u8 {
        let key = RowKey::new("p", [i]).unwrap();
        let accept = ReplicaCall::Accept {
            key,
            ballot: ballot(1),
            state: state(),
        };
        ask(&replica, 1, accept).await;
    }
    let scan = |after| ReplicaCall::Scan {
        prefix: b"q".to_vec(),
        heads: false,
        after,
        limit: 1,
    };
    let ReplicaAnswer::Scanned {
        rows,
        next: Some(next),
    } = ask(&replica, 1, scan(None)).await
    else {
        panic!()
    };
    assert!(rows.is_empty());
    assert_eq!(next.sort(), [SCAN_PAGES_MAX as u8 - 1]);
}
