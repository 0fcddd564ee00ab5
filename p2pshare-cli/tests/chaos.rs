//! Three trackers of which one or two are killed, stopped and started again all the time, while several users make
//! accounts, groups, memberships and files, and end memberships and shares: for each row of the ring there is an order
//! in which what all were told, and what each tracker says in the end, could have happened. Beside it a tracker that
//! sleeps for a minute.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod rows;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rows::{Act, Entry, Row, State, Told, What, Who};
use rustix::process::Signal;
use world::ring::Ring;
use world::{Finished, Process, World};

const DENIED: i32 = 4;
const NOT_FOUND: i32 = 5;
const UNREACHABLE: i32 = 6;
const WORKERS: Who = 4;
const COMMONS: &str = "commons";

fn user(worker: Who) -> String {
    format!("worker{worker}")
}

/// A group of that worker, which the others are in and out of.
fn club(owner: Who) -> String {
    format!("club{owner}")
}

/// What one command is to do to a row.
#[derive(Clone, Debug)]
struct Deed {
    row: Row,
    act: Act,
    args: Vec<String>,
}

impl Deed {
    fn new(row: Row, act: Act, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { row, act, args }
    }

    /// The next deed of a worker, who has published some `files` and knows of some open `groups` of others.
    fn choose(
        rng: &mut StdRng,
        worker: Who,
        number: usize,
        (files, groups): (&[String], &[String]),
    ) -> Self {
        // Several want the same at about the same time.
        let name = match rng.random_range(0..10) {
            0..6 => format!("w{worker}-{number}"),
            _ => format!("wanted-{}", number / 3),
        };
        let other = (worker + rng.random_range(1..WORKERS)) % WORKERS;
        let theirs = Row::Membership(club(other), worker);
        let mine = Row::Membership(club(worker), other);
        let (their_club, my_club, whom) = (club(other), club(worker), user(other));
        // Trackers slow down whoever makes many accounts.
        match rng.random_range(0..100) {
            0..3 => Self::new(
                Row::User(name.clone()),
                Act::Make,
                &["create_user", &name, "pass123"],
            ),
            3..25 => Self::new(
                Row::Group(name.clone()),
                Act::Make,
                &["create_group", &name, "--open"],
            ),
            25..45 => Self::new(
                Row::File(name.clone()),
                Act::Make,
                &["upload_file", &user(worker), COMMONS, "--name", &name],
            ),
            45..55 if !files.is_empty() => {
                let name = files.choose(rng).unwrap();
                Self::new(
                    Row::File(name.clone()),
                    Act::Stop,
                    &["stop_sharing", COMMONS, name],
                )
            }
            55..60 if !groups.is_empty() => {
                let group = groups.choose(rng).unwrap();
                let row = Row::Membership(group.clone(), worker);
                Self::new(row, Act::Join, &["join_group", group])
            }
            45..75 => Self::new(theirs, Act::Ask, &["join_group", &their_club]),
            75..80 => Self::new(theirs, Act::Part, &["leave_group", &their_club]),
            80..92 => Self::new(mine, Act::Accept, &["accept_request", &my_club, &whom]),
            92..95 => Self::new(mine, Act::Reject, &["reject_request", &my_club, &whom]),
            _ => Self::new(mine, Act::Part, &["remove_member", &my_club, &whom]),
        }
    }

    /// What came of it, by how the command ended; `None` if it says nothing of the row.
    fn told(&self, ended: &Finished) -> Option<Told> {
        let mut lines = ended.stderr.lines();
        let message = lines
            .find_map(|line| line.strip_prefix("error: "))
            .unwrap_or_default();
        let says = |text| message.contains(text);
        Some(match ended.code {
            Some(0) if self.act == Act::Stop => match ended.stdout.contains("Nobody shares it") {
                true => Told::Done,
                false => Told::Either,
            },
            Some(0) if ended.stdout.contains("already pending") => Told::Pending,
            Some(0) => Told::Done,
            Some(UNREACHABLE) if says("unknown") => Told::Unknown,
            Some(UNREACHABLE) => Told::Undone,
            _ if says("already exists") || says("already a member") => Told::NoNeed,
            Some(NOT_FOUND) if says("no pending request") => Told::NoNeed,
            Some(NOT_FOUND | DENIED) if says("not a member") => Told::NoNeed,
            // Of a file that is shared no longer, or by another.
            Some(NOT_FOUND) if self.act == Act::Stop => Told::NoNeed,
            // The next worker has not made it yet.
            Some(NOT_FOUND) if self.act == Act::Join => return None,
            _ => panic!("{self:?}: {ended:?}"),
        })
    }
}

/// One user, until the end.
fn work(world: &World, worker: Who, seed: u64, over: &AtomicBool) -> Vec<Entry> {
    let mut rng = StdRng::seed_from_u64(seed + worker as u64);
    let (mut history, mut files, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    let as_user = format!("--as={}", user(worker));
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let deed = Deed::choose(&mut rng, worker, number, (&files, &groups));
        let mut args: Vec<_> = deed.args.iter().map(String::as_str).collect();
        args.push(&as_user);
        let began = Instant::now();
        let finished = Process::spawn(world.command(&args)).wait();
        let ended = Instant::now();
        let Some(told) = deed.told(&finished) else {
            continue;
        };
        match (&deed.row, told) {
            (Row::File(name), Told::Done | Told::Unknown) => files.push(name.clone()),
            // The next worker may have made it, or not yet.
            (Row::Group(_), _) => {
                groups.push(format!("w{}-{}", (worker + 1) % WORKERS, number / 2));
            }
            _ => {}
        }
        let who = match deed.row {
            Row::Membership(_, of) => of,
            _ => worker,
        };
        history.push(Entry {
            row: deed.row,
            what: What::Did(who, deed.act, told),
            began,
            ended,
        });
        // So that a machine of two cores has time for others.
        pass(Duration::from_millis(rng.random_range(0..100)));
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
    let seconds = seconds.map_or(60, |seconds| seconds.parse().unwrap());
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
            0 => world.ok(&["create_group", COMMONS, "--open"]),
            _ => world.ok(&["join_group", COMMONS]),
        };
        world.ok(&["create_group", &club(worker)]);
    }
    let over = AtomicBool::new(false);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut history: Vec<Entry> = thread::scope(|scope| {
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
    let longest = history.iter().max_by_key(|entry| entry.took()).unwrap();
    println!("the longest took {:?}: {longest:?}", longest.took());
    let mut counts = BTreeMap::<_, usize>::new();
    for entry in &history {
        if let What::Did(_, act, told) = entry.what {
            let kind = match entry.row {
                Row::User(_) => "user",
                Row::Group(_) => "group",
                Row::File(_) => "file",
                Row::Membership(..) => "membership",
            };
            *counts
                .entry(format!("{kind} {act:?} {told:?}"))
                .or_default() += 1;
        }
    }
    println!("{} commands: {counts:#?}", history.len());
    let done = history
        .iter()
        .any(|entry| matches!(entry.what, What::Did(_, _, Told::Done)));
    assert!(done, "nothing was done");
    let touched: BTreeSet<Row> = history.iter().map(|entry| entry.row.clone()).collect();
    for tracker in 0..3 {
        ring.wait_until_whole_now(tracker);
        history.extend(seen_at(&world, &ring.addrs[tracker], tracker, &touched));
    }
    for worker in 0..WORKERS {
        history.extend(memberships(&world, worker, &touched));
    }
    if let Some(row) = rows::disorder(&history) {
        panic!("no order of what was done explains what was said of {row}");
    }
}

/// Somebody new, who knows this tracker alone.
fn stranger(world: &World, addr: &str, tracker: usize) -> impl Fn(&[&str]) -> Finished {
    let (name, home) = (format!("checker{tracker}"), format!("check{tracker}"));
    let run = move |args: &[&str]| {
        let args = [args, &["--trackers", addr]].concat();
        Process::spawn(world.command_at_home(&home, &args)).wait()
    };
    for command in ["create_user", "login"] {
        run(&[command, &name, "pass123"]).expect_ok(&[command]);
    }
    run
}

/// How one tracker says that the rows are.
fn seen_at(world: &World, addr: &str, tracker: usize, touched: &BTreeSet<Row>) -> Vec<Entry> {
    let run = stranger(world, addr, tracker);
    let began = Instant::now();
    let groups = table(&run(&["list_groups"]).expect_ok(&["list_groups"]));
    let files = table(&run(&["list_files", COMMONS]).expect_ok(&["list_files"]));
    let of = |rows: &BTreeMap<String, Vec<String>>, name: &str, column: usize| {
        let owner = rows.get(name).map(|row| row[column].clone());
        owner.map_or(State::None, |owner| {
            let worker = (0..WORKERS).find(|worker| user(*worker) == owner);
            State::Of(worker.expect("of one of the workers"))
        })
    };
    let mut sampled = 0;
    let mut seen = Vec::new();
    for row in touched {
        let what = match row {
            Row::Group(name) => What::Saw(of(&groups, name, 0)),
            // Size and unit come first.
            Row::File(name) => What::Saw(of(&files, name, 2)),
            // Whoever looks for one makes it, and each costs a password's hash.
            Row::User(name) if sampled < 8 => {
                sampled += 1;
                let made = run(&["create_user", name, "pass123"]);
                let told = match made.stderr.contains("already exists") {
                    true => Told::NoNeed,
                    false => Told::Done,
                };
                What::Did(WORKERS + tracker, Act::Make, told)
            }
            Row::User(_) | Row::Membership(..) => continue,
        };
        let (row, ended) = (row.clone(), Instant::now());
        seen.push(Entry {
            row,
            what,
            began,
            ended,
        });
    }
    seen
}

/// How the ring says that the memberships of a worker are.
fn memberships(world: &World, worker: Who, touched: &BTreeSet<Row>) -> Vec<Entry> {
    let began = Instant::now();
    let groups = table(&world.ok_as(&user(worker), &["list_groups"]));
    let ended = Instant::now();
    let seen = |row: &Row| {
        let Row::Membership(group, of) = row else {
            return None;
        };
        // A group that was not made leaves nothing to be a member of.
        let columns = groups.get(group).filter(|_| *of == worker)?;
        let state = match columns.get(3).map(String::as_str) {
            Some("member") => State::Member,
            Some("pending") => State::Pending,
            None => State::None,
            other => panic!("{row:?}: {other:?}"),
        };
        Some(Entry {
            row: row.clone(),
            what: What::Saw(state),
            began,
            ended,
        })
    };
    touched.iter().filter_map(seen).collect()
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

#[test]
fn a_tracker_that_sleeps_for_a_minute_gives_no_name_twice_and_catches_up() {
    const ASLEEP: Duration = Duration::from_secs(60);
    const SHORT_PAUSE: Duration = Duration::from_secs(5);
    let mut world = World::without_tracker();
    let mut ring = Ring::in_one_folder(&world.path("ring"), 3);
    ring.start_all();
    world.addr = ring.from(0);
    let join = |home: &str, name: &str, list: &str| {
        for command in ["create_user", "login"] {
            let args = [command, name, "pass123", "--trackers", list];
            Process::spawn(world.command_at_home(home, &args))
                .wait()
                .expect_ok(&args);
        }
    };
    join("home", "Alice", &ring.from(0));
    // Connected to the one that is going to sleep, and free to go elsewhere; and one who knows no other.
    join("home", "Bob", &ring.from(2));
    join("dreamer", "Carol", &ring.addrs[2]);
    let dreams = |args: &[&str]| {
        let args = [args, &["--trackers", &ring.addrs[2]]].concat();
        Process::spawn(world.command_at_home("dreamer", &args))
    };
    dreams(&["create_group", "before"])
        .wait()
        .expect_ok(&["create_group"]);
    ring.signal(2, Signal::STOP);
    let fell_asleep = Instant::now();
    // It lies in the socket of the one that sleeps, which may come to it a minute late.
    let mut late = dreams(&["create_group", "wanted"]);
    let (mut longest, mut made) = (
        Duration::ZERO,
        vec!["before".to_owned(), "wanted".to_owned()],
    );
    let mut take_turns = ["Alice", "Bob"].iter().cycle();
    let mut timed = |args: &[&str]| {
        let began = Instant::now();
        world.ok_as(take_turns.next().unwrap(), args);
        longest = longest.max(began.elapsed());
    };
    timed(&["create_group", "wanted", "--open"]);
    while fell_asleep.elapsed() < ASLEEP {
        let name = format!("g{}", made.len());
        timed(&["create_group", &name, "--open"]);
        timed(&["list_groups"]);
        made.push(name);
        pass(Duration::from_secs(2));
    }
    println!(
        "{} groups while it slept; the longest command took {longest:?}",
        made.len() - 2
    );
    assert!(longest < SHORT_PAUSE, "{longest:?}");
    let told = late.wait();
    assert_eq!(told.code, Some(UNREACHABLE), "{told:?}");
    ring.signal(2, Signal::CONT);
    for tracker in [2, 0, 1] {
        ring.wait_until_whole_now(tracker);
    }
    // All of it is at the one that slept, as at the others, and no name is there twice.
    made.sort();
    for tracker in [2, 0, 1] {
        let args = ["list_groups"];
        let listed = stranger(&world, &ring.addrs[tracker], tracker)(&args);
        assert!(!listed.stderr.contains("stale"), "{listed:?}");
        let groups = table(&listed.expect_ok(&args));
        assert_eq!(groups["wanted"][0], "Alice");
        assert_eq!(groups["before"][0], "Carol");
        let names: Vec<&String> = groups.keys().collect();
        assert_eq!(names, made.iter().collect::<Vec<_>>());
    }
    let again = dreams(&["create_group", "wanted"]).wait();
    assert!(again.stderr.contains("already exists"), "{again:?}");
    dreams(&["create_group", "after"])
        .wait()
        .expect_ok(&["create_group"]);
}
