//! What trackers cost that nobody asks anything: bytes, CPU and memory of each of three real ones, and the gossip of a
//! simulated ring of a thousand.
//!
//! `cargo run --release -p p2pshare-benches --bin idle -- [--seconds 60] [--trackers 3] [--members 1000]`, after
//! `cargo build --release`. The trackers run in a network namespace of their own (`unshare` and `ip` of Linux), so
//! that its loopback carries nothing but what they say to each other; the bytes are those of whole IP packets.

use std::process::Command;
use std::time::Duration;

use p2pshare::internals::gossip_of;
use p2pshare_benches::process::Usage;
use p2pshare_benches::trackers::Ring;
use p2pshare_benches::{Outcome, flag};

/// What the founding of the ring still costs is over after that.
const SETTLING: Duration = Duration::from_secs(10);
/// Says that this process is in its own namespace already.
const APART: &str = "--apart";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let seconds: u32 = flag("--seconds")?.unwrap_or(60);
    if std::env::args().any(|arg| arg == APART) {
        return trackers(flag("--trackers")?.unwrap_or(3), seconds).await;
    }
    let script = "ip link set lo up && exec \"$0\" \"$@\"";
    let apart = Command::new("unshare")
        .args(["--map-root-user", "--net", "sh", "-c", script])
        .arg(std::env::current_exe()?)
        .arg(APART)
        .args(std::env::args().skip(1))
        .status()?;
    if !apart.success() {
        return Err("the trackers were not measured".into());
    }
    gossip(flag("--members")?.unwrap_or(1000), seconds);
    Ok(())
}

async fn trackers(count: usize, seconds: u32) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let ring = Ring::start(dir.path(), count)?;
    tokio::time::sleep(SETTLING).await;
    let usages = || ring.pids().into_iter().map(Usage::of);
    let before: Vec<Usage> = usages().collect::<Outcome<_>>()?;
    let (bytes, packets) = loopback()?;
    tokio::time::sleep(Duration::from_secs(seconds.into())).await;
    let (bytes, packets) = loopback().map(|now| (now.0 - bytes, now.1 - packets))?;
    let each = f64::from(seconds) * count as f64;
    println!(
        "{count} trackers, {seconds} s: {:.0} bytes/s in {:.1} packets/s sent by each",
        bytes as f64 / each,
        packets as f64 / each
    );
    for (number, (before, after)) in before.iter().zip(usages()).enumerate() {
        let after = after?;
        println!(
            "tracker {}: {:.2} % of a core, {} MiB resident, {} MiB at most",
            number + 1,
            100.0 * (after.cpu - before.cpu) / f64::from(seconds),
            after.resident_mib,
            after.peak_mib
        );
    }
    Ok(())
}

/// Bytes and packets that the loopback of this namespace has carried.
fn loopback() -> Outcome<(u64, u64)> {
    let devices = std::fs::read_to_string("/proc/net/dev")?;
    let counters = devices
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("lo:"));
    let mut counters = counters.ok_or("no loopback")?.split_whitespace();
    let mut next = || counters.next().ok_or("no counter");
    Ok((next()?.parse()?, next()?.parse()?))
}

fn gossip(members: usize, seconds: u32) {
    let time = Duration::from_secs(seconds.into());
    let cost = gossip_of(members, time);
    println!(
        "{members} simulated members: {:.0} bytes/s of gossip in {:.1} datagrams/s sent by each, \
         {:.0} µs of CPU in a second; \
         all know of a death in {:.1?}",
        cost.bytes,
        cost.datagrams,
        1e6 * cost.cpu,
        cost.death
    );
}
