//! A ring of one through its handle, on a real disk and on one that can be cut off.

use crate::store::Store;
use std::collections::BTreeMap;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::dht::life::start;
use crate::dht::{DhtBindError, LeaseSession};
use crate::identity::{PeerId, RequestId, SessionId};
use crate::store::{MemoryDisk, StoreKind};
use crate::wire::ring::RowState;

mod leases;

const RING: RingId = RingId::from_bytes([1; 32]);

fn key(partition: &str, sort: &str) -> RowKey {
    RowKey::new(partition, sort).unwrap()
}

fn request(i: u64) -> RequestKey {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&i.to_be_bytes());
    RequestKey {
        peer: PeerId::from_bytes([9; 32]),
        request: RequestId::from_bytes(bytes),
    }
}

async fn on_disk(folder: &TempDir) -> DhtNode {
    DhtNode::alone(folder.path(), RING).await.unwrap()
}

async fn in_memory(disk: &MemoryDisk) -> DhtNode {
    let store = Store::open_memory(disk, StoreKind::Tracker).await.unwrap();
    start(
        store,
        "memory".into(),
        RING,
        Surroundings::alone().unwrap(),
        None,
    )
    .await
    .unwrap()
}

fn applied(version: u64) -> RowChange {
    RowChange::Applied {
        version: Version::from_u64(version),
    }
}

#[tokio::test]
async fn a_row_is_created_changed_deleted_and_created_anew_only_by_its_version() {
    let folder = TempDir::new().unwrap();
    let node = on_disk(&folder).await;
    let row = key("p", "s");
    assert_eq!(node.read(&row).await.unwrap(), None);
    let made = node
        .create(&row, "a", request(1), Attempt::First)
        .await
        .unwrap();
    assert_eq!(made, applied(1));
    let read = node.read(&row).await.unwrap().unwrap();
    assert_eq!(
        (read.version.as_u64(), read.value),
        (1, Some(b"a".to_vec()))
    );
    let conflict = node
        .create(&row, "b", request(2), Attempt::First)
        .await
        .unwrap();
    let RowChange::Conflict {
        current: Some(current),
    } = conflict
    else {
        panic!("{conflict:?}")
    };
    assert_eq!(current.value, Some(b"a".to_vec()));

    let deleted = node
        .compare_and_set(&row, Version::from_u64(1), None, request(3), Attempt::First)
        .await;
    assert_eq!(deleted.unwrap(), applied(2));
    let read = node.read(&row).await.unwrap().unwrap();
    assert_eq!((read.version.as_u64(), read.value.is_none()), (2, true));
    assert_eq!(read.produced_by(&request(1)), Some(Version::from_u64(1)));
    let conflict = node
        .create(&row, "b", request(4), Attempt::First)
        .await
        .unwrap();
    assert!(matches!(conflict, RowChange::Conflict { current: Some(_) }));
    let value = Some(b"c".to_vec());
    let again = node
        .compare_and_set(
            &row,
            Version::from_u64(2),
            value,
            request(5),
            Attempt::First,
        )
        .await;
    assert_eq!(again.unwrap(), applied(3));
}

#[tokio::test]
async fn of_64_that_create_one_name_one_wins_and_all_learn_of_it() {
    let folder = TempDir::new().unwrap();
    let node = on_disk(&folder).await;
    let mut racers = JoinSet::new();
    for i in 0..64 {
        let node = node.clone();
        racers.spawn(async move {
            let value = i.to_string();
            let made = node
                .create(&key("p", ""), value, request(i), Attempt::First)
                .await;
            (i, made.unwrap())
        });
    }
    let row = async || node.read(&key("p", "")).await.unwrap().unwrap();
    let mut winner = None;
    for (i, made) in racers.join_all().await {
        let won = row().await.value == Some(i.to_string().into_bytes());
        match made {
            RowChange::Applied { .. } => {
                assert!(won && winner.is_none());
                winner = Some(i);
            }
            RowChange::Conflict { current } => assert_eq!(current, Some(row().await)),
            other => panic!("{other:?}"),
        }
    }
    assert!(winner.is_some());
}

#[tokio::test]
async fn a_change_that_is_sent_again_has_its_first_outcome_also_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let row = key("p", "s");
    let first = Version::from_u64(1);
    for life in 0..3 {
        let node = on_disk(&folder).await;
        let attempt = if life == 0 {
            Attempt::First
        } else {
            Attempt::Retry
        };
        let made = node.create(&row, "a", request(1), attempt).await.unwrap();
        let expected = match life {
            0 => applied(1),
            _ => RowChange::AlreadyApplied { version: first },
        };
        assert_eq!(made, expected);
        let version = node.read(&row).await.unwrap().unwrap().version;
        let value = Some(vec![life]);
        let other = request(100 + u64::from(life));
        node.compare_and_set(&row, version, value, other, Attempt::First)
            .await
            .unwrap();
        // Dropped, not shut down, as by kill -9.
    }
}

#[tokio::test]
async fn a_retry_that_is_forgotten_is_unknown_and_one_that_cannot_have_been_made_is_not() {
    let node = in_memory(&MemoryDisk::default()).await;
    let row = key("p", "s");
    for i in 0..20 {
        let version = Version::from_u64(i);
        let made = node
            .compare_and_set(&row, version, None, request(i), Attempt::First)
            .await;
        assert_eq!(made.unwrap(), applied(i + 1));
    }
    let unknown = node.create(&row, "a", request(0), Attempt::Retry).await;
    assert!(matches!(unknown, Err(RowError::OutcomeUnknown)));
    let known = node
        .compare_and_set(&row, Version::from_u64(6), None, request(6), Attempt::Retry)
        .await;
    assert_eq!(
        known.unwrap(),
        RowChange::AlreadyApplied {
            version: Version::from_u64(7)
        }
    );
    let never = node
        .compare_and_set(
            &row,
            Version::from_u64(6),
            None,
            request(99),
            Attempt::Retry,
        )
        .await;
    assert!(matches!(never.unwrap(), RowChange::Conflict { .. }));
}

#[tokio::test]
async fn a_value_that_is_too_large_is_refused() {
    let node = in_memory(&MemoryDisk::default()).await;
    let fits = vec![0; RowState::VALUE_BYTES_MAX];
    let made = node
        .create(&key("p", "a"), fits, request(1), Attempt::First)
        .await;
    assert_eq!(made.unwrap(), applied(1));
    let too_large = vec![0; RowState::VALUE_BYTES_MAX + 1];
    let refused = node
        .create(&key("p", "b"), too_large, request(2), Attempt::First)
        .await;
    assert!(matches!(
        refused,
        Err(RowError::ValueTooLarge {
            len: 16_385,
            max: 16_384
        })
    ));
    assert_eq!(node.read(&key("p", "b")).await.unwrap(), None);
}

#[tokio::test]
async fn a_partition_is_listed_in_pages_in_order_without_what_is_deleted() {
    let folder = TempDir::new().unwrap();
    let node = on_disk(&folder).await;
    for i in 0..10u8 {
        let row = key("p", &format!("{i}"));
        node.create(&row, [i], request(i.into()), Attempt::First)
            .await
            .unwrap();
        node.create(
            &key("other", &format!("{i}")),
            [0],
            request(i.into()),
            Attempt::First,
        )
        .await
        .unwrap();
    }
    let third = key("p", "3");
    let first = Version::from_u64(1);
    node.compare_and_set(&third, first, None, request(50), Attempt::First)
        .await
        .unwrap();
    let (mut after, mut seen, mut pages) = (None, Vec::new(), 0);
    loop {
        let page = node.list(b"p", after, 4).await.unwrap();
        seen.extend(
            page.rows
                .into_iter()
                .map(|(sort, row)| (sort, row.value.unwrap())),
        );
        pages += 1;
        assert!(!page.stale);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let expected = (0..10u8)
        .filter(|i| *i != 3)
        .map(|i| (i.to_string().into_bytes(), vec![i]));
    assert_eq!(seen, expected.collect::<Vec<_>>());
    assert_eq!(pages, 3);
    for nowhere in [&b"q"[..], b"", &[0; 300]] {
        let page = node.list(nowhere, None, 4).await.unwrap();
        assert!(page.rows.is_empty() && page.next.is_none());
    }
}

#[tokio::test]
async fn a_scan_sees_every_row_once_and_heads_only_the_first_of_each_partition() {
    let folder = TempDir::new().unwrap();
    let node = on_disk(&folder).await;
    let mut expected = BTreeMap::new();
    for i in 0..120u32 {
        let row = key(
            &format!("{}/{}", if i % 2 == 0 { "g" } else { "u" }, i / 12),
            &i.to_string(),
        );
        node.create(&row, i.to_string(), request(i.into()), Attempt::First)
            .await
            .unwrap();
        expected.insert(row, i.to_string().into_bytes());
    }
    let (mut seen, mut cursor) = (BTreeMap::new(), None);
    loop {
        let page = node.scan(cursor, 7).await.unwrap();
        for (key, row) in page.rows {
            assert_eq!(seen.insert(key, row.value.unwrap()), None);
        }
        // Through bytes, as it travels.
        let Some(next) = page.next else { break };
        cursor = ScanCursor::from_bytes(&next.to_bytes());
        assert!(cursor.is_some());
    }
    assert_eq!(seen, expected);

    let (mut heads, mut cursor) = (Vec::new(), None);
    loop {
        let page = node.scan_heads(b"g/", cursor, 3).await.unwrap();
        heads.extend(page.rows.into_iter().map(|(key, _)| key));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    heads.sort();
    let mut first = BTreeMap::new();
    for row in expected
        .keys()
        .rev()
        .filter(|row| row.partition().starts_with(b"g/"))
    {
        first.insert(row.partition().to_vec(), row.clone());
    }
    assert_eq!(heads, first.into_values().collect::<Vec<_>>());
}

#[tokio::test]
async fn what_was_answered_survives_a_power_cut() {
    let disk = MemoryDisk::default();
    for i in 0..10 {
        let node = in_memory(&disk).await;
        let made = node
            .create(&key("p", &i.to_string()), "x", request(i), Attempt::First)
            .await;
        assert_eq!(made.unwrap(), applied(1));
        gone(node, &disk).await;
        disk.lose_power();
        let node = in_memory(&disk).await;
        assert_eq!(
            node.list(b"p", None, 100).await.unwrap().rows.len() as u64,
            i + 1
        );
        gone(node, &disk).await;
    }
}

/// Drops a member: what it did by itself ends when the runtime comes to it.
async fn gone(node: DhtNode, disk: &MemoryDisk) {
    drop(node);
    while disk.is_open() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_change_costs_one_commit() {
    let disk = MemoryDisk::default();
    let node = in_memory(&disk).await;
    // The first promise of a life raises the ceiling of all that follow.
    node.create(&key("p", "0"), "x", request(0), Attempt::First)
        .await
        .unwrap();
    let before = disk.commits();
    node.create(&key("p", "a"), "x", request(1), Attempt::First)
        .await
        .unwrap();
    assert_eq!(disk.commits(), before + 1);
    node.read(&key("p", "a")).await.unwrap();
    node.create(&key("p", "a"), "x", request(1), Attempt::Retry)
        .await
        .unwrap();
    node.create(&key("p", "a"), "y", request(2), Attempt::First)
        .await
        .unwrap();
    // What changes nothing needs no acceptance, and a promise is kept in memory.
    assert_eq!(disk.commits(), before + 1);
}

#[tokio::test]
async fn a_disk_that_fails_is_told_and_nothing_is_served_from_it() {
    let disk = MemoryDisk::default();
    let node = in_memory(&disk).await;
    let row = key("p", "a");
    node.create(&row, "x", request(1), Attempt::First)
        .await
        .unwrap();
    disk.fail_commit(1);
    let failed = node
        .create(&key("p", "b"), "x", request(2), Attempt::First)
        .await;
    assert!(matches!(
        failed,
        Err(RowError::Store(StoreError::Poisoned { .. }))
    ));
    assert!(matches!(node.failed().await, StoreError::Poisoned { .. }));
    let read = node.read(&row).await;
    assert!(matches!(
        read,
        Err(RowError::Store(StoreError::Poisoned { .. }))
    ));
    assert!(node.shutdown().await.is_err());
}

#[tokio::test]
async fn after_shutdown_the_folder_is_free_and_the_handle_says_so() {
    let folder = TempDir::new().unwrap();
    let node = on_disk(&folder).await;
    let second = DhtNode::alone(folder.path(), RING).await;
    assert!(matches!(
        second,
        Err(DhtBindError::Store(StoreError::Locked { .. }))
    ));
    node.shutdown().await.unwrap();
    node.shutdown().await.unwrap();
    let read = node.read(&key("p", "a")).await;
    assert!(matches!(read, Err(RowError::Store(StoreError::Closed))));
    let member = node.member_id();
    assert_eq!(on_disk(&folder).await.member_id(), member);
}

#[tokio::test]
async fn another_ring_is_refused() {
    let folder = TempDir::new().unwrap();
    drop(on_disk(&folder).await);
    let other = RingId::from_bytes([2; 32]);
    let refused = DhtNode::alone(folder.path(), other).await;
    assert!(
        matches!(refused, Err(DhtBindError::OtherRing { found, expected, .. }) if found == RING && expected == other)
    );
}

#[tokio::test]
async fn a_ring_of_one_says_so() {
    let status = in_memory(&MemoryDisk::default()).await.status();
    assert_eq!(
        (
            status.trackers,
            status.reachable,
            status.epoch,
            status.founded
        ),
        (1, 1, 1, true)
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_there_until_it_expires_or_is_withdrawn() {
    let node = in_memory(&MemoryDisk::default()).await;
    let (place, peer) = (LeaseKey::new("swarm").unwrap(), PeerId::from_bytes([1; 32]));
    let session = SessionId::from_bytes([1; 16]);
    let keys = std::slice::from_ref(&place);
    let (life, payload) = (Duration::from_secs(60), Arc::from(&b"here"[..]));
    let mut says = LeaseSession::new(peer, session);
    let here = says.change(1, life, [(place.clone(), Some(Arc::clone(&payload)))]);
    assert_eq!(node.put_leases(vec![here.unwrap()]).await.replicas, 1);
    tokio::time::advance(Duration::from_secs(20)).await;
    let expires_in = Duration::from_secs(40);
    let lease = Lease {
        peer,
        session,
        number: 1,
        expires_in,
        payload,
    };
    assert_eq!(node.leases_of(keys).await, [[lease]]);
    assert_eq!(node.put_leases(vec![says.renew(2, life)]).await.replicas, 1);
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(node.leases_of(keys).await[0].len(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(node.leases_of(keys).await, [[]]);
    let payload = Arc::from(&b"again"[..]);
    let again = says.whole(3, life, [(place.clone(), payload)]).unwrap();
    assert_eq!(node.put_leases(vec![again]).await.replicas, 1);
    assert_eq!(node.leases_of(keys).await[0].len(), 1);
    let gone = says.change(4, life, [(place.clone(), None)]).unwrap();
    assert_eq!(node.put_leases(vec![gone]).await.replicas, 1);
    assert_eq!(node.leases_of(keys).await, [[]]);
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_waits_for_rows() {
    let folder = TempDir::new().unwrap();
    let node = on_disk(&folder).await;
    let start = tokio::time::Instant::now();
    for i in 0..20 {
        let row = key("p", &i.to_string());
        node.create(&row, "x", request(i), Attempt::First)
            .await
            .unwrap();
        assert!(node.read(&row).await.unwrap().is_some());
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}
