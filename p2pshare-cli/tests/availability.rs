//! `availability`: what those who are online have of a file, seen before anything of it is fetched.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use std::fs;
use std::time::{Duration, Instant};

use world::{Process, World};

/// How often a peer says again what it has.
const RENEWAL: Duration = Duration::from_secs(20);

const NOT_LOGGED_IN: i32 = 3;
const DENIED: i32 = 4;
const NOT_FOUND: i32 = 5;

/// What is shown of a file, line by line.
fn shown(world: &World, args: &[&str]) -> Vec<String> {
    let text = world.ok(&[&["availability"], args].concat());
    text.lines().map(str::to_owned).collect()
}

#[test]
fn holders_come_and_go() {
    let mut world = World::new();
    world.write_file("film.mkv", 5_000_000);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "films", "--open"]);
    world.ok_as("Alice", &["upload_file", "film.mkv", "films"]);
    let of_one = [
        "film.mkv in 'films'",
        "  holders online  1",
        "  whole copies    1",
        "  chunks          10",
        "  [1111111111]",
        "   0 nobody, 1 to 9 holders, + more",
        "  10 chunks with 1 holder",
    ];
    for user in ["Alice", "Bob"] {
        assert_eq!(shown(&world, &["films", "film.mkv", "--as", user]), of_one);
    }
    world.ok_as("Bob", &["join_group", "films"]);
    world.ok_as("Bob", &["download_file", "films", "film.mkv", "bob.mkv"]);
    let of_two = shown(&world, &["films", "film.mkv"]);
    assert_eq!(of_two[1..3], ["  holders online  2", "  whole copies    2"]);
    assert_eq!(of_two.last().unwrap(), "  10 chunks with 2 holders");
    world.ok_as("Alice", &["logout"]);
    assert_eq!(shown(&world, &["films", "film.mkv", "--as", "Bob"]), of_one);
    // What a tracker forgets when it is killed it hears again, within one renewal of what it says.
    world.kill_tracker();
    world.start_tracker();
    let restarted = Instant::now();
    while shown(&world, &["films", "film.mkv", "--as", "Bob"]) != of_one {
        assert!(restarted.elapsed() < RENEWAL, "the tracker does not know");
    }
}

#[test]
fn a_part_that_nobody_has_is_shown() {
    let world = World::new();
    let file = world.write_file("film.mkv", 60_000_000);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    world.ok_as("Alice", &["upload_file", "film.mkv", "g"]);
    // A disk that lies, in one chunk: whoever meets it there leaves Alice, and has what came before.
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    let mut bad = fs::read(&file).unwrap();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&file, &bad).unwrap();
    let opened = fs::File::options().write(true).open(&file).unwrap();
    opened.set_modified(modified).unwrap();
    let args = ["download_file", "g", "film.mkv", "b", "--wait", "--as=Bob"];
    let deadline = Instant::now() + world::PATIENCE;
    let (_waiting, lines) = loop {
        // It may be the first chunk that is asked for; then it is tried again.
        let waiting = Process::spawn(world.command(&args));
        while !world
            .ok_as("Bob", &["show_downloads"])
            .contains("left peer")
        {
            assert!(Instant::now() < deadline, "nobody is left");
        }
        if fs::metadata(world.work("b.p2part")).unwrap().len() == 0 {
            continue;
        }
        world.ok_as("Alice", &["logout"]);
        break loop {
            let lines = shown(&world, &["g", "film.mkv", "--as=Bob"]);
            if lines[1] == "  holders online  1, of which 1 with a part" {
                break (waiting, lines);
            }
            assert!(Instant::now() < deadline, "{lines:#?}");
        };
    };
    assert_eq!(
        lines[2..4],
        ["  whole copies    0", "  chunks          115"]
    );
    let bar = lines[4].trim();
    assert!(bar.starts_with('[') && bar.ends_with("0]"), "{bar}");
    assert!(bar.len() == 78, "{bar}");
    let nobody = lines.iter().find(|line| line.contains(" with nobody: "));
    assert!(
        nobody.is_some_and(|line| line.ends_with("114")),
        "{lines:#?}"
    );
    let last = lines.last().unwrap();
    assert_eq!(last, "  the file cannot be completed now");
}

#[test]
fn who_may_not_list_a_file_hears_nothing_of_it() {
    let world = World::new();
    world.write_file("a.bin", 1);
    let refused = |args: &[&str], code, message: &str| {
        world.refused(&[&["availability"], args].concat(), code, message);
    };
    refused(&["g", "a.bin"], NOT_LOGGED_IN, "not logged in");
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g"]);
    world.ok_as("Alice", &["upload_file", "a.bin", "g"]);
    let of_alice = shown(&world, &["g", "a.bin", "--as=Alice"]);
    assert!(of_alice.contains(&"  1 chunk with 1 holder".to_owned()));
    refused(&["g", "a.bin", "--as=Bob"], DENIED, "not a member of 'g'");
    refused(&["x", "a.bin"], NOT_FOUND, "group 'x' not found");
    let missing = "file 'b.bin' not found in 'g'";
    refused(&["g", "b.bin", "--as=Alice"], NOT_FOUND, missing);
}
