//! What is refused, in which words and with which exit code. Scripts rely on both.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use world::{Process, World};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOT_LOGGED_IN: i32 = 3;
const DENIED: i32 = 4;
const NOT_FOUND: i32 = 5;
const UNREACHABLE: i32 = 6;

#[test]
fn accounts() {
    let world = World::new();
    world.ok(&["create_user", "Alice", "pass123"]);
    world.refused(
        &["create_user", "Alice", "other"],
        FAILED,
        "user 'Alice' already exists",
    );
    world.refused(
        &["create_user", "alice", "other"],
        FAILED,
        "user 'alice' already exists",
    );
    for args in [
        ["create_user", "a b", "pass123"],
        ["create_user", ".a", "pass123"],
        ["login", "a/b", "pass123"],
    ] {
        let finished = world.run(&args);
        assert_eq!(finished.code, Some(USAGE), "{}", finished.stderr);
        assert!(
            finished.stderr.starts_with("error: "),
            "{}",
            finished.stderr
        );
    }
    let short = world.run(&["create_user", "Carol", "abc"]);
    assert_eq!(short.code, Some(FAILED));
    assert!(
        short.stderr.contains("error: a password has 4 to "),
        "{}",
        short.stderr
    );
    world.ok(&["create_user", "Carol", "abcd"]);
}

#[test]
fn a_failed_login_leaves_nothing_behind() {
    let world = World::new();
    world.ok(&["create_user", "Alice", "pass123"]);
    world.refused(&["login", "Alice", "wrong"], DENIED, "invalid credentials");
    world.refused(
        &["login", "Nobody", "pass123"],
        DENIED,
        "invalid credentials",
    );
    assert!(world.identity_folders().is_empty());
    assert_eq!(
        fs::read_dir(world.path("home"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().is_dir())
            .count(),
        0
    );
    assert_eq!(world.ok(&["status"]), "Not logged in\n");
    // One that is logged in stays so, and stays the current one.
    world.ok(&["login", "Alice", "pass123"]);
    let pid = world.peer_pid("Alice");
    world.refused(&["login", "Alice", "wrong"], DENIED, "invalid credentials");
    assert!(world.ok(&["status"]).starts_with("Logged in as Alice\n"));
    assert_eq!(world.peer_pid("Alice"), pid);
}

#[test]
fn without_a_login_there_is_little_to_do() {
    let world = World::new();
    let file = world.write_file("a.txt", 10);
    let commands: [&[&str]; 13] = [
        &["logout"],
        &["create_group", "g"],
        &["list_groups"],
        &["join_group", "g"],
        &["list_requests", "g"],
        &["accept_request", "g", "bob"],
        &["reject_request", "g", "bob"],
        &["leave_group", "g"],
        &["remove_member", "g", "bob"],
        &["transfer_group", "g", "bob"],
        &["upload_file", file.to_str().unwrap(), "g"],
        &["list_files", "g"],
        &["stop_sharing", "g", "f"],
    ];
    for args in commands {
        world.refused(args, NOT_LOGGED_IN, "not logged in");
    }
    world.refused(&["download_file", "g", "f"], NOT_LOGGED_IN, "not logged in");
    assert_eq!(world.ok(&["status"]), "Not logged in\n");
    assert_eq!(world.ok(&["show_downloads"]), "No downloads yet\n");
    world.refused(
        &["list_groups", "--as", "Bob"],
        NOT_LOGGED_IN,
        "not logged in as Bob",
    );
}

#[test]
fn groups() {
    let world = World::new();
    world.users(&["Alice", "Bob", "Carol"]);
    world.ok_as("Alice", &["create_group", "photos"]);
    world.refused(
        &["create_group", "Photos"],
        FAILED,
        "group 'Photos' already exists",
    );
    world.refused(
        &["join_group", "nothing"],
        NOT_FOUND,
        "group 'nothing' not found",
    );
    world.refused(
        &["join_group", "photos", "--as", "Alice"],
        FAILED,
        "already a member of 'photos'",
    );
    world.refused(
        &["list_requests", "photos"],
        DENIED,
        "not the owner of 'photos'",
    );
    world.refused(
        &["accept_request", "photos", "Bob"],
        DENIED,
        "not the owner of 'photos'",
    );
    world.refused(
        &["reject_request", "photos", "Bob"],
        DENIED,
        "not the owner of 'photos'",
    );
    let nobody = "no pending request from 'Bob' in 'photos'";
    world.refused(
        &["accept_request", "photos", "Bob", "--as", "Alice"],
        NOT_FOUND,
        nobody,
    );
    world.refused(
        &["reject_request", "photos", "Bob", "--as", "Alice"],
        NOT_FOUND,
        nobody,
    );
    world.refused(
        &["leave_group", "photos"],
        DENIED,
        "not a member of 'photos'",
    );
    let owner = world.run(&["leave_group", "photos", "--as", "Alice"]);
    assert_eq!(owner.code, Some(DENIED));
    assert!(
        owner
            .stderr
            .contains("error: the owner cannot leave 'photos'"),
        "{}",
        owner.stderr
    );
    assert!(owner.stderr.contains("transfer_group"), "{}", owner.stderr);
    world.refused(
        &["remove_member", "photos", "Bob"],
        DENIED,
        "not the owner of 'photos'",
    );
    world.refused(
        &["remove_member", "photos", "Bob", "--as", "Alice"],
        NOT_FOUND,
        "'Bob' is not a member of 'photos'",
    );
    world.refused(
        &["remove_member", "photos", "Alice", "--as", "Alice"],
        DENIED,
        "the owner cannot be removed from 'photos'",
    );
    // Rejected, one may ask again.
    world.ok_as("Bob", &["join_group", "photos"]);
    assert_eq!(
        world.ok_as("Alice", &["reject_request", "photos", "Bob"]),
        "Rejected Bob\n"
    );
    world.ok_as("Bob", &["join_group", "photos"]);
    world.ok_as("Alice", &["accept_request", "photos", "Bob"]);
    // The new owner owns, and the old one may leave.
    world.ok_as("Alice", &["transfer_group", "photos", "Bob"]);
    world.refused(
        &["leave_group", "photos", "--as", "Bob"],
        DENIED,
        "the owner cannot leave 'photos'",
    );
    assert_eq!(
        world.ok_as("Alice", &["leave_group", "photos"]),
        "Left 'photos'\n"
    );
    world.ok_as("Carol", &["join_group", "photos"]);
    world.ok_as("Bob", &["accept_request", "photos", "Carol"]);
    assert_eq!(
        world.ok_as("Bob", &["remove_member", "photos", "Carol"]),
        "Removed Carol from 'photos'\n"
    );
    world.refused(
        &["leave_group", "photos", "--as", "Carol"],
        DENIED,
        "not a member of 'photos'",
    );
}

#[test]
fn files() {
    let world = World::new();
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "photos"]);
    world.write_file("a.txt", 100_000);
    world.write_file("b.txt", 50);
    world.ok_as("Alice", &["upload_file", "a.txt", "photos"]);
    let outsider = "not a member of 'photos'";
    world.refused(&["upload_file", "b.txt", "photos"], DENIED, outsider);
    world.refused(&["list_files", "photos"], DENIED, outsider);
    world.refused(&["download_file", "photos", "a.txt"], DENIED, outsider);
    world.refused(
        &["list_files", "nothing"],
        NOT_FOUND,
        "group 'nothing' not found",
    );
    let as_alice = |args: &[&'static str]| [args, &["--as", "Alice"]].concat();
    world.refused(
        &as_alice(&["upload_file", "b.txt", "photos", "--name", "a.txt"]),
        FAILED,
        "file 'a.txt' already exists in 'photos'",
    );
    fs::write(world.work("empty"), "").unwrap();
    world.refused(
        &as_alice(&["upload_file", "empty", "photos"]),
        FAILED,
        "cannot upload an empty file (0 bytes)",
    );
    let work = fs::canonicalize(world.path("work")).unwrap();
    world.refused(
        &as_alice(&["upload_file", ".", "photos"]),
        FAILED,
        &format!("{} is not a file", work.display()),
    );
    let missing = world.run(&as_alice(&["upload_file", "missing", "photos"]));
    assert_eq!(missing.code, Some(FAILED));
    assert!(
        missing.stderr.contains("error: cannot read "),
        "{}",
        missing.stderr
    );
    world.refused(
        &as_alice(&["download_file", "photos", "c.txt"]),
        NOT_FOUND,
        "file 'c.txt' not found in 'photos'",
    );
    world.refused(
        &as_alice(&["stop_sharing", "photos", "c.txt"]),
        NOT_FOUND,
        "file 'c.txt' not found in 'photos'",
    );
    world.ok_as("Bob", &["join_group", "photos"]);
    world.ok_as("Alice", &["accept_request", "photos", "Bob"]);
    world.refused(
        &["stop_sharing", "photos", "a.txt"],
        NOT_FOUND,
        "not sharing 'a.txt' in 'photos'",
    );
    let not_his = world.run(&["stop_sharing", "photos", "a.txt", "--for-all"]);
    assert_eq!(not_his.code, Some(DENIED), "{}", not_his.stderr);
}

#[test]
fn a_destination_that_exists_is_kept() {
    let world = World::new();
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "photos", "--open"]);
    let file = world.write_file("a.txt", 600_000);
    world.ok_as("Alice", &["upload_file", "a.txt", "photos"]);
    fs::write(world.work("mine.txt"), "mine").unwrap();
    let dest = world.work("mine.txt");
    world.refused(
        &["download_file", "photos", "a.txt", "mine.txt"],
        FAILED,
        &format!("{} exists", dest.display()),
    );
    assert_eq!(fs::read_to_string(&dest).unwrap(), "mine");
    world.ok(&["download_file", "photos", "a.txt", "mine.txt", "--force"]);
    assert!(world::same_content(&file, &dest));
    // The same content is not in the way.
    world.ok(&["download_file", "photos", "a.txt", "mine.txt"]);
    fs::create_dir(world.work("folder")).unwrap();
    let said = world.ok(&["download_file", "photos", "a.txt", "folder"]);
    assert!(
        said.starts_with("Download complete: folder/a.txt\n"),
        "{said}"
    );
    assert_eq!(
        world
            .run(&["download_file", "photos", "a.txt", "no/such/folder/x"])
            .code,
        Some(FAILED)
    );
}

#[test]
fn a_home_that_others_can_write_to() {
    let world = World::new();
    let home = world.path("home");
    world.ok(&["create_user", "Alice", "pass123"]);
    let mode = |mode| fs::set_permissions(&home, fs::Permissions::from_mode(mode)).unwrap();
    let made = fs::metadata(&home).unwrap().permissions().mode();
    assert_eq!(made & 0o777, 0o700);
    for others in [0o770, 0o707] {
        mode(others);
        for args in [&["status"][..], &["login", "Alice", "pass123"]] {
            let message = format!(
                "other users may write to the home {} and so replace what is in it; nothing was done",
                home.display()
            );
            world.refused(args, FAILED, &message);
        }
        let said = world.run(&["status"]).stderr;
        let remedy = format!("chmod 700 {}\n", home.display());
        assert!(said.ends_with(&remedy), "{said}");
    }
    // What they can only read is not in their hands.
    mode(0o755);
    world.ok(&["login", "Alice", "pass123"]);
}

#[test]
fn usage() {
    let world = World::new();
    world.refused(
        &["creat_group", "x"],
        USAGE,
        "unknown command 'creat_group'",
    );
    let hint = world.run(&["creat_group", "x"]).stderr;
    assert!(
        hint.ends_with("hint: did you mean create_group?\n"),
        "{hint}"
    );
    let without_group = world.run(&["create_group"]);
    assert_eq!(without_group.code, Some(USAGE));
    assert!(
        without_group
            .stderr
            .starts_with("error: the following required arguments were not provided:"),
        "{}",
        without_group.stderr
    );
    assert_eq!(
        world.run(&["--trackers", "nonsense", "list_groups"]).code,
        Some(USAGE)
    );
    assert_eq!(world.run(&["--home", "", "list_groups"]).code, Some(USAGE));
    let help = world.ok(&["--help"]);
    for command in ["create_user", "download_file", "verify", "shell", "demo"] {
        assert!(help.contains(command), "{help}");
    }
    for later in ["__peer", "availability", "limit"] {
        assert!(!help.contains(&format!("  {later}")), "{help}");
    }
    assert!(!help.contains("create-user"), "{help}");
    // No command is answered with the same text, whether there is a flag or not.
    for args in [&[][..], &["--as", "Bob"]] {
        let finished = world.run(args);
        assert_eq!(finished.code, Some(USAGE));
        assert_eq!(
            (finished.stdout.as_str(), finished.stderr),
            ("", help.clone())
        );
    }
    let mut command = world.command(&[]);
    command.env_remove("P2PSHARE_HOME");
    command.env_remove("P2PSHARE_TRACKERS");
    let bare = Process::spawn(command).wait();
    assert_eq!((bare.code, bare.stdout.as_str()), (Some(USAGE), ""));
    assert!(bare.stderr.contains("\nUsage: p2pshare"), "{}", bare.stderr);
}

#[test]
fn a_password_comes_from_several_places_and_is_shown_nowhere() {
    let world = World::new();
    let noted = world.run(&["create_user", "Alice", "pass123"]);
    assert!(
        noted.stderr.contains("other users of this machine can see"),
        "{}",
        noted.stderr
    );
    fs::write(world.work("password"), "pass456\n").unwrap();
    let input = fs::File::open(world.work("password")).unwrap();
    let mut finished = Process::spawn_with_input(
        world.command(&["create_user", "Bob", "--password-stdin"]),
        input.into(),
    );
    let finished = finished.wait();
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let mut command = world.command(&["login", "Bob"]);
    command.env("P2PSHARE_PASSWORD", "pass456");
    Process::spawn(command).wait().expect_ok(&["login", "Bob"]);
    let missing =
        Process::spawn_with_input(world.command(&["login", "Alice"]), Stdio::null()).wait();
    assert_eq!(missing.code, Some(USAGE), "{}", missing.stderr);
    assert!(
        missing.stderr.contains("--password-stdin"),
        "{}",
        missing.stderr
    );
    // Not in what the background peer was started with, and in no file of the home.
    let pid = world.peer_pid("Bob").as_raw_nonzero();
    for kind in ["environ", "cmdline"] {
        if let Ok(bytes) = fs::read(format!("/proc/{pid}/{kind}")) {
            assert!(!contains(&bytes, b"pass456"), "the password is in {kind}");
        }
    }
    let mut folders = vec![world.path("home")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => {
                    assert!(
                        !contains(&fs::read(entry.path()).unwrap(), b"pass456"),
                        "{:?}",
                        entry.path()
                    );
                }
                _ => {}
            }
        }
    }
}

#[test]
fn without_a_tracker_it_is_said_at_once_and_as_such() {
    let mut world = World::new();
    world.users(&["Alice"]);
    world.ok(&["create_group", "g"]);
    world.stop_tracker();
    let tried = format!("no tracker can be reached (tried {})", world.addr);
    world.refused(&["create_user", "Bob", "pass123"], UNREACHABLE, &tried);
    world.refused(&["login", "Bob", "pass123"], UNREACHABLE, &tried);
    world.refused(&["list_groups"], UNREACHABLE, &tried);
    let status = world.ok(&["status"]);
    assert!(
        status.starts_with("Logged in as Alice\n") && status.contains("none reached"),
        "{status}"
    );
    assert_eq!(world.ok(&["show_downloads"]), "No downloads yet\n");
}

#[test]
fn another_ring_behind_a_known_tracker_is_refused_loudly() {
    let mut world = World::new();
    world.ok(&["create_user", "Alice", "pass123"]);
    world.stop_tracker();
    fs::remove_dir_all(world.path("tracker")).unwrap();
    world.start_tracker();
    for args in [
        ["create_user", "Alice", "pass123"],
        ["login", "Alice", "pass123"],
    ] {
        let finished = world.run(&args);
        assert_eq!(finished.code, Some(DENIED));
        assert!(
            finished
                .stderr
                .contains("IS NOT THE ONE KNOWN; nothing was sent to it"),
            "{}",
            finished.stderr
        );
        assert!(
            finished.stderr.contains("known_rings"),
            "{}",
            finished.stderr
        );
    }
    // A list that pins the new ring is believed.
    let known = fs::read_to_string(world.path("home/known_rings")).unwrap();
    let mut other = world.command_at_home("other", &["create_user", "Alice", "pass123"]);
    other.env("P2PSHARE_TRACKERS", &world.addr);
    Process::spawn(other).wait().expect_ok(&["create_user"]);
    let new = fs::read_to_string(world.path("other/known_rings")).unwrap();
    assert_ne!(known, new);
    let ring = new.split_whitespace().nth(1).unwrap();
    fs::write(
        world.work("pinned.txt"),
        format!("{}\nring {ring}\n", world.addr),
    )
    .unwrap();
    world.ok(&["--trackers", "pinned.txt", "login", "Alice", "pass123"]);
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
