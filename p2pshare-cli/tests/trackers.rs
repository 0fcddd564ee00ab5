//! Commands and trackers that are down, hang, die in the middle, are of another ring, or are listed wrongly: what was
//! printed is what is so, and nobody waits for ever.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use world::{Finished, Process, World};

const USAGE: i32 = 2;
const DENIED: i32 = 4;
const UNREACHABLE: i32 = 6;

const UNKNOWN: &str = "the tracker went away before it answered; whether this was done is unknown";

/// The message of a command that failed.
fn error(finished: &Finished) -> &str {
    let mut lines = finished.stderr.lines();
    lines
        .find_map(|line| line.strip_prefix("error: "))
        .unwrap_or_default()
}

/// One kind of command that changes something.
struct Kind {
    /// What has to be done before it: the user and the command. `#` stands for a number of its own.
    before: &'static [&'static [&'static str]],
    command: &'static [&'static str],
    /// A command that says afterwards whether it was done, and the word of its output that tells so.
    look: &'static [&'static str],
    done: &'static str,
}

const KINDS: [Kind; 11] = [
    Kind {
        before: &[],
        command: &["create_user", "user#", "pass123"],
        look: &["create_user", "user#", "pass123"],
        done: "already exists",
    },
    Kind {
        before: &[&["create_user", "user#", "pass123"]],
        command: &["login", "user#", "pass123"],
        look: &["status", "--as=user#"],
        done: "Logged in as user#",
    },
    Kind {
        before: &[],
        command: &["create_group", "g#", "--as=Alice"],
        look: &["create_group", "g#", "--as=Alice"],
        done: "already exists",
    },
    Kind {
        before: &[&["create_group", "g#", "--as=Alice"]],
        command: &["join_group", "g#", "--as=Bob"],
        look: &["join_group", "g#", "--as=Bob"],
        done: "already pending",
    },
    Kind {
        before: &[
            &["create_group", "g#", "--as=Alice"],
            &["join_group", "g#", "--as=Bob"],
        ],
        command: &["accept_request", "g#", "Bob", "--as=Alice"],
        look: &["accept_request", "g#", "Bob", "--as=Alice"],
        done: "no pending request",
    },
    Kind {
        before: &[
            &["create_group", "g#", "--as=Alice"],
            &["join_group", "g#", "--as=Bob"],
        ],
        command: &["reject_request", "g#", "Bob", "--as=Alice"],
        look: &["reject_request", "g#", "Bob", "--as=Alice"],
        done: "no pending request",
    },
    Kind {
        before: &[
            &["create_group", "g#", "--open", "--as=Alice"],
            &["join_group", "g#", "--as=Bob"],
        ],
        command: &["leave_group", "g#", "--as=Bob"],
        look: &["leave_group", "g#", "--as=Bob"],
        done: "not a member",
    },
    Kind {
        before: &[
            &["create_group", "g#", "--open", "--as=Alice"],
            &["join_group", "g#", "--as=Bob"],
        ],
        command: &["remove_member", "g#", "Bob", "--as=Alice"],
        look: &["remove_member", "g#", "Bob", "--as=Alice"],
        done: "is not a member",
    },
    Kind {
        before: &[
            &["create_group", "g#", "--open", "--as=Alice"],
            &["join_group", "g#", "--as=Bob"],
        ],
        command: &["transfer_group", "g#", "Bob", "--as=Alice"],
        look: &["transfer_group", "g#", "Bob", "--as=Alice"],
        done: "not the owner",
    },
    Kind {
        before: &[&["create_group", "g#", "--as=Alice"]],
        command: &["upload_file", "a.bin", "g#", "--as=Alice"],
        look: &["list_files", "g#", "--as=Alice"],
        done: "a.bin",
    },
    Kind {
        before: &[
            &["create_group", "g#", "--as=Alice"],
            &["upload_file", "a.bin", "g#", "--as=Alice"],
        ],
        command: &["stop_sharing", "g#", "a.bin", "--as=Alice"],
        look: &["list_files", "g#", "--as=Alice"],
        done: "No files",
    },
];

impl Kind {
    fn fill(args: &[&str], number: u32) -> Vec<String> {
        let number = number.to_string();
        args.iter().map(|arg| arg.replace('#', &number)).collect()
    }

    fn prepare(&self, world: &World, number: u32) {
        for args in self.before {
            let args = Self::fill(args, number);
            start(world, &args).wait().expect_ok(&args);
        }
    }

    /// What the command said of itself is so: done, not done, or unknown.
    fn check(&self, world: &World, number: u32, moment: Duration, ended: &Finished) {
        // The look may have been sent to the dead tracker first, and then says so of itself.
        let mut looks = (0..3).map(|_| start(world, &Self::fill(self.look, number)).wait());
        let looked = looks.find(|looked| error(looked) != UNKNOWN);
        let looked = looked.expect("a look that is told");
        let done = Self::fill(&[self.done], number).remove(0);
        let done = looked.stdout.contains(&done) || looked.stderr.contains(&done);
        let unreachable = format!("no tracker can be reached (tried {})", world.addr);
        let command = self.command;
        let told = match (ended.code, error(ended)) {
            (Some(0), _) => Some(true),
            (Some(UNREACHABLE), message) if message == unreachable => Some(false),
            (Some(UNREACHABLE), UNKNOWN) => None,
            _ => panic!("{command:?}: {ended:?}"),
        };
        println!("{command:?} {moment:?}: told {told:?}, done {done}");
        assert!(
            told.is_none_or(|told| told == done),
            "{command:?} after {moment:?}: {ended:?}, and then {looked:?}"
        );
    }
}

fn start(world: &World, args: &[String]) -> Process {
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    Process::spawn(world.command(&args))
}

/// Lets a moment pass in which there is nothing to wait for: a command may be at any of its steps then.
fn pass(moment: Duration) {
    let (_never, nothing) = mpsc::sync_channel::<()>(0);
    let _ = nothing.recv_timeout(moment);
}

#[test]
fn a_tracker_that_dies_during_commands_leaves_each_done_or_undone_as_it_says() {
    const SEED: u64 = 0xd1e5;
    println!("seed {SEED:#x}");
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut world = World::new();
    world.write_file("a.bin", 100_000);
    world.users(&["Alice", "Bob"]);
    // One that is started again at once.
    for (kind, number) in KINDS.iter().zip(0..) {
        kind.prepare(&world, number);
        let mut command = start(&world, &Kind::fill(kind.command, number));
        let moment = Duration::from_millis(rng.random_range(0..40));
        pass(moment);
        world.kill_tracker();
        world.start_tracker();
        kind.check(&world, number, moment, &command.wait());
    }
    // One that is not, until the last command has given up.
    let numbered: Vec<_> = KINDS.iter().zip(100..).collect();
    for (kind, number) in &numbered {
        kind.prepare(&world, *number);
    }
    let mut commands: Vec<_> = numbered
        .iter()
        .map(|(kind, number)| start(&world, &Kind::fill(kind.command, *number)))
        .collect();
    let moment = Duration::from_millis(rng.random_range(0..60));
    pass(moment);
    world.kill_tracker();
    let ended: Vec<_> = commands.iter_mut().map(Process::wait).collect();
    world.start_tracker();
    for ((kind, number), ended) in numbered.iter().zip(&ended) {
        kind.check(&world, *number, moment, ended);
    }
}

#[test]
fn what_changes_nothing_is_told_or_not_when_the_tracker_dies() {
    const SEED: u64 = 0x1009;
    println!("seed {SEED:#x}");
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut world = World::new();
    let file = world.write_file("a.bin", 3_000_000);
    world.users(&["Alice", "Bob"]);
    world.ok_as("Alice", &["create_group", "g", "--open"]);
    world.ok_as("Alice", &["upload_file", "a.bin", "g"]);
    let unreachable = format!("no tracker can be reached (tried {})", world.addr);
    // A tracker that was started again has yet to hear who is online.
    let nobody = "no peers online for 'a.bin'";
    let commands = [
        &["list_groups"][..],
        &["list_files", "g"],
        &["list_requests", "g", "--as", "Alice"],
        &["show_downloads"],
        &["status"],
        &["download_file", "g", "a.bin", "early.bin"],
        &["logout", "--as", "Bob"],
    ];
    for args in commands {
        let mut command = Process::spawn(world.command(args));
        let moment = Duration::from_millis(rng.random_range(0..30));
        pass(moment);
        world.kill_tracker();
        world.start_tracker();
        let ended = command.wait();
        let message = error(&ended);
        let told = ended.code == Some(UNREACHABLE) && message == unreachable
            || args[0] == "download_file" && message.starts_with(nobody);
        assert!(
            ended.code == Some(0) || told,
            "{args:?} after {moment:?}: {ended:?}"
        );
    }
    if let Ok(early) = fs::read(world.work("early.bin")) {
        assert!(early == fs::read(&file).unwrap());
    }
    assert_eq!(world.ok(&["status", "--as", "Bob"]), "Not logged in\n");
    world.ok(&["login", "Bob", "pass123"]);
    world.ok(&["download_file", "g", "a.bin", "b.bin", "--wait"]);
    assert!(world::same_content(&file, &world.work("b.bin")));
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
    world.refused(&["create_group", "h"], UNREACHABLE, &tried);
    let status = world.ok(&["status"]);
    assert!(
        status.starts_with("Logged in as Alice\n")
            && status.contains(&format!("none reached (of {})", world.addr)),
        "{status}"
    );
    assert_eq!(world.ok(&["show_downloads"]), "No downloads yet\n");
    // All that were tried, in the order of the list, whether it is given as a flag or as a file.
    let two = format!("{},127.0.0.1:1", world.addr);
    let tried = format!(
        "no tracker can be reached (tried {}, 127.0.0.1:1)",
        world.addr
    );
    let args = ["create_user", "Bob", "pass123", "--trackers", &two];
    world.refused(&args, UNREACHABLE, &tried);
    fs::write(world.work("list"), two.replace(',', "\n# the other\n")).unwrap();
    let ended = world.run(&["create_user", "Bob", "pass123", "--trackers", "list"]);
    assert_eq!((ended.code, error(&ended)), (Some(UNREACHABLE), &*tried));
    let hint = "hint: is a tracker running there? The list is taken from ";
    assert!(ended.stderr.contains(hint), "{ended:?}");
    // Nobody is kept from leaving.
    assert_eq!(
        world.ok(&["logout"]),
        "Logged out Alice; peer server stopped\n"
    );
}

#[test]
fn a_tracker_that_hangs_is_waited_for_and_not_for_ever() {
    let world = World::new();
    world.users(&["Alice", "Bob"]);
    let commands = [
        &["create_user", "Carol", "pass123"][..],
        &["login", "Bob", "pass123"],
        &["create_group", "g", "--as=Alice"],
        &["list_groups", "--as=Alice"],
    ];
    world.signal_tracker(Signal::STOP);
    let began = Instant::now();
    let mut hanging: Vec<_> = commands
        .iter()
        .map(|args| Process::spawn(world.command(args)))
        .collect();
    let tried = format!("no tracker can be reached (tried {})", world.addr);
    for (process, args) in hanging.iter_mut().zip(commands) {
        let ended = process.wait();
        assert_eq!(ended.code, Some(UNREACHABLE), "{args:?}: {ended:?}");
        let message = error(&ended);
        // What was on its way when it stopped answering may be done once it goes on.
        let expected = if args[0] == "create_group" {
            UNKNOWN
        } else {
            &tried
        };
        assert_eq!(message, expected, "{args:?}");
    }
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "{:?}",
        began.elapsed()
    );
    world.signal_tracker(Signal::CONT);
    let created = world.run(&["create_group", "g", "--as=Alice"]);
    assert!(
        created.code == Some(0) || error(&created) == "group 'g' already exists",
        "{created:?}"
    );
    world.ok(&["create_user", "Carol", "pass123"]);
    // One that goes on in time is not noticed.
    world.signal_tracker(Signal::STOP);
    let mut waiting = Process::spawn(world.command(&["create_group", "h", "--as=Bob"]));
    pass(Duration::from_millis(500));
    world.signal_tracker(Signal::CONT);
    waiting.wait().expect_ok(&["create_group"]);
}

#[test]
fn a_list_that_is_wrong_is_named_with_its_line() {
    let world = World::new();
    world.users(&["Alice"]);
    let write = |text: &[u8]| fs::write(world.work("tracker_info.txt"), text).unwrap();
    let refused = |message: &str| {
        for args in [
            &["create_user", "Bob", "pass123"][..],
            &["list_groups"],
            &["status"],
        ] {
            let mut command = world.command(args);
            command.env_remove("P2PSHARE_TRACKERS");
            let ended = Process::spawn(command).wait();
            assert_eq!(
                (ended.code, error(&ended)),
                (Some(USAGE), message),
                "{args:?}"
            );
        }
    };
    write(b"# ours\n127.0.0.1:9000\n\n127.0.0.1\n");
    refused(
        "tracker_info.txt: line 4: '127.0.0.1' is not a tracker's address: a port is missing (as in 127.0.0.1:9000)",
    );
    write(b"127.0.0.1:9000\nring xyz\n");
    let ended = world.run(&["--trackers", "tracker_info.txt", "status"]);
    assert_eq!(ended.code, Some(USAGE));
    assert!(
        error(&ended).starts_with("tracker_info.txt: line 2: "),
        "{ended:?}"
    );
    write(b"127.0.0.1:9000\n127.0.0.1:10000\n");
    refused(
        "tracker_info.txt: line 2: 127.0.0.1:10000 collides with 127.0.0.1:9000 of line 1: \
         the ports of two trackers on one host must differ, and not by 1000",
    );
    for empty in [&b""[..], b"# nobody yet\n\n"] {
        write(empty);
        refused("tracker_info.txt: the list has no tracker in it");
    }
    write(b"127.0.0.1:9000\n\xff\xfe\n");
    refused(
        "cannot read the list of trackers tracker_info.txt: stream did not contain valid UTF-8",
    );
    fs::remove_file(world.work("tracker_info.txt")).unwrap();
    fs::create_dir(world.work("tracker_info.txt")).unwrap();
    refused("cannot read the list of trackers tracker_info.txt: Is a directory (os error 21)");
    fs::remove_dir(world.work("tracker_info.txt")).unwrap();
    symlink("tracker_info.txt", world.work("tracker_info.txt")).unwrap();
    let ended = world.run(&["--trackers", "tracker_info.txt", "status"]);
    assert_eq!(ended.code, Some(USAGE), "{ended:?}");
    fs::remove_file(world.work("tracker_info.txt")).unwrap();
    // The flag and the variable say what they are.
    for chosen in [
        "nonsense",
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:99999",
        "",
    ] {
        let mut by_variable = world.command(&["list_groups"]);
        by_variable.env("P2PSHARE_TRACKERS", chosen);
        for ended in [
            world.run(&["list_groups", "--trackers", chosen]),
            Process::spawn(by_variable).wait(),
        ] {
            let expected = format!("--trackers '{chosen}' is neither a file nor addresses");
            assert_eq!(ended.code, Some(USAGE), "{ended:?}");
            assert!(error(&ended).starts_with(&expected), "{ended:?}");
        }
    }
}

#[test]
fn another_ring_behind_a_known_tracker_is_refused_loudly() {
    let mut world = World::new();
    world.users(&["Alice"]);
    world.ok(&["create_group", "g"]);
    world.stop_tracker();
    fs::remove_dir_all(world.path("tracker")).unwrap();
    world.start_tracker();
    let known = fs::read_to_string(world.path("home/known_rings")).unwrap();
    let old = known.split_whitespace().nth(1).unwrap().to_owned();
    // A home that has never heard of the ring trusts it.
    let create = ["create_user", "Alice", "pass123"];
    Process::spawn(world.command_at_home("other", &create))
        .wait()
        .expect_ok(&create);
    let found = fs::read_to_string(world.path("other/known_rings")).unwrap();
    let new = found.split_whitespace().nth(1).unwrap();
    assert_ne!(old, new);

    let message = format!(
        "THE RING BEHIND {} IS NOT THE ONE KNOWN; nothing was sent to it (known {old}, found {new})",
        world.addr
    );
    for args in [create, ["login", "Alice", "pass123"]] {
        world.refused(&args, DENIED, &message);
        let said = world.run(&args).stderr;
        let remedy = format!(
            "if the ring was founded anew on purpose, remove the line of {} from {}\n",
            world.addr,
            world.path("home/known_rings").display()
        );
        assert!(said.ends_with(&remedy), "{said}");
    }
    // Who is logged in is not handed over to it either.
    let message = format!(
        "the tracker at {} is of ring {new}, not of {old}",
        world.addr
    );
    world.refused(&["list_groups"], DENIED, &message);
    let hint = world.run(&["list_groups"]).stderr;
    assert!(
        hint.ends_with("p2pshare login USER says what to do\n"),
        "{hint}"
    );
    // A list that pins the new ring is believed.
    let pinned = format!("{}\nring {new}\n", world.addr);
    fs::write(world.work("pinned.txt"), pinned).unwrap();
    world.ok(&["--trackers", "pinned.txt", "login", "Alice", "pass123"]);
    // And one that pins another is not overruled by what is known.
    let pinned = format!("{}\nring {old}\n", world.addr);
    fs::write(world.work("pinned.txt"), pinned).unwrap();
    let args = ["--trackers", "pinned.txt", "login", "Alice", "pass123"];
    let ended = world.run(&args);
    assert_eq!(ended.code, Some(DENIED), "{ended:?}");
    assert!(ended.stderr.contains("mend its line 'ring'"), "{ended:?}");
}
