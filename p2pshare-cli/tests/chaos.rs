//! Three trackers of which one or two are killed, stopped and started again all the time, while several users make
//! accounts, groups, memberships and files: whatever was acknowledged is so at each tracker in the end, no name was
//! given twice, and what was sent again was done once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use world::ring::Ring;
use world::{Finished, Process, World};

const UNREACHABLE: i32 = 6;
const WORKERS: usize = 4;

/// What one command was to do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Deed {
    User(String),
    Group(String),
    /// A group of another user that is open.
    Join(String),
    /// In the group of all.
    File(String),
}

/// What it said in the end.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Told {
    Done,
    /// Somebody has done it before.
    Exists,
    /// Certainly not done.
    Undone,
    Unknown,
}

/// One command in the history.
#[derive(Clone, Debug)]
struct Entry {
    worker: usize,
    deed: Deed,
    told: Told,
    took: Duration,
}

fn user(worker: usize) -> String {
    format!("worker{worker}")
}

impl Deed {
    /// The next deed of a worker, whose names begin with `own` where nobody else may want them.
    fn choose(rng: &mut StdRng, worker: usize, number: usize, groups: &[String]) -> Self {
        let own = format!("w{worker}-{number}");
        // Several want these at about the same time.
        let wanted = format!("wanted-{}", number / 3);
        // Trackers slow down whoever makes many accounts.
        match rng.random_range(0..120) {
            0..2 => Self::User(own),
            2..4 => Self::User(wanted),
            4..50 => Self::Group(own),
            50..70 => Self::Group(wanted),
            70..80 if !groups.is_empty() => {
                Self::Join(groups[rng.random_range(0..groups.len())].clone())
            }
            70..100 => Self::File(own),
            _ => Self::File(wanted),
        }
    }

    fn is_for_all(&self) -> bool {
        let (Self::User(name) | Self::Group(name) | Self::File(name) | Self::Join(name)) = self;
        name.starts_with("wanted")
    }

    fn args(&self, worker: usize) -> Vec<String> {
        let args: &[&str] = match self {
            Self::User(name) => &["create_user", name, "pass123"],
            Self::Group(name) => &["create_group", name, "--open"],
            Self::Join(name) => &["join_group", name],
            Self::File(name) => &["upload_file", &user(worker), "commons", "--name", name],
        };
        let as_user = format!("--as={}", user(worker));
        let args = args.iter().map(|arg| (*arg).to_owned());
        args.chain([as_user]).collect()
    }

    /// What came of it, by how the command ended.
    fn told(&self, ended: &Finished) -> Told {
        let mut lines = ended.stderr.lines();
        let message = lines
            .find_map(|line| line.strip_prefix("error: "))
            .unwrap_or_default();
        match ended.code {
            Some(0) => Told::Done,
            Some(1) if message.contains("already exists") => Told::Exists,
            Some(_) if message.starts_with("already a member") => Told::Exists,
            Some(UNREACHABLE) if message.contains("unknown") => Told::Unknown,
            Some(UNREACHABLE) => Told::Undone,
            _ => panic!("{self:?}: {ended:?}"),
        }
    }
}

/// One user, until the end.
fn work(world: &World, worker: usize, seed: u64, over: &AtomicBool) -> Vec<Entry> {
    let mut rng = StdRng::seed_from_u64(seed + worker as u64);
    let mut history = Vec::new();
    let mut groups: Vec<String> = Vec::new();
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let deed = Deed::choose(&mut rng, worker, number, &groups);
        if let Deed::Group(_) = &deed {
            // The next worker may have made it, or not yet.
            let next = (worker + 1) % WORKERS;
            groups.push(format!("w{next}-{}", number / 2));
        }
        let args = deed.args(worker);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let began = Instant::now();
        let ended = Process::spawn(world.command(&args)).wait();
        let took = began.elapsed();
        if matches!(deed, Deed::Join(_)) && ended.stderr.contains("not found") {
            continue;
        }
        let told = deed.told(&ended);
        // Nobody else wants that name: what exists is what this very command has made.
        assert!(
            told != Told::Exists || deed.is_for_all() || matches!(deed, Deed::Join(_)),
            "{deed:?} was made twice: {ended:?}"
        );
        history.push(Entry {
            worker,
            deed,
            told,
            took,
        });
    }
    history
}

/// Lets a moment pass in which there is nothing to wait for.
fn pass(moment: Duration) {
    let (_never, nothing) = mpsc::sync_channel::<()>(0);
    let _ = nothing.recv_timeout(moment);
}

/// Does something bad to a tracker, or to two, and mends it.
fn strike(ring: &mut Ring, rng: &mut StdRng) {
    let first = rng.random_range(0..3);
    let second = (first + rng.random_range(1..3)) % 3;
    let mut ways = vec![(first, rng.random_range(0..3))];
    if rng.random_range(0..4) == 0 {
        ways.push((second, rng.random_range(0..3)));
    }
    println!("{ways:?}");
    for (tracker, way) in &ways {
        match way {
            0 => ring.end(*tracker, Signal::KILL),
            1 => ring.end(*tracker, Signal::TERM),
            _ => ring.signal(*tracker, Signal::STOP),
        }
    }
    pass(Duration::from_millis(rng.random_range(0..2000)));
    for (tracker, way) in &ways {
        match way {
            0 | 1 => ring.start(*tracker),
            _ => ring.signal(*tracker, Signal::CONT),
        }
    }
}

#[test]
fn nothing_that_was_acknowledged_is_lost_or_doubled() {
    let seconds = std::env::var("P2PSHARE_CHAOS_SECONDS");
    let seconds = seconds.map_or(15, |seconds| seconds.parse().unwrap());
    let seed = std::env::var("P2PSHARE_CHAOS_SEED");
    let seed = seed.map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("P2PSHARE_CHAOS_SEED={seed} P2PSHARE_CHAOS_SECONDS={seconds}");
    let mut world = World::without_tracker();
    let mut ring = Ring::in_one_folder(&world.path("ring"), 3);
    ring.start_all();
    world.addr = ring.from(0);
    for worker in 0..WORKERS {
        let name = user(worker);
        world.write_file(&name, 1000);
        let list = ring.from(worker % 3);
        world.ok(&["--trackers", &list, "create_user", &name, "pass123"]);
        world.ok(&["--trackers", &list, "login", &name, "pass123"]);
        match worker {
            0 => world.ok(&["create_group", "commons", "--open"]),
            _ => world.ok(&["join_group", "commons"]),
        };
    }
    let over = AtomicBool::new(false);
    let mut rng = StdRng::seed_from_u64(seed);
    let history: Vec<Entry> = thread::scope(|scope| {
        let (world, over) = (&world, &over);
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| scope.spawn(move || work(world, worker, seed, over)))
            .collect();
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until && !workers.iter().any(|worker| worker.is_finished()) {
            pass(Duration::from_millis(rng.random_range(200..1500)));
            strike(&mut ring, &mut rng);
        }
        over.store(true, Ordering::Relaxed);
        let ended = workers.into_iter().map(|worker| worker.join().unwrap());
        ended.flatten().collect()
    });
    let longest = history.iter().max_by_key(|entry| entry.took).unwrap();
    for told in [Told::Done, Told::Exists, Told::Undone, Told::Unknown] {
        let count = history.iter().filter(|entry| entry.told == told).count();
        println!("{told:?}: {count}");
    }
    println!("the longest took {:?}: {longest:?}", longest.took);
    let done = history.iter().any(|entry| entry.told == Told::Done);
    assert!(done, "nothing was done");
    for tracker in 0..3 {
        ring.wait_until_whole_now(tracker);
        check(&world, &ring.addrs[tracker], tracker, &history);
    }
}

/// Whether what one tracker says agrees with the history.
fn check(world: &World, addr: &str, tracker: usize, history: &[Entry]) {
    let home = format!("check{tracker}");
    let run = |args: &[&str]| {
        let args = [args, &["--trackers", addr]].concat();
        Process::spawn(world.command_at_home(&home, &args)).wait()
    };
    let name = format!("checker{tracker}");
    run(&["create_user", &name, "pass123"]).expect_ok(&["create_user"]);
    run(&["login", &name, "pass123"]).expect_ok(&["login"]);
    let groups = table(&run(&["list_groups"]).expect_ok(&["list_groups"]));
    let files = table(&run(&["list_files", "commons"]).expect_ok(&["list_files"]));
    let mut by_deed: BTreeMap<&Deed, Vec<&Entry>> = BTreeMap::new();
    for entry in history {
        by_deed.entry(&entry.deed).or_default().push(entry);
    }
    let mut sampled = 0;
    for (deed, entries) in by_deed {
        let told = |told| entries.iter().filter(move |entry| entry.told == told);
        let (done, unknown) = (told(Told::Done).count(), told(Told::Unknown).count());
        let doer = told(Told::Done).next().map(|entry| user(entry.worker));
        let found = match deed {
            Deed::Group(name) => groups.get(name).map(|row| row[0].clone()),
            // Size and unit come first.
            Deed::File(name) => files.get(name).map(|row| row[2].clone()),
            Deed::User(name) => {
                // Looking for one that is not there makes it, and each costs a password's hash.
                let must_be = done + told(Told::Exists).count() > 0;
                sampled += usize::from(must_be);
                if !must_be || sampled > 12 {
                    continue;
                }
                let made = run(&["create_user", name, "pass123"]);
                let exists = made.stderr.contains("already exists");
                exists.then(|| doer.clone().unwrap_or_default())
            }
            Deed::Join(name) => {
                let row = groups.get(name);
                let members = row.map_or(0, |row| row[2].parse().unwrap());
                // Without a group nobody was told anything but that no tracker can say.
                let owner = usize::from(row.is_some());
                assert!(
                    (owner + done..=owner + done + unknown).contains(&members),
                    "{deed:?} at {addr}: {members} members after {entries:?}"
                );
                continue;
            }
        };
        assert!(done <= 1, "{deed:?} was given twice: {entries:?}");
        let must_be = done + told(Told::Exists).count() > 0;
        assert!(
            !must_be || found.is_some(),
            "{deed:?} is gone at {addr}: {entries:?}"
        );
        assert!(
            found.is_none() || must_be || unknown > 0,
            "{deed:?} is there at {addr}, and nobody has made it: {entries:?}"
        );
        if let (Some(doer), Some(found)) = (doer, found) {
            assert_eq!(found, doer, "{deed:?} at {addr}: {entries:?}");
        }
    }
}

/// The rows of a table by their first column, which no two share.
fn table(text: &str) -> BTreeMap<String, Vec<String>> {
    let rows = text.lines().skip(1).filter_map(|line| {
        let mut cells = line.split_whitespace().map(str::to_owned);
        Some((cells.next()?, cells.collect()))
    });
    let rows: Vec<(String, Vec<String>)> = rows.collect();
    let names: BTreeSet<_> = rows.iter().map(|(name, _)| name.to_lowercase()).collect();
    assert_eq!(names.len(), rows.len(), "a name is there twice:\n{text}");
    rows.into_iter().collect()
}
