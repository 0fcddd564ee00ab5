//! Whoever dies, or is put out, in the middle of a transfer: it goes on with who is left, or ends, and says why.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use std::path::Path;
use std::time::Instant;

use rustix::process::{Signal, kill_process};
use world::ring::Ring;
use world::{PATIENCE, Process, World, same_content};

const CHUNK: usize = 512 * 1024;
const DENIED: i32 = 4;
const UNREACHABLE: i32 = 6;

/// So little that whoever sends is in the middle of a chunk for a minute.
const SLOW: [&str; 3] = ["limit", "--upload", "8KB"];
const FAST: [&str; 3] = ["limit", "--upload", "0"];

/// Begins a command of a user, in a home of the user's own: there it brings back nobody else.
fn begin(world: &World, user: &str, args: &[&str]) -> Process {
    Process::spawn(world.command_at_home(user, args))
}

fn ok(world: &World, user: &str, args: &[&str]) -> String {
    begin(world, user, args).wait().expect_ok(args)
}

/// Makes accounts, logs them in, and has the first share a file in a group that is open.
fn share(world: &World, users: &[&str], chunks: usize) -> std::path::PathBuf {
    for user in users {
        ok(world, user, &["create_user", user, "pass123"]);
        ok(world, user, &["login", user, "pass123"]);
    }
    let file = world.write_file("film.mkv", chunks * CHUNK);
    ok(world, users[0], &["create_group", "g", "--open"]);
    ok(world, users[0], &["upload_file", "film.mkv", "g"]);
    file
}

fn kill(world: &World, user: &str) {
    let pid = world.lock_holder(user);
    kill_process(pid, Signal::KILL).unwrap();
    world.wait_until_gone(pid);
}

#[track_caller]
fn assert_completes(world: &World, mut download: Process, file: &Path, dest: &str) {
    let began = Instant::now();
    download.wait().expect_ok(&["download_file", dest]);
    println!("complete {:?} later", began.elapsed());
    assert!(same_content(file, &world.work(dest)));
}

#[test]
fn a_seeder_that_is_killed_is_missed_aloud_until_it_is_back() {
    let world = World::new();
    let file = share(&world, &["alice", "bob"], 20);
    ok(&world, "alice", &SLOW);
    let mut download = begin(&world, "bob", &["download_file", "g", "film.mkv", "copy"]);
    download.wait_for_error_line("downloading from 1 peer");
    kill(&world, "alice");
    download.wait_for_error_line("(nothing comes yet from the peer that was asked)");
    ok(&world, "alice", &FAST);
    assert_completes(&world, download, &file, "copy");
}

#[test]
fn the_only_one_left_suffices_when_all_others_are_killed_within_a_chunk() {
    let world = World::new();
    let holders = ["alice", "bob", "carol"];
    let file = share(&world, &[&holders[..], &["dora"]].concat(), 40);
    for user in &holders[1..] {
        // Whoever only reads an open group does not share in it.
        ok(&world, user, &["join_group", "g"]);
        let copy = format!("of-{user}");
        ok(&world, user, &["download_file", "g", "film.mkv", &copy]);
    }
    for user in holders {
        ok(&world, user, &SLOW);
    }
    let mut download = begin(&world, "dora", &["download_file", "g", "film.mkv", "copy"]);
    download.wait_for_error_line("downloading from 3 peers");
    for user in &holders[1..] {
        kill(&world, user);
    }
    ok(&world, "alice", &FAST);
    assert_completes(&world, download, &file, "copy");
}

#[test]
fn who_is_put_out_of_the_group_in_the_middle_is_told_so() {
    let world = World::new();
    world.users(&["Alice", "Bob"]);
    let file = world.write_file("film.mkv", 20 * CHUNK);
    world.ok_as("Alice", &["create_group", "g"]);
    world.ok_as("Alice", &["upload_file", "film.mkv", "g"]);
    let let_in = || {
        world.ok_as("Bob", &["join_group", "g"]);
        world.ok_as("Alice", &["accept_request", "g", "Bob"]);
    };
    let_in();
    world.ok_as("Alice", &SLOW);
    let args = [
        "download_file",
        "g",
        "film.mkv",
        "copy",
        "--wait",
        "--as=Bob",
    ];
    let mut download = Process::spawn(world.command(&args));
    download.wait_for_error_line("downloading from 1 peer");
    world.ok_as("Alice", &["remove_member", "g", "Bob"]);
    let ended = download.wait();
    assert_eq!(ended.code, Some(DENIED), "{ended:?}");
    assert!(
        ended.stderr.contains("\nerror: not a member of 'g'\n"),
        "{ended:?}"
    );
    let shown = world.ok_as("Bob", &["show_downloads"]);
    assert!(shown.contains("failed: not a member of 'g'"), "{shown}");
    // Let in again, he goes on.
    let_in();
    world.ok_as("Alice", &FAST);
    let download = Process::spawn(world.command(&args));
    assert_completes(&world, download, &file, "copy");
}

#[test]
fn a_transfer_needs_no_tracker_and_all_is_well_once_they_are_back() {
    let mut world = World::without_tracker();
    let mut ring = Ring::in_one_folder(&world.path("ring"), 3);
    world.addr = ring.from(0);
    ring.start_all();
    let file = share(&world, &["alice", "bob", "carol"], 60);
    ok(&world, "bob", &["join_group", "g"]);
    ok(&world, "alice", &SLOW);
    let mut download = begin(&world, "bob", &["download_file", "g", "film.mkv", "bobs"]);
    download.wait_for_error_line("downloading from 1 peer");
    for tracker in 0..3 {
        ring.end(tracker, Signal::KILL);
    }
    let nobody = begin(&world, "carol", &["list_files", "g"]).wait();
    assert_eq!(nobody.code, Some(UNREACHABLE), "{nobody:?}");
    // Not even a seeder that has to be found again.
    kill(&world, "alice");
    ok(&world, "alice", &FAST);
    assert_completes(&world, download, &file, "bobs");

    for tracker in 0..3 {
        ring.start(tracker);
    }
    for tracker in 0..3 {
        ring.wait_until_whole(tracker);
    }
    // Both say again what they have.
    let online = |holders: u8| {
        let online = format!("\n  holders online  {holders}\n");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = begin(&world, "carol", &["availability", "g", "film.mkv"]).wait();
            if shown.stdout.contains(&online) {
                return;
            }
            assert!(Instant::now() < deadline, "{shown:?}");
        }
    };
    online(2);
    // Bob keeps the file for the group, although no tracker could be told of it at the time.
    ok(&world, "alice", &["stop_sharing", "g", "film.mkv"]);
    online(1);
    let download = begin(
        &world,
        "carol",
        &["download_file", "g", "film.mkv", "carols"],
    );
    assert_completes(&world, download, &file, "carols");
}
