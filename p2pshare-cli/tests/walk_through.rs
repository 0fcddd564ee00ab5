//! The walk-through of the README, as it is written: from nothing to "Bob has Alice's file".

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use std::fs;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};
use world::ring::free_addrs;
use world::{Process, World, same_content, tracker_binary};

#[test]
fn the_walk_through_of_the_readme_works_as_written() {
    let world = World::new();
    world.write_file("alice.txt", 3_000_000);
    let block = block_below("## Walk-through");
    assert!(block.contains("p2pshare-tracker &\n"), "{block}");
    let elsewhere = block.replace("p2pshare-tracker &\n", "");
    let stdout = run(&world, block, elsewhere);
    let said = [
        "User created: Alice",
        "Logged in as Alice",
        "Peer server 127.0.0.1:",
        "Group 'testgroup' created (owner: Alice, members only)",
        "Uploaded alice.txt to 'testgroup'",
        "Logged in as Bob",
        "Join request sent to 'testgroup'; Alice has to accept it",
        "Accepted Bob into 'testgroup'",
        "Download complete: downloaded_alice.txt",
        "file id verified",
    ];
    for text in said {
        assert!(stdout.contains(text), "{text:?} is missing in\n{stdout}");
    }
    assert!(same_content(
        &world.work("alice.txt"),
        &world.work("downloaded_alice.txt")
    ));
}

#[test]
fn the_three_trackers_of_the_readme_work_as_written() {
    let mut world = World::without_tracker();
    let block = block_below("## Three trackers");
    let mut elsewhere = "trap 'kill -9 $(jobs -p)' EXIT\n".to_owned() + &block;
    let addrs = free_addrs(3);
    for (number, addr) in addrs.iter().enumerate() {
        elsewhere = elsewhere.replace(&format!("127.0.0.1:{}", 9000 + number), addr);
    }
    world.addr = "tracker_info.txt".to_owned();
    let stdout = run(&world, block, elsewhere);
    for text in [
        "to found the ring\n",
        ": 3 of 3 trackers reachable\n",
        "User created: Carol",
        "Logged in as Carol",
        "Group 'ringgroup' created",
        "Group 'another' created",
        "User created: Dan",
        "Logged in as Dan",
        "ringgroup  Carol",
        "another    Carol",
        " trackers reachable, epoch 1\n",
    ] {
        assert!(stdout.contains(text), "{text:?} is missing in\n{stdout}");
    }
}

/// Runs a block of the README: as it is, in a network of its own, so that its ports are free, and in a process
/// namespace, so that what it leaves in the background ends with it. Where the machine has none of that, `elsewhere`.
fn run(world: &World, block: String, elsewhere: String) -> String {
    let mut script = block;
    let mut command = if can_isolate() {
        script = format!("ip link set lo up\n{script}");
        let mut command = Command::new("unshare");
        command.args([
            "--map-root-user",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-e",
            "-c",
            &script,
        ]);
        command
    } else {
        script = elsewhere;
        let mut command = Command::new("sh");
        command
            .args(["-e", "-c", &script])
            .env("P2PSHARE_TRACKERS", &world.addr);
        command
    };
    let binaries = tracker_binary().parent().unwrap().display().to_string();
    command
        .current_dir(world.path("work"))
        .env("HOME", world.path("home"))
        .env(
            "PATH",
            format!("{binaries}:{}", std::env::var("PATH").unwrap()),
        )
        .env("TMPDIR", world.path("tmp"))
        .env_remove("XDG_DATA_HOME")
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("P2PSHARE_HOME");
    Process::spawn(command).wait().expect_ok(&[script])
}

#[test]
fn each_step_says_what_it_did() {
    let world = World::new();
    let file = world.write_file("alice.txt", 1_200_000);
    assert_eq!(
        world.ok(&["create_user", "Alice", "pass123"]),
        "User created: Alice\n"
    );
    let login = world.ok(&["login", "Alice", "pass123"]);
    let lines: Vec<_> = login.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "Logged in as Alice".to_owned(),
            format!("Tracker {} ok", world.addr)
        ]
    );
    assert!(
        lines[2].starts_with("Peer server 127.0.0.1:") && lines[2].contains(" (pid "),
        "{login}"
    );
    assert_eq!(lines.len(), 3);
    assert_eq!(world.ok(&["list_groups"]), "No groups yet\n");
    assert_eq!(
        world.ok(&["create_group", "testgroup"]),
        "Group 'testgroup' created (owner: Alice, members only)\n"
    );
    assert_eq!(
        world.ok(&["list_files", "testgroup"]),
        "No files in 'testgroup'\n"
    );
    assert_eq!(world.ok(&["show_downloads"]), "No downloads yet\n");
    let uploaded = world.ok(&["upload_file", "alice.txt", "testgroup"]);
    assert!(
        uploaded.starts_with("Uploaded alice.txt to 'testgroup'\n"),
        "{uploaded}"
    );
    let sha256 = sha256sum(&file);
    for text in ["1200000 bytes", "chunks    3\n", &sha256, "p2pshare:"] {
        assert!(
            uploaded.contains(text),
            "{text:?} is missing in\n{uploaded}"
        );
    }

    world.users(&["Bob"]);
    let groups = world.ok(&["list-groups"]);
    let row: Vec<_> = groups.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["testgroup", "Alice", "members", "1"]);
    assert_eq!(
        world.ok(&["join_group", "testgroup"]),
        "Join request sent to 'testgroup'; Alice has to accept it\n"
    );
    assert!(
        world
            .ok(&["join_group", "testgroup"])
            .contains("already pending")
    );
    assert_eq!(
        world.ok_as("Alice", &["list_requests", "testgroup"]),
        "Bob\n"
    );
    assert_eq!(
        world.ok_as("Alice", &["accept_request", "testgroup", "Bob"]),
        "Accepted Bob into 'testgroup'\n"
    );
    assert_eq!(
        world.ok_as("Alice", &["list_requests", "testgroup"]),
        "No pending requests\n"
    );
    let files = world.ok(&["list_files", "testgroup"]);
    let row: Vec<_> = files.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        row,
        ["alice.txt", "1.20", "MB", "Alice", "1", &sha256[..16]]
    );
    let downloaded = world.ok(&[
        "download_file",
        "testgroup",
        "alice.txt",
        "copy.txt",
        "--sha256",
    ]);
    assert!(
        downloaded.starts_with("Download complete: copy.txt\n  1200000 bytes, "),
        "{downloaded}"
    );
    assert!(
        downloaded.ends_with("  file id verified\n  SHA-256 verified\n"),
        "{downloaded}"
    );
    assert!(same_content(&file, &world.work("copy.txt")));
    let transfers = world.ok(&["show_downloads"]);
    assert!(
        transfers.contains("alice.txt") && transfers.contains("100 %"),
        "{transfers}"
    );
    assert!(
        transfers.contains(&world.work("copy.txt").display().to_string()),
        "{transfers}"
    );
}

#[test]
fn an_open_group_needs_no_joining() {
    let world = World::new();
    let file = world.write_file("song.ogg", 700_000);
    world.users(&["Alice"]);
    assert_eq!(
        world.ok(&["create_group", "music", "--open"]),
        "Group 'music' created (owner: Alice, open to everybody)\n"
    );
    world.ok(&["upload_file", "song.ogg", "music"]);
    world.users(&["Bob"]);
    assert!(world.ok(&["list_files", "music"]).contains("song.ogg"));
    world.ok(&["download_file", "music", "song.ogg", "copy.ogg"]);
    assert!(same_content(&file, &world.work("copy.ogg")));
    assert_eq!(
        world.ok(&["join_group", "music"]),
        "Bob is a member of 'music' now\n"
    );
    world.refused(&["join_group", "music"], 1, "already a member of 'music'");
}

/// The first block of the README below a heading.
fn block_below(heading: &str) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let (_, rest) = readme.split_once(heading).expect("the README has it");
    let (_, rest) = rest.split_once("```sh\n").expect("it is a block of sh");
    let (block, _) = rest.split_once("```").expect("the block ends");
    block.to_owned()
}

/// Whether this machine lets a test have a network of its own.
fn can_isolate() -> bool {
    let probe = [
        "--map-root-user",
        "--net",
        "--pid",
        "--fork",
        "sh",
        "-c",
        "ip link set lo up",
    ];
    let probed = Command::new("unshare").args(probe).output();
    probed.is_ok_and(|output| output.status.success())
}

fn sha256sum(path: &Path) -> String {
    Sha256::digest(fs::read(path).unwrap())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
