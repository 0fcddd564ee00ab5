//! Limits of what is sent and fetched: shown, set, kept, and changed under running transfers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use rustix::process::{Signal, kill_process};
use world::{Process, World, same_content};

const USAGE: i32 = 2;
const NOT_LOGGED_IN: i32 = 3;

#[test]
fn limits_are_shown_set_and_kept() {
    let world = World::new();
    assert_eq!(world.run(&["limit"]).code, Some(NOT_LOGGED_IN));
    world.users(&["Alice", "Bob"]);
    let none = "upload    none\ndownload  none\n";
    assert_eq!(world.ok_as("Alice", &["limit"]), none);
    let both = "upload    40.00 MB/s\ndownload  500.00 kB/s\n";
    let set = ["limit", "--upload", "40MB", "--download", "500KB"];
    assert_eq!(world.ok_as("Alice", &set), both);
    // They are of one identity, and of its next life too.
    assert_eq!(world.ok_as("Bob", &["limit"]), none);
    kill_process(world.peer_pid("Alice"), Signal::KILL).unwrap();
    assert_eq!(world.ok_as("Alice", &["limit"]), both);
    assert_eq!(
        world.ok_as("Alice", &["limit", "--upload", "0"]),
        "upload    none\ndownload  500.00 kB/s\n"
    );
    for (rate, why) in [
        (
            "fast",
            "a rate is a number and a unit, as 40MB, 500KB or 2MiB; 0 is none",
        ),
        ("1KB", "the lowest rate is 8.00 kB a second; 0 is none"),
    ] {
        let refused = world.run(&["limit", "--download", rate, "--as", "Alice"]);
        assert_eq!(refused.code, Some(USAGE));
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
    }
    assert_eq!(
        world.ok_as("Alice", &["limit"]),
        "upload    none\ndownload  500.00 kB/s\n"
    );
}

#[test]
fn a_limit_that_is_changed_holds_for_what_is_running() {
    let world = World::new();
    let file = world.write_file("film.mkv", 50_000_000);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    world.ok_as("Alice", &["upload_file", "film.mkv", "g"]);
    // At this rate the whole takes two hours, and a chunk a minute.
    world.ok_as("Alice", &["limit", "--upload", "8KB"]);
    let args = |copy: &'static str| ["download_file", "g", "film.mkv", copy, "--as", "Bob"];
    let mut download = Process::spawn(world.command(&args("one.mkv")));
    download.wait_for_error_line("downloading from 1 peer");
    world.ok_as("Alice", &["limit", "--upload", "0"]);
    download.wait().expect_ok(&args("one.mkv"));
    assert!(same_content(&file, &world.work("one.mkv")));
    world.ok_as("Bob", &["stop_sharing", "g", "film.mkv"]);
    // And so does one of what is fetched, which is said where the progress is shown.
    world.ok_as("Bob", &["limit", "--download", "8KB"]);
    let mut download = Process::spawn(world.command(&args("two.mkv")));
    let why = "the download limit of 8000 B/s has no room for the next chunk yet";
    let line = download.wait_for_error_line("downloading from 1 peer (");
    assert!(line.contains(why), "{line}");
    let shown = world.ok_as("Bob", &["show_downloads"]);
    assert!(shown.contains(&format!("downloading; {why}")), "{shown}");
    world.ok_as("Bob", &["limit", "--download", "0"]);
    download.wait().expect_ok(&args("two.mkv"));
    assert!(same_content(&file, &world.work("two.mkv")));
}
