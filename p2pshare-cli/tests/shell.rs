//! The shell: on a terminal as a person uses it, and with a script on standard input.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod world;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use world::{Finished, PATIENCE, Process, World, same_content};

const UP: &str = "\u{1b}[A";
const CTRL_C: &str = "\u{3}";
const CTRL_D: &str = "\u{4}";
const CTRL_U: &str = "\u{15}";
const PROMPT: &str = "p2p> ";

/// Alice, who is the current identity, has an open group with a file of hers and one of Bob, who is away.
fn world() -> World {
    let world = World::new();
    for name in ["alice.txt", "bobs.bin"] {
        world.write_file(name, 1_200_000);
    }
    world.users(&["Bob", "Alice"]);
    world.ok(&["create_group", "photos", "--open"]);
    world.ok(&["upload_file", "alice.txt", "photos"]);
    world.ok_as("Bob", &["join_group", "photos"]);
    world.ok_as(
        "Bob",
        &["upload_file", "bobs.bin", "photos", "--name", "bob's file"],
    );
    world.ok_as("Bob", &["logout"]);
    world
}

#[test]
fn a_person_at_a_terminal() {
    let world = world();
    fs::create_dir(world.work("folder")).unwrap();
    let mut terminal = Terminal::shell(&world, &[]);
    for (typed, answer) in [
        ("status\r", "Logged in as Alice"),
        ("nonsense x\r", "unknown command 'nonsense'"),
        ("status --nonsense\r", "unexpected argument"),
        ("list_files 'photos\r", "the quote ' is not closed"),
        ("list_files nowhere\r", "group 'nowhere' not found"),
        ("shell\r", "this is the shell already"),
        ("help\r", "TAB completes"),
        ("help create-user\r", "Usage: p2pshare create_user"),
        ("help shell\r", "Of a script, blank lines"),
        ("\r", ""),
        ("# a comment\r", ""),
    ] {
        terminal.wait_for(PROMPT);
        terminal.type_in(typed);
        terminal.wait_for(answer);
    }

    // What is no text is no reason to end either.
    terminal.wait_for(PROMPT);
    terminal.keyboard.write_all(b"list_gr\xe9oups\r").unwrap();
    terminal.wait_for("error: ");

    // TAB: a command, a group, a file, and a path.
    terminal.wait_for(PROMPT);
    terminal.type_in("list_g\t");
    terminal.wait_for("list_groups ");
    terminal.type_in("\r");
    terminal.wait_for("photos");
    terminal.wait_for(PROMPT);
    terminal.type_in("list_files ph\t");
    terminal.wait_for("list_files photos ");
    terminal.type_in("\r");
    terminal.wait_for("bob's file");
    terminal.wait_for(PROMPT);
    terminal.type_in("availability photos al\t");
    terminal.wait_for("availability photos alice.txt ");
    terminal.type_in("\r");
    // On a terminal it is drawn.
    terminal.wait_for("█]");
    terminal.wait_for("· nobody, █ 1 holder");
    terminal.wait_for(PROMPT);
    terminal.type_in("download_file photos al\t");
    terminal.wait_for("download_file photos alice.txt ");
    terminal.type_in("fol\t");
    terminal.wait_for("alice.txt folder/");
    terminal.type_in("copy\\ 1\r");
    terminal.wait_for("Download complete: folder/copy 1");
    assert!(same_content(
        &world.work("alice.txt"),
        &world.work("folder/copy 1")
    ));

    // Up recalls, and Ctrl-C clears.
    terminal.wait_for(PROMPT);
    terminal.type_in(UP);
    terminal.wait_for("download_file photos alice.txt folder/copy\\ 1");
    terminal.type_in(CTRL_C);
    terminal.wait_for(PROMPT);
    terminal.type_in("status\r");
    terminal.wait_for("Logged in as Alice");

    // Ctrl-C ends the command that runs, and keeps what there is.
    terminal.wait_for(PROMPT);
    terminal.type_in("download_file photos bo\t");
    terminal.wait_for("bob\\'s\\ file ");
    terminal.type_in("later --wait\r");
    terminal.wait_for("waiting for peers");
    terminal.type_in(CTRL_C);
    terminal.wait_for("the download was cancelled");
    assert!(world.work("later.p2part").exists());

    // A password is asked for without echo.
    terminal.wait_for(PROMPT);
    terminal.type_in("create_user Carol\r");
    terminal.wait_for("Password for Carol: ");
    terminal.wait_until_silent();
    terminal.type_in(CTRL_C);
    terminal.wait_for("interrupted");
    terminal.wait_for(PROMPT);
    terminal.type_in("create_user Carol\r");
    for asked in ["Password for Carol: ", "The same again: "] {
        terminal.wait_for(asked);
        terminal.wait_until_silent();
        terminal.type_in("secret9\r");
    }
    terminal.wait_for("User created: Carol");
    terminal.wait_for(PROMPT);
    assert!(!terminal.seen.contains("secret9"), "{}", terminal.seen);
    terminal.type_in("login Carol secret9\r");
    terminal.wait_for("Logged in as Carol");
    assert!(!terminal.seen.contains("note: "), "{}", terminal.seen);
    terminal.wait_for(PROMPT);
    terminal.type_in("quit\r");
    assert_eq!(terminal.end(), Some(0));

    // The next shell knows what was typed, but for the password.
    let history = world.path("home/history");
    let mode = fs::metadata(&history).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let kept = fs::read_to_string(&history).unwrap();
    assert!(
        kept.contains("\nstatus\n") && kept.ends_with("\nlogin Carol\n"),
        "{kept}"
    );
    assert!(
        !kept.contains("secret9") && !kept.contains("nonsense"),
        "{kept}"
    );
    let mut terminal = Terminal::shell(&world, &["--as", "Alice"]);
    terminal.wait_for(PROMPT);
    terminal.type_in(UP);
    terminal.wait_for("login Carol");
    terminal.type_in(CTRL_U);
    terminal.type_in("status\r");
    terminal.wait_for("Logged in as Alice");
    // Where no tracker answers there is nothing to offer, and the line goes on.
    world.signal_tracker(Signal::STOP);
    terminal.wait_for(PROMPT);
    terminal.type_in("list_files ph\t");
    terminal.type_in("\t");
    terminal.type_in(CTRL_U);
    terminal.type_in("help status\r");
    terminal.wait_for("Usage: p2pshare status");
    terminal.wait_for(PROMPT);
    // A command that waits for the tracker is ended as well.
    terminal.type_in("list_groups\r");
    terminal.interrupt_command();
    world.signal_tracker(Signal::CONT);
    terminal.wait_for(PROMPT);
    terminal.type_in(CTRL_D);
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn ctrl_c_ends_a_command_that_waits_for_another() {
    let world = World::new();
    world.users(&["Alice"]);
    let mut terminal = Terminal::shell(&world, &[]);
    let another = File::open(world.path("home/lock")).unwrap();
    another.lock().unwrap();
    let alice = world.lock_holder("alice");
    kill_process(alice, Signal::KILL).unwrap();
    world.wait_until_gone(alice);
    for command in ["status\r", "login Alice pass123\r"] {
        terminal.wait_for(PROMPT);
        terminal.type_in(command);
        terminal.interrupt_command();
    }
    drop(another);
    terminal.wait_for(PROMPT);
    terminal.type_in("status\r");
    terminal.wait_for("Logged in as Alice");
    terminal.wait_for(PROMPT);
    terminal.type_in("quit\r");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn ctrl_c_ends_a_script_that_waits_for_its_next_line() {
    let world = World::new();
    for script in ["status\n", "status\ncreate_user Alice --password-stdin\n"] {
        let (input, mut writer) = io::pipe().unwrap();
        let mut shell = Process::spawn_with_input(world.command(&["shell"]), input.into());
        writer.write_all(script.as_bytes()).unwrap();
        shell.wait_for_line("Not logged in");
        shell.signal(Signal::INT);
        let ended = shell.wait();
        assert_eq!(
            (ended.code, ended.stderr.as_str()),
            (Some(130), "error: interrupted\n"),
            "{script}"
        );
    }
}

#[test]
fn a_script_runs_no_password_as_a_command() {
    let world = World::new();
    let long = "hunter2".repeat(1000);
    let script = [
        "login a/b --password-stdin\nhunter2\nlogin O'Brien --password-stdin\nhunter2\n".as_bytes(),
        b"login Jos\xe9 --password-stdin\nhunter2\n",
        b"login Bob --password-stdin --home ''\nhunter2\n",
        format!("create_user Bob --password-stdin\n{long}\nstatus\n").as_bytes(),
        b"create_user Bob --password-stdin\nhunter2\nlogin Bob --password-stdin",
    ]
    .concat();
    let ended = run_script(&world, &[], &script);
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    assert_eq!(ended.stdout, "Not logged in\nUser created: Bob\n");
    let failed: Vec<_> = ended
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix("note: that was line "))
        .collect();
    assert_eq!(
        failed,
        [1, 3, 5, 7, 9, 14].map(|line| format!("{line} of the script"))
    );
    assert!(
        ended.stderr.contains("no line to read the password from"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_script_is_run_whatever_fails_in_it() {
    let world = World::new();
    let source = world.write_file("alice's file.txt", 1_200_000);
    let long = "x".repeat(70_000);
    let script = format!(
        r#"# The walk-through, and more.

create_user Alice pass123
p2pshare login Alice pass123
create-group testgroup
upload_file 'alice'\''s file.txt' testgroup
{long}
list_files nowhere
create_user Bob --password-stdin
pass456
login Bob pass456
list_groups
join_group testgroup
--as Alice accept_request testgroup Bob
status
list_files testgroup
download_file testgroup "alice's file.txt" copy\ 2.txt
verify testgroup "alice's file.txt"
"#
    );
    let script = [script.as_bytes(), b"caf\xe9\nshow_downloads"].concat();
    let ended = run_script(&world, &[], &script);
    let said = [
        "User created: Alice",
        "Logged in as Alice",
        "Group 'testgroup' created",
        "Uploaded alice's file.txt",
        "User created: Bob",
        "Logged in as Bob",
        "Join request sent",
        "Accepted Bob",
        "Logged in as Bob",
        "alice's file.txt",
        "Download complete: copy 2.txt",
        "verified: 3 of 3 chunks, SHA-256 ok",
        "complete, shared",
    ];
    let mut rest = ended.stdout.as_str();
    for text in said {
        let Some((_, after)) = rest.split_once(text) else {
            panic!(
                "no {text:?} in order in\n{}\n{}",
                ended.stdout, ended.stderr
            );
        };
        rest = after;
    }
    assert!(!ended.stdout.contains(PROMPT));
    let errors: Vec<_> = ended
        .stderr
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(
        errors,
        [
            "error: the line is longer than 65536 bytes",
            "error: group 'nowhere' not found",
            "error: the line is not UTF-8",
        ]
    );
    assert!(
        ended.stderr.contains("that was line 8 of the script"),
        "{}",
        ended.stderr
    );
    // The code of the last line that failed.
    assert_eq!(ended.code, Some(2));
    assert!(same_content(&source, &world.work("copy 2.txt")));
    assert!(
        !world.path("home/history").exists(),
        "a script is no history"
    );

    let alone = |args: &[&str], script: &str, code: i32, stdout: &str| {
        let ended = run_script(&world, args, script.as_bytes());
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(code), stdout),
            "{script}"
        );
    };
    alone(&[], "", 0, "");
    alone(&[], "shell", 2, "");
    let requests = "list_files nowhere\nlist_requests testgroup\n";
    alone(&["--as", "Alice"], requests, 5, "No pending requests\n");
    alone(&["--as", "Alice", "-e"], requests, 5, "");
    alone(&[], "list_requests testgroup\nquit\nstatus", 4, "");
    alone(
        &["--home", "elsewhere"],
        "status\n\nexit",
        0,
        "Not logged in\n",
    );
    // What a line says itself has the last word.
    alone(
        &["--as", "Alice"],
        "list_requests testgroup --as Bob",
        4,
        "",
    );
    // A login holds for the lines after it.
    let script = b"list_requests testgroup\nlogin Alice pass123\nlist_requests testgroup\nquit now";
    let ended = run_script(&world, &["--as", "Bob"], script);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended.stdout.starts_with("Logged in as Alice\n"),
        "{}",
        ended.stdout
    );
    assert!(
        ended.stdout.ends_with("\nNo pending requests\n"),
        "{}",
        ended.stdout
    );
}

#[test]
fn a_login_elsewhere_is_nothing_to_the_lines_after_it() {
    let world = World::new();
    world.users(&["Alice"]);
    fs::write(world.path("list"), &world.addr).unwrap();
    let list = world.path("list").display().to_string();
    let script = format!(
        "create_user Bob pass123
login Bob pass123 --home ../elsewhere
status
login Bob pass123 --trackers {list}
status
login Bob pass123
status
"
    );
    let ended = run_script(&world, &["--as", "Alice"], script.as_bytes());
    let users: Vec<_> = ended
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("Logged in as "))
        .collect();
    assert_eq!(
        users,
        ["Bob", "Alice", "Bob", "Alice", "Bob", "Bob"],
        "{}",
        ended.stderr
    );
}

fn run_script(world: &World, args: &[&str], script: &[u8]) -> Finished {
    let path = world.path("script");
    fs::write(&path, script).unwrap();
    let command = world.command(&[&["shell"], args].concat());
    Process::spawn_with_input(command, File::open(path).unwrap().into()).wait()
}

/// A shell on a terminal of its own.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: mpsc::Receiver<Vec<u8>>,
    output: Vec<u8>,
    /// The text of all output.
    seen: String,
    /// Up to where it was waited for.
    read: usize,
}

impl Terminal {
    fn shell(world: &World, args: &[&str]) -> Self {
        let keyboard =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let size = Winsize {
            ws_row: 50,
            ws_col: 200,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&keyboard, size).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let slave = File::options()
            .read(true)
            .write(true)
            .open(OsStr::from_bytes(name.as_bytes()))
            .unwrap();
        let shell = world.command(&[&["shell"], args].concat());
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(shell.get_program())
            .args(shell.get_args())
            .current_dir(shell.get_current_dir().unwrap())
            .env_clear()
            .envs(
                shell
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env("TERM", "xterm")
            .stdin(Stdio::from(slave.try_clone().unwrap()))
            .stdout(Stdio::from(slave.try_clone().unwrap()))
            .stderr(Stdio::from(slave))
            .spawn()
            .unwrap();
        let keyboard = File::from(keyboard);
        let (sender, screen) = mpsc::sync_channel(1024);
        let mut output = keyboard.try_clone().unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                if sender.send(bytes[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            keyboard,
            screen,
            output: Vec::new(),
            seen: String::new(),
            read: 0,
        }
    }

    fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until `text` appears behind what was waited for before.
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        loop {
            if let Some(at) = self.seen[self.read..].find(text) {
                self.read += at + text.len();
                return;
            }
            match self.screen.recv_timeout(PATIENCE) {
                Ok(bytes) => {
                    self.output.extend(bytes);
                    self.seen = text_of(&self.output);
                }
                Err(_) => panic!("no {text:?} on the screen:\n{}", self.seen),
            }
        }
    }

    /// Presses Ctrl-C while a command has the terminal, until the one that was just typed in ends of it: it may not
    /// listen yet.
    #[track_caller]
    fn interrupt_command(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.seen[self.read..].contains("error: ") {
            assert!(Instant::now() < deadline, "it goes on:\n{}", self.seen);
            let modes = tcgetattr(&self.keyboard).unwrap().local_modes;
            if modes.contains(LocalModes::ISIG) {
                self.type_in(CTRL_C);
            }
            // One that came late would clear the next line.
            let again = Instant::now() + Duration::from_secs(1);
            while let Ok(bytes) = self
                .screen
                .recv_timeout(again.saturating_duration_since(Instant::now()))
            {
                self.output.extend(bytes);
                self.seen = text_of(&self.output);
                if self.seen[self.read..].contains("error: ") {
                    break;
                }
            }
        }
        self.wait_for("error: interrupted");
    }

    /// Waits until the terminal does not show what is typed.
    #[track_caller]
    fn wait_until_silent(&self) {
        let deadline = Instant::now() + PATIENCE;
        while tcgetattr(&self.keyboard)
            .unwrap()
            .local_modes
            .contains(LocalModes::ECHO)
        {
            assert!(Instant::now() < deadline, "it goes on showing it");
            thread::yield_now();
        }
    }

    /// The exit code, once everything on the terminal has ended.
    fn end(&mut self) -> Option<i32> {
        loop {
            match self.screen.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return self.child.wait().unwrap().code();
                }
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it does not end"),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The shell ends with its terminal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is to be read of the output of a terminal: all but the sequences that move and colour.
fn text_of(output: &[u8]) -> String {
    let (mut text, mut rest) = (Vec::new(), output);
    while let Some(at) = rest.iter().position(|byte| *byte == 0x1b) {
        text.extend_from_slice(&rest[..at]);
        let sequence = rest.get(at + 2..).unwrap_or_default();
        match sequence.iter().position(|byte| (0x40..0x7f).contains(byte)) {
            Some(end) => rest = &sequence[end + 1..],
            None => return String::from_utf8_lossy(&text).into_owned(),
        }
    }
    text.extend_from_slice(rest);
    String::from_utf8_lossy(&text).into_owned()
}
