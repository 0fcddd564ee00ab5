//! `verify`: what is right is said to be, what is wrong is found, served no longer, and put right from others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::process::{Signal, kill_process};
use world::{Process, World, same_content};

const FAILED: i32 = 1;
const NOT_FOUND: i32 = 5;
const UNREACHABLE: i32 = 6;
const INTEGRITY: i32 = 7;
const CHUNK: u64 = 512 * 1024;
const RIGHT: &str = "verified: 7 of 7 chunks, SHA-256 ok\n";

/// Alice shares a file of seven chunks with an open group, and Bob has it as `bob.bin`.
fn world() -> World {
    let world = World::new();
    world.write_file("a.bin", 3_500_000);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    world.ok_as("Alice", &["upload_file", "a.bin", "g"]);
    world.ok_as("Bob", &["download_file", "g", "a.bin", "bob.bin"]);
    world
}

/// Changes one byte in each of these chunks, and leaves the time of the last modification as it was: what a disk
/// does when it rots.
fn rot(path: &Path, chunks: &[u64]) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    for chunk in chunks {
        let mut byte = [0];
        file.read_exact_at(&mut byte, chunk * CHUNK + 100).unwrap();
        file.write_all_at(&[!byte[0]], chunk * CHUNK + 100).unwrap();
    }
    file.set_modified(modified).unwrap();
}

fn holders_online(world: &World) -> String {
    let files = world.ok(&["list_files", "g"]);
    let row = files.lines().nth(1).unwrap();
    row.split_whitespace().nth(4).unwrap().to_owned()
}

#[test]
fn bad_chunks_are_found_served_no_longer_and_put_right() {
    let world = world();
    let (source, copy) = (world.work("a.bin"), world.work("bob.bin"));
    for user in ["Alice", "Bob"] {
        assert_eq!(world.ok_as(user, &["verify", "g", "a.bin"]), RIGHT);
    }
    assert_eq!(holders_online(&world), "2");
    rot(&copy, &[1, 4, 5]);
    let damaged = fs::read(&copy).unwrap();
    let verify = ["verify", "g", "a.bin", "--as", "Bob"];
    let message = "'a.bin' is damaged: 3 of 7 chunks are bad: 1, 4-5";
    world.refused(&verify, INTEGRITY, message);
    let shown = world.ok_as("Bob", &["show_downloads"]);
    assert!(shown.contains("changed on disk, not shared"), "{shown}");
    let status = world.ok_as("Bob", &["status"]);
    assert!(
        status.contains("files shared   1, of which 1 not as recorded"),
        "{status}"
    );
    assert_eq!(holders_online(&world), "1");
    // The next life of the peer knows it too, though the file looks as it always did.
    let bob = world.peer_pid("Bob");
    kill_process(bob, Signal::KILL).unwrap();
    world.wait_until_gone(bob);
    let shown = world.ok_as("Bob", &["show_downloads"]);
    assert!(shown.contains("changed on disk, not shared"), "{shown}");
    assert_eq!(holders_online(&world), "1");
    assert_eq!(fs::read(&copy).unwrap(), damaged, "nothing was touched");

    let repaired = world.ok(&[&verify[..], &["--repair"]].concat());
    let expected = "  repaired; it was damaged: 3 of 7 chunks are bad: 1, 4-5\n";
    assert_eq!(repaired, format!("{RIGHT}{expected}"));
    assert!(same_content(&source, &copy));
    assert_eq!(holders_online(&world), "2");
    assert_eq!(world.ok(&verify), RIGHT);
    // It is served again, and the owner's own copy is put right from there.
    rot(&source, &[0]);
    let repair = ["verify", "g", "a.bin", "--repair", "--as", "Alice"];
    let repaired = world.ok(&repair);
    assert!(repaired.contains("1 of 7 chunks is bad: 0"), "{repaired}");
    assert!(same_content(&source, &copy));
}

#[test]
fn a_file_that_was_written_to_gets_its_published_content_back() {
    let world = world();
    let (source, copy) = (world.work("a.bin"), world.work("bob.bin"));
    let verify = ["verify", "g", "a.bin", "--as", "Alice"];
    let repair = [&verify[..], &["--repair"]].concat();
    let open = || File::options().write(true).open(&source).unwrap();
    let cases: [(&str, &dyn Fn()); 4] = [
        (
            "500000 bytes too short, 2 of 7 chunks are bad: 5-6",
            &|| {
                open().set_len(3_000_000).unwrap();
            },
        ),
        ("9 bytes too long, 1 of 7 chunks is bad: 6", &|| {
            open().write_all_at(b"and so on!", 3_499_999).unwrap();
        }),
        ("there is no file any more", &|| {
            fs::remove_file(&source).unwrap();
        }),
        (
            "3500000 bytes too short, 7 of 7 chunks are bad: 0-6",
            &|| {
                fs::write(&source, "").unwrap();
            },
        ),
    ];
    for (damage, harm) in cases {
        harm();
        let message = format!("'a.bin' is damaged: {damage}");
        world.refused(&verify, INTEGRITY, &message);
        assert!(world.ok(&repair).starts_with(RIGHT), "{damage}");
        assert!(same_content(&source, &copy), "{damage}");
    }
    // What only looks changed is served again once it was read.
    File::open(&source)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    world.ok_as("Bob", &["stop_sharing", "g", "a.bin"]);
    let args = ["download_file", "g", "a.bin", "again.bin", "--as", "Bob"];
    assert_eq!(world.run(&args).code, Some(UNREACHABLE));
    assert_eq!(world.ok(&verify), RIGHT);
    world.ok(&args);
    assert!(same_content(&source, &world.work("again.bin")));
}

#[test]
fn without_anybody_to_fetch_from_nothing_is_touched() {
    let world = world();
    world.ok_as("Alice", &["logout"]);
    let copy = world.work("bob.bin");
    // What is too long is cut off without anybody.
    let mut longer = File::options().append(true).open(&copy).unwrap();
    longer.write_all(b"12345").unwrap();
    let repaired = world.ok(&["verify", "g", "a.bin", "--repair"]);
    assert!(
        repaired.contains("damaged: 5 bytes too long\n"),
        "{repaired}"
    );
    assert!(same_content(&world.work("a.bin"), &copy));
    rot(&copy, &[6]);
    let damaged = fs::read(&copy).unwrap();
    let refused = world.run(&["verify", "g", "a.bin", "--repair"]);
    assert_eq!(refused.code, Some(UNREACHABLE), "{}", refused.stderr);
    let error = "error: no peers online for 'a.bin'";
    assert!(refused.stderr.contains(error), "{}", refused.stderr);
    assert_eq!(refused.stdout, "");
    assert_eq!(fs::read(&copy).unwrap(), damaged);
    // A file that another name leads to is not written to either.
    fs::hard_link(&copy, world.work("other name")).unwrap();
    world.ok(&["login", "Alice", "pass123"]);
    let refused = world.run(&["verify", "g", "a.bin", "--repair", "--as", "Bob"]);
    assert_eq!(refused.code, Some(FAILED), "{}", refused.stderr);
    assert!(
        refused
            .stderr
            .contains("not a plain file of this user alone"),
        "{}",
        refused.stderr
    );
    assert_eq!(fs::read(&copy).unwrap(), damaged);
}

#[test]
fn only_what_is_here_can_be_verified() {
    let world = world();
    world.users(&["Carol"]);
    let of = |name| ["verify", "g", name, "--as", "Carol"];
    let nothing = |name| format!("'{name}' in 'g' is not downloaded or shared here");
    world.refused(&of("a.bin"), NOT_FOUND, &nothing("a.bin"));
    world.refused(&of("b.bin"), NOT_FOUND, &nothing("b.bin"));
    let nowhere = ["verify", "nowhere", "x", "--as", "Carol"];
    let message = "'x' in 'nowhere' is not downloaded or shared here";
    world.refused(&nowhere, NOT_FOUND, message);
    // A download that waits for a peer has begun, and is not complete.
    for user in ["Alice", "Bob"] {
        world.ok_as(user, &["logout"]);
    }
    let args = ["download_file", "g", "a.bin", "c.bin", "--wait"];
    let mut waiting = Process::spawn(world.command(&args));
    waiting.wait_for_error_line("waiting for peers");
    let message = "the download of 'a.bin' in 'g' is not complete";
    world.refused(&of("a.bin"), FAILED, message);
    waiting.signal(Signal::INT);
    waiting.wait();
    world.refused(&of("a.bin"), FAILED, message);
    // A copy that is not shared any more is as good as any.
    world.ok(&["login", "Alice", "pass123"]);
    world.ok(&[&args[..], &["--as", "Carol"]].concat());
    world.ok_as("Carol", &["stop_sharing", "g", "a.bin"]);
    assert_eq!(world.ok(&of("a.bin")), RIGHT);
    rot(&world.work("c.bin"), &[3]);
    let found = world.run(&of("a.bin"));
    assert_eq!(found.code, Some(INTEGRITY), "{}", found.stderr);
    let repaired = world.ok(&[&of("a.bin")[..], &["--repair"]].concat());
    assert!(repaired.starts_with(RIGHT), "{repaired}");
    assert!(same_content(&world.work("a.bin"), &world.work("c.bin")));
    assert_eq!(holders_online(&world), "1");
    world.ok_as("Carol", &["logout"]);
    world.refused(
        &["verify", "g", "a.bin", "--as", "Carol"],
        3,
        "not logged in as Carol",
    );
}

#[test]
fn a_repair_that_was_killed_is_gone_on_with() {
    let world = World::new();
    let source = world.write_file("film.mkv", 200 * CHUNK as usize);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    world.ok_as("Alice", &["upload_file", "film.mkv", "g"]);
    world.ok_as("Bob", &["download_file", "g", "film.mkv", "bob.mkv"]);
    let copy = world.work("bob.mkv");
    let verify = ["verify", "g", "film.mkv", "--as", "Bob"];
    let repair = [&verify[..], &["--repair"]].concat();
    for how in [Signal::KILL, Signal::INT] {
        let file = File::options().write(true).open(&copy).unwrap();
        file.set_len(CHUNK / 2).unwrap();
        let bob = world.peer_pid("Bob");
        let mut running = Process::spawn(world.command(&repair));
        running.wait_for_error_line("downloading from 1 peer");
        match how {
            Signal::KILL => kill_process(bob, how).unwrap(),
            _ => running.signal(how),
        }
        let ended = running.wait();
        // On a fast machine it may have come to its end before.
        let expected = if how == Signal::KILL { FAILED } else { 130 };
        assert!([Some(expected), Some(0)].contains(&ended.code), "{ended:?}");
        let after = world.run(&verify);
        assert!(
            [Some(INTEGRITY), Some(0)].contains(&after.code),
            "{after:?}"
        );
        let repaired = world.ok(&repair);
        let right = "verified: 200 of 200 chunks, SHA-256 ok\n";
        assert!(repaired.starts_with(right), "{repaired}");
        assert!(same_content(&source, &copy));
    }
    world.ok_as("Alice", &["logout"]);
    world.users(&["Carol"]);
    world.ok(&["download_file", "g", "film.mkv", "carol.mkv"]);
    assert!(same_content(&source, &world.work("carol.mkv")));
}
