//! Rings of several trackers, as real processes: founded, cut short, wiped and wrongly set up, and used all the while.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
#[cfg(target_os = "linux")]
use rustix::process::{Resource, Rlimit, prlimit};
use world::ring::{LIST, Ring, free_addrs};
use world::{Finished, Process, World, same_content, tracker_binary};

/// Said of a change that a tracker was asked for which has not answered.
const UNKNOWN: &str = "the tracker went away before it answered; whether this was done is unknown";

const NO_MAJORITY: &str = "insufficient replicas for write quorum: 1 of 3 reachable, 2 needed";

const FAILED: i32 = 1;
const DENIED: i32 = 4;
const NOT_FOUND: i32 = 5;
const UNREACHABLE: i32 = 6;

/// What follows `error: `.
fn error(ended: &Finished) -> &str {
    let mut lines = ended.stderr.lines();
    lines
        .find_map(|line| line.strip_prefix("error: "))
        .unwrap_or_default()
}

/// A ring of so many in one folder, and a world that uses it.
fn ring_of(count: usize) -> (World, Ring) {
    let mut world = World::without_tracker();
    let ring = Ring::in_one_folder(&world.path("ring"), count);
    world.addr = ring.from(0);
    (world, ring)
}

/// Makes an account at one tracker and logs in at another.
fn join_world(world: &World, ring: &Ring, user: &str, (created, logged_in): (usize, usize)) {
    let count = ring.addrs.len();
    let (created, logged_in) = (ring.from(created % count), ring.from(logged_in % count));
    world.ok(&["--trackers", &created, "create_user", user, "pass123"]);
    world.ok(&["--trackers", &logged_in, "login", user, "pass123"]);
}

/// Carries steps out one after the other, the middle ones while `strike` has happened, which does so right after a
/// command has begun; the longest time that a step took.
fn walk(
    world: &World,
    steps: &[Vec<&str>],
    mut strike: impl FnMut(),
    mut heal: impl FnMut(),
) -> Duration {
    let mut longest = Duration::ZERO;
    for (number, step) in steps.iter().enumerate() {
        let began = Instant::now();
        let mut process = Process::spawn(world.command(step));
        if number == 1 {
            strike();
        }
        process.wait().expect_ok(step);
        println!("{:>8.3} s {step:?}", began.elapsed().as_secs_f32());
        longest = longest.max(began.elapsed());
        if number + 2 == steps.len() {
            heal();
        }
    }
    longest
}

#[test]
fn the_walk_through_goes_on_while_any_one_of_three_is_killed() {
    let (world, mut ring) = ring_of(3);
    ring.start_all();
    let source = world.write_file("alice.txt", 3_000_000);
    let mut pauses = Vec::new();
    for (victim, how) in [(0, Signal::KILL), (1, Signal::STOP), (2, Signal::TERM)] {
        let [alice, bob, group, copy] =
            ["alice", "bob", "group", "copy"].map(|kind| format!("{kind}{victim}"));
        // Alice's peer is connected to the one that goes away.
        join_world(&world, &ring, &alice, (victim, victim));
        join_world(&world, &ring, &bob, (victim, victim + 1));
        let steps = [
            vec!["create_group", &group, "--as", &alice],
            vec!["upload_file", "alice.txt", &group, "--as", &alice],
            vec!["list_groups", "--as", &bob],
            vec!["join_group", &group, "--as", &bob],
            vec!["list_requests", &group, "--as", &alice],
            vec!["accept_request", &group, &bob, "--as", &alice],
            vec!["list_files", &group, "--as", &bob],
            vec!["download_file", &group, "alice.txt", &copy, "--as", &bob],
            vec!["status", "--as", &alice],
        ];
        let shared = std::cell::RefCell::new(&mut ring);
        let strike = || shared.borrow().signal(victim, how);
        let heal = || match how {
            Signal::STOP => shared.borrow().signal(victim, Signal::CONT),
            _ => {
                shared.borrow_mut().end(victim, how);
                shared.borrow_mut().start(victim);
            }
        };
        let longest = walk(&world, &steps, strike, heal);
        println!("tracker {victim}, {how:?}: the longest step took {longest:?}");
        pauses.push(longest);
        assert!(same_content(&source, &world.work(&copy)));
        // Somebody new, while the one that was away has only just come back.
        join_world(&world, &ring, &format!("carol{victim}"), (victim, victim));
        for tracker in 0..3 {
            ring.process(tracker)
                .wait_until_said("3 of 3 trackers reachable");
        }
    }
    println!("the longest steps: {pauses:?}");
}

#[test]
fn an_unfounded_ring_says_whom_it_waits_for_and_serves_nobody() {
    let (world, mut ring) = ring_of(3);
    let [first, second, third] = [0, 1, 2].map(|at| ring.addrs[at].clone());
    ring.start(0);
    let waiting = format!("waiting for {second}, {third} to found the ring");
    ring.process(0).wait_until_said(&waiting);
    let refused = world.run(&["create_user", "Alice", "pass123"]);
    assert_eq!(
        (refused.code, error(&refused)),
        (Some(UNREACHABLE), "the ring is not founded yet")
    );
    // No matter whether it was started before.
    ring.end(0, Signal::KILL);
    ring.start(1);
    ring.start(0);
    let waiting = format!("waiting for {third} to found the ring");
    for tracker in [0, 1] {
        ring.process(tracker).wait_until_said(&waiting);
    }
    let mut command = Command::new(tracker_binary());
    command
        .current_dir(ring.folder(0))
        .args(["ring", "status", LIST]);
    let looked = Process::spawn(command).wait().expect_ok(&["ring status"]);
    assert!(
        looked.contains(&format!("not founded, waiting for {third}\n")),
        "{looked}"
    );
    assert!(
        looked.contains(&format!("  {third}  no answer\n")),
        "{looked}"
    );
    ring.start(2);
    for tracker in 0..3 {
        ring.wait_until_whole(tracker);
    }
    join_world(&world, &ring, "Alice", (0, 1));
    let status = world.ok(&["status"]);
    assert!(status.contains("3 of 3 reachable, epoch 1\n"), "{status}");
    for addr in [first, second, third] {
        assert!(
            status.contains(&format!("\n    {addr} alive\n")),
            "{status}"
        );
    }
}

#[test]
fn three_hosts_with_copies_of_list_and_key_survive_a_wiped_disk() {
    let mut world = World::without_tracker();
    let mut ring = Ring::on_hosts(&world.path("hosts"), 3);
    world.addr = ring.from(0);
    ring.start_all();
    join_world(&world, &ring, "Alice", (0, 0));
    // Some things that the third does not hear of.
    ring.signal(2, Signal::STOP);
    for group in 0..5 {
        world.ok(&["create_group", &format!("before{group}")]);
    }
    ring.end(2, Signal::KILL);
    fs::remove_dir_all(ring.data_dir(2)).unwrap();
    ring.start(2);
    // It has no say before it has learned what it may have forgotten.
    ring.wait_until_whole_now(2);
    // With the first gone, what it alone has besides the second is only safe if the third has it again.
    ring.end(0, Signal::KILL);
    let groups = world.ok(&["list_groups"]);
    for group in 0..5 {
        assert!(groups.contains(&format!("before{group}")), "{groups}");
        let again = world.run(&["create_group", &format!("before{group}")]);
        assert_eq!(
            (again.code, error(&again)),
            (
                Some(FAILED),
                &*format!("group 'before{group}' already exists")
            )
        );
    }
    world.ok(&["create_group", "after"]);
    ring.start(0);
    // And the second.
    ring.wait_until_whole_now(0);
    ring.end(1, Signal::KILL);
    let groups = world.ok(&["list_groups"]);
    for group in ["before0", "before4", "after"] {
        assert!(groups.contains(group), "{groups}");
    }
}

#[test]
fn a_ring_of_two_needs_both_and_says_so() {
    let (world, mut ring) = ring_of(2);
    ring.start_all();
    join_world(&world, &ring, "Alice", (0, 1));
    world.ok(&["create_group", "g"]);
    ring.end(0, Signal::KILL);
    ring.process(1).wait_until_said("1 of 2 trackers reachable");
    let message = "insufficient replicas for write quorum: 1 of 2 reachable, 2 needed";
    world.refused(&["create_group", "h"], UNREACHABLE, message);
    world.refused(&["create_user", "Bob", "pass123"], UNREACHABLE, message);
    ring.start(0);
    ring.wait_until_whole(0);
    // And so it is for the one that the peer is connected to.
    ring.wait_until_whole_now(1);
    world.ok(&["create_group", "h"]);
    assert!(world.ok(&["list_groups"]).contains('g'));
}

#[test]
fn a_list_of_dead_trackers_alone_is_said_to_be_that() {
    let (world, mut ring) = ring_of(3);
    ring.start_all();
    join_world(&world, &ring, "Alice", (0, 0));
    for tracker in 0..3 {
        ring.end(tracker, Signal::TERM);
    }
    let tried = format!("no tracker can be reached (tried {})", ring.addrs[1]);
    world.refused(
        &[
            "--trackers",
            &ring.addrs[1],
            "create_user",
            "Bob",
            "pass123",
        ],
        UNREACHABLE,
        &tried,
    );
    let ended = world.run(&["create_group", "g"]);
    assert_eq!(ended.code, Some(UNREACHABLE), "{ended:?}");
    assert!(
        error(&ended).starts_with("no tracker can be reached (tried 127.0.0.1:"),
        "{ended:?}"
    );
}

#[test]
fn what_is_set_up_wrongly_is_named() {
    let mut world = World::without_tracker();
    let mut ring = Ring::on_hosts(&world.path("hosts"), 3);
    world.addr = ring.from(0);
    ring.start(0);
    let key = ring.folder(0).join("ring.key");
    // A list that is not that of the key.
    let other = free_addrs(1).remove(0);
    let edited = [&ring.addrs[0], &ring.addrs[1], &other]
        .map(String::as_str)
        .join("\n");
    fs::copy(&key, ring.folder(1).join("ring.key")).unwrap();
    fs::write(ring.folder(1).join(LIST), edited).unwrap();
    let refused = Process::spawn(ring.command(1)).wait();
    assert_eq!(refused.code, Some(FAILED), "{refused:?}");
    let said = error(&refused);
    assert!(
        said.contains(&other)
            && said.contains(&ring.addrs[2])
            && refused.stderr.lines().count() == 1,
        "{refused:?}"
    );
    assert!(!ring.data_dir(1).join("db").exists());
    // An address that another program has.
    fs::write(ring.folder(1).join(LIST), ring.addrs.join("\n")).unwrap();
    for offset in [0, 1000] {
        let port: u16 = ring.addrs[1].rsplit(':').next().unwrap().parse().unwrap();
        let taken = UdpSocket::bind(("127.0.0.1", port + offset)).unwrap();
        let refused = Process::spawn(ring.command(1)).wait();
        let message = format!("port {} of 127.0.0.1 is in use", port + offset);
        assert_eq!((refused.code, error(&refused)), (Some(FAILED), &*message));
        drop(taken);
    }
    ring.start(1);
    // A key of another ring: it is as if the third were not there.
    ring.start(2);
    let waiting = format!("waiting for {} to found the ring", ring.addrs[2]);
    for tracker in [0, 1] {
        ring.process(tracker).wait_until_said(&waiting);
    }
    let lonely = format!(
        "waiting for {}, {} to found the ring",
        ring.addrs[0], ring.addrs[1]
    );
    ring.process(2).wait_until_said(&lonely);
    ring.end(2, Signal::TERM);
    fs::copy(&key, ring.folder(2).join("ring.key")).unwrap();
    let refused = Process::spawn(ring.command(2)).wait();
    assert_eq!(refused.code, Some(FAILED), "{refused:?}");
    assert!(
        error(&refused).contains("belongs to the ring "),
        "{refused:?}"
    );
    fs::remove_dir_all(ring.data_dir(2)).unwrap();
    ring.start(2);
    for tracker in 0..3 {
        ring.wait_until_whole(tracker);
    }
    join_world(&world, &ring, "Alice", (1, 2));
    // An edited list changes nothing any more.
    ring.end(1, Signal::TERM);
    let edited = [&ring.addrs[0], &ring.addrs[1], &other]
        .map(String::as_str)
        .join("\n");
    fs::write(ring.folder(1).join(LIST), edited).unwrap();
    ring.start(1);
    ring.wait_until_whole(1);
    let warning = ring.process(1).wait_for_error_line("warning: ");
    assert!(
        warning.contains(&other) && warning.contains(&ring.addrs[2]),
        "{warning}"
    );
    world.ok(&["create_group", "g"]);
}

#[test]
fn who_wants_the_same_through_different_trackers_gets_it_once() {
    let (world, mut ring) = ring_of(3);
    ring.start_all();
    for (at, user) in ["Alice", "Bob", "Carol"].into_iter().enumerate() {
        join_world(&world, &ring, user, (at, at));
    }
    // Alice sits at another machine too, and there at another tracker.
    let login = ["--trackers", &ring.from(1), "login", "Alice", "pass123"];
    let login = world.command_at_home("second", &login);
    Process::spawn(login).wait().expect_ok(&["login"]);
    let at_once = |commands: [&[&str]; 2]| -> [Finished; 2] {
        commands
            .map(|args| Process::spawn(world.command(args)))
            .map(|mut process| process.wait())
    };
    for round in 0..3 {
        // A new group, by two.
        let group = format!("g{round}");
        let made = at_once([
            &["create_group", &group, "--open", "--as", "Alice"],
            &["create_group", &group, "--open", "--as", "Bob"],
        ]);
        let winner = only_winner(&made);
        let [owner, other] = match winner {
            0 => ["Alice", "Bob"],
            _ => ["Bob", "Alice"],
        };
        assert_eq!(
            error(&made[1 - winner]),
            format!("group '{group}' already exists")
        );
        world.ok_as(other, &["join_group", &group]);
        // A new file, by two.
        for path in ["a.bin", "b.bin"] {
            let content = world.write_file(&format!("{round}-{path}"), 700_000);
            fs::rename(content, world.work(path)).unwrap();
        }
        let uploaded = at_once([
            &[
                "upload_file",
                "a.bin",
                &group,
                "--name",
                "x",
                "--as",
                "Alice",
            ],
            &["upload_file", "b.bin", &group, "--name", "x", "--as", "Bob"],
        ]);
        let winner = only_winner(&uploaded);
        assert_eq!(
            error(&uploaded[1 - winner]),
            format!("file 'x' already exists in '{group}'")
        );
        let copy = format!("copy{round}");
        world.ok_as("Carol", &["download_file", &group, "x", &copy]);
        assert!(same_content(
            &world.work(["a.bin", "b.bin"][winner]),
            &world.work(&copy)
        ));
        // A membership that two end.
        let ended = at_once([
            &["leave_group", &group, "--as", other],
            &["remove_member", &group, other, "--as", owner],
        ]);
        let winner = only_winner(&ended);
        let loser = &ended[1 - winner];
        assert!(
            matches!(loser.code, Some(DENIED | NOT_FOUND)) && error(loser).contains("not a member"),
            "{loser:?}"
        );
        // One that is decided both ways.
        let group = format!("closed{round}");
        world.ok_as("Alice", &["create_group", &group]);
        world.ok_as("Bob", &["join_group", &group]);
        let decided = [
            world.command(&["accept_request", &group, "Bob", "--as", "Alice"]),
            world.command_at_home("second", &["reject_request", &group, "Bob"]),
        ]
        .map(Process::spawn)
        .map(|mut process| process.wait());
        let winner = only_winner(&decided);
        let message = format!("no pending request from 'Bob' in '{group}'");
        assert_eq!(error(&decided[1 - winner]), message);
        let listed = world.run(&["list_files", &group, "--as", "Bob"]);
        assert_eq!(listed.code, Some([0, DENIED][winner]), "{listed:?}");
    }
}

/// Which of two has succeeded; the other has not.
fn only_winner(finished: &[Finished; 2]) -> usize {
    let winners: Vec<_> = (0..2).filter(|&at| finished[at].code == Some(0)).collect();
    assert_eq!(winners.len(), 1, "{finished:?}");
    winners[0]
}

#[test]
fn a_tracker_whose_disk_is_full_says_so_and_ends_and_the_others_go_on() {
    let (world, mut ring) = ring_of(3);
    let small = ring.data_dir(2);
    fs::create_dir(&small).unwrap();
    if !can_mount(&small) {
        println!("skipped: this machine does not let a test mount a disk");
        return;
    }
    for tracker in [0, 1] {
        ring.start(tracker);
    }
    // A disk that only the third sees.
    let started = ring.command(2);
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o size=24m,mode=700 tmpfs \"$0\" && exec \"$@\"";
    command
        .args(["--map-root-user", "--mount", "sh", "-c", script])
        .arg(&small)
        .arg(started.get_program())
        .args(started.get_args())
        .current_dir(ring.folder(2))
        .env("HOME", ring.folder(2));
    ring.start_as(2, command);
    for tracker in 0..3 {
        ring.wait_until_whole(tracker);
    }
    join_world(&world, &ring, "Alice", (2, 0));
    let root = format!("/proc/{}/root", ring.process(2).pid().as_raw_pid());
    let disk = Path::new(&root).join(small.strip_prefix("/").unwrap());
    let filled = fs::write(disk.join("ballast"), vec![1; 32 << 20]);
    assert_eq!(
        filled.unwrap_err().kind(),
        std::io::ErrorKind::StorageFull,
        "there is room left"
    );
    the_third_ends(&world, &mut ring, "No space left on device");
}

/// Makes groups until the third tracker has ended by itself and said why; the others go on.
fn the_third_ends(world: &World, ring: &mut Ring, reason: &str) {
    for group in 0..20 {
        world.ok(&["create_group", &format!("g{group}")]);
    }
    let ended = ring.ended(2);
    assert_eq!(ended.code, Some(FAILED), "{ended:?}");
    assert!(
        error(&ended).starts_with("the tracker failed: "),
        "{ended:?}"
    );
    assert!(error(&ended).contains(reason), "{ended:?}");
    world.ok(&["create_group", "after"]);
    let groups = world.ok(&["list_groups"]);
    assert!(
        groups.contains("g19") && groups.contains("after"),
        "{groups}"
    );
}

/// The same where nobody may mount a disk: the system takes no more bytes of that process.
#[cfg(target_os = "linux")]
#[test]
fn a_tracker_that_may_write_no_more_says_so_and_ends_and_the_others_go_on() {
    let (world, mut ring) = ring_of(3);
    for tracker in [0, 1] {
        ring.start(tracker);
    }
    // It is told by an error, as by a full disk, and not by a signal.
    let started = ring.command(2);
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ && exec \"$0\" \"$@\""])
        .arg(started.get_program())
        .args(started.get_args())
        .current_dir(ring.folder(2))
        .env("HOME", ring.folder(2));
    ring.start_as(2, command);
    for tracker in 0..3 {
        ring.wait_until_whole(tracker);
    }
    join_world(&world, &ring, "Alice", (2, 0));
    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let pid = ring.process(2).pid();
    prlimit(Some(pid), Resource::Fsize, nothing).unwrap();
    the_third_ends(&world, &mut ring, "File too large");
}

/// Whether a test may mount a disk that only it sees.
fn can_mount(at: &Path) -> bool {
    let probe = [
        "--map-root-user",
        "--mount",
        "mount",
        "-t",
        "tmpfs",
        "tmpfs",
    ];
    let probed = Command::new("unshare").args(probe).arg(at).output();
    probed.is_ok_and(|probed| probed.status.success())
}

#[test]
fn with_two_of_three_stopped_each_command_ends_by_itself_and_all_work_once_they_go_on() {
    let (world, mut ring) = ring_of(3);
    ring.start_all();
    // One peer is connected to the tracker that goes on, the other to one that does not.
    join_world(&world, &ring, "Alice", (2, 2));
    join_world(&world, &ring, "Bob", (2, 0));
    let [first, second] = ["a.txt", "b.txt"].map(|name| world.write_file(name, 700_000));
    for group in ["g", "h"] {
        world.ok_as("Alice", &["create_group", group]);
        world.ok_as("Bob", &["join_group", group]);
    }
    world.ok_as("Alice", &["create_group", "left", "--open"]);
    world.ok_as("Bob", &["join_group", "left"]);
    world.ok_as("Alice", &["accept_request", "g", "Bob"]);
    world.ok_as("Alice", &["upload_file", "a.txt", "g"]);
    let need_others: [(&str, &[&str]); 12] = [
        ("Alice", &["create_group", "new"]),
        ("Alice", &["list_requests", "h"]),
        ("Alice", &["accept_request", "h", "Bob"]),
        ("Alice", &["reject_request", "h", "Bob"]),
        ("Alice", &["upload_file", "b.txt", "g"]),
        ("Alice", &["transfer_group", "g", "Bob"]),
        ("Alice", &["remove_member", "g", "Bob"]),
        ("Alice", &["stop_sharing", "g", "a.txt"]),
        ("Bob", &["join_group", "h"]),
        ("Bob", &["leave_group", "left"]),
        ("Bob", &["download_file", "g", "a.txt", "copy"]),
        ("Bob", &["create_user", "Carol", "pass123"]),
    ];
    let listings: [(&str, &[&str], &str); 4] = [
        ("Alice", &["list_groups"], "\ng "),
        ("Bob", &["list_groups"], "\ng "),
        ("Alice", &["list_files", "g"], "\na.txt "),
        ("Bob", &["list_files", "g"], "\na.txt "),
    ];
    let alone: [(&str, &[&str]); 3] = [
        ("Alice", &["status"]),
        ("Alice", &["show_downloads"]),
        ("Alice", &["verify", "g", "a.txt"]),
    ];
    for tracker in [0, 1] {
        ring.signal(tracker, Signal::STOP);
    }
    // At first nobody knows that they are gone, and each finds out; later everybody knows.
    for time in ["at first", "later"] {
        thread::scope(|scope| {
            let begin = |user, args| {
                let world = &world;
                scope.spawn(move || timed(world, time, user, args))
            };
            let asked = need_others.map(|(user, args)| (user, args, begin(user, args)));
            let listed = listings.map(|(user, args, row)| (args, row, begin(user, args)));
            let done = alone.map(|(user, args)| (args, begin(user, args)));
            for (args, begun) in done {
                begun.join().unwrap().expect_ok(args);
            }
            for (args, row, begun) in listed {
                let ended = begun.join().unwrap();
                assert!(
                    ended.stderr.contains("(stale: cut off from the ring)"),
                    "{time} {args:?}: {ended:?}"
                );
                let rows = ended.expect_ok(args);
                assert!(rows.contains(row), "{args:?}: {rows}");
            }
            for (user, args, begun) in asked {
                let ended = begun.join().unwrap();
                let mut said = vec![NO_MAJORITY];
                // One that was stopped with it may do it yet.
                if user == "Bob" && time == "at first" {
                    said.push(UNKNOWN);
                }
                assert_eq!(ended.code, Some(UNREACHABLE), "{time} {args:?}: {ended:?}");
                assert!(said.contains(&error(&ended)), "{time} {args:?}: {ended:?}");
            }
        });
        ring.process(2).wait_until_said("1 of 3 trackers reachable");
        let ended = timed(&world, time, "Bob", &["login", "Bob", "pass123"]);
        let said = (ended.code, error(&ended));
        assert_eq!(said, (Some(UNREACHABLE), NO_MAJORITY), "{time}: {ended:?}");
    }
    for tracker in [0, 1] {
        ring.signal(tracker, Signal::CONT);
    }
    for tracker in 0..3 {
        ring.wait_until_whole_now(tracker);
    }
    let all: [(&str, &[&str]); 12] = [
        ("Bob", &["login", "Bob", "pass123"]),
        ("Bob", &["create_user", "Carol", "pass123"]),
        ("Alice", &["create_group", "new"]),
        ("Alice", &["list_requests", "h"]),
        ("Alice", &["reject_request", "h", "Bob"]),
        ("Bob", &["join_group", "h"]),
        ("Alice", &["accept_request", "h", "Bob"]),
        ("Alice", &["upload_file", "b.txt", "g"]),
        ("Bob", &["download_file", "g", "a.txt", "first"]),
        ("Bob", &["download_file", "g", "b.txt", "second"]),
        ("Alice", &["stop_sharing", "g", "a.txt"]),
        ("Bob", &["leave_group", "h"]),
    ];
    for (user, args) in all {
        timed(&world, "after", user, args).expect_ok(args);
    }
    for (user, args, row) in listings {
        let ended = timed(&world, "after", user, args);
        assert!(!ended.stderr.contains("stale"), "{args:?}: {ended:?}");
        let rows = ended.expect_ok(args);
        assert!(rows.contains(row), "{args:?}: {rows}");
    }
    assert!(same_content(&first, &world.work("first")));
    assert!(same_content(&second, &world.work("second")));
}

/// Runs a command of one of the identities to its end, and prints how long it took.
fn timed(world: &World, time: &str, user: &str, args: &[&str]) -> Finished {
    let began = Instant::now();
    let ended = world.run(&[args, &["--as", user][..]].concat());
    let took = began.elapsed().as_secs_f32();
    println!("{took:>8.3} s {time} {user} {args:?} {}", error(&ended));
    ended
}
