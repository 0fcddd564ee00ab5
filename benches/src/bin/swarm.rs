//! How long one file takes to many who want it at once, by the real programs on loopback, and what of it the one who
//! had it first had to send.
//!
//! `cargo run --release -p p2pshare-benches --bin swarm -- [--receivers 4] [--mib 1024] [--rounds 3] [--upload RATE]
//! [--dir FOLDER]`, after `cargo build --release`. A tracker and a background peer for each run as processes; all
//! downloads begin together. With `--upload 20MB` everybody gives no more than that, so that the seeder's line is what
//! is scarce: then the copies that it sent show what the others gave each other.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use p2pshare_benches::files::{make_file, same};
use p2pshare_benches::trackers::{Ring, User};
use p2pshare_benches::{Outcome, flag, median};

fn main() -> Outcome<()> {
    let receivers = flag("--receivers")?.unwrap_or(4_usize);
    let mib = flag("--mib")?.unwrap_or(1024_u64);
    let rounds = flag("--rounds")?.unwrap_or(3_usize).max(1);
    let upload = flag::<String>("--upload")?;
    let dir = match flag::<PathBuf>("--dir")? {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let ring = Ring::start(dir.path(), 1)?;
    let seeder = User::log_in("seeder", dir.path(), ring.list())?;
    seeder.run(&["create_group", "bench", "--open"])?;
    let names = (1..=receivers).map(|number| format!("user{number}"));
    let users = names.map(|name| User::log_in(&name, dir.path(), ring.list()));
    let users = users.collect::<Outcome<Vec<_>>>()?;
    if let Some(rate) = &upload {
        for user in users.iter().chain([&seeder]) {
            user.run(&["limit", "--upload", rate])?;
        }
    }
    let source = dir.path().join("source");
    let (mut times, mut copies) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        make_file(&source, mib)?;
        let name = format!("file{round}");
        seeder.run(&[
            "upload_file",
            &source.display().to_string(),
            "bench",
            "--name",
            &name,
        ])?;
        let before = seeder.sent_bytes()?;
        let began = Instant::now();
        let dests = all_download(&users, dir.path(), &name)?;
        let elapsed = began.elapsed().as_secs_f64();
        let sent = (seeder.sent_bytes()? - before) / (mib << 20) as f64;
        for dest in dests {
            if !same(&source, &dest)? {
                return Err(format!("{} is not the file", dest.display()).into());
            }
            std::fs::remove_file(dest)?;
        }
        for user in users.iter().chain([&seeder]) {
            user.run(&["stop_sharing", "bench", &name])?;
        }
        std::fs::remove_file(&source)?;
        println!(
            "round {round}: the last of {receivers} has {mib} MiB after {elapsed:.2} s; the seeder sent {sent:.2} copies"
        );
        times.push(elapsed);
        copies.push(sent);
    }
    println!(
        "medians: {:.2} s, {:.2} copies",
        median(&mut times),
        median(&mut copies)
    );
    Ok(())
}

/// All download the file at once; where each has it.
fn all_download(users: &[User], dir: &Path, name: &str) -> Outcome<Vec<PathBuf>> {
    thread::scope(|scope| {
        let downloads: Vec<_> = users
            .iter()
            .enumerate()
            .map(|(number, user)| {
                let dest = dir.join(format!("dest{number}"));
                scope.spawn(move || {
                    let path = dest.display().to_string();
                    user.run(&["download_file", "bench", name, &path])?;
                    Ok(dest)
                })
            })
            .collect();
        let ended = downloads.into_iter().map(|download| {
            download
                .join()
                .map_err(|_| "a download panicked".into())
                .flatten()
        });
        ended.collect()
    })
}
