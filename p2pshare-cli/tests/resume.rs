//! A download goes on from where it was, whoever dies meanwhile and whatever becomes of its partial file: at the end
//! are the right bytes, or a clear refusal, and nothing else is touched.
//!
//! The moments are chosen by a seed, which is printed; `P2PSHARE_SEED` repeats them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::fs::SeekFrom;
use rustix::process::{Pid, Signal, kill_process};
use world::{Finished, Process, World, same_content};

const CHUNK: u64 = 512 * 1024;

/// Chunks that may be on their way between the disk and the journal when a process dies: a queue of those that were
/// written, and one that is being journalled.
const IN_FLIGHT: u64 = 34;

const INTERRUPTED: i32 = 130;

/// Alice shares `a.bin`, which Bob downloads, from another home, so that nothing of his brings back Alice; in a world
/// whose moments a seed chooses.
struct Transfer {
    world: World,
    file: PathBuf,
    chunks: u64,
    rng: StdRng,
    killed: Vec<Pid>,
}

impl Transfer {
    fn new(chunks: u64) -> Self {
        let seed = std::env::var("P2PSHARE_SEED").ok();
        let seed = seed.map_or_else(rand::random, |seed| seed.parse().unwrap());
        println!("P2PSHARE_SEED={seed}");
        let world = World::new();
        let file = world.write_file("a.bin", (chunks * CHUNK - 99) as usize);
        let transfer = Self {
            world,
            file,
            chunks,
            rng: StdRng::seed_from_u64(seed),
            killed: Vec::new(),
        };
        transfer.world.users(&["Alice"]);
        transfer.world.ok(&["create_group", "g", "--open"]);
        transfer.world.ok(&["upload_file", "a.bin", "g"]);
        transfer
            .bob(&["create_user", "Bob", "pass123"])
            .expect_ok(&["create_user"]);
        transfer
            .bob(&["login", "Bob", "pass123"])
            .expect_ok(&["login"]);
        transfer
    }

    fn bob(&self, args: &[&str]) -> Finished {
        Process::spawn(self.world.command_at_home("bob", args)).wait()
    }

    fn begin(&self, dest: &str) -> Process {
        let args = ["download_file", "g", "a.bin", dest, "--wait"];
        Process::spawn(self.world.command_at_home("bob", &args))
    }

    /// Bob's download has to fail like this.
    #[track_caller]
    fn refused(&self, dest: &str, message: &str) {
        let finished = self.bob(&["download_file", "g", "a.bin", dest]);
        assert_eq!(finished.code, Some(1));
        assert!(
            finished.stderr.contains(&format!("error: {message}\n")),
            "{finished:?}"
        );
    }

    /// Lets a download run until a moment in the first of the `parts` of what is missing.
    fn run_on(&mut self, running: &mut Process, dest: &str, parts: u64) {
        let (had, all) = (self.world.partial_bytes(dest), self.chunks * CHUNK);
        let part = all.saturating_sub(had) / parts;
        let moment = had + self.rng.random_range(0..=part);
        running
            .run_until(|| self.world.partial_bytes(dest) >= moment && self.holder("bob").is_some());
    }

    /// Chunks of which something is on disk.
    fn on_disk(&self, dest: &str) -> u64 {
        match self.world.work(dest).exists() {
            true => self.chunks,
            false => self.world.partial_bytes(dest) / CHUNK,
        }
    }

    /// Lets a download come to its end, and returns how many chunks it did not have to fetch. Bob does not share
    /// it then, so that the next one comes from Alice again.
    #[track_caller]
    fn finish(&self, mut running: Process, dest: &str) -> u64 {
        let said = running.wait().expect_ok(&["download_file", dest]);
        assert!(same_content(&self.file, &self.world.work(dest)));
        assert_eq!(self.world.partial_bytes(dest), 0);
        self.world
            .run(&["stop_sharing", "g", "a.bin", "--as", "Bob"]);
        let resumed = said
            .split_once("resumed: skipped ")
            .map_or("0", |(_, rest)| rest);
        let resumed = resumed.split(' ').next().unwrap().parse().unwrap();
        match said.contains("which were there already") {
            true => self.chunks,
            false => resumed,
        }
    }

    /// Who holds the lock of a user's folder, unless it is free or he was killed.
    fn holder(&self, user: &str) -> Option<Pid> {
        let lock = self.lock(user);
        lock.try_lock().is_err().then_some(())?;
        let pid = io::read_to_string(lock).ok()?.parse().ok()?;
        Pid::from_raw(pid).filter(|pid| !self.killed.contains(pid))
    }

    fn lock(&self, user: &str) -> fs::File {
        let folders = self.world.identity_folders();
        let folder = folders.iter().find(|folder| folder.ends_with(user));
        fs::File::open(folder.unwrap().join("lock")).unwrap()
    }

    fn kill(&mut self, user: &str) {
        let pid = self.holder(user).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        self.killed.push(pid);
        // Given back with the last of the process.
        self.lock(user).lock().unwrap();
    }

    /// A download that was stopped in its middle.
    fn stopped(&self, dest: &str) {
        // Where the machine is so fast that all of it is there before it is stopped, it is tried again.
        for _ in 0..10 {
            let mut running = self.begin(dest);
            running.run_until(|| self.world.partial_bytes(dest) >= self.chunks / 4 * CHUNK);
            // What is under way comes to no end.
            let alice = self.world.lock_holder("alice");
            kill_process(alice, Signal::STOP).unwrap();
            running.signal(Signal::INT);
            let code = running.wait().code;
            assert!([Some(INTERRUPTED), Some(0)].contains(&code), "{code:?}");
            kill_process(alice, Signal::CONT).unwrap();
            if !self.world.work(dest).exists() {
                return;
            }
            self.world
                .run(&["stop_sharing", "g", "a.bin", "--as", "Bob"]);
            fs::remove_file(self.world.work(dest)).unwrap();
        }
        panic!("no download was stopped");
    }
}

#[test]
fn the_downloader_is_killed_at_twenty_moments() {
    let mut transfer = Transfer::new(160);
    for dest in ["1.bin", "2.bin", "3.bin", "4.bin"] {
        for parts in (2..=6).rev() {
            let mut running = transfer.begin(dest);
            transfer.run_on(&mut running, dest, parts);
            transfer.kill("bob");
            running.wait();
        }
        let had = transfer.on_disk(dest);
        let resumed = transfer.finish(transfer.begin(dest), dest);
        println!("{had} were on disk, {resumed} were not fetched again");
        assert!(resumed + IN_FLIGHT >= had, "{resumed} of {had}");
    }
}

#[test]
fn the_seeder_is_killed_at_ten_moments() {
    let mut transfer = Transfer::new(96);
    for dest in ["1.bin", "2.bin", "3.bin", "4.bin", "5.bin"] {
        let mut running = transfer.begin(dest);
        for parts in (2..=3).rev() {
            transfer.run_on(&mut running, dest, parts);
            transfer.kill("alice");
            // Any command brings it back.
            transfer.world.ok(&["status"]);
        }
        transfer.finish(running, dest);
    }
}

#[test]
fn the_tracker_is_killed_at_ten_moments() {
    let mut transfer = Transfer::new(96);
    for dest in ["1.bin", "2.bin"] {
        let mut running = transfer.begin(dest);
        for parts in (2..=6).rev() {
            transfer.run_on(&mut running, dest, parts);
            transfer.world.kill_tracker();
            transfer.world.start_tracker();
        }
        transfer.finish(running, dest);
    }
}

#[test]
fn the_machine_goes_down_at_five_moments() {
    let mut transfer = Transfer::new(96);
    for parts in (2..=6).rev() {
        let mut running = transfer.begin("1.bin");
        transfer.run_on(&mut running, "1.bin", parts);
        running.signal(Signal::KILL);
        transfer.kill("bob");
        transfer.kill("alice");
        transfer.world.kill_tracker();
        running.wait();
        fs::remove_dir_all(transfer.world.path("run")).unwrap();
        fs::create_dir(transfer.world.path("run")).unwrap();
        transfer.world.start_tracker();
        transfer.world.ok(&["status"]);
    }
    let had = transfer.on_disk("1.bin");
    let resumed = transfer.finish(transfer.begin("1.bin"), "1.bin");
    assert!(resumed + IN_FLIGHT >= had, "{resumed} of {had}");
}

#[test]
fn the_command_is_interrupted_at_five_moments() {
    let mut transfer = Transfer::new(96);
    for parts in (2..=6).rev() {
        let mut running = transfer.begin("1.bin");
        transfer.run_on(&mut running, "1.bin", parts);
        running.signal(Signal::INT);
        // The next one is begun at once. The signal itself ends a command that did not begin yet.
        let code = running.wait().code;
        assert!(
            [Some(INTERRUPTED), Some(0), None].contains(&code),
            "{code:?}"
        );
    }
    let had = transfer.on_disk("1.bin");
    let resumed = transfer.finish(transfer.begin("1.bin"), "1.bin");
    assert!(resumed + IN_FLIGHT >= had, "{resumed} of {had}");
}

#[test]
fn a_partial_file_that_was_tampered_with_is_mended() {
    let transfer = Transfer::new(96);
    for (dest, tamper) in [
        ("flipped.bin", flip_a_byte as fn(&Path)),
        ("cut.bin", |partial| {
            let file = fs::File::options().write(true).open(partial).unwrap();
            file.set_len(10 * CHUNK + 1).unwrap();
        }),
        ("emptied.bin", |partial| {
            fs::File::create(partial).unwrap();
        }),
        ("gone.bin", |partial| fs::remove_file(partial).unwrap()),
    ] {
        transfer.stopped(dest);
        let had = transfer.on_disk(dest);
        tamper(&transfer.world.work(&format!("{dest}.p2part")));
        let resumed = transfer.finish(transfer.begin(dest), dest);
        assert!(resumed < had, "{dest}: {resumed} of {had}");
    }
}

#[test]
fn what_stands_in_the_place_of_a_partial_file_is_not_touched() {
    let transfer = Transfer::new(48);
    let victim = transfer.world.write_file("victim", 3_000_000);
    let precious = fs::read(&victim).unwrap();
    for (dest, put) in [
        (
            "link.bin",
            (|partial, victim| symlink(victim, partial).unwrap()) as fn(&Path, &Path),
        ),
        ("hard.bin", |partial, victim| {
            fs::hard_link(victim, partial).unwrap()
        }),
        ("own.bin", |partial, victim| {
            fs::copy(victim, partial).unwrap();
        }),
        ("folder.bin", |partial, _| fs::create_dir(partial).unwrap()),
    ] {
        transfer.stopped(dest);
        let partial = transfer.world.work(&format!("{dest}.p2part"));
        let aside = transfer.world.work(&format!("{dest}.aside"));
        fs::rename(&partial, &aside).unwrap();
        put(&partial, &victim);
        let message = format!(
            "{} is in the way, and not known to be a partial download; move it away",
            partial.display()
        );
        transfer.refused(dest, &message);
        assert!(fs::read(&victim).unwrap() == precious);
        match partial.is_dir() {
            true => fs::remove_dir(&partial).unwrap(),
            false => {
                assert!(fs::read(&partial).unwrap() == precious);
                fs::remove_file(&partial).unwrap();
            }
        }
        // Back in its place, it is gone on with.
        fs::rename(&aside, &partial).unwrap();
        assert!(transfer.finish(transfer.begin(dest), dest) > 0);
    }
}

#[test]
fn one_file_is_downloaded_to_two_places_at_once_and_to_one_place_once() {
    let transfer = Transfer::new(48);
    let alice = transfer.world.lock_holder("alice");
    // Nothing comes while Alice stands still.
    kill_process(alice, Signal::STOP).unwrap();
    let mut first = transfer.begin("one.bin");
    first.run_until(|| transfer.world.work("one.bin.p2part").exists());
    let dest = transfer.world.work("one.bin");
    let message = format!("{} is being downloaded already", dest.display());
    transfer.refused("one.bin", &message);
    let mut second = transfer.begin("two.bin");
    second.run_until(|| transfer.world.work("two.bin.p2part").exists());
    kill_process(alice, Signal::CONT).unwrap();
    transfer.finish(first, "one.bin");
    transfer.finish(second, "two.bin");
}

/// Flips a byte of the first chunk that was written.
fn flip_a_byte(partial: &Path) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(partial)
        .unwrap();
    let at = rustix::fs::seek(&file, SeekFrom::Data(0)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}
