//! Benches of row changes, each on disk before it is answered, beside the bare cost of syncing as many bytes there.
//! The folder for temporary files says which disk: `TMPDIR=/var/tmp cargo bench --bench rows`.
#![expect(clippy::expect_used, reason = "a bench without its disk fails")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use p2pshare::{Attempt, DhtNode, PeerId, RequestId, RequestKey, RingId, RowChange, RowKey};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Bytes of a row: as many as one of a file.
const ROW_BYTES: usize = 200;
/// Those who make changes at once.
const CLIENTS: [u64; 2] = [1, 64];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let dir = tempfile::tempdir().expect("a folder on the disk to measure");
    rows(&mut criterion, dir.path());
    criterion.final_summary();
}

/// Creating rows in a ring of one, and appending as many bytes to a file with one `fdatasync` for each client's.
fn rows(criterion: &mut Criterion, dir: &Path) {
    let runtime = Runtime::new().expect("a runtime");
    let ring = DhtNode::alone(dir.join("ring"), RingId::from_bytes([1; 32]));
    let node = runtime.block_on(ring).expect("a ring of one");
    let mut file = File::create(dir.join("file")).expect("a file");
    let next = AtomicU64::new(0);
    let mut group = criterion.benchmark_group("row change on disk");
    for clients in CLIENTS {
        group.throughput(Throughput::Elements(clients));
        group.bench_function(BenchmarkId::new("create, clients", clients), |b| {
            b.iter_custom(|rounds| {
                let first = next.fetch_add(rounds * clients, Ordering::Relaxed);
                runtime.block_on(create(&node, first, clients, rounds))
            })
        });
        let bytes = vec![7; ROW_BYTES * clients as usize];
        group.bench_function(
            BenchmarkId::new("bare fdatasync of as many", clients),
            |b| b.iter(|| append(&mut file, &bytes)),
        );
    }
    group.finish();
    runtime
        .block_on(node.shutdown())
        .expect("the ring's disk held");
}

/// Each of the clients creates `rounds` rows, one after the other.
async fn create(node: &DhtNode, first: u64, clients: u64, rounds: u64) -> Duration {
    let began = Instant::now();
    let mut work = JoinSet::new();
    for client in 0..clients {
        let (node, first) = (node.clone(), first + client * rounds);
        work.spawn(async move {
            for number in first..first + rounds {
                create_one(&node, number).await;
            }
        });
    }
    work.join_all().await;
    began.elapsed()
}

async fn create_one(node: &DhtNode, number: u64) {
    let key = RowKey::new(number.to_be_bytes(), *b"row").expect("a key within its bounds");
    let mut request = [0; 16];
    request[..8].copy_from_slice(&number.to_be_bytes());
    let request = RequestKey {
        peer: PeerId::from_bytes([2; 32]),
        request: RequestId::from_bytes(request),
    };
    let made = node.create(&key, [7; ROW_BYTES], request, Attempt::First);
    let made = made.await.expect("the ring's disk holds");
    assert!(matches!(made, RowChange::Applied { .. }));
}

fn append(file: &mut File, bytes: &[u8]) {
    let written = file.write_all(bytes).and_then(|()| file.sync_data());
    written.expect("the disk holds");
}
