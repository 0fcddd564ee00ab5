//! What outlives what: trackers that are stopped or killed, background peers that are killed, identities side by side.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use rustix::process::{Signal, kill_process};
use world::{Process, World, same_content};

const NOT_LOGGED_IN: i32 = 3;

#[test]
fn a_tracker_that_restarts_has_everything() {
    for kill in [false, true] {
        let mut world = World::new();
        let file = world.write_file("a.bin", 600_000);
        world.users(&["Alice", "Bob"]);
        world.ok_as("Alice", &["create_group", "g"]);
        world.ok_as("Alice", &["upload_file", "a.bin", "g"]);
        world.ok_as("Bob", &["join_group", "g"]);
        if kill {
            world.kill_tracker();
        } else {
            world.stop_tracker();
        }
        world.start_tracker();
        // The background peers find it again by themselves, with the request that was pending.
        assert_eq!(world.ok_as("Alice", &["list_requests", "g"]), "Bob\n");
        world.ok_as("Alice", &["accept_request", "g", "Bob"]);
        world.ok_as("Bob", &["download_file", "g", "a.bin", "b.bin", "--wait"]);
        assert!(same_content(&file, &world.work("b.bin")));
        // And the passwords are there.
        world.ok(&["login", "Alice", "pass123"]);
        world.refused(&["login", "Alice", "pass124"], 4, "invalid credentials");
    }
}

#[test]
fn a_second_tracker_on_the_same_data_is_refused() {
    let world = World::new();
    let mut second = std::process::Command::new(world::tracker_binary());
    second
        .arg("--data-dir")
        .arg(world.path("tracker"))
        .args(["--listen", "127.0.0.1:0"]);
    let finished = Process::spawn(second).wait();
    let data = world.path("tracker/db").display().to_string();
    let said = format!("error: {data} is in use by another process\n");
    assert_eq!((finished.code, finished.stderr), (Some(1), said));
    world.ok(&["create_user", "Alice", "pass123"]);
}

#[test]
fn any_command_brings_back_what_was_killed() {
    let world = World::new();
    let file = world.write_file("a.bin", 600_000);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    world.ok_as("Alice", &["upload_file", "a.bin", "g"]);
    let before = [world.peer_pid("Alice"), world.peer_pid("Bob")];
    for pid in before {
        kill_process(pid, Signal::KILL).unwrap();
    }
    // Bob's command brings Alice back too, whose file he downloads; nobody gives a password.
    world.ok_as("Bob", &["download_file", "g", "a.bin", "b.bin", "--wait"]);
    assert!(same_content(&file, &world.work("b.bin")));
    let after = [world.peer_pid("Alice"), world.peer_pid("Bob")];
    assert!(before.iter().all(|pid| !after.contains(pid)));
}

#[test]
fn many_commands_at_once_bring_back_one_background_peer() {
    let world = World::new();
    world.users(&["Alice"]);
    kill_process(world.peer_pid("Alice"), Signal::KILL).unwrap();
    let mut running: Vec<_> = (0..8)
        .map(|_| Process::spawn(world.command(&["status"])))
        .collect();
    let mut pids: Vec<_> = running
        .iter_mut()
        .map(|process| process.wait().expect_ok(&["status"]))
        .map(|status| status.split_once("(pid ").expect("a pid").1.to_owned())
        .collect();
    pids.dedup();
    assert_eq!(pids.len(), 1, "{pids:?}");
}

#[test]
fn a_background_peer_that_lost_its_socket_is_replaced() {
    let world = World::new();
    world.users(&["Alice"]);
    let before = world.peer_pid("Alice");
    // As when the system clears its runtime folder under a peer that goes on.
    std::fs::remove_dir_all(world.path("run")).unwrap();
    std::fs::create_dir(world.path("run")).unwrap();
    assert_ne!(world.peer_pid("Alice"), before);
}

#[test]
fn a_background_peer_that_hangs_is_named() {
    let world = World::new();
    world.users(&["Alice", "Bob"]);
    let pid = world.peer_pid("Alice");
    let folder = world.identity_folders();
    let folder = folder
        .iter()
        .find(|folder| folder.ends_with("alice"))
        .unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let mut others = Process::spawn(world.command(&["status", "--as", "Bob"]));
    let message = format!(
        "the background peer in {} does not answer: timed out",
        folder.display()
    );
    let hung = world.run(&["status", "--as", "Alice"]);
    let hint = format!(
        "hint: if it hangs, end it: kill -9 {}; the next command starts it anew\n",
        pid.as_raw_nonzero()
    );
    assert_eq!(hung.code, Some(1), "{hung:?}");
    assert!(
        hung.stderr.starts_with(&format!("error: {message}\n")),
        "{hung:?}"
    );
    assert!(hung.stderr.ends_with(&hint), "{hung:?}");
    // Others go on, and are told.
    let other = others.wait();
    assert!(other.stdout.starts_with("Logged in as Bob\n"), "{other:?}");
    assert!(other.stderr.contains(&message), "{other:?}");
    kill_process(pid, Signal::KILL).unwrap();
    assert!(
        world
            .ok_as("Alice", &["status"])
            .starts_with("Logged in as Alice\n")
    );
}

#[test]
fn a_background_peer_ends_cleanly_by_a_signal_and_comes_back() {
    let world = World::new();
    world.users(&["Alice"]);
    let pid = world.peer_pid("Alice");
    kill_process(pid, Signal::TERM).unwrap();
    // The lock of its folder is held as long as it lives.
    let lock = std::fs::File::open(world.identity_folders()[0].join("lock")).unwrap();
    lock.lock().unwrap();
    drop(lock);
    assert!(!world.identity_folders()[0].join("control.sock").exists());
    assert!(world.ok(&["status"]).starts_with("Logged in as Alice\n"));
    assert_ne!(world.peer_pid("Alice"), pid);
}

#[test]
fn identities_live_side_by_side() {
    let world = World::new();
    world.users(&["Alice", "Bob"]);
    // The last login is the current one; another is named, in any case.
    assert!(world.ok(&["status"]).starts_with("Logged in as Bob\n"));
    let alice = world.ok(&["status", "--as", "alice"]);
    assert!(
        alice.starts_with("Logged in as Alice\n") && alice.contains("Also logged in: Bob"),
        "{alice}"
    );
    assert!(alice.contains(&world.addr), "{alice}");
    let (alice, bob) = (world.peer_pid("Alice"), world.peer_pid("Bob"));
    assert_ne!(alice, bob);
    // Logging in again keeps the process.
    world.ok(&["login", "alice", "pass123"]);
    assert!(world.ok(&["status"]).starts_with("Logged in as Alice\n"));
    assert_eq!(world.peer_pid("Alice"), alice);

    assert_eq!(
        world.ok(&["logout"]),
        "Logged out Alice; peer server stopped\n"
    );
    world.wait_until_gone(alice);
    // Nobody becomes another by a logout.
    let refused = world.run(&["list_groups"]);
    assert_eq!(refused.code, Some(NOT_LOGGED_IN));
    assert!(refused.stderr.contains("--as (Bob)"), "{}", refused.stderr);
    assert_eq!(world.ok(&["status"]), "Not logged in\n");
    world.refused(
        &["list_groups", "--as", "Alice"],
        NOT_LOGGED_IN,
        "not logged in as Alice",
    );
    assert_eq!(world.ok(&["list_groups", "--as", "Bob"]), "No groups yet\n");
    assert_eq!(world.peer_pid("Bob"), bob);
}

#[test]
fn what_was_shared_is_shared_again_after_the_next_login() {
    let world = World::new();
    world.write_file("a.bin", 600_000);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    world.ok_as("Alice", &["upload_file", "a.bin", "g"]);
    world.ok_as("Alice", &["logout"]);
    world.ok(&["login", "Alice", "pass123"]);
    let shared = world.ok(&["show_downloads"]);
    assert!(
        shared.contains("a.bin") && shared.contains("shared"),
        "{shared}"
    );
    world.ok_as("Bob", &["download_file", "g", "a.bin", "b.bin", "--wait"]);
}

#[test]
fn a_session_that_the_trackers_do_not_know_is_over() {
    let mut world = World::new();
    world.users(&["Alice"]);
    world.stop_tracker();
    // The same ring, with nothing in it.
    let key = std::fs::read(world.path("tracker/ring.key")).unwrap();
    std::fs::remove_dir_all(world.path("tracker/db")).unwrap();
    world.start_tracker();
    assert_eq!(std::fs::read(world.path("tracker/ring.key")).unwrap(), key);
    world.refused(&["list_groups"], NOT_LOGGED_IN, "not logged in");
    assert_eq!(world.ok(&["status"]), "Not logged in\n");
    world.refused(&["login", "Alice", "pass123"], 4, "invalid credentials");
    world.users(&["Alice"]);
    assert_eq!(world.ok(&["list_groups"]), "No groups yet\n");
    // And where nobody logs in again, a logout clears up.
    world.stop_tracker();
    std::fs::remove_dir_all(world.path("tracker/db")).unwrap();
    world.start_tracker();
    world.refused(&["list_groups"], NOT_LOGGED_IN, "not logged in");
    let pid = world.lock_holder("alice");
    world.refused(&["logout"], NOT_LOGGED_IN, "not logged in");
    world.wait_until_gone(pid);
}

#[test]
fn homes_do_not_know_each_other() {
    let world = World::new();
    world.users(&["Alice"]);
    let status = Process::spawn(world.command_at_home("other", &["status"])).wait();
    assert_eq!(status.expect_ok(&["status"]), "Not logged in\n");
    // The same user from two homes, each with a peer of its own.
    let mut login = Process::spawn(world.command_at_home("other", &["login", "Alice", "pass123"]));
    login.wait().expect_ok(&["login"]);
    assert!(world.ok(&["status"]).starts_with("Logged in as Alice\n"));
    assert_eq!(world.ok(&["list_groups"]), "No groups yet\n");
}
