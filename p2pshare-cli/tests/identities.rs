//! Which background peers there are: one for each identity that is logged in, whatever was typed, killed, upgraded
//! or done at the same time, and none besides.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use world::{Finished, PATIENCE, Process, World, same_content};

const FAILED: i32 = 1;
const NOT_LOGGED_IN: i32 = 3;
const DENIED: i32 = 4;

/// The background peers of a world that run, by the folder that each was started for.
fn running(world: &World) -> BTreeMap<PathBuf, Pid> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let entry = entry.unwrap();
        let pid = entry.file_name().to_string_lossy().parse().ok();
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        // One that has ended and was not waited for has no arguments any more.
        let Ok(line) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let args: Vec<_> = line
            .split(|byte| *byte == 0)
            .map(String::from_utf8_lossy)
            .collect();
        if args.get(1).is_some_and(|arg| arg == "__peer")
            && let Some(folder) = args
                .get(3)
                .filter(|folder| Path::new(folder.as_ref()).starts_with(world.temp.path()))
            && let Some(other) = found.insert(PathBuf::from(folder.as_ref()), pid)
        {
            panic!("{folder} has two background peers: {pid:?} and {other:?}");
        }
    }
    found
}

/// The background peer of a user, found without asking it.
fn pid_of(world: &World, user: &str) -> Pid {
    let peers = running(world);
    let found = peers.iter().find(|(folder, _)| folder.ends_with(user));
    *found.unwrap().1
}

/// Waits until the background peers that run are as they should be.
#[track_caller]
fn wait_for_peers(world: &World, what: &str, fits: impl Fn(&BTreeMap<PathBuf, Pid>) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let peers = running(world);
        if fits(&peers) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {peers:?}");
        std::thread::yield_now();
    }
}

/// The sockets of this world's background peers.
fn sockets(world: &World) -> usize {
    let folders = fs::read_dir(world.path("run")).unwrap();
    folders
        .flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap())
        .count()
}

fn run_at(world: &World, home: &str, args: &[&str]) -> Finished {
    Process::spawn(world.command_at_home(home, args)).wait()
}

/// A seeded sequence of logins, logouts and crashes, and what has to be there at each moment.
struct History<'w> {
    world: &'w World,
    rng: StdRng,
    /// Who is logged in, and whether a background peer is there: those that were killed come back with the next
    /// command in their home.
    logged_in: BTreeMap<(&'static str, &'static str), bool>,
}

const HOMES: [&str; 2] = ["home", "other"];
const USERS: [&str; 3] = ["Alice", "Bob", "Carol"];

impl History<'_> {
    fn step(&mut self) {
        let home = *HOMES.choose(&mut self.rng).unwrap();
        let user = *USERS.choose(&mut self.rng).unwrap();
        match self.rng.random_range(0..100) {
            0..45 => self.log_in(home, user),
            45..75 => self.log_out(home, user),
            75..80 => self.fail_to_log_in(home, user),
            _ => self.kill(),
        }
        let running = running(self.world);
        let expected = self.logged_in.values().filter(|there| **there).count();
        assert_eq!(running.len(), expected, "{:?} {running:?}", self.logged_in);
    }

    fn log_in(&mut self, home: &'static str, user: &'static str) {
        let args = ["login", user, "pass123"];
        let said = run_at(self.world, home, &args).expect_ok(&args);
        assert!(
            said.starts_with(&format!("Logged in as {user}\n")),
            "{said}"
        );
        self.restored(home);
        self.logged_in.insert((home, user), true);
    }

    fn log_out(&mut self, home: &'static str, user: &'static str) {
        let finished = run_at(self.world, home, &["logout", "--as", user]);
        self.restored(home);
        if self.logged_in.remove(&(home, user)).is_some() {
            let text = format!("Logged out {user}; peer server stopped\n");
            assert_eq!((finished.code, finished.stdout), (Some(0), text));
        } else {
            assert_eq!(finished.code, Some(NOT_LOGGED_IN), "{}", finished.stderr);
        }
    }

    fn fail_to_log_in(&mut self, home: &'static str, user: &'static str) {
        let finished = run_at(self.world, home, &["login", user, "wrong"]);
        assert_eq!(finished.code, Some(DENIED), "{}", finished.stderr);
        self.restored(home);
    }

    /// Any command brings all of its home back.
    fn restored(&mut self, home: &str) {
        for ((of, _), there) in &mut self.logged_in {
            *there |= *of == home;
        }
    }

    fn kill(&mut self) {
        let peers: Vec<_> = running(self.world).into_iter().collect();
        let Some((folder, pid)) = peers.choose(&mut self.rng) else {
            return;
        };
        kill_process(*pid, Signal::KILL).unwrap();
        wait_for_peers(self.world, "was killed", |peers| {
            !peers.contains_key(folder)
        });
        let there = self.logged_in.iter_mut().find(|((home, user), _)| {
            let folder = folder.strip_prefix(self.world.path(home));
            folder.is_ok_and(|folder| folder.ends_with(user.to_lowercase()))
        });
        *there.unwrap().1 = false;
    }
}

#[test]
fn a_hundred_logins_and_logouts_leave_exactly_the_right_background_peers() {
    const SEED: u64 = 0x1dea;
    println!("seed {SEED:#x}");
    let world = World::new();
    for user in USERS {
        world.ok(&["create_user", user, "pass123"]);
    }
    let mut history = History {
        world: &world,
        rng: StdRng::seed_from_u64(SEED),
        logged_in: BTreeMap::new(),
    };
    for _ in 0..125 {
        history.step();
    }
    // One more command in each home brings the last ones back.
    for home in HOMES {
        run_at(&world, home, &["status"]).expect_ok(&["status"]);
        history.restored(home);
    }
    let peers = running(&world);
    assert_eq!(peers.len(), history.logged_in.len());
    assert_eq!(sockets(&world), peers.len());
    for home in HOMES {
        for user in USERS {
            let status = run_at(&world, home, &["status", "--as", user]).expect_ok(&["status"]);
            if history.logged_in.contains_key(&(home, user)) {
                assert!(
                    status.starts_with(&format!("Logged in as {user}\n")),
                    "{status}"
                );
            } else {
                assert_eq!(status, "Not logged in\n");
            }
        }
    }
    for folder in world.identity_folders() {
        let lock = fs::File::open(folder.join("lock")).unwrap();
        let holder = lock.try_lock().is_err();
        assert_eq!(holder, peers.contains_key(&folder), "{}", folder.display());
        if let Some(pid) = peers.get(&folder) {
            let written = fs::read_to_string(folder.join("lock")).unwrap();
            assert_eq!(written, pid.as_raw_nonzero().to_string());
        } else {
            assert!(folder.join("control.sock").symlink_metadata().is_err());
        }
    }
    // The same ones are there as before the questions.
    assert_eq!(running(&world), peers);
}

#[test]
fn many_commands_of_two_identities_at_once() {
    let world = World::new();
    world.users(&["Alice", "Bob"]);
    for round in 0..8 {
        for pid in running(&world).into_values() {
            kill_process(pid, Signal::KILL).unwrap();
        }
        // The first commands after the crash, some of which log in anew, and all of which find no peer.
        let mut commands = Vec::new();
        for user in ["Alice", "Bob"] {
            for number in 0..3 {
                let group = format!("{user}-{round}-{number}");
                commands.push(vec![
                    "create_group".to_owned(),
                    group,
                    format!("--as={user}"),
                ]);
                commands.push(["login", user, "pass123"].map(str::to_owned).to_vec());
            }
            commands.push(vec!["list_groups".to_owned(), format!("--as={user}")]);
        }
        let mut started: Vec<_> = commands
            .iter()
            .map(|args| {
                let args: Vec<_> = args.iter().map(String::as_str).collect();
                Process::spawn(world.command(&args))
            })
            .collect();
        for (process, args) in started.iter_mut().zip(&commands) {
            process.wait().expect_ok(args);
        }
        assert_eq!(running(&world).len(), 2);
        assert_eq!(sockets(&world), 2);
        // Whoever was answered last, the session is a good one, also for the next peer that starts with it.
        for user in ["Alice", "Bob"] {
            let groups = world.ok_as(user, &["list_groups"]);
            assert_eq!(groups.lines().count(), 1 + 6 * (round + 1), "{groups}");
        }
    }
}

#[test]
fn logins_and_logouts_of_one_user_at_once_leave_one_peer_or_none() {
    let world = World::new();
    world.ok(&["create_user", "Alice", "pass123"]);
    for round in 0..6 {
        // Not more often than a tracker takes without a wait.
        let password = if round < 3 { "wrong" } else { "pass123" };
        let commands = [
            &["login", "Alice", "pass123"][..],
            &["login", "Alice", password],
            &["logout", "--as", "Alice"],
            &["login", "Alice", "pass123"],
        ];
        let mut started: Vec<_> = commands
            .iter()
            .map(|args| Process::spawn(world.command(args)))
            .collect();
        let ended: Vec<_> = started.iter_mut().map(Process::wait).collect();
        assert_eq!(ended[0].code, Some(0), "{:?}", ended[0]);
        let expected = if round < 3 { DENIED } else { 0 };
        assert_eq!(ended[1].code, Some(expected), "{:?}", ended[1]);
        let logged_out = ended[2].code == Some(0);
        assert!(
            logged_out || ended[2].code == Some(NOT_LOGGED_IN),
            "{:?}",
            ended[2]
        );
        assert_eq!(ended[3].code, Some(0), "{:?}", ended[3]);
        let status = world.ok(&["status", "--as", "Alice"]);
        let is_logged_in = status.starts_with("Logged in as Alice\n");
        assert!(is_logged_in || logged_out, "{status}");
        let expected = usize::from(is_logged_in);
        wait_for_peers(&world, "one or none", |peers| peers.len() == expected);
        assert_eq!(sockets(&world), expected);
        if round % 2 == 1 {
            world.run(&["logout", "--as", "Alice"]);
        }
    }
}

#[test]
fn a_login_that_is_killed_leaves_nobody_who_serves_nobody() {
    let world = World::new();
    for user in ["Alice", "Bob", "Carol"] {
        world.ok(&["create_user", user, "pass123"]);
        let login = Process::spawn(world.command(&["login", user, "pass123"]));
        wait_for_peers(&world, "not started", |peers| {
            peers
                .keys()
                .any(|folder| folder.ends_with(user.to_lowercase()))
        });
        login.signal(Signal::KILL);
    }
    wait_for_peers(&world, "serves nobody", |peers| {
        peers.keys().all(|folder| folder.join("identity").exists())
    });
    // What is left of it is in nobody's way.
    for user in ["Alice", "Bob", "Carol"] {
        world.ok(&["login", user, "pass123"]);
    }
    assert_eq!(running(&world).len(), 3);
}

/// This program as it would be of another version: a copy of it in which the number is another.
fn elder_binary(world: &World) -> PathBuf {
    let (version, elder) = (env!("CARGO_PKG_VERSION").as_bytes(), b"0.0.9");
    assert_eq!(
        version.len(),
        elder.len(),
        "the number is replaced in place"
    );
    let mut bytes = fs::read(env!("CARGO_BIN_EXE_p2pshare")).unwrap();
    let mut at = 0;
    while at + version.len() <= bytes.len() {
        if bytes[at..].starts_with(version) {
            bytes[at..at + version.len()].copy_from_slice(elder);
        }
        at += 1;
    }
    let path = world.path("p2pshare-0.0.9");
    fs::copy(env!("CARGO_BIN_EXE_p2pshare"), &path).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

/// A command of a world, carried out by another binary.
fn by(binary: &Path, command: &Command) -> Process {
    let mut other = Command::new(binary);
    other
        .args(command.get_args())
        .current_dir(command.get_current_dir().unwrap())
        .env_clear()
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    Process::spawn(other)
}

/// The version of the background peer of a user, as it says in its hello.
fn version(world: &World, user: &str) -> String {
    let mut folders = running(world).into_keys();
    let folder = folders.find(|folder| folder.ends_with(user.to_lowercase()));
    let folder = folder.unwrap();
    let socket = fs::read_link(folder.join("control.sock")).unwrap();
    let mut stream = UnixStream::connect(socket).unwrap();
    let mut hello = [0; 64];
    let length = stream.read(&mut hello).unwrap();
    // A length of four bytes and the number of the protocol, then the version as a string.
    let text = &hello[6..length][..usize::from(hello[5])];
    String::from_utf8(text.to_vec()).unwrap()
}

#[test]
fn a_command_of_another_version_restarts_a_background_peer_once_its_transfers_end() {
    let world = World::new();
    let elder = elder_binary(&world);
    let file = world.write_file("a.bin", 600_000);
    for user in ["Alice", "Bob"] {
        world.ok(&["create_user", user, "pass123"]);
        let login = ["login", user, "pass123"];
        by(&elder, &world.command(&login)).wait().expect_ok(&login);
        assert_eq!(version(&world, user), "0.0.9");
    }
    // The session goes on in a peer of this version, and nobody gives a password.
    let before = running(&world);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    assert_eq!(version(&world, "Alice"), env!("CARGO_PKG_VERSION"));
    let after = running(&world);
    let kept = after
        .values()
        .filter(|pid| before.values().any(|old| old == *pid));
    assert_eq!((after.len(), kept.count()), (2, 1));
    world.ok_as("Alice", &["upload_file", "a.bin", "g"]);
    world.ok_as("Alice", &["logout"]);

    let bob = pid_of(&world, "bob");
    let args = [
        "download_file",
        "g",
        "a.bin",
        "b.bin",
        "--wait",
        "--as",
        "Bob",
    ];
    let mut download = by(&elder, &world.command(&args));
    download.wait_for_error_line("waiting for peers");
    // Commands of this version are served by that peer as long as it has something to do.
    assert_eq!(world.ok_as("Bob", &["list_groups"]).lines().count(), 2);
    let status = world.ok_as("Bob", &["status"]);
    assert!(status.contains("transfers      1 running"), "{status}");
    assert_eq!(
        (pid_of(&world, "bob"), version(&world, "Bob")),
        (bob, "0.0.9".to_owned())
    );
    world.ok(&["login", "Alice", "pass123"]);
    download.wait().expect_ok(&args);
    assert!(same_content(&file, &world.work("b.bin")));
    // And then no longer; what it has downloaded, its successor shares.
    let shown = world.ok_as("Bob", &["show_downloads"]);
    assert!(
        shown.contains("b.bin") && shown.contains("shared"),
        "{shown}"
    );
    world.wait_until_gone(bob);
    assert_eq!(version(&world, "Bob"), env!("CARGO_PKG_VERSION"));
    assert_eq!(running(&world).len(), 2);
}

/// Not a test: run by the one below, in a process that can be ended, it is a background peer whose control protocol
/// is another.
#[test]
fn background_peer_of_another_protocol() {
    let Some(socket) = std::env::var_os("TEST_ELDER_SOCKET") else {
        return;
    };
    let transfers: u8 = std::env::var("TEST_ELDER_TRANSFERS")
        .unwrap()
        .parse()
        .unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    println!("\nlistening");
    // A length of four bytes, and in it the protocol, the version, the transfers and no trackers.
    let mut hello = vec![10, 0, 0, 0, 99, 6];
    hello.extend_from_slice(b"99.0.0");
    hello.extend_from_slice(&[transfers, 0]);
    for stream in listener.incoming() {
        stream.unwrap().write_all(&hello).unwrap();
    }
}

#[test]
fn a_background_peer_of_another_protocol_is_replaced_when_it_has_nothing_to_do() {
    let world = World::new();
    world.users(&["Alice"]);
    let folder = world.identity_folders().remove(0);
    let alice = world.peer_pid("Alice");
    kill_process(alice, Signal::KILL).unwrap();
    world.wait_until_gone(alice);
    let socket = fs::read_link(folder.join("control.sock")).unwrap();
    let impostor = |transfers: &str| {
        let _ = fs::remove_file(&socket);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "background_peer_of_another_protocol",
                "--nocapture",
            ])
            .env("TEST_ELDER_SOCKET", &socket)
            .env("TEST_ELDER_TRANSFERS", transfers);
        let mut process = Process::spawn(command);
        process.wait_for_line("listening");
        process
    };
    let mut busy = impostor("2");
    world.refused(
        &["list_groups"],
        FAILED,
        "the background peer is of version 99.0.0 and has 2 transfers running",
    );
    let hint = world.run(&["list_groups"]).stderr;
    assert!(
        hint.ends_with("hint: repeat this once they have ended\n"),
        "{hint}"
    );
    assert!(running(&world).is_empty());
    busy.signal(Signal::KILL);
    busy.wait();

    let mut idle = impostor("0");
    assert_eq!(world.ok(&["list_groups"]), "No groups yet\n");
    assert_eq!(idle.wait().code, None, "it was not ended by a signal");
    assert_eq!(running(&world).len(), 1);
}
