//! What is refused, in which words and with which exit code. Scripts rely on both.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use std::fs;

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
    for password in ["", "abc", &"x".repeat(1025)] {
        let args = ["create_user", "Carol", password];
        world.refused(&args, FAILED, "a password has 4 to 1024 bytes");
    }
    world.ok(&["create_user", "Carol", "abcd"]);
    // The more often somebody guesses, the longer each guess waits.
    let mut waits = Vec::new();
    while waits.len() < 2 {
        let guess = world.run(&["login", "Carol", "wrong"]);
        assert_eq!(guess.code, Some(DENIED), "{guess:?}");
        let wait = guess
            .stderr
            .split_once("error: too many attempts; try again in ")
            .and_then(|(_, rest)| rest.strip_suffix(" s\n")?.parse::<u32>().ok());
        waits.extend(wait);
        assert!(wait.is_some() || guess.stderr.ends_with("error: invalid credentials\n"));
    }
    assert!(
        waits.iter().all(|wait| (1..=300).contains(wait)),
        "{waits:?}"
    );
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
fn what_is_not_there_is_said_to_be_not_there() {
    let world = World::new();
    world.users(&["Alice", "Bob"]);
    world.write_file("a.txt", 10);
    let commands: [&[&str]; 11] = [
        &["join_group", "nothing"],
        &["list_requests", "nothing"],
        &["accept_request", "nothing", "Bob"],
        &["reject_request", "nothing", "Bob"],
        &["leave_group", "nothing"],
        &["remove_member", "nothing", "Bob"],
        &["transfer_group", "nothing", "Bob"],
        &["upload_file", "a.txt", "nothing"],
        &["list_files", "nothing"],
        &["download_file", "nothing", "a.txt"],
        &["stop_sharing", "nothing", "a.txt"],
    ];
    for args in commands {
        world.refused(args, NOT_FOUND, "group 'nothing' not found");
    }
    let hint = world.run(commands[0]).stderr;
    let expected = "hint: p2pshare list_groups shows what there is\n";
    assert!(hint.ends_with(expected), "{hint}");
    // Nor are users that nobody has heard of.
    world.ok_as("Alice", &["create_group", "g"]);
    for (args, message) in [
        (
            ["accept_request", "g", "Zoe"],
            "no pending request from 'Zoe' in 'g'",
        ),
        (
            ["reject_request", "g", "Zoe"],
            "no pending request from 'Zoe' in 'g'",
        ),
        (
            ["remove_member", "g", "Zoe"],
            "'Zoe' is not a member of 'g'",
        ),
        (
            ["transfer_group", "g", "Zoe"],
            "'Zoe' is not a member of 'g'",
        ),
    ] {
        world.refused(
            &[&args[..], &["--as", "Alice"]].concat(),
            NOT_FOUND,
            message,
        );
    }
}

#[test]
fn a_group_is_given_to_members_by_its_owner_alone() {
    let world = World::new();
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "photos"]);
    world.refused(
        &["transfer_group", "photos", "Bob"],
        DENIED,
        "not the owner of 'photos'",
    );
    // Who only asked is no member.
    assert_eq!(
        world.ok(&["join_group", "photos"]),
        "Join request sent to 'photos'; Alice has to accept it\n"
    );
    assert_eq!(
        world.ok(&["join_group", "photos"]),
        "A join request to 'photos' is already pending; Alice has to accept it\n"
    );
    let give = ["transfer_group", "photos", "Bob", "--as", "Alice"];
    world.refused(&give, NOT_FOUND, "'Bob' is not a member of 'photos'");
    world.ok_as("Alice", &["accept_request", "photos", "Bob"]);
    world.refused(
        &["accept_request", "photos", "Bob", "--as", "Alice"],
        NOT_FOUND,
        "no pending request from 'Bob' in 'photos'",
    );
    world.refused(
        &["join_group", "photos"],
        FAILED,
        "already a member of 'photos'",
    );
    assert_eq!(world.ok(&give), "Group 'photos' belongs to Bob now\n");
    world.refused(&give, DENIED, "not the owner of 'photos'");
    let table = "group   owner  access   members  my role\nphotos  Bob    members  2        ";
    assert_eq!(
        world.ok_as("Bob", &["list_groups"]),
        format!("{table}owner\n")
    );
    assert_eq!(
        world.ok_as("Alice", &["list_groups"]),
        format!("{table}member\n")
    );
}

#[test]
fn status_says_who_where_and_how_much() {
    let world = World::new();
    world.users(&["Alice"]);
    world.ok(&["create_group", "g"]);
    world.write_file("a.txt", 10);
    world.ok(&["upload_file", "a.txt", "g"]);
    let status = world.ok(&["status"]);
    let known = fs::read_to_string(world.path("home/known_rings")).unwrap();
    let ring = known.split_whitespace().nth(1).unwrap();
    let pid = world.lock_holder("alice").as_raw_nonzero();
    let lines: Vec<_> = status.lines().collect();
    assert_eq!(lines.len(), 8, "{status}");
    assert_eq!(lines[0], "Logged in as Alice");
    assert_eq!(lines[1], format!("  tracker        {}", world.addr));
    assert_eq!(lines[2], format!("  ring           {ring}"));
    assert_eq!(lines[3], "  trackers       1 of 1 reachable, epoch 1");
    assert!(
        lines[4].starts_with("  peer server    127.0.0.1:"),
        "{status}"
    );
    assert!(lines[4].ends_with(&format!(" (pid {pid})")), "{status}");
    assert_eq!(lines[5], "  files shared   1");
    assert_eq!(lines[6], "  sent           0 B since it started");
    assert_eq!(lines[7], "  transfers      0 running");
    let shown = world.ok(&["show_downloads"]);
    let cells: Vec<_> = shown.split_whitespace().collect();
    let header = ["file", "group", "size", "progress", "state", "path"];
    assert_eq!(cells[..6], header);
    let path = fs::canonicalize(world.work("a.txt")).unwrap();
    let row = [
        "a.txt",
        "g",
        "10",
        "B",
        "100",
        "%",
        "shared",
        path.to_str().unwrap(),
    ];
    assert_eq!(cells[6..], row);
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
    for (path, why) in [
        ("missing", "No such file or directory (os error 2)"),
        ("b.txt/inside", "Not a directory (os error 20)"),
    ] {
        let shown = world.work(path).display().to_string();
        world.refused(
            &as_alice(&["upload_file", path, "photos"]),
            FAILED,
            &format!("cannot read {shown}: {why}"),
        );
    }
    let strange = world.work("a\tb");
    fs::write(&strange, "x").unwrap();
    let refused = world.run(&as_alice(&["upload_file", "a\tb", "photos"]));
    assert_eq!(refused.code, Some(USAGE), "{refused:?}");
    let hint = "hint: choose the name in the group with --name\n";
    assert!(refused.stderr.ends_with(hint), "{refused:?}");
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
    world.refused(
        &["stop_sharing", "photos", "a.txt", "--for-all"],
        DENIED,
        "only the uploader of 'a.txt' and the owner of 'photos' can stop it for all",
    );
    // Nobody who has it is there: that, too, is told apart from a file that is not there.
    world.ok_as("Alice", &["logout"]);
    let nobody = world.run(&["download_file", "photos", "a.txt", "copy", "--as", "Bob"]);
    assert_eq!(nobody.code, Some(UNREACHABLE), "{nobody:?}");
    let seen = "error: no peers online for 'a.txt'; one was last seen ";
    assert!(nobody.stderr.contains(seen), "{nobody:?}");
    let hint = "hint: --wait waits for somebody who has it\n";
    assert!(nobody.stderr.ends_with(hint), "{nobody:?}");
    assert!(!world.work("copy.p2part").exists());
    world.ok(&["login", "Alice", "pass123"]);
    assert_eq!(
        world.ok(&["stop_sharing", "photos", "a.txt"]),
        "Stopped sharing a.txt in 'photos'\nNobody shares it any more: it is out of the group\n"
    );
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
    let nowhere = world.work("no/such/folder/x").display().to_string();
    let refused = world.run(&["download_file", "photos", "a.txt", "no/such/folder/x"]);
    assert_eq!(refused.code, Some(FAILED), "{refused:?}");
    let message = format!("error: cannot write to {nowhere}: ");
    assert!(refused.stderr.contains(&message), "{refused:?}");
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
    for command in [
        "create_user",
        "download_file",
        "availability",
        "limit",
        "verify",
        "shell",
        "demo",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
    }
    assert!(!help.contains("  __peer"), "{help}");
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
