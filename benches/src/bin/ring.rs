//! How fast a ring of three is on one machine, each member with its own folder on one disk, each change synced by a
//! majority before it is answered: creates, updates and majority reads, with 1 and with 64 clients.
//!
//! `cargo run --release -p p2pshare-benches --bin ring -- [--seconds 5] [--members 3] [--dir FOLDER]`
#![expect(clippy::expect_used, reason = "a bench without its disk fails")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use p2pshare::{Attempt, DhtNode, PeerId, RequestId, RequestKey, RowChange, RowKey, Version};
use p2pshare_benches::ring_of::ring_of;
use tokio::task::JoinSet;

/// Bytes of a row: as many as one of a file.
const ROW_BYTES: usize = 200;
/// Rows that each client updates and reads in turn.
const ROWS_PER_CLIENT: u64 = 256;

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let (mut seconds, mut members, mut dir) = (5, 3, std::env::temp_dir());
    while let Some(arg) = args.next() {
        let value = args.next().expect("a value after each flag");
        match arg.as_str() {
            "--seconds" => seconds = value.parse().expect("a number of seconds"),
            "--members" => members = value.parse().expect("a number of members"),
            "--dir" => dir = PathBuf::from(value),
            other => panic!("{other}: no such flag"),
        }
    }
    let folder = tempfile::tempdir_in(dir).expect("a folder on the disk to measure");
    let began = Instant::now();
    let nodes = ring_of(folder.path(), members).await;
    println!("{members} members, founded in {:.1?}", began.elapsed());
    let time = Duration::from_secs(seconds);
    for clients in [1, 64] {
        for work in [Work::Create, Work::Update, Work::Read] {
            run(&nodes, work, clients, time).await;
        }
    }
    for node in nodes {
        node.shutdown().await.expect("the disk held");
    }
}

#[derive(Copy, Clone, Debug)]
enum Work {
    Create,
    Update,
    Read,
}

/// The clients ask, each one thing after the other, each its own member.
async fn run(nodes: &[DhtNode], work: Work, clients: u64, time: Duration) {
    let mut making = JoinSet::new();
    for client in 0..clients {
        let node = nodes[client as usize % nodes.len()].clone();
        making.spawn(async move {
            let rows = prepare(&node, work, client).await;
            (node, client, rows)
        });
    }
    let made = making.join_all().await;
    let (mut asking, began) = (JoinSet::new(), Instant::now());
    for (node, client, rows) in made {
        asking.spawn(ask(node, work, client, rows, began + time));
    }
    let mut took: Vec<Duration> = asking.join_all().await.into_iter().flatten().collect();
    let all = began.elapsed();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{work:?}, {clients} clients: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, slowest {:.1} ms",
        took.len() as f64 / all.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// Sees to it that the rows of a client are there, and gives their versions.
async fn prepare(node: &DhtNode, work: Work, client: u64) -> Vec<Version> {
    let mut versions = vec![Version::NEVER; ROWS_PER_CLIENT as usize];
    if !matches!(work, Work::Create) {
        for (row, version) in versions.iter_mut().enumerate() {
            let key = key(&format!("{work:?}{client}"), row as u64);
            *version = current(node, &key).await;
        }
    }
    versions
}

async fn ask(
    node: DhtNode,
    work: Work,
    client: u64,
    mut versions: Vec<Version>,
    until: Instant,
) -> Vec<Duration> {
    let (mut took, mut turn) = (Vec::new(), 0);
    while Instant::now() < until || took.is_empty() {
        let row = turn % ROWS_PER_CLIENT;
        turn += 1;
        let (key, began) = (key(&format!("{work:?}{client}"), row), Instant::now());
        match work {
            Work::Create => {
                let key = self::key("create", NEXT.fetch_add(1, Ordering::Relaxed));
                let made = node.create(&key, value(), request(), Attempt::First).await;
                assert!(matches!(made, Ok(RowChange::Applied { .. })), "{made:?}");
            }
            Work::Update => {
                let version = &mut versions[row as usize];
                let (new, old) = (Some(value()), *version);
                let made = node.compare_and_set(&key, old, new, request(), Attempt::First);
                match made.await {
                    Ok(RowChange::Applied { version: made }) => *version = made,
                    other => panic!("{other:?}"),
                }
            }
            Work::Read => {
                let read = node.read(&key).await.expect("a majority");
                assert!(read.is_some());
            }
        }
        took.push(began.elapsed());
    }
    took
}

/// The version of a row, which is made if need be.
async fn current(node: &DhtNode, key: &RowKey) -> Version {
    match node.create(key, value(), request(), Attempt::First).await {
        Ok(RowChange::Applied { version }) => version,
        Ok(RowChange::Conflict { current: Some(row) }) => row.version,
        other => panic!("{other:?}"),
    }
}

fn key(partition: &str, number: u64) -> RowKey {
    RowKey::new(format!("{partition}/{number}"), *b"row").expect("a key within its bounds")
}

fn value() -> Vec<u8> {
    vec![7; ROW_BYTES]
}

/// A request that was never sent before.
fn request() -> RequestKey {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    RequestKey {
        peer: PeerId::from_bytes([2; 32]),
        request: RequestId::from_bytes(bytes),
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);
