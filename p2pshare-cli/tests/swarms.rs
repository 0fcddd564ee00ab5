//! Files and groups over time: hand-over from one seeder to the next, leaving and coming back, the last one gone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use std::fs;
use std::time::Instant;

use rustix::process::{Signal, kill_process};
use world::{Process, World, same_content};

const UNREACHABLE: i32 = 6;
const INTERRUPTED: i32 = 130;

#[test]
fn who_downloaded_seeds_when_the_first_one_stops() {
    let world = World::new();
    let file = world.write_file("film.mkv", 5_000_000);
    world.users(&["Alice", "Bob", "Carol"]);
    world.ok_as("Alice", &["create_group", "films", "--open"]);
    world.ok_as("Alice", &["upload_file", "film.mkv", "films"]);
    world.ok_as("Bob", &["download_file", "films", "film.mkv", "bob.mkv"]);
    assert_eq!(
        world.ok_as("Alice", &["stop_sharing", "films", "film.mkv"]),
        "Stopped sharing film.mkv in 'films'\n"
    );
    // Shared in place, and not a byte of it touched.
    fs::rename(&file, world.work("moved.mkv")).unwrap();
    world.ok_as("Alice", &["logout"]);
    world.ok_as(
        "Carol",
        &["download_file", "films", "film.mkv", "carol.mkv"],
    );
    assert!(same_content(
        &world.work("moved.mkv"),
        &world.work("carol.mkv")
    ));
}

#[test]
fn the_entry_goes_with_the_last_who_shares_it() {
    let world = World::new();
    world.write_file("a.bin", 600_000);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    world.ok_as("Alice", &["upload_file", "a.bin", "g"]);
    world.ok_as("Bob", &["download_file", "g", "a.bin", "bob.bin"]);
    world.ok_as("Alice", &["stop_sharing", "g", "a.bin"]);
    assert!(world.ok(&["list_files", "g"]).contains("a.bin"));
    let last = world.ok_as("Bob", &["stop_sharing", "g", "a.bin"]);
    assert!(last.contains("Nobody shares it any more"), "{last}");
    assert_eq!(world.ok(&["list_files", "g"]), "No files in 'g'\n");
    world.refused(
        &["download_file", "g", "a.bin"],
        5,
        "file 'a.bin' not found in 'g'",
    );
    // The name is free again.
    world.ok_as("Bob", &["join_group", "g"]);
    world.ok_as("Bob", &["upload_file", "bob.bin", "g", "--name", "a.bin"]);
}

#[test]
fn the_uploader_and_the_owner_can_withdraw_a_file_for_all() {
    let world = World::new();
    world.write_file("a.bin", 600_000);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    world.ok_as("Bob", &["join_group", "g"]);
    world.ok_as("Bob", &["upload_file", "a.bin", "g"]);
    world.ok_as("Alice", &["download_file", "g", "a.bin", "alice.bin"]);
    world.ok_as("Alice", &["stop_sharing", "g", "a.bin", "--for-all"]);
    assert_eq!(world.ok(&["list_files", "g"]), "No files in 'g'\n");
    assert!(world.work("a.bin").exists() && world.work("alice.bin").exists());
}

#[test]
fn an_offline_seeder_is_offline_and_not_gone() {
    let world = World::new();
    let file = world.write_file("a.bin", 600_000);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    world.ok_as("Alice", &["upload_file", "a.bin", "g"]);
    world.ok_as("Alice", &["logout"]);
    let files = world.ok(&["list_files", "g"]);
    assert!(files.lines().nth(1).unwrap().contains(" 0 "), "{files}");
    let nobody = world.run(&["download_file", "g", "a.bin", "b.bin"]);
    assert_eq!(nobody.code, Some(UNREACHABLE));
    assert!(
        nobody.stderr.contains("error: no peers online for 'a.bin'"),
        "{}",
        nobody.stderr
    );
    assert!(nobody.stderr.contains("--wait"), "{}", nobody.stderr);
    // Waiting, which is shown, it comes once the seeder is back, who still shares it.
    let mut waiting = Process::spawn(world.command(&[
        "download_file",
        "g",
        "a.bin",
        "b.bin",
        "--wait",
        "--as",
        "Bob",
    ]));
    waiting.wait_for_error_line("waiting for peers");
    // And why, as soon as that has lasted.
    waiting.wait_for_error_line("waiting for peers (nobody who has it is online)");
    let status = world.ok_as("Bob", &["status"]);
    assert!(
        status.contains(
            "\n    a.bin of 'g': waiting for peers; nobody who has it is online, 0 % of 600.00 kB"
        ),
        "{status}"
    );
    world.ok(&["login", "Alice", "pass123"]);
    waiting.wait().expect_ok(&["download_file", "--wait"]);
    assert!(same_content(&file, &world.work("b.bin")));
}

#[test]
fn ctrl_c_cancels_a_download() {
    let world = World::new();
    world.write_file("a.bin", 600_000);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    world.ok_as("Alice", &["upload_file", "a.bin", "g"]);
    world.ok_as("Alice", &["logout"]);
    let mut waiting = Process::spawn(world.command(&[
        "download_file",
        "g",
        "a.bin",
        "b.bin",
        "--wait",
        "--as",
        "Bob",
    ]));
    waiting.wait_for_error_line("waiting for peers");
    waiting.signal(Signal::INT);
    let finished = waiting.wait();
    assert_eq!(finished.code, Some(INTERRUPTED), "{}", finished.stderr);
    assert!(
        finished
            .stderr
            .contains("error: the download was cancelled"),
        "{}",
        finished.stderr
    );
    assert!(!world.work("b.bin").exists());
    // The background peer is none the worse for it.
    world.ok(&["login", "Alice", "pass123"]);
    world.ok_as("Bob", &["download_file", "g", "a.bin", "b.bin"]);
}

#[test]
fn a_download_ends_with_its_command_or_its_background_peer() {
    let world = World::new();
    world.write_file("a.bin", 600_000);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    world.ok_as("Alice", &["upload_file", "a.bin", "g"]);
    world.ok_as("Alice", &["logout"]);
    let args = [
        "download_file",
        "g",
        "a.bin",
        "b.bin",
        "--wait",
        "--as",
        "Bob",
    ];
    let mut command = Process::spawn(world.command(&args));
    command.wait_for_error_line("waiting for peers");
    command.signal(Signal::KILL);
    command.wait();
    let deadline = Instant::now() + world::PATIENCE;
    while !world.ok_as("Bob", &["show_downloads"]).contains("stopped") {
        assert!(Instant::now() < deadline, "it goes on without its command");
    }
    let mut command = Process::spawn(world.command(&args));
    command.wait_for_error_line("waiting for peers");
    kill_process(world.peer_pid("Bob"), Signal::TERM).unwrap();
    let finished = command.wait();
    assert_eq!(finished.code, Some(1));
    assert!(
        finished
            .stderr
            .contains("error: the background peer was stopped"),
        "{}",
        finished.stderr
    );
    // It is shown after the restart, too.
    assert!(world.ok_as("Bob", &["show_downloads"]).contains("stopped"));
}

#[test]
fn a_download_goes_on_where_it_was_killed() {
    let world = World::new();
    let file = world.write_file("film.mkv", 300_000_000);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    world.ok_as("Alice", &["upload_file", "film.mkv", "g"]);
    // Where the machine is so fast that the download is complete before it is seen at work, it is tried again.
    for attempt in 0..10 {
        let copy = format!("copy{attempt}.mkv");
        let args = ["download_file", "g", "film.mkv", &copy, "--as", "Bob"];
        let bob = world.peer_pid("Bob");
        let mut download = Process::spawn(world.command(&args));
        let shown = loop {
            let shown = world.ok_as("Bob", &["show_downloads"]);
            match shown.lines().find(|line| line.contains(&copy)) {
                Some(line) if !line.contains(" 0 %") => break line.to_owned(),
                _ => {}
            }
        };
        if shown.contains("complete") {
            download.wait().expect_ok(&args);
            world.ok_as("Bob", &["stop_sharing", "g", "film.mkv"]);
            continue;
        }
        kill_process(bob, Signal::KILL).unwrap();
        assert_eq!(download.wait().code, Some(1));
        let resumed = world.ok(&args);
        let line = resumed
            .lines()
            .find(|line| line.contains("resumed: skipped "));
        assert!(
            line.is_some_and(|line| line.ends_with(" of 573 chunks already verified")),
            "{resumed}"
        );
        assert!(same_content(&file, &world.work(&copy)));
        return;
    }
    panic!("no download was seen at work");
}

#[test]
fn one_who_leaves_is_out_until_accepted_again() {
    let world = World::new();
    world.write_file("a.bin", 600_000);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g"]);
    world.ok_as("Alice", &["upload_file", "a.bin", "g"]);
    for copy in ["first.bin", "second.bin"] {
        world.ok_as("Bob", &["join_group", "g"]);
        world.ok_as("Alice", &["accept_request", "g", "Bob"]);
        world.ok_as("Bob", &["download_file", "g", "a.bin", copy]);
        assert_eq!(world.ok_as("Bob", &["leave_group", "g"]), "Left 'g'\n");
        world.refused(
            &["list_files", "g", "--as", "Bob"],
            4,
            "not a member of 'g'",
        );
        world.refused(
            &["download_file", "g", "a.bin", "x", "--as", "Bob"],
            4,
            "not a member of 'g'",
        );
    }
}

#[test]
fn a_file_that_changed_is_served_no_longer() {
    let world = World::new();
    let file = world.write_file("a.bin", 600_000);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    world.ok_as("Alice", &["upload_file", "a.bin", "g"]);
    fs::write(&file, "something else").unwrap();
    let refused = world.run(&["download_file", "g", "a.bin", "b.bin", "--as", "Bob"]);
    assert_eq!(refused.code, Some(UNREACHABLE), "{}", refused.stderr);
    assert!(!world.work("b.bin").exists());
}

#[test]
fn a_peer_that_sends_a_bad_chunk_is_dropped_and_shown() {
    let world = World::new();
    let file = world.write_file("film.mkv", 60_000_000);
    let good = fs::read(&file).unwrap();
    world.users(&["Alice", "Bob", "Carol"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    world.ok_as("Alice", &["upload_file", "film.mkv", "g"]);
    world.ok_as("Bob", &["join_group", "g"]);
    world.ok_as("Bob", &["download_file", "g", "film.mkv", "bob.mkv"]);
    // A disk that lies: every chunk is wrong, and nothing says so.
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    let mut bad = good.clone();
    bad.iter_mut()
        .step_by(512 * 1024)
        .for_each(|byte| *byte ^= 1);
    fs::write(&file, &bad).unwrap();
    let opened = fs::File::options().write(true).open(&file).unwrap();
    opened.set_modified(modified).unwrap();
    world.ok_as("Carol", &["download_file", "g", "film.mkv", "carol.mkv"]);
    assert!(fs::read(world.work("carol.mkv")).unwrap() == good);
    let shown = world.ok_as("Carol", &["show_downloads"]);
    let left = shown.lines().find(|line| line.contains("left peer "));
    let left = left.unwrap_or_else(|| panic!("nobody was dropped: {shown}"));
    assert!(left.starts_with("film.mkv of 'g': left peer "), "{left}");
    assert!(left.contains("…: it sent a bad chunk "), "{left}");
}
