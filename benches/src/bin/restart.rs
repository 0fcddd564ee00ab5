//! How long a tracker's store with a million rows takes until it serves again, in a new process: after it was closed,
//! and after the process was killed amid its life; with the bytes on disk and the memory.
//!
//! `cargo run --release -p p2pshare-benches --bin restart -- [--rows 1000000] [--dir FOLDER]`. The rows are made as a
//! client makes them, by creates in a ring of one, each on disk before it is answered.
#![expect(clippy::expect_used, reason = "a bench without its disk fails")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use p2pshare::{Attempt, DhtNode, PeerId, RequestId, RequestKey, RingId, RowChange, RowKey};
use p2pshare_benches::process::Usage;
use p2pshare_benches::{Outcome, flag};
use tokio::task::JoinSet;

/// Bytes of a row: as many as one of a file.
const ROW_BYTES: usize = 200;
/// Creates under way at once, so that many share one sync.
const CLIENTS: u64 = 512;

#[tokio::main]
async fn main() -> Outcome<()> {
    let rows = flag("--rows")?.unwrap_or(1_000_000);
    let dir = flag("--dir")?.unwrap_or_else(std::env::temp_dir);
    match std::env::args().nth(1).as_deref() {
        Some("fill") => return fill(&dir, rows).await,
        Some("serve") => return serve(&dir, rows).await,
        _ => {}
    }
    let folder = tempfile::tempdir_in(dir)?;
    for (life, what) in ["fill", "serve", "serve"].into_iter().enumerate() {
        match life {
            0 => println!("made, and killed:"),
            1 => println!("after a kill:"),
            _ => println!("after it was closed:"),
        }
        let ended = Command::new(std::env::current_exe()?)
            .args([what, "--rows", &rows.to_string(), "--dir"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .status()?;
        // The first ends by a signal of its own.
        if life > 0 && !ended.success() {
            return Err(format!("{what} failed").into());
        }
    }
    Ok(())
}

async fn bind(dir: &Path) -> Outcome<DhtNode> {
    let ring = RingId::from_bytes([1; 32]);
    Ok(DhtNode::alone(dir, ring).await?)
}

/// Makes the rows, and ends without closing anything.
async fn fill(dir: &Path, rows: u64) -> Outcome<()> {
    let node = bind(dir).await?;
    let (next, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (node, next) = (node.clone(), next.clone());
        clients.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= rows {
                    return;
                }
                create(&node, number).await;
            }
        });
    }
    clients.join_all().await;
    println!("  {rows} rows created in {:.1?}", began.elapsed());
    report(dir)?;
    std::process::abort()
}

async fn create(node: &DhtNode, number: u64) {
    let mut request = [0; 16];
    request[..8].copy_from_slice(&number.to_be_bytes());
    let request = RequestKey {
        peer: PeerId::from_bytes([2; 32]),
        request: RequestId::from_bytes(request),
    };
    let mut value = [0; ROW_BYTES];
    rand::fill(&mut value);
    let key = key(number);
    let made = node.create(&key, value, request, Attempt::First).await;
    assert!(matches!(made, Ok(RowChange::Applied { .. })), "{made:?}");
}

/// Starts over the rows, reads one, and closes.
async fn serve(dir: &Path, rows: u64) -> Outcome<()> {
    let began = Instant::now();
    let node = bind(dir).await?;
    let bound = began.elapsed();
    let read = node.read(&key(rows / 2)).await?;
    let served = began.elapsed();
    assert!(read.is_some_and(|row| row.value.is_some()));
    println!("  bound in {bound:.1?}, the first read answered after {served:.1?}");
    report(dir)?;
    node.shutdown().await?;
    Ok(())
}

fn report(dir: &Path) -> Outcome<()> {
    let Usage {
        cpu,
        peak_mib,
        resident_mib,
    } = Usage::own()?;
    let disk = bytes(dir)? >> 20;
    println!(
        "  {disk} MiB on disk, {resident_mib} MiB resident, {peak_mib} MiB at most, {cpu:.1} s of CPU"
    );
    Ok(())
}

/// Bytes of all files beneath a folder.
fn bytes(dir: &Path) -> Outcome<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        sum += match entry.file_type()?.is_dir() {
            true => bytes(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(sum)
}

fn key(number: u64) -> RowKey {
    RowKey::new(number.to_be_bytes(), *b"row").expect("a key within its bounds")
}
