//! What it costs that trackers know who holds what: bytes a second between a peer that shares so many files and its
//! tracker, and between the trackers for it, while nothing changes; and what a lease takes of a tracker's memory.
//!
//! `cargo run --release -p p2pshare-benches --bin announce -- [--seconds 60] [--files 10000]`, after `cargo build
//! --release`. The trackers are real ones in a network namespace of their own (`unshare` and `ip` of Linux), the peer is in
//! this process; the bytes are those of whole IP packets, both ways. A ring of one has nothing to say to itself, so that
//! it shows what a peer costs; what a ring of three carries beside that, it carries for the replicas. Memory is that of a
//! member of a ring in this process, before and after.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use p2pshare::{
    Access, DhtNode, GroupName, LeaseKey, LeaseSession, Password, Peer, PeerId, RingId, Session,
    SessionId, TrackerAddr, TrackerClient, TrackerList, UserName,
};
use p2pshare_benches::process::Usage;
use p2pshare_benches::trackers::Ring;
use p2pshare_benches::{Outcome, flag};
use tokio::task::JoinSet;

/// What founding, logging in and sharing cost is over after that: a renewal has come.
const SETTLING: Duration = Duration::from_secs(30);
/// Says that this process is in its own namespace already.
const APART: &str = "--apart";
/// Says of how many files of each peer the leases are to be measured in this process.
const LEASES_OF: &str = "--leases-of";
/// Leases that are held then.
const LEASES: u32 = 400_000;
/// Files that are shared at once.
const SHARED_AT_ONCE: u32 = 64;

#[tokio::main]
async fn main() -> Outcome<()> {
    if std::env::args().any(|arg| arg == APART) {
        return announcements(
            flag("--seconds")?.unwrap_or(60),
            flag("--files")?.unwrap_or(10_000),
        )
        .await;
    }
    if let Some(files) = flag(LEASES_OF)? {
        return memory_of(files).await;
    }
    for files in ["10000", "100", "1"] {
        let this = std::env::current_exe()?;
        let done = Command::new(this).args([LEASES_OF, files]).status()?;
        if !done.success() {
            return Err("the memory was not measured".into());
        }
    }
    let script = "ip link set lo up && exec \"$0\" \"$@\"";
    let apart = Command::new("unshare")
        .args(["--map-root-user", "--net", "sh", "-c", script])
        .arg(std::env::current_exe()?)
        .arg(APART)
        .args(std::env::args().skip(1))
        .status()?;
    match apart.success() {
        true => Ok(()),
        false => Err("the announcements were not measured".into()),
    }
}

async fn announcements(seconds: u32, most: u32) -> Outcome<()> {
    let mut of_peer = Vec::new();
    for trackers in [1, 3] {
        let dir = tempfile::tempdir()?;
        let ring = Ring::start(dir.path(), trackers)?;
        tokio::time::sleep(SETTLING).await;
        let idle = carried(seconds).await?;
        println!("{trackers} trackers: {idle:.0} bytes/s without a peer");
        let session = log_in(dir.path(), &ring).await?;
        let group = GroupName::new("files")?;
        session.create_group(&group, Access::Open).await?;
        let mut shared = 0;
        for (at, files) in [0, 1, 100, most].into_iter().enumerate() {
            share(&session, &group, dir.path(), shared..files).await?;
            shared = files;
            tokio::time::sleep(SETTLING).await;
            let more = carried(seconds).await? - idle;
            match trackers {
                1 => {
                    println!("  {files} files: {more:.0} bytes/s between the peer and its tracker");
                    of_peer.push(more);
                }
                _ => {
                    let rest = more - of_peer.get(at).copied().unwrap_or_default();
                    let each = rest / trackers as f64;
                    println!("  {files} files: {each:.0} bytes/s for it sent by each tracker");
                }
            }
        }
        session.peer().shutdown().await?;
    }
    Ok(())
}

async fn log_in(dir: &Path, ring: &Ring) -> Outcome<Session> {
    let list: TrackerList = std::fs::read_to_string(ring.list())?.parse()?;
    let trackers: Vec<TrackerAddr> = list.addrs().to_vec();
    let client = TrackerClient::connect(&trackers, None).await?;
    let (user, password) = (UserName::new("alice")?, Password::new("pass123"));
    client.create_user(&user, &password).await?;
    let peer = Peer::builder(dir.join("alice"), client.ring_id())
        .trackers(trackers)
        .listen(([127, 0, 0, 1], 0).into())
        .bind()
        .await?;
    Ok(peer.login(&user, &password).await?)
}

/// Shares small files, each another one.
async fn share(
    session: &Session,
    group: &GroupName,
    dir: &Path,
    numbers: std::ops::Range<u32>,
) -> Outcome<()> {
    let mut uploads = JoinSet::new();
    for number in numbers {
        let path = dir.join(format!("holiday-{number:05}.jpg"));
        std::fs::write(&path, number.to_le_bytes())?;
        let upload = session.share(path, group, None);
        uploads.spawn(async move { upload.await.map(drop) });
        if uploads.len() >= SHARED_AT_ONCE as usize
            && let Some(shared) = uploads.join_next().await
        {
            shared??;
        }
    }
    while let Some(shared) = uploads.join_next().await {
        shared??;
    }
    Ok(())
}

/// Bytes a second that the loopback of this namespace carries.
async fn carried(seconds: u32) -> Outcome<f64> {
    let before = loopback()?;
    tokio::time::sleep(Duration::from_secs(seconds.into())).await;
    Ok((loopback()? - before) as f64 / f64::from(seconds))
}

fn loopback() -> Outcome<u64> {
    let devices = std::fs::read_to_string("/proc/net/dev")?;
    let counters = devices
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("lo:"));
    let bytes = counters.and_then(|counters| counters.split_whitespace().next());
    Ok(bytes.ok_or("no loopback")?.parse()?)
}

/// What a lease takes of a replica's memory where each peer has so many files, in a process of its own: one that had others before has memory
/// to use again.
async fn memory_of(files: u32) -> Outcome<()> {
    let peers = LEASES / files;
    let dir = tempfile::tempdir()?;
    let node = DhtNode::alone(dir.path(), RingId::from_bytes([1; 32])).await?;
    let kib_before = resident()?;
    for peer in 0..peers {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&peer.to_be_bytes());
        let (peer_id, session) = (PeerId::from_bytes(id), SessionId::from_bytes([7; 16]));
        let mut says = LeaseSession::new(peer_id, session);
        // A group, a file id, and one address with what is held.
        let lease = |file: u32| {
            let number = u64::from(peer) << 32 | u64::from(file);
            let key = format!("s/files/{number:064x}");
            Ok((LeaseKey::new(key)?, Arc::from([0_u8; 12])))
        };
        let all: Outcome<Vec<(LeaseKey, Arc<[u8]>)>> = (0..files).map(lease).collect();
        let news = says.whole(1, Duration::from_secs(120), all?)?;
        node.put_leases(vec![news]).await;
    }
    let bytes = (resident()? - kib_before) * 1024;
    println!(
        "{peers} peers with {files} files each: {} bytes of memory a lease",
        bytes / u64::from(LEASES)
    );
    node.shutdown().await?;
    Ok(())
}

/// KiB of this process in memory.
fn resident() -> Outcome<u64> {
    Ok(Usage::own()?.resident_mib * 1024)
}
