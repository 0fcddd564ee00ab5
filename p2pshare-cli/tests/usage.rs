//! What surrounds a command: its flags, variables, home, files, standard streams and terminal. Whatever is wrong
//! with them is one line that names it, and nothing is changed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rustix::process::{Signal, kill_process};
use world::{Finished, Process, World};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOT_LOGGED_IN: i32 = 3;
const DENIED: i32 = 4;

/// The message of a command that failed.
fn error(finished: &Finished) -> &str {
    let mut lines = finished.stderr.lines();
    lines
        .find_map(|line| line.strip_prefix("error: "))
        .unwrap_or_default()
}

#[test]
fn what_cannot_be_a_command_is_refused_before_anything_is_done() {
    let world = World::new();
    let missing = "the following required arguments were not provided:";
    for (args, message) in [
        (
            &["--nonsense"][..],
            "unexpected argument '--nonsense' found",
        ),
        (
            &["status", "--nonsense"],
            "unexpected argument '--nonsense' found",
        ),
        (&["status", "extra"], "unexpected argument 'extra' found"),
        (&["download_file", "g"], missing),
        (&["upload_file"], missing),
        (&["create_user"], missing),
        (
            &["status", "--as"],
            "a value is required for '--as <USER>' but none was supplied",
        ),
        (
            &["status", "--as", "a b"],
            "invalid value 'a b' for '--as <USER>': a user name cannot contain ' '",
        ),
        (
            &["status", "--as", "a", "--as", "b"],
            "the argument '--as <USER>' cannot be used multiple times",
        ),
        (
            &["create_group", ""],
            "invalid value '' for '<GROUP>': a group name cannot be empty",
        ),
        (
            &["create_user", ".a", "pass123"],
            "invalid value '.a' for '<USER>': a user name cannot start with '.'",
        ),
        (
            &["download_file", "g", "a/b"],
            "invalid value 'a/b' for '<NAME>': a file name cannot contain '/'",
        ),
        (
            &["upload_file", "a", "g", "--name", ".."],
            "invalid value '..' for '--name <NAME>': '..' names a folder, not a file",
        ),
        (
            &["login", "Alice", "pass123", "--password-stdin"],
            "the argument '[PASSWORD]' cannot be used with '--password-stdin'",
        ),
    ] {
        world.refused(args, USAGE, message);
    }
    assert!(!world.path("home").exists());
}

#[test]
fn variables_that_make_no_sense() {
    let world = World::new();
    world.users(&["Alice"]);
    let not_utf8 = || std::ffi::OsString::from_vec(b"\xff".to_vec());
    let with = |name: &str, value: std::ffi::OsString, args: &[&str]| {
        let mut command = world.command(args);
        command.env(name, value);
        Process::spawn(command).wait()
    };
    let ended = with("P2PSHARE_PASSWORD", not_utf8(), &["login", "Alice"]);
    let message = "P2PSHARE_PASSWORD is not UTF-8";
    assert_eq!((ended.code, error(&ended)), (Some(USAGE), message));
    let ended = with("P2PSHARE_PASSWORD", "".into(), &["login", "Alice"]);
    assert_eq!(
        (ended.code, error(&ended)),
        (Some(DENIED), "invalid credentials")
    );
    for (name, value) in [
        ("P2PSHARE_TRACKERS", not_utf8()),
        ("P2PSHARE_TRACKERS", "".into()),
        ("P2PSHARE_HOME", "".into()),
    ] {
        let ended = with(name, value, &["status"]);
        assert_eq!(ended.code, Some(USAGE), "{name}: {ended:?}");
        assert_ne!(error(&ended), "", "{name}: {ended:?}");
    }
    // What only decides how much is logged stops nothing.
    kill_process(world.peer_pid("Alice"), Signal::KILL).unwrap();
    let ended = with("P2PSHARE_LOG", "%%%=nonsense".into(), &["status"]);
    assert!(
        ended.stdout.starts_with("Logged in as Alice\n"),
        "{ended:?}"
    );
}

#[test]
fn homes_that_cannot_be_used() {
    let world = World::new();
    world.ok(&["create_user", "Alice", "pass123"]);
    let login = ["login", "Alice", "pass123"];
    let refused = |home: &str, message: &str| {
        for args in [&["status"][..], &login] {
            let ended = Process::spawn(world.command_at_home(home, args)).wait();
            assert_eq!(
                (ended.code, error(&ended)),
                (Some(FAILED), message),
                "{args:?}"
            );
        }
    };
    fs::write(world.path("file"), "mine").unwrap();
    let shown = world.path("file").display().to_string();
    refused("file", &format!("the home {shown} is not a folder"));
    let under = format!("cannot look at the home {shown}/home: Not a directory (os error 20)");
    refused("file/home", &under);
    assert_eq!(fs::read_to_string(world.path("file")).unwrap(), "mine");
    // Somebody else's; only the superuser can make one.
    fs::create_dir(world.path("theirs")).unwrap();
    if std::os::unix::fs::chown(world.path("theirs"), Some(4242), None).is_ok() {
        let shown = world.path("theirs").display().to_string();
        let message = format!(
            "the home {shown} belongs to another user, who could replace what is in it; nothing was done"
        );
        refused("theirs", &message);
        assert_eq!(fs::read_dir(world.path("theirs")).unwrap().count(), 0);
    }
    // Where no folder can be made, not even by the superuser.
    if cfg!(target_os = "linux") {
        let mut command = world.command(&login);
        command.env("P2PSHARE_HOME", "/proc/home");
        let ended = Process::spawn(command).wait();
        assert_eq!(ended.code, Some(FAILED), "{ended:?}");
        let message = "cannot create the home /proc/home: ";
        assert!(error(&ended).starts_with(message), "{ended:?}");
    }
}

#[test]
fn a_home_without_room_is_left_as_it_was() {
    let world = World::new();
    world.ok(&["create_user", "Alice", "pass123"]);
    let isolated = ["--map-root-user", "--mount", "sh", "-c"];
    let probe = Command::new("unshare").args(isolated).arg("true").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return;
    }
    let p2pshare = env!("CARGO_BIN_EXE_p2pshare");
    fs::create_dir(world.path("small")).unwrap();
    for size in ["8k", "64k"] {
        let script = format!(
            "mount -t tmpfs -o size={size},mode=700 tmpfs $P2PSHARE_HOME || exit 99
             {p2pshare} login Alice pass123; echo code $?
             {p2pshare} status
             ls $P2PSHARE_HOME"
        );
        let mut command = Command::new("unshare");
        command.args(isolated).arg(script);
        let template = world.command_at_home("small", &[]);
        command.current_dir(world.path("work")).envs(
            template
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let ended = Process::spawn(command).wait();
        let lines: Vec<_> = ended.stdout.lines().collect();
        // The folder of the ring went again, with all that was in it.
        let expected = ["code 1", "Not logged in", "known_rings", "lock"];
        assert_eq!(lines, expected, "{size}: {ended:?}");
        let message = error(&ended);
        let says = message.contains("No space left on device") && !message.contains("Error");
        assert!(says, "{size}: {ended:?}");
    }
}

#[test]
fn records_that_are_damaged_are_named_and_mended_by_a_login() {
    let world = World::new();
    world.users(&["Alice"]);
    let folder = world.identity_folders().remove(0);
    let login = ["login", "Alice", "pass123"];
    fs::write(folder.join("identity"), "p2pshare identity 1\nuser").unwrap();
    let ended = world.run(&["list_groups"]);
    assert_eq!(
        (ended.code, error(&ended)),
        (Some(NOT_LOGGED_IN), "not logged in")
    );
    let warning = format!(
        "warning: {} cannot be read, and counts as logged out; a login mends it\n",
        folder.join("identity").display()
    );
    assert!(ended.stderr.starts_with(&warning), "{ended:?}");
    world.ok(&login);
    assert_eq!(world.ok(&["list_groups"]), "No groups yet\n");

    // Who is the current one is not guessed.
    fs::write(world.path("home/current"), "nonsense").unwrap();
    let ended = world.run(&["list_groups"]);
    assert_eq!(
        (ended.code, error(&ended)),
        (Some(NOT_LOGGED_IN), "not logged in")
    );
    assert!(ended.stderr.contains("--as (Alice)"), "{ended:?}");
    world.ok(&login);

    // A session that cannot be read is none, when the peer that knows it by heart is gone.
    kill_process(world.peer_pid("Alice"), Signal::KILL).unwrap();
    fs::write(folder.join("session"), "nonsense").unwrap();
    world.refused(&["list_groups"], NOT_LOGGED_IN, "not logged in");
    world.ok(&login);

    // Nor is a key: nobody becomes somebody else by that.
    kill_process(world.peer_pid("Alice"), Signal::KILL).unwrap();
    let key = fs::read(folder.join("key")).unwrap();
    fs::write(folder.join("key"), &key[..20]).unwrap();
    let ended = world.run(&["list_groups"]);
    let message = format!("{} has 20 bytes", folder.join("key").display());
    assert_eq!(ended.code, Some(FAILED), "{ended:?}");
    assert!(error(&ended).contains(&message), "{ended:?}");
    fs::write(folder.join("key"), key).unwrap();
    assert_eq!(world.ok(&["list_groups"]), "No groups yet\n");

    // What is known of rings is not forgotten unasked.
    let known = fs::read(world.path("home/known_rings")).unwrap();
    fs::write(world.path("home/known_rings"), b"\xff").unwrap();
    for args in [&["list_groups"][..], &login] {
        let ended = world.run(args);
        assert_eq!(ended.code, Some(FAILED), "{ended:?}");
        assert!(
            error(&ended).starts_with("cannot read the known rings "),
            "{ended:?}"
        );
    }
    fs::write(world.path("home/known_rings"), known).unwrap();
    world.ok(&login);
}

#[test]
fn nobody_has_to_listen() {
    let world = World::new();
    world.users(&["Alice"]);
    world.ok(&["create_group", "g"]);
    world.write_file("a.bin", 100_000);
    // A reader that is gone before anything is said, on either stream or both.
    let gone = || std::io::pipe().unwrap().1;
    let silent = |args: &[&str], closed: [bool; 2]| {
        let mut command = world.command(args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if closed[0] {
            command.stdout(gone());
        }
        if closed[1] {
            command.stderr(gone());
        }
        command.status().unwrap().code()
    };
    for closed in [[true, false], [false, true], [true, true]] {
        assert_eq!(silent(&["list_files", "g"], closed), Some(0));
        assert_eq!(silent(&["--help"], closed), Some(0));
        assert_eq!(silent(&["login", "Alice", "pass123"], closed), Some(0));
        assert_eq!(silent(&["list_files", "nothing"], closed), Some(5));
        assert_eq!(silent(&["nonsense"], closed), Some(USAGE));
        assert_eq!(silent(&[], closed), Some(USAGE));
        let name = format!("--name=a-{}-{}", closed[0], closed[1]);
        assert_eq!(
            silent(&["upload_file", "a.bin", "g", &name], closed),
            Some(0)
        );
    }
    assert_eq!(world.ok(&["list_files", "g"]).lines().count(), 1 + 3);
    // One that cannot take it is something else: the result is lost.
    if let Ok(full) = fs::File::options().write(true).open("/dev/full") {
        let mut command = world.command(&["list_files", "g"]);
        let output = command.stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(FAILED));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.starts_with("error: cannot write the result: "),
            "{said}"
        );
    }
}

#[test]
fn colours_are_for_those_who_can_see_them() {
    let world = World::new();
    let said = |variables: &[(&str, &str)]| {
        let mut command = world.command(&["nonsense"]);
        command.envs(variables.iter().copied());
        Process::spawn(command).wait().stderr
    };
    let plain = "error: unknown command 'nonsense'\nhint: p2pshare --help lists the commands\n";
    assert_eq!(said(&[]), plain);
    let coloured = said(&[("CLICOLOR_FORCE", "1")]);
    assert!(
        coloured.starts_with("\u{1b}[1m\u{1b}[31merror:"),
        "{coloured:?}"
    );
    assert_eq!(said(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]), plain);
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
    let message = "there is no terminal to ask for the password on: not connected";
    assert_eq!((missing.code, error(&missing)), (Some(USAGE), message));
    let hint = "hint: give it as an argument, with --password-stdin, or in P2PSHARE_PASSWORD\n";
    assert!(missing.stderr.ends_with(hint), "{missing:?}");
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

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
