//! The daemon as an operator meets it: what it prints, what stops it, what it refuses, and that a refusal changes nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before the test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn it_says_what_it_is_in_this_order_and_then_serves() {
    let temp = tempfile::tempdir().unwrap();
    let mut tracker = Daemon::start(
        temp.path(),
        &["--data-dir", "data", "--listen", "127.0.0.1:0"],
    );
    let lines = tracker.lines(6);
    let addr = lines[0]
        .strip_prefix("Using tracker address from config: ")
        .expect(&lines[0]);
    let port: u16 = addr
        .strip_prefix("127.0.0.1:")
        .expect(addr)
        .parse()
        .unwrap();
    assert_eq!(
        lines[1],
        format!("Tracker DHT initialized on port {}", port + 1000)
    );
    assert_eq!(lines[2], "DHT initialized for tracker sync");
    let ring = lines[3]
        .strip_prefix("Ring ")
        .and_then(|rest| rest.strip_suffix(": 1 of 1 trackers reachable"));
    assert_eq!(ring.expect(&lines[3]).len(), 64);
    assert_eq!(lines[4], format!("Tracker listening on {addr}"));
    assert_eq!(lines[5], "Type 'quit' to stop the tracker");
    tracker.signal(Signal::TERM);
    assert_eq!(tracker.end(), (Some(0), String::new()));
}

#[test]
fn the_ring_stays_the_same_over_restarts_and_crashes() {
    let temp = tempfile::tempdir().unwrap();
    let args = ["--data-dir", "data", "--listen", "127.0.0.1:0"];
    let mut rings = Vec::new();
    for signal in [Signal::KILL, Signal::INT, Signal::TERM] {
        let mut tracker = Daemon::start(temp.path(), &args);
        rings.push(tracker.lines(6)[3].clone());
        tracker.signal(signal);
        let expected = if signal == Signal::KILL {
            None
        } else {
            Some(0)
        };
        assert_eq!(tracker.end().0, expected);
    }
    assert!(rings.iter().all(|ring| *ring == rings[0]), "{rings:?}");
}

#[test]
fn what_a_pipe_says_or_its_end_stops_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let mut tracker = Daemon::start(
        temp.path(),
        &["--data-dir", "data", "--listen", "127.0.0.1:0"],
    );
    tracker.lines(6);
    let mut input: ChildStdin = tracker.child.stdin.take().unwrap();
    input.write_all(b"quit\n").unwrap();
    drop(input);
    // A second one on its data is told that somebody is there.
    let (code, stderr) = Daemon::start(
        temp.path(),
        &["--data-dir", "data", "--listen", "127.0.0.1:0"],
    )
    .end();
    let in_use = "error: data/db is in use by another process\n";
    assert_eq!((code, stderr.as_str()), (Some(1), in_use));
    assert!(tracker.child.try_wait().unwrap().is_none());
    tracker.signal(Signal::INT);
    assert_eq!(tracker.end().0, Some(0));
}

#[test]
fn a_port_in_use_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let mut first = Daemon::start(
        temp.path(),
        &["--data-dir", "one", "--listen", "127.0.0.1:0"],
    );
    let addr = first.lines(6)[4]
        .strip_prefix("Tracker listening on ")
        .unwrap()
        .to_owned();
    let (code, stderr) =
        Daemon::start(temp.path(), &["--data-dir", "two", "--listen", &addr]).end();
    assert_eq!(code, Some(1));
    // That for peers, or the one between trackers.
    let port = stderr
        .strip_prefix("error: port ")
        .and_then(|rest| rest.strip_suffix(" of 127.0.0.1 is in use\n"))
        .expect(&stderr);
    let port: u16 = port.parse().unwrap();
    let taken: u16 = addr.rsplit(':').next().unwrap().parse().unwrap();
    assert!(port == taken || port == taken + 1000, "{stderr}");
}

#[test]
fn a_list_of_one_keeps_its_files_beside_it() {
    let temp = tempfile::tempdir().unwrap();
    let lists = temp.path().join("lists");
    fs::create_dir(&lists).unwrap();
    // A port that was free a moment ago; whoever else takes it meanwhile makes us try another.
    for _ in 0..10 {
        let mut probe = Daemon::start(
            temp.path(),
            &["--data-dir", "probe", "--listen", "127.0.0.1:0"],
        );
        let addr = probe.lines(6)[4]
            .strip_prefix("Tracker listening on ")
            .unwrap()
            .to_owned();
        probe.signal(Signal::TERM);
        probe.end();
        fs::write(
            lists.join("tracker_info.txt"),
            format!("# ours\n\n{addr} # the only one\n"),
        )
        .unwrap();
        let mut tracker = Daemon::start(temp.path(), &["lists/tracker_info.txt", "1"]);
        let Some(lines) = tracker.try_lines(6) else {
            continue;
        };
        assert_eq!(
            lines[0],
            format!("Using tracker address from config: {addr}")
        );
        assert_eq!(lines[4], format!("Tracker listening on {addr}"));
        let port = addr.rsplit(':').next().unwrap();
        assert!(lists.join(format!("tracker-{port}")).is_dir());
        assert!(lists.join("ring.key").is_file());
        return;
    }
    panic!("no port stayed free");
}

#[test]
fn a_ring_is_looked_at_and_not_yet_changed() {
    let temp = tempfile::tempdir().unwrap();
    let mut tracker = Daemon::start(
        temp.path(),
        &["--data-dir", "data", "--listen", "127.0.0.1:0"],
    );
    let lines = tracker.lines(6);
    let addr = lines[4].strip_prefix("Tracker listening on ").unwrap();
    let ring = lines[3].split([' ', ':']).nth(1).unwrap();
    fs::write(temp.path().join("list"), format!("# ours\n{addr}\n")).unwrap();
    let run = |args: &[&str]| {
        let mut command = Daemon::start(temp.path(), args);
        let (code, stderr) = command.end();
        (code, command.stdout(), stderr)
    };
    for args in [
        &["ring", "status", "list"][..],
        &["ring", "status", "list", "1"],
    ] {
        let (code, stdout, stderr) = run(args);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(
            stdout.starts_with(&format!(
                "Ring {ring}: 1 of 1 trackers reachable, epoch 1  {addr}  alive, "
            )),
            "{stdout}"
        );
    }
    fs::write(
        temp.path().join("pinned"),
        format!("{addr}\nring {}\n", "ab".repeat(32)),
    )
    .unwrap();
    fs::write(temp.path().join("dead"), "127.0.0.1:1\n").unwrap();
    for (args, message) in [
        (
            &["ring", "status", "list", "2"][..],
            "number 2 is out of range: the list has 1 tracker",
        ),
        (
            &["ring", "status", "missing"],
            "cannot read the list of trackers missing: ",
        ),
        (
            &["ring", "status", "pinned"],
            &format!("the tracker at {addr} is of ring {ring}, not of "),
        ),
        (
            &["ring", "status", "dead"],
            "no tracker can be reached (tried 127.0.0.1:1)",
        ),
        (
            &["ring", "apply", "list"],
            "this version cannot change who is in a ring: 'ring apply' is not there yet; nothing was changed",
        ),
        (
            &["ring", "abort"],
            "this version cannot change who is in a ring: 'ring abort' ",
        ),
        (
            &["ring", "recover", "--accept-loss"],
            "this version cannot change who is in a ring: 'ring recover' ",
        ),
    ] {
        let (code, stdout, stderr) = run(args);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{args:?}: {stderr}");
        assert!(
            stderr.starts_with(&format!("error: {message}")) && stderr.lines().count() == 1,
            "{args:?}: {stderr}"
        );
    }
}

#[test]
fn what_is_wrong_is_one_clear_error_and_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(temp.path().join(name), text).unwrap();
    write("bad.txt", "127.0.0.1:9000\n\n127.0.0.1\n");
    write("high.txt", "127.0.0.1:64536\n");
    write(
        "collide.txt",
        "127.0.0.1:9000\n# between\n127.0.0.1:10000\n",
    );
    write("one.txt", "127.0.0.1:9000\n");
    write(
        "three.txt",
        "127.0.0.1:9000\n127.0.0.1:9001\n127.0.0.1:9002\n",
    );
    write("empty.txt", "# nothing\n");
    write(
        "pinned.txt",
        &format!("127.0.0.1:9000\nring {}\n", "ab".repeat(32)),
    );
    let cases: [(&[&str], i32, &str); 11] = [
        (
            &["missing.txt", "1"],
            1,
            "cannot read the list of trackers missing.txt",
        ),
        (
            &["bad.txt", "1"],
            1,
            "bad.txt: line 3: '127.0.0.1' is not a tracker's address: a port is missing",
        ),
        (
            &["high.txt", "1"],
            1,
            "high.txt: line 1: '127.0.0.1:64536' is not a tracker's address: port 64536 is out of range",
        ),
        (
            &["collide.txt", "1"],
            1,
            "collide.txt: line 3: 127.0.0.1:10000 collides with 127.0.0.1:9000 of line 1",
        ),
        (
            &["one.txt", "2"],
            1,
            "number 2 is out of range: the list has 1 tracker",
        ),
        (&["one.txt", "0"], 1, "number 0 is out of range"),
        (&["one.txt", "first"], 2, "invalid value 'first'"),
        (&["three.txt"], 1, "say which of them this is"),
        (&["empty.txt", "1"], 1, "the list has no tracker in it"),
        (&["pinned.txt", "1"], 1, "ring.key is missing"),
        (
            &["--listen", "127.0.0.1:65000"],
            1,
            "port 65000 is out of range",
        ),
    ];
    let before = listing(temp.path());
    for (args, expected, message) in cases {
        let mut tracker = Daemon::start(temp.path(), args);
        let (code, stderr) = tracker.end();
        assert_eq!(code, Some(expected), "{args:?}: {stderr}");
        let first = stderr.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("error: ") && first.contains(message),
            "{args:?}: {stderr}"
        );
        assert_eq!(tracker.stdout(), "", "{args:?}");
        assert_eq!(listing(temp.path()), before, "{args:?}");
    }
}

#[test]
fn a_ring_key_that_cannot_be_read_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("tracker_info.txt"), "127.0.0.1:9000\n").unwrap();
    fs::write(temp.path().join("ring.key"), "not a key").unwrap();
    let before = listing(temp.path());
    let (code, stderr) = Daemon::start(temp.path(), &["tracker_info.txt"]).end();
    assert_eq!(code, Some(1));
    assert!(
        stderr.starts_with("error: ") && stderr.contains("ring.key"),
        "{stderr}"
    );
    assert_eq!(
        fs::read_to_string(temp.path().join("ring.key")).unwrap(),
        "not a key"
    );
    assert_eq!(listing(temp.path()), before);
}

#[test]
fn data_is_opened_with_its_own_ring_key_or_not_at_all() {
    let temp = tempfile::tempdir().unwrap();
    let args = |data| ["--data-dir", data, "--listen", "127.0.0.1:0"];
    let mut rings = Vec::new();
    for data in ["one", "two"] {
        let mut tracker = Daemon::start(temp.path(), &args(data));
        let line = tracker.lines(6).swap_remove(3);
        rings.push(line.split([' ', ':']).nth(1).unwrap().to_owned());
        tracker.signal(Signal::TERM);
        tracker.end();
    }
    let key = temp.path().join("one/ring.key");
    let own = fs::read(&key).unwrap();
    let other = fs::read(temp.path().join("two/ring.key")).unwrap();
    // What the store keeps of its own past, it clears up whenever it is opened.
    let files = || {
        let mut files = listing(temp.path());
        files.retain(|file| !file.contains("/db/"));
        files
    };
    let before = files();
    let refused = |message: &str| {
        let (code, stderr) = Daemon::start(temp.path(), &args("one")).end();
        assert_eq!((code, stderr), (Some(1), format!("error: {message}\n")));
        assert_eq!(files(), before);
    };
    let mode = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
    // Of another ring, shorter than it was, nothing at all, and open to others.
    fs::write(&key, other).unwrap();
    let [one, two] = &rings[..] else {
        panic!("{rings:?}")
    };
    refused(&format!("one belongs to the ring {one}, not to {two}"));
    fs::write(&key, &own[..50]).unwrap();
    refused(
        "one/ring.key cannot be used as the ring key: it is damaged: \
         copy it again from another tracker of the ring",
    );
    fs::write(&key, "").unwrap();
    refused("one/ring.key cannot be used as the ring key: it is not a ring key");
    fs::write(&key, &own).unwrap();
    mode(0o640);
    refused("one/ring.key is open to other users (mode 0640): `chmod 600` it");
    mode(0o600);
    // Missing: no other one is made in its place.
    fs::remove_file(&key).unwrap();
    let (code, stderr) = Daemon::start(temp.path(), &args("one")).end();
    let missing = "error: one/ring.key is missing, and one has data of its ring: \
                   restore it from a copy, or from another tracker of the ring\n";
    assert_eq!((code, stderr.as_str()), (Some(1), missing));
    assert!(!key.exists());
    // A link could lead to what others may write.
    std::os::unix::fs::symlink("../two/ring.key", &key).unwrap();
    refused("one/ring.key is not a regular file: put the key itself there");
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    refused("one/ring.key is not a regular file: put the key itself there");
    fs::remove_dir(&key).unwrap();
    // With its own it goes on as if nothing had been.
    fs::write(&key, &own).unwrap();
    mode(0o600);
    let mut tracker = Daemon::start(temp.path(), &args("one"));
    assert!(tracker.lines(6)[3].contains(one.as_str()));
    tracker.signal(Signal::TERM);
    assert_eq!(tracker.end().0, Some(0));
}

#[test]
fn places_that_cannot_be_used_are_named() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("file"), "mine").unwrap();
    let mut cases = vec![
        (
            ["--data-dir", "file", "--listen", "127.0.0.1:0"],
            "cannot open file/ring.key: Not a directory",
        ),
        // An address for documentation, which no machine has.
        (
            ["--data-dir", "data", "--listen", "192.0.2.1:9000"],
            "cannot listen on 192.0.2.1:9000: ",
        ),
    ];
    if cfg!(target_os = "linux") {
        cases.push((
            ["--data-dir", "/proc/data", "--listen", "127.0.0.1:0"],
            "cannot make the folder /proc/data: ",
        ));
    }
    let before = listing(temp.path());
    for (args, message) in cases {
        let (code, stderr) = Daemon::start(temp.path(), &args).end();
        assert_eq!(code, Some(1), "{args:?}: {stderr}");
        let expected = format!("error: {message}");
        assert!(stderr.starts_with(&expected), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
        assert_eq!(listing(temp.path()), before, "{args:?}");
    }
}

/// A tracker, killed when dropped.
struct Daemon {
    child: Child,
    lines: mpsc::Receiver<String>,
    errors: mpsc::Receiver<String>,
}

impl Daemon {
    /// Starts one in `folder`, which is its home and its data folder too.
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_p2pshare-tracker"))
            .args(args)
            .current_dir(folder)
            .env("HOME", folder)
            .env_remove("XDG_DATA_HOME")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let errors = lines_of(child.stderr.take().unwrap());
        Self {
            child,
            lines,
            errors,
        }
    }

    fn lines(&mut self, count: usize) -> Vec<String> {
        self.try_lines(count)
            .unwrap_or_else(|| panic!("too few lines: {:?}", self.end()))
    }

    /// The next lines; `None` if it ended or hung before it printed as many.
    fn try_lines(&mut self, count: usize) -> Option<Vec<String>> {
        (0..count)
            .map(|_| self.lines.recv_timeout(PATIENCE).ok())
            .collect()
    }

    /// The rest of what it printed.
    fn stdout(&mut self) -> String {
        self.lines.iter().collect()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its exit code and what it said on standard error, once it has ended.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        loop {
            match self.errors.recv_timeout(PATIENCE) {
                Ok(line) => said = said + &line + "\n",
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.child.kill().unwrap();
                    panic!("the tracker does not end; it said {said:?}");
                }
            }
        }
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::sync_channel(1024);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// The names of all files and folders below one.
fn listing(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.display().to_string());
        if path.is_dir() {
            found.extend(listing(&path));
        }
    }
    found.sort();
    found
}
