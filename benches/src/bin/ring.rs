//! How fast a ring of three is on one machine, each member with its own folder on one disk, each change synced by a
//! majority before it is answered: creates, updates and majority reads, with 1 and with 64 clients.
//!
//! `cargo run --release -p p2pshare-benches --bin ring -- [--seconds 5] [--rounds 1] [--members 3] [--dir FOLDER]
//! [--etcd PROGRAM] [--connections 4]`
//!
//! With `--etcd /usr/bin/etcd` an etcd of as many members, with its defaults and on the same disk, does the same
//! work in turn with ours, and the medians of the rounds stand beside each other. Our members and the clients are one
//! process, as an embedded ring is; etcd's members are processes, and the clients of each share so many connections.
//! A client asks another member in each round, as one of etcd's is their leader.
#![expect(clippy::expect_used, reason = "a bench without its disk fails")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use p2pshare::{Attempt, DhtNode, PeerId, RequestId, RequestKey, RowChange, RowKey, Version};
use p2pshare_benches::etcd::{Client, Cluster};
use p2pshare_benches::ring_of::ring_of;
use p2pshare_benches::{Outcome, at, flag, median};
use tokio::task::JoinSet;

/// Bytes of a row: as many as one of a file.
const ROW_BYTES: usize = 200;
/// Rows that each client updates and reads in turn.
const ROWS_PER_CLIENT: u64 = 256;

#[tokio::main]
async fn main() -> Outcome<()> {
    let seconds = Duration::from_secs(flag("--seconds")?.unwrap_or(5));
    let rounds = flag("--rounds")?.unwrap_or(1).max(1);
    let members = flag("--members")?.unwrap_or(3);
    let dir = flag("--dir")?.unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::tempdir_in(dir)?;
    let began = Instant::now();
    let ours = ring_of(folder.path(), members).await;
    println!("{members} members, founded in {:.1?}", began.elapsed());
    let etcd = match flag::<PathBuf>("--etcd")? {
        Some(program) => Some(Cluster::start(&program, folder.path(), members).await?),
        None => None,
    };
    let mut connected = Vec::new();
    if let Some(etcd) = &etcd {
        println!("etcd: processes {:?}", etcd.pids());
        for _ in 0..flag("--connections")?.unwrap_or(4) {
            connected.extend(etcd.connect().await?);
        }
    }
    for clients in [1, 64] {
        for work in [Work::Create, Work::Update, Work::Read] {
            let (mut own, mut others) = (Vec::new(), Vec::new());
            for round in 0..rounds {
                own.push(run(&ours, work, clients, round, seconds).await);
                if !connected.is_empty() {
                    others.push(run(&connected, work, clients, round, seconds).await);
                }
            }
            report(work, clients, &own, &others);
        }
    }
    for node in ours {
        node.shutdown().await?;
    }
    Ok(())
}

#[derive(Copy, Clone, Debug)]
enum Work {
    Create,
    Update,
    Read,
}

/// What a client is connected to.
trait Member: Clone + Send + Sync + 'static {
    /// How a change is told from the one before it at the same key.
    type Version: Copy + Send;

    /// Creates a row that was not there.
    fn create(&self, key: &str) -> impl Future<Output = ()> + Send;
    /// The version of a row, which is made if need be.
    fn prepare(&self, key: &str) -> impl Future<Output = Self::Version> + Send;
    /// Changes a row of that version.
    fn update(&self, key: &str, old: Self::Version) -> impl Future<Output = Self::Version> + Send;
    /// Reads a row, as a majority has it.
    fn read(&self, key: &str) -> impl Future<Output = ()> + Send;
}

impl Member for DhtNode {
    type Version = Version;

    async fn create(&self, key: &str) {
        let made = DhtNode::create(self, &row(key), value(), request(), Attempt::First).await;
        assert!(matches!(made, Ok(RowChange::Applied { .. })), "{made:?}");
    }

    async fn prepare(&self, key: &str) -> Version {
        match DhtNode::create(self, &row(key), value(), request(), Attempt::First).await {
            Ok(RowChange::Applied { version }) => version,
            Ok(RowChange::Conflict { current: Some(row) }) => row.version,
            other => panic!("{other:?}"),
        }
    }

    async fn update(&self, key: &str, old: Version) -> Version {
        let (key, new) = (row(key), Some(value()));
        let made = self.compare_and_set(&key, old, new, request(), Attempt::First);
        match made.await {
            Ok(RowChange::Applied { version }) => version,
            other => panic!("{other:?}"),
        }
    }

    async fn read(&self, key: &str) {
        let read = DhtNode::read(self, &row(key)).await.expect("a majority");
        assert!(read.is_some_and(|row| row.value.is_some()));
    }
}

impl Member for Client {
    type Version = u64;

    async fn create(&self, key: &str) {
        let made = self.put_if(key.as_bytes(), 0, &value()).await;
        assert!(made.expect("a majority").is_some());
    }

    async fn prepare(&self, key: &str) -> u64 {
        let key = key.as_bytes();
        let made = self.put_if(key, 0, &value()).await.expect("a majority");
        match made {
            Some(revision) => revision,
            None => {
                let found = self.range(key).await.expect("a majority");
                found.expect("it was there").1
            }
        }
    }

    async fn update(&self, key: &str, old: u64) -> u64 {
        let made = self.put_if(key.as_bytes(), old, &value()).await;
        made.expect("a majority").expect("nobody else changes it")
    }

    async fn read(&self, key: &str) {
        let read = self.range(key.as_bytes()).await.expect("a majority");
        assert_eq!(read.map(|(value, _)| value.len()), Some(ROW_BYTES));
    }
}

/// What came of one work in one round: how many were done in a second, and milliseconds that one took.
struct Figures {
    rate: f64,
    p50: f64,
    p99: f64,
    slowest: f64,
}

/// The clients ask, each one thing after the other, each its own member.
async fn run<M: Member>(
    members: &[M],
    work: Work,
    clients: usize,
    round: usize,
    time: Duration,
) -> Figures {
    let mut making = JoinSet::new();
    for client in 0..clients {
        let member = members[(client + round) % members.len()].clone();
        making.spawn(async move {
            let mut versions = Vec::new();
            if !matches!(work, Work::Create) {
                for row in 0..ROWS_PER_CLIENT {
                    versions.push(member.prepare(&key(work, client, row)).await);
                }
            }
            (member, client, versions)
        });
    }
    let made = making.join_all().await;
    let (mut asking, began) = (JoinSet::new(), Instant::now());
    for (member, client, versions) in made {
        asking.spawn(ask(member, work, client, versions, began + time));
    }
    let took: Vec<Duration> = asking.join_all().await.into_iter().flatten().collect();
    let rate = took.len() as f64 / began.elapsed().as_secs_f64();
    let mut took: Vec<f64> = took.iter().map(|took| took.as_secs_f64() * 1e3).collect();
    let [p50, p99, slowest] = [0.5, 0.99, 1.0].map(|share| at(&mut took, share));
    Figures {
        rate,
        p50,
        p99,
        slowest,
    }
}

async fn ask<M: Member>(
    member: M,
    work: Work,
    client: usize,
    mut versions: Vec<M::Version>,
    until: Instant,
) -> Vec<Duration> {
    let (mut took, mut turn) = (Vec::new(), 0);
    while Instant::now() < until || took.is_empty() {
        let row = turn % ROWS_PER_CLIENT;
        turn += 1;
        let (key, began) = (key(work, client, row), Instant::now());
        match work {
            Work::Create => {
                let key = format!("create/{}/row", NEXT.fetch_add(1, Ordering::Relaxed));
                member.create(&key).await;
            }
            Work::Update => {
                let version = &mut versions[row as usize];
                *version = member.update(&key, *version).await;
            }
            Work::Read => member.read(&key).await,
        }
        took.push(began.elapsed());
    }
    took
}

/// Prints the medians of the rounds, and how many times etcd's figure ours is.
fn report(work: Work, clients: usize, ours: &[Figures], etcd: &[Figures]) {
    let of = |rounds: &[Figures], figure: fn(&Figures) -> f64| {
        median(&mut rounds.iter().map(figure).collect::<Vec<_>>())
    };
    let line = |who, rounds: &[Figures]| {
        println!(
            "{work:?}, {clients} clients{who}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, slowest {:.1} ms",
            of(rounds, |figures| figures.rate),
            of(rounds, |figures| figures.p50),
            of(rounds, |figures| figures.p99),
            of(rounds, |figures| figures.slowest),
        );
    };
    line("", ours);
    if etcd.is_empty() {
        return;
    }
    line(", etcd", etcd);
    let ratio = |figure| of(ours, figure) / of(etcd, figure);
    println!(
        "{work:?}, {clients} clients, ours / etcd: rate {:.2}, p50 {:.2}, p99 {:.2}",
        ratio(|figures| figures.rate),
        ratio(|figures| figures.p50),
        ratio(|figures| figures.p99),
    );
}

/// The key of a row of a client.
fn key(work: Work, client: usize, row: u64) -> String {
    format!("{work:?}{client}/{row}/row")
}

fn row(key: &str) -> RowKey {
    RowKey::new(key, *b"row").expect("a key within its bounds")
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
