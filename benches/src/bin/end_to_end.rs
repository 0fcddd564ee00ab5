//! The whole way of a file, by the real programs on loopback, beside plain quinn in the same run.
//!
//! `cargo run --release -p p2pshare-benches --bin end_to_end -- [--mib N] [--rounds N] [--dir DIR]`, after
//! `cargo build --release`. It starts a tracker and two background peers in a folder of its own, uploads a
//! random file, downloads it, and reports rates, CPU and peak memory of both ends; then two processes of
//! plain quinn move as many bytes from memory to nowhere, with the same windows and path MTU, and one core
//! hashes as many from its cache. Rounds alternate between them, so that a machine that drifts drifts for all.

use std::{
    hint::black_box,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use p2pshare::{CHUNK_SIZE, internals::hash_chunk};
use p2pshare_benches::{
    Outcome,
    files::{make_file, same},
    flag, median, plain_quinn,
    process::{Running, Usage, program},
};

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("quinn-sender") => return plain_quinn::send(number(&args, 1)? << 20),
        Some("quinn-receiver") => {
            let addr = args.get(1).ok_or("where is the sender?")?.parse()?;
            return plain_quinn::receive(addr, args.get(2).ok_or("which certificate?")?);
        }
        _ => {}
    }
    let mib = flag("--mib")?.unwrap_or(1024);
    let rounds = flag("--rounds")?.unwrap_or(3_usize);
    let dir = match flag::<PathBuf>("--dir")? {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let world = World::start(dir.path())?;
    let (mut uploads, mut hashed) = (Vec::new(), Vec::new());
    let (mut downloads, mut plain) = (Vec::new(), Vec::new());
    for round in 0..rounds.max(1) {
        hashed.push(hash(mib));
        uploads.push(world.upload(round, mib)?);
        downloads.push(world.download(round, mib)?);
        plain.push(quinn(mib)?);
    }
    world.latency()?;
    let upload = median(&mut uploads) / median(&mut hashed);
    println!("upload beside SHA-256 on one core, medians: {upload:.2}");
    let download = median(&mut downloads) / median(&mut plain);
    println!("download beside plain quinn, medians: {download:.2}");
    Ok(())
}

/// A tracker and two background peers.
struct World {
    dir: PathBuf,
    _tracker: Running,
    address: String,
}

impl World {
    fn start(dir: &Path) -> Outcome<Self> {
        let mut command = Command::new(program("p2pshare-tracker")?);
        command
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.join("tracker"))
            .stdout(Stdio::piped())
            .stdin(Stdio::null());
        let mut tracker = Running::spawn(&mut command)?;
        let output = tracker.stdout().ok_or("the tracker has no output")?;
        let mut address = None;
        for line in BufReader::new(output).lines() {
            if let Some(listens) = line?.strip_prefix("Tracker listening on ") {
                address = Some(listens.to_owned());
                break;
            }
        }
        let world = Self {
            dir: dir.to_owned(),
            _tracker: tracker,
            address: address.ok_or("the tracker did not start")?,
        };
        for user in ["alice", "bob"] {
            world.run(user, &["create_user", user, "pass123"])?;
            world.run(user, &["login", user, "pass123"])?;
        }
        world.run("alice", &["create_group", "bench", "--open"])?;
        Ok(world)
    }

    /// Shares a file; its MB/s.
    fn upload(&self, round: usize, mib: u64) -> Outcome<f64> {
        let source = self.dir.join("source");
        make_file(&source, mib)?;
        let alice = self.pid("alice")?;
        let path = source.display().to_string();
        let before = Usage::of(alice)?;
        let started = Instant::now();
        self.run(
            "alice",
            &["upload_file", &path, "bench", "--name", &name(round)],
        )?;
        let elapsed = started.elapsed();
        let after = Usage::of(alice)?;
        println!(
            "round {round}: upload    {}, peak memory {} MiB",
            rate(bytes(mib), elapsed, after.cpu - before.cpu),
            after.peak_mib
        );
        Ok(bytes(mib) / 1e6 / elapsed.as_secs_f64())
    }

    /// Downloads it, compares it, and gives it up at both ends; its MB/s.
    fn download(&self, round: usize, mib: u64) -> Outcome<f64> {
        let (source, dest) = (self.dir.join("source"), self.dir.join("dest"));
        let (alice, bob) = (self.pid("alice")?, self.pid("bob")?);
        let path = dest.display().to_string();
        let before = (Usage::of(alice)?, Usage::of(bob)?);
        let started = Instant::now();
        self.run("bob", &["download_file", "bench", &name(round), &path])?;
        let elapsed = started.elapsed();
        let after = (Usage::of(alice)?, Usage::of(bob)?);
        let cpu = after.0.cpu - before.0.cpu + after.1.cpu - before.1.cpu;
        println!(
            "round {round}: download  {}, peak memory {} and {} MiB",
            rate(bytes(mib), elapsed, cpu),
            after.0.peak_mib,
            after.1.peak_mib,
        );
        if !same(&source, &dest)? {
            return Err("the download is not the file".into());
        }
        self.run("bob", &["stop_sharing", "bench", &name(round)])?;
        self.run("alice", &["stop_sharing", "bench", &name(round)])?;
        std::fs::remove_file(dest)?;
        Ok(bytes(mib) / 1e6 / elapsed.as_secs_f64())
    }

    /// How long a command takes against a warm background peer.
    fn latency(&self) -> Outcome<()> {
        for command in [&["status"][..], &["list_groups"], &["list_files", "bench"]] {
            let mut times = Vec::new();
            for _ in 0..21 {
                let started = Instant::now();
                self.run("bob", command)?;
                times.push(started.elapsed().as_secs_f64() * 1e3);
            }
            println!(
                "command {}: median {:.1} ms",
                command[0],
                median(&mut times)
            );
        }
        Ok(())
    }

    fn run(&self, user: &str, args: &[&str]) -> Outcome<String> {
        let output = Command::new(program("p2pshare")?)
            .args(["--trackers", &self.address, "--home"])
            .arg(self.dir.join(user))
            .args(args)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("p2pshare {args:?} failed: {said}").into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The process of a user's background peer.
    fn pid(&self, user: &str) -> Outcome<u32> {
        let status = self.run(user, &["status"])?;
        let (_, rest) = status.split_once("pid ").ok_or("no background peer")?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Ok(digits.parse()?)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for user in ["alice", "bob"] {
            if let Err(error) = self.run(user, &["logout"]) {
                eprintln!("{user}: {error}");
            }
        }
    }
}

/// SHA-256 on one core, of a chunk that stays in its cache; its MB/s.
fn hash(mib: u64) -> f64 {
    let chunk = vec![7; CHUNK_SIZE as usize];
    let chunks = (mib << 20) / u64::from(CHUNK_SIZE);
    let started = Instant::now();
    for _ in 0..chunks {
        black_box(hash_chunk(black_box(&chunk), chunk.len()));
    }
    let elapsed = started.elapsed();
    println!(
        "         sha-256   {}",
        rate(bytes(mib), elapsed, elapsed.as_secs_f64())
    );
    bytes(mib) / 1e6 / elapsed.as_secs_f64()
}

/// What the file of a round is called.
fn name(round: usize) -> String {
    format!("file{round}")
}

fn bytes(mib: u64) -> f64 {
    (mib << 20) as f64
}

/// Plain quinn between two processes; its MB/s.
fn quinn(mib: u64) -> Outcome<f64> {
    let this = std::env::current_exe()?;
    let mut sender = Command::new(&this)
        .args(["quinn-sender", &mib.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(sender.stdout.take().ok_or("no output")?);
    let mut line = String::new();
    said.read_line(&mut line)?;
    let args: Vec<&str> = line.split_whitespace().collect();
    let started = Instant::now();
    let received = Command::new(&this)
        .arg("quinn-receiver")
        .args(&args)
        .output()?;
    let elapsed = started.elapsed();
    if !received.status.success() {
        return Err(String::from_utf8_lossy(&received.stderr).into());
    }
    let mut rest = String::new();
    said.read_to_string(&mut rest)?;
    sender.wait()?;
    let (one, two) = (
        Usage::parse(&rest)?,
        Usage::parse(&String::from_utf8(received.stdout)?)?,
    );
    println!(
        "         quinn     {}, peak memory {} and {} MiB",
        rate(bytes(mib), elapsed, one.cpu + two.cpu),
        one.peak_mib,
        two.peak_mib,
    );
    Ok(bytes(mib) / 1e6 / elapsed.as_secs_f64())
}

fn rate(bytes: f64, elapsed: Duration, cpu: f64) -> String {
    let per_gib = cpu * f64::from(1 << 30) / bytes;
    format!(
        "{:6.0} MB/s, {per_gib:.2} CPU s/GiB",
        bytes / 1e6 / elapsed.as_secs_f64()
    )
}

fn number(args: &[String], place: usize) -> Outcome<u64> {
    Ok(args.get(place).ok_or("a number is missing")?.parse()?)
}
