//! One suite for both engines: what the store promises, whatever is behind it.

use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::backend::{Change, Changes};
use super::*;
use crate::limits::STORE_KEY_BYTES_MAX;

/// Something that can be opened as a store, closed, and opened again.
enum Medium {
    Folder(TempDir),
    Memory(MemoryDisk),
}

impl Medium {
    fn each() -> [Self; 2] {
        [
            Self::Folder(TempDir::new().unwrap()),
            Self::Memory(MemoryDisk::default()),
        ]
    }

    async fn open(&self, kind: StoreKind) -> Result<Store, StoreError> {
        match self {
            Self::Folder(folder) => Store::open(&folder.path().join("db"), kind).await,
            Self::Memory(disk) => Store::open_memory(disk, kind).await,
        }
    }

    async fn tracker(&self) -> Store {
        self.open(StoreKind::Tracker).await.unwrap()
    }
}

async fn put(store: &Store, key: &'static str, value: &'static str) {
    store
        .write(move |tx| tx.put(Table::Rows, key, value))
        .await
        .unwrap();
}

async fn get(store: &Store, key: &str) -> Option<String> {
    let value = store.get(Table::Rows, key).await.unwrap();
    value.map(|value| String::from_utf8(value).unwrap())
}

const PAGE: PageLimit = PageLimit {
    rows: 100,
    bytes: 1 << 20,
};

#[tokio::test]
async fn a_row_is_there_after_its_write_and_gone_after_its_removal() {
    for medium in Medium::each() {
        let store = medium.tracker().await;
        assert_eq!(get(&store, "a").await, None);
        put(&store, "a", "1").await;
        assert_eq!(get(&store, "a").await.as_deref(), Some("1"));
        assert_eq!(store.get(Table::Meta, "a").await.unwrap(), None);
        put(&store, "a", "").await;
        assert_eq!(get(&store, "a").await.as_deref(), Some(""));
        store.write(|tx| tx.remove(Table::Rows, "a")).await.unwrap();
        assert_eq!(get(&store, "a").await, None);
    }
}

#[tokio::test]
async fn a_range_comes_in_pages_bounded_by_rows_and_by_bytes() {
    for medium in Medium::each() {
        let store = medium.tracker().await;
        store
            .write(|tx| {
                for i in 0..10u8 {
                    tx.put(Table::Rows, vec![1, i], vec![i; 10])?;
                }
                tx.put(Table::Rows, [2], "behind")
            })
            .await
            .unwrap();
        let mut range = KeyRange::prefix([1]);
        let mut seen = Vec::new();
        let mut pages = 0;
        loop {
            let limit = PageLimit {
                rows: 4,
                bytes: 1000,
            };
            let page = store
                .range(Table::Rows, range.clone(), limit)
                .await
                .unwrap();
            pages += 1;
            seen.extend(page.rows.iter().map(|(key, _)| key[1]));
            if !page.more {
                break;
            }
            range = range.after(&page.rows.last().unwrap().0);
        }
        assert_eq!((seen, pages), ((0..10).collect::<Vec<u8>>(), 3));
        let limit = PageLimit {
            rows: 100,
            bytes: 30,
        };
        let page = store
            .range(Table::Rows, KeyRange::all(), limit)
            .await
            .unwrap();
        assert_eq!((page.rows.len(), page.more), (2, true));
        // A row larger than the page still comes, alone.
        let limit = PageLimit {
            rows: 100,
            bytes: 1,
        };
        let page = store
            .range(Table::Rows, KeyRange::new([2], [3]), limit)
            .await
            .unwrap();
        assert_eq!((page.rows.len(), page.more), (1, false));
        let page = store
            .range(Table::Rows, KeyRange::new([3], [2]), PAGE)
            .await
            .unwrap();
        assert_eq!(page, Page::default());
    }
}

#[tokio::test]
async fn reading_and_then_writing_is_one_step() {
    for medium in Medium::each() {
        let store = medium.tracker().await;
        let mut callers = JoinSet::new();
        for _ in 0..200 {
            let store = store.clone();
            callers.spawn(async move {
                store
                    .write(|tx| {
                        let before = tx.get(Table::Rows, b"n")?.map_or(0, |n| n[0]);
                        tx.put(Table::Rows, "n", [before + 1])?;
                        Ok(before)
                    })
                    .await
                    .unwrap()
            });
        }
        let mut seen = callers.join_all().await;
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<u8>>());
        assert_eq!(store.get(Table::Rows, "n").await.unwrap(), Some(vec![200]));
    }
}

#[tokio::test]
async fn a_job_that_fails_takes_back_its_own_writes_alone() {
    for medium in Medium::each() {
        let store = medium.tracker().await;
        put(&store, "a", "old").await;
        let (release, blocked) = sync_channel::<()>(1);
        let mut callers = JoinSet::new();
        // Held in the writer, the first job makes the others share its batch.
        let first = store.clone();
        callers.spawn(async move {
            let job = move |tx: &mut Transaction<'_>| {
                blocked.recv().unwrap();
                tx.put(Table::Rows, "b", "kept")
            };
            first.write(job).await
        });
        let second = store.clone();
        callers.spawn(async move {
            let job = |tx: &mut Transaction<'_>| {
                tx.put(Table::Rows, "a", "lost")?;
                tx.remove(Table::Rows, "b")?;
                tx.put(Table::Rows, "b", "lost")?;
                tx.put(Table::Rows, "c", "lost")?;
                tx.put(Table::Rows, vec![0; STORE_KEY_BYTES_MAX + 1], "")
            };
            let refused = second.write(job).await;
            assert!(matches!(
                refused,
                Err(StoreError::TooLarge { what: "key", .. })
            ));
            Ok(())
        });
        tokio::task::yield_now().await;
        release.send(()).unwrap();
        for outcome in callers.join_all().await {
            outcome.unwrap();
        }
        assert_eq!(get(&store, "a").await.as_deref(), Some("old"));
        assert_eq!(get(&store, "b").await.as_deref(), Some("kept"));
        assert_eq!(get(&store, "c").await, None);
    }
}

#[tokio::test]
async fn waiting_jobs_share_one_commit_and_readers_see_nothing_before_it() {
    for medium in Medium::each() {
        let store = medium.tracker().await;
        put(&store, "a", "old").await;
        let commits = store.commits();
        let (release, blocked) = sync_channel::<()>(1);
        let (entered, started) = tokio::sync::oneshot::channel();
        let mut callers = JoinSet::new();
        let first = store.clone();
        callers.spawn(async move {
            let job = move |tx: &mut Transaction<'_>| {
                tx.put(Table::Rows, "a", "new")?;
                entered.send(()).unwrap();
                blocked.recv().unwrap();
                Ok(())
            };
            first.write(job).await.unwrap();
        });
        started.await.unwrap();
        for i in 0..50u8 {
            let store = store.clone();
            callers.spawn(async move {
                store
                    .write(move |tx| tx.put(Table::Rows, [i], "x"))
                    .await
                    .unwrap();
            });
        }
        tokio::task::yield_now().await;
        assert_eq!(get(&store, "a").await.as_deref(), Some("old"));
        release.send(()).unwrap();
        callers.join_all().await;
        assert_eq!(get(&store, "a").await.as_deref(), Some("new"));
        assert_eq!(store.commits(), commits + 1);
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart_without_shutdown() {
    for medium in Medium::each() {
        let store = medium.tracker().await;
        for _ in 0..3 {
            put(&store, "a", "1").await;
        }
        store
            .write_unsynced(|tx| tx.put(Table::Rows, "b", "2"))
            .await
            .unwrap();
        let commits = store.commits();
        drop(store);
        let store = medium.tracker().await;
        assert_eq!(get(&store, "a").await.as_deref(), Some("1"));
        assert_eq!(get(&store, "b").await.as_deref(), Some("2"));
        assert_eq!((commits, store.commits()), (4, 4));
    }
}

#[tokio::test]
async fn a_second_open_is_refused_until_the_first_is_shut_down() {
    for medium in Medium::each() {
        let store = medium.tracker().await;
        let second = medium.open(StoreKind::Tracker).await;
        assert!(
            matches!(second, Err(StoreError::Locked { .. })),
            "{second:?}"
        );
        let (a, b) = tokio::join!(store.shutdown(), store.shutdown());
        a.and(b).unwrap();
        // The old handle is still there, and knows that it is closed.
        let again = medium.tracker().await;
        assert!(matches!(
            store.get(Table::Rows, "a").await,
            Err(StoreError::Closed)
        ));
        let write = store.write(|tx| tx.put(Table::Rows, "a", "1")).await;
        assert!(matches!(write, Err(StoreError::Closed)));
        store.shutdown().await.unwrap();
        put(&again, "a", "1").await;
    }
}

#[tokio::test]
async fn shutdown_finishes_what_was_handed_in() {
    for medium in Medium::each() {
        let store = medium.tracker().await;
        let mut callers = JoinSet::new();
        for i in 0..100u8 {
            let store = store.clone();
            callers
                .spawn(async move { store.write(move |tx| tx.put(Table::Rows, [i], "x")).await });
        }
        tokio::task::yield_now().await;
        store.shutdown().await.unwrap();
        let done = callers
            .join_all()
            .await
            .into_iter()
            .filter(Result::is_ok)
            .count();
        let store = medium.tracker().await;
        let page = store
            .range(Table::Rows, KeyRange::all(), PAGE)
            .await
            .unwrap();
        assert!(done > 0);
        assert_eq!(page.rows.len(), done);
    }
}

#[tokio::test]
async fn a_store_of_the_other_kind_is_refused() {
    for medium in Medium::each() {
        drop(medium.tracker().await);
        let wrong = medium.open(StoreKind::Peer).await.unwrap_err();
        assert!(matches!(
            wrong,
            StoreError::WrongKind {
                found: "tracker",
                expected: "peer",
                ..
            }
        ));
        drop(medium.tracker().await);
    }
}

#[tokio::test]
async fn a_table_of_the_other_kind_is_refused() {
    for medium in Medium::each() {
        let store = medium.tracker().await;
        let read = store.get(Table::Shares, "a").await;
        assert!(matches!(
            read,
            Err(StoreError::NoSuchTable { table: "shares" })
        ));
        let write = store.write(|tx| tx.put(Table::Header, "format", "")).await;
        assert!(matches!(
            write,
            Err(StoreError::NoSuchTable { table: "store" })
        ));
        put(&store, "a", "1").await;
    }
}

#[tokio::test]
async fn a_foreign_or_newer_store_is_refused_and_left_alone() {
    let newer = MemoryDisk::default();
    newer.plant(Table::Header, b"format", b"p2pshareT\x00\x02");
    let refused = Store::open_memory(&newer, StoreKind::Tracker)
        .await
        .unwrap_err();
    assert!(matches!(
        refused,
        StoreError::WrongFormat {
            found: Some(2),
            expected: 1,
            ..
        }
    ));
    assert_eq!(
        refused.to_string(),
        "memory holds a store of format 2, and this version reads format 1"
    );

    let headless = MemoryDisk::default();
    headless.plant(Table::Rows, b"a", b"1");
    let refused = Store::open_memory(&headless, StoreKind::Tracker)
        .await
        .unwrap_err();
    assert!(matches!(
        refused,
        StoreError::WrongFormat { found: None, .. }
    ));
    assert_eq!((newer.commits(), headless.commits()), (0, 0));

    let folder = TempDir::new().unwrap();
    let foreign = fjall::Database::builder(folder.path()).open().unwrap();
    foreign
        .keyspace("theirs", fjall::KeyspaceCreateOptions::default)
        .unwrap();
    drop(foreign);
    let refused = Store::open(folder.path(), StoreKind::Tracker)
        .await
        .unwrap_err();
    assert!(matches!(
        refused,
        StoreError::WrongFormat { found: None, .. }
    ));
}

#[tokio::test]
async fn a_commit_that_fails_poisons_the_store() {
    let disk = MemoryDisk::default();
    let store = Store::open_memory(&disk, StoreKind::Tracker).await.unwrap();
    put(&store, "a", "1").await;
    disk.fail_commit(2);
    put(&store, "b", "2").await;
    let failed = store
        .write(|tx| tx.put(Table::Rows, "c", "3"))
        .await
        .unwrap_err();
    let StoreError::Poisoned { cause } = &failed else {
        panic!("{failed:?}")
    };
    assert!(matches!(
        **cause,
        StoreError::Io {
            doing: "write to the store",
            ..
        }
    ));
    let later = store.write(|tx| tx.put(Table::Rows, "d", "4")).await;
    assert!(matches!(later, Err(StoreError::Poisoned { .. })));
    let read = store.get(Table::Rows, "a").await;
    assert!(matches!(read, Err(StoreError::Poisoned { .. })));
    assert!(matches!(store.failed().await, StoreError::Poisoned { .. }));
    assert!(matches!(
        store.shutdown().await,
        Err(StoreError::Poisoned { .. })
    ));

    let store = Store::open_memory(&disk, StoreKind::Tracker).await.unwrap();
    assert_eq!(get(&store, "b").await.as_deref(), Some("2"));
    assert_eq!(get(&store, "c").await, None);
}

#[tokio::test]
async fn a_job_that_panics_poisons_the_store_and_leaves_nobody_waiting() {
    for medium in Medium::each() {
        let store = medium.tracker().await;
        put(&store, "a", "1").await;
        let (release, blocked) = sync_channel::<()>(1);
        let mut callers = JoinSet::new();
        let first = store.clone();
        callers.spawn(async move {
            let job = move |tx: &mut Transaction<'_>| {
                blocked.recv().unwrap();
                tx.put(Table::Rows, "b", "never committed")
            };
            first.write(job).await
        });
        let second = store.clone();
        callers.spawn(async move { second.write(|_| panic!("a job of this test")).await });
        let third = store.clone();
        callers.spawn(async move { third.write(|tx| tx.put(Table::Rows, "c", "never")).await });
        tokio::task::yield_now().await;
        release.send(()).unwrap();
        for outcome in callers.join_all().await {
            let Err(StoreError::Poisoned { cause }) = outcome else {
                panic!("{outcome:?}")
            };
            assert!(matches!(*cause, StoreError::JobPanicked));
        }
        store.shutdown().await.unwrap_err();
        let store = medium.tracker().await;
        assert_eq!(get(&store, "a").await.as_deref(), Some("1"));
        assert_eq!(get(&store, "b").await, None);
    }
}

#[tokio::test]
async fn a_writer_that_is_taken_away_leaves_nobody_waiting() {
    let store = Store::open_memory(&MemoryDisk::default(), StoreKind::Tracker)
        .await
        .unwrap();
    writer::tests::lose_turn(&store.inner);
    let lost = store.write(|_| Ok(())).await;
    assert!(matches!(lost, Err(StoreError::Poisoned { .. })));
}

#[tokio::test]
async fn only_synced_writes_survive_a_power_cut() {
    let disk = MemoryDisk::default();
    let unsynced = |store: Store, key: &'static str| async move {
        store
            .write_unsynced(move |tx| tx.put(Table::Rows, key, "x"))
            .await
            .unwrap();
    };
    let store = Store::open_memory(&disk, StoreKind::Tracker).await.unwrap();
    unsynced(store.clone(), "a").await;
    put(&store, "b", "2").await;
    unsynced(store.clone(), "c").await;
    // It reads what is not synced yet and writes nothing: its answer must be durable all the same.
    let read = store.write(|tx| tx.get(Table::Rows, b"c")).await.unwrap();
    assert!(read.is_some());
    unsynced(store.clone(), "d").await;
    drop(store);
    disk.lose_power();
    let store = Store::open_memory(&disk, StoreKind::Tracker).await.unwrap();
    for (key, there) in [("a", true), ("b", true), ("c", true), ("d", false)] {
        assert_eq!(get(&store, key).await.is_some(), there, "{key}");
    }
    unsynced(store.clone(), "e").await;
    store.shutdown().await.unwrap();
    disk.lose_power();
    let store = Store::open_memory(&disk, StoreKind::Tracker).await.unwrap();
    assert!(get(&store, "e").await.is_some());
}

#[tokio::test]
async fn a_view_of_one_moment_sees_nothing_of_what_is_committed_meanwhile() {
    for medium in Medium::each() {
        let store = medium.tracker().await;
        put(&store, "a", "1").await;
        let ((seen, sees), (goes_on, go_on)) = (oneshot::channel(), sync_channel(1));
        let view = store.view_of_one_moment(move |view| {
            seen.send(()).unwrap();
            go_on.recv().unwrap();
            let rows = view.range(Table::Rows, &KeyRange::all(), PAGE)?.rows;
            Ok((rows, view.get(Table::Rows, b"a")?))
        });
        let meanwhile = async {
            sees.await.unwrap();
            put(&store, "a", "2").await;
            put(&store, "b", "2").await;
            goes_on.send(()).unwrap();
        };
        let (looked, ()) = tokio::join!(view, meanwhile);
        let one = (b"a".to_vec(), b"1".to_vec());
        assert_eq!(looked.unwrap(), (vec![one.clone()], Some(one.1)));
    }
}

#[tokio::test]
async fn jobs_that_write_nothing_cost_no_commit() {
    for medium in Medium::each() {
        let store = medium.tracker().await;
        put(&store, "a", "1").await;
        let commits = store.commits();
        store.write(|tx| tx.get(Table::Rows, b"a")).await.unwrap();
        assert_eq!(store.commits(), commits);
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_waits_for_the_writer() {
    for medium in Medium::each() {
        let store = medium.tracker().await;
        for _ in 0..20 {
            let write = store.write(|tx| tx.put(Table::Rows, "a", "1"));
            tokio::time::timeout(Duration::from_millis(1), write)
                .await
                .unwrap()
                .unwrap();
        }
    }
}

/// A step of a random transaction: a key of a small space, and its new value or a removal.
fn steps() -> impl Strategy<Value = Vec<(u8, Option<u8>)>> {
    proptest::collection::vec((0..24u8, proptest::option::of(any::<u8>())), 0..40)
}

proptest! {
    #[test]
    fn a_transaction_reads_as_if_it_were_committed(
        committed in steps(),
        own in steps(),
        start in 0..24u8,
        end in 0..26u8,
        rows in 1..10usize,
    ) {
        let disk = MemoryDisk::default();
        let engine = disk.open().unwrap();
        let mut model = BTreeMap::new();
        let mut changes = Changes::default();
        let apply = |model: &mut BTreeMap<u8, u8>, key, value| match value {
            Some(value) => model.insert(key, value),
            None => model.remove(&key),
        };
        for (key, value) in committed {
            apply(&mut model, key, value);
            let change = value.map_or(Change::Remove, |value| Change::Put(vec![value]));
            changes.set(Table::Rows, vec![key + 1], change);
        }
        engine.commit(&changes, Durability::Synced).unwrap();
        let mut changes = Changes::default();
        let tables = StoreKind::Tracker.tables();
        let before = model.clone();
        let mut transaction = Transaction::new(&engine, tables, &mut changes);
        for (key, value) in own {
            apply(&mut model, key, value);
            match value {
                Some(value) => transaction.put(Table::Rows, [key + 1], [value]).unwrap(),
                None => transaction.remove(Table::Rows, [key + 1]).unwrap(),
            }
        }
        let limit = PageLimit { rows, bytes: 1 << 20 };
        let range = KeyRange::new([start + 1], [end + 1]);
        let read = |transaction: &Transaction<'_>, model: &BTreeMap<u8, u8>| {
            let page = transaction.range(Table::Rows, &range, limit).unwrap();
            let expected: Vec<_> = model
                .iter()
                .filter(|(key, _)| (start..end.max(start)).contains(*key))
                .map(|(key, value)| (vec![key + 1], vec![*value]))
                .collect();
            assert_eq!(page.more, expected.len() > rows);
            assert_eq!(page.rows, expected.into_iter().take(rows).collect::<Vec<_>>());
            for key in 0..24 {
                let expected = model.get(&key).map(|value| vec![*value]);
                assert_eq!(transaction.get(Table::Rows, &[key + 1]).unwrap(), expected);
            }
        };
        read(&transaction, &model);
        transaction.roll_back();
        read(&transaction, &before);
        drop(transaction);
        assert!(changes.is_empty());
    }

    #[test]
    fn a_prefix_range_holds_exactly_the_keys_with_that_prefix(
        prefix in proptest::collection::vec(prop_oneof![Just(0xffu8), any::<u8>()], 0..4),
        key in proptest::collection::vec(prop_oneof![Just(0xffu8), any::<u8>()], 0..6),
    ) {
        let range = KeyRange::prefix(prefix.clone());
        let inside = range.start <= key && range.end.as_ref().is_none_or(|end| key < *end);
        prop_assert_eq!(inside, key.starts_with(&prefix));
    }
}
