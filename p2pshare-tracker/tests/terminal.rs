//! `quit` on a terminal: obeyed in the foreground, and left to the shell in the background.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// How long anything may take before the test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn quit_stops_a_tracker_in_the_foreground() {
    let temp = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start(temp.path(), &format!("exec {}", tracker()));
    terminal.wait_for("Type 'quit' to stop the tracker");
    terminal.type_in("something else\n");
    terminal.wait_for("Type 'quit' to stop the tracker");
    terminal.type_in("quit\n");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn the_end_of_the_input_stops_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start(temp.path(), &format!("exec {}", tracker()));
    terminal.wait_for("Type 'quit' to stop the tracker");
    terminal.type_in("\u{4}");
    terminal.type_in("still there?\n");
    terminal.wait_for("Type 'quit' to stop the tracker");
    terminal.type_in("quit\n");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_tracker_in_the_background_leaves_the_terminal_to_the_shell() {
    let temp = tempfile::tempdir().unwrap();
    // `set -m` gives the tracker a process group of its own, as an interactive shell does.
    let script = format!(
        "set -m; {} & read line; echo the shell read $line; fg >/dev/null; echo ended $?",
        tracker()
    );
    let mut terminal = Terminal::start(temp.path(), &script);
    terminal.wait_for("Type 'quit' to stop the tracker");
    terminal.type_in("quit\n");
    terminal.wait_for("the shell read quit");
    // Now the shell has brought it to the foreground.
    terminal.type_in("quit\n");
    terminal.wait_for("ended 0");
    assert_eq!(terminal.end(), Some(0));
}

fn tracker() -> String {
    format!(
        "{} --data-dir data --listen 127.0.0.1:0",
        env!("CARGO_BIN_EXE_p2pshare-tracker")
    )
}

/// A shell with a terminal of its own.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: mpsc::Receiver<String>,
}

impl Terminal {
    fn start(folder: &Path, script: &str) -> Self {
        let keyboard =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let slave = File::options()
            .read(true)
            .write(true)
            .open(OsStr::from_bytes(name.as_bytes()))
            .unwrap();
        let child = Command::new("setsid")
            .args(["--ctty", "--wait", "sh", "-c", script])
            .current_dir(folder)
            .stdin(Stdio::from(slave.try_clone().unwrap()))
            .stdout(Stdio::from(slave.try_clone().unwrap()))
            .stderr(Stdio::from(slave))
            .spawn()
            .unwrap();
        let keyboard = File::from(keyboard);
        let screen = lines_of(keyboard.try_clone().unwrap());
        Self {
            child,
            keyboard,
            screen,
        }
    }

    fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = String::new();
        while !seen.contains(text) {
            let rest = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(rest) {
                Ok(line) => seen = seen + &line + "\n",
                Err(_) => panic!("no {text:?} on the screen:\n{seen}"),
            }
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
        for pid in children_of(self.child.id()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All processes below one, as Linux lists them.
fn children_of(pid: u32) -> Vec<rustix::process::Pid> {
    let list =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut found = Vec::new();
    for child in list.split_whitespace() {
        found.extend(children_of(child.parse().unwrap()));
        found.extend(rustix::process::Pid::from_raw(child.parse().unwrap()));
    }
    found
}

fn lines_of(screen: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::sync_channel(1024);
    thread::spawn(move || {
        for line in BufReader::new(screen).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
