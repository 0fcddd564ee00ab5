//! How long commands take with three trackers, by the real programs on loopback, and the longest pause that anybody
//! sees when one of them is killed.
//!
//! `cargo run --release -p p2pshare-benches --bin commands -- [--times 50] [--kills 10] [--dir FOLDER]`, after
//! `cargo build --release`. A tracker is killed as `kill -9` does it, at a random moment while one command
//! follows the other, and is back before the next is. Command times include the start of the program.

use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use p2pshare_benches::trackers::{Ring, User};
use p2pshare_benches::{Outcome, at, flag};

/// Trackers of the ring.
const TRACKERS: usize = 3;
/// How long commands are given around a kill, which happens in the first half.
const AROUND_A_KILL: Duration = Duration::from_secs(6);

fn main() -> Outcome<()> {
    let times = flag("--times")?.unwrap_or(50);
    let kills = flag("--kills")?.unwrap_or(10);
    let dir = match flag::<std::path::PathBuf>("--dir")? {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let mut ring = Ring::start(dir.path(), TRACKERS)?;
    let alice = User::log_in("alice", dir.path(), ring.list())?;
    let bob = User::log_in("bob", dir.path(), ring.list())?;
    latencies(&alice, &bob, times)?;
    let mut pauses = Vec::new();
    for kill in 0..kills {
        let longest = pause(&mut ring, &alice, kill)?;
        println!(
            "tracker {} killed: the longest command took {longest:.0} ms",
            kill % TRACKERS + 1
        );
        pauses.push(longest);
    }
    if kills > 0 {
        println!(
            "the longest command around a kill: median {:.0} ms, longest {:.0} ms",
            at(&mut pauses, 0.5),
            at(&mut pauses, 1.0)
        );
    }
    Ok(())
}

/// Each command so many times, one after the other.
fn latencies(alice: &User, bob: &User, times: usize) -> Outcome<()> {
    let mut took: [(&str, Vec<f64>); 3] =
        ["create_group", "join_group", "list_groups"].map(|command| (command, Vec::new()));
    for number in 0..times {
        let group = format!("group{number}");
        took[0].1.push(timed(alice, &["create_group", &group])?);
        took[1].1.push(timed(bob, &["join_group", &group])?);
        took[2].1.push(timed(bob, &["list_groups"])?);
    }
    for (command, took) in &mut took {
        println!(
            "{command}, {times} times: p50 {:.1} ms, p99 {:.1} ms, slowest {:.1} ms",
            at(took, 0.5),
            at(took, 0.99),
            at(took, 1.0)
        );
    }
    Ok(())
}

/// The milliseconds of the longest of the commands that are given while a tracker is killed.
fn pause(ring: &mut Ring, user: &User, kill: usize) -> Outcome<f64> {
    let victim = kill % TRACKERS;
    let moment = AROUND_A_KILL.mul_f64(rand::random_range(0.0..0.5));
    let (fail, failed) = sync_channel::<()>(1);
    let longest = thread::scope(|scope| {
        let commands = scope.spawn(move || {
            // Dropped at the end, also at that of a command that fails: then nobody waits for the moment.
            let _fail = fail;
            let (mut longest, mut number, began) = (0.0_f64, 0, Instant::now());
            while began.elapsed() < AROUND_A_KILL {
                let group = format!("kill{kill}-{number}");
                longest = longest.max(timed(user, &["create_group", &group])?);
                longest = longest.max(timed(user, &["list_groups"])?);
                number += 1;
            }
            Ok::<f64, Box<dyn std::error::Error + Send + Sync>>(longest)
        });
        let _ = failed.recv_timeout(moment);
        ring.kill(victim);
        commands.join()
    });
    ring.restart(victim)?;
    longest.map_err(|_| "the commands panicked")?
}

/// The milliseconds of a command.
fn timed(user: &User, args: &[&str]) -> Outcome<f64> {
    let began = Instant::now();
    user.run(args)?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}
