//! A small world for a test: a tracker of its own on a free port, homes of its own, and the real binaries. Whatever it
//! started it ends, by process id, and its folder goes with it.

#![allow(dead_code, reason = "each test binary uses its part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

pub(crate) mod ring;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

/// How long anything may take before the test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) temp: TempDir,
    tracker: Mutex<Option<Process>>,
    /// Where the tracker listens; the same after a restart. Of several, a list.
    pub(crate) addr: String,
}

impl World {
    /// A world with a fresh tracker.
    pub(crate) fn new() -> Self {
        let mut world = Self::without_tracker();
        world.start_tracker();
        world
    }

    /// A world whose trackers are started otherwise.
    pub(crate) fn without_tracker() -> Self {
        let temp = tempfile::Builder::new()
            .prefix("p2pshare-")
            .tempdir()
            .unwrap();
        for folder in ["work", "run", "tmp"] {
            fs::create_dir(temp.path().join(folder)).unwrap();
        }
        Self {
            temp,
            tracker: Mutex::default(),
            addr: "127.0.0.1:0".to_owned(),
        }
    }

    pub(crate) fn start_tracker(&mut self) {
        let mut command = Command::new(tracker_binary());
        command
            .arg("--data-dir")
            .arg(self.path("tracker"))
            .args(["--listen", &self.addr]);
        let mut tracker = Process::spawn(command);
        let line = tracker.wait_for_line("Tracker listening on ");
        self.addr = line.rsplit(' ').next().unwrap().to_owned();
        *self.tracker.get_mut().unwrap() = Some(tracker);
    }

    /// Ends the tracker as an operator would.
    pub(crate) fn stop_tracker(&mut self) {
        let mut tracker = self.tracker.get_mut().unwrap().take().unwrap();
        tracker.signal(Signal::TERM);
        assert_eq!(tracker.wait().code, Some(0));
    }

    /// Ends the tracker as a power cut would.
    pub(crate) fn kill_tracker(&mut self) {
        let mut tracker = self.tracker.get_mut().unwrap().take().unwrap();
        tracker.signal(Signal::KILL);
        tracker.wait();
    }

    /// Stops the tracker in its tracks, or lets it go on.
    pub(crate) fn signal_tracker(&self, signal: Signal) {
        let tracker = self.tracker.lock().unwrap();
        tracker.as_ref().unwrap().signal(signal);
    }

    /// A path in the folder of this world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// A path in the folder that commands run in.
    pub(crate) fn work(&self, name: &str) -> PathBuf {
        self.path("work").join(name)
    }

    /// Writes a file of `len` bytes, no two chunks of which are the same.
    pub(crate) fn write_file(&self, name: &str, len: usize) -> PathBuf {
        const BLOCK: usize = 64 * 1024;
        let path = self.work(name);
        let mut block: Vec<u8> = name.bytes().cycle().take(BLOCK).collect();
        let mut file = fs::File::create(&path).unwrap();
        for (number, at) in (0..len).step_by(BLOCK).enumerate() {
            block[..8].copy_from_slice(&number.to_le_bytes());
            file.write_all(&block[..BLOCK.min(len - at)]).unwrap();
        }
        path
    }

    /// The command line, in the first home.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_at_home("home", args)
    }

    /// The command line, in another home.
    pub(crate) fn command_at_home(&self, home: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_p2pshare"));
        command
            .args(args)
            .current_dir(self.path("work"))
            .env_clear()
            .envs(
                std::env::vars_os()
                    .filter(|(name, _)| name == "PATH" || name == "LLVM_PROFILE_FILE"),
            )
            .env("HOME", self.temp.path())
            .env("TMPDIR", self.path("tmp"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("P2PSHARE_HOME", self.path(home))
            .env("P2PSHARE_TRACKERS", &self.addr);
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Finished {
        Process::spawn(self.command(args)).wait()
    }

    /// Runs a command that has to succeed, and returns its standard output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        self.run(args).expect_ok(args)
    }

    /// Runs a command of one of the identities that has to succeed.
    pub(crate) fn ok_as(&self, user: &str, args: &[&str]) -> String {
        self.ok(&[args, &["--as", user]].concat())
    }

    /// Runs a command that has to fail like this; the message is what follows `error: ` on the first line of its kind.
    pub(crate) fn refused(&self, args: &[&str], code: i32, message: &str) {
        let finished = self.run(args);
        let line = finished
            .stderr
            .lines()
            .find_map(|line| line.strip_prefix("error: "))
            .unwrap_or_default();
        assert_eq!(
            (finished.code, line),
            (Some(code), message),
            "{args:?}\n{}",
            finished.stderr
        );
        assert_eq!(finished.stdout, "", "{args:?}");
    }

    /// Makes accounts, all with the password `pass123`, and logs them in; the last is the current one.
    pub(crate) fn users(&self, names: &[&str]) {
        for name in names {
            self.ok(&["create_user", name, "pass123"]);
            self.ok(&["login", name, "pass123"]);
        }
    }

    /// The process id that `status` shows.
    pub(crate) fn peer_pid(&self, user: &str) -> Pid {
        let status = self.ok_as(user, &["status"]);
        let (_, rest) = status.split_once("(pid ").expect(&status);
        Pid::from_raw(rest.split(')').next().unwrap().parse().unwrap()).unwrap()
    }

    /// The process that holds the lock of a user's folder.
    pub(crate) fn lock_holder(&self, user: &str) -> Pid {
        let folders = self.identity_folders();
        let folder = folders
            .iter()
            .find(|folder| folder.ends_with(user))
            .unwrap();
        let holder = fs::read_to_string(folder.join("lock")).unwrap();
        Pid::from_raw(holder.parse().unwrap()).unwrap()
    }

    /// Waits until a process of this world has ended.
    pub(crate) fn wait_until_gone(&self, pid: Pid) {
        let deadline = Instant::now() + PATIENCE;
        while test_kill_process(pid).is_ok() {
            assert!(Instant::now() < deadline, "process {pid:?} still runs");
            thread::yield_now();
        }
    }

    /// Bytes on disk of what is being downloaded to a file in the folder that commands run in.
    pub(crate) fn partial_bytes(&self, dest: &str) -> u64 {
        let partial = fs::symlink_metadata(self.work(&format!("{dest}.p2part")));
        partial.map_or(0, |partial| partial.blocks() * 512)
    }

    /// The folders of all identities of all homes.
    pub(crate) fn identity_folders(&self) -> Vec<PathBuf> {
        let homes = subfolders(self.temp.path());
        let rings = homes
            .iter()
            .filter(|home| home.file_name().unwrap() != "tracker")
            .flat_map(|home| subfolders(home));
        rings
            .filter(|ring| ring.file_name().unwrap().len() == 64)
            .flat_map(|ring| subfolders(&ring))
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for folder in self.identity_folders() {
            end_background_peer(&folder);
        }
    }
}

/// Ends the background peer that holds the lock of a folder, and waits until it is gone.
fn end_background_peer(folder: &Path) {
    let Ok(lock) = fs::File::open(folder.join("lock")) else {
        return;
    };
    if lock.try_lock().is_ok() {
        return;
    }
    let holder = fs::read_to_string(folder.join("lock"))
        .ok()
        .and_then(|text| text.parse().ok());
    if let Some(holder) = holder.and_then(Pid::from_raw) {
        let _ = kill_process(holder, Signal::KILL);
        let _ = lock.lock();
    }
}

/// A process that the test started; killed when dropped.
pub(crate) struct Process {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    #[track_caller]
    pub(crate) fn expect_ok<S: AsRef<OsStr> + std::fmt::Debug>(self, args: &[S]) -> String {
        assert_eq!(
            self.code,
            Some(0),
            "{args:?}\n{}\n{}",
            self.stdout,
            self.stderr
        );
        self.stdout
    }
}

impl Process {
    pub(crate) fn spawn(command: Command) -> Self {
        Self::spawn_with_input(command, Stdio::null())
    }

    pub(crate) fn spawn_with_input(mut command: Command, input: Stdio) -> Self {
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = Lines::of(child.stdout.take().unwrap());
        let stderr = Lines::of(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until something is so, or the process has ended before.
    #[track_caller]
    pub(crate) fn run_until(&mut self, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "it did not come to pass");
            match self.stderr.incoming.recv_timeout(Duration::from_millis(1)) {
                Ok(line) => self.stderr.keep(&line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Waits for a line on standard output that contains `text`.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, text: &str) -> String {
        match self.stdout.wait_for(text) {
            Some(line) => line,
            None => panic!("no line with {text:?}: {:?}", self.wait()),
        }
    }

    /// Waits until standard output has a line that contains `text`, also one that came before.
    #[track_caller]
    pub(crate) fn wait_until_said(&mut self, text: &str) {
        if !self.stdout.seen.contains(text) {
            self.wait_for_line(text);
        }
    }

    /// Forgets what it has said so far.
    pub(crate) fn forget_said(&mut self) {
        while let Ok(line) = self.stdout.incoming.try_recv() {
            self.stdout.keep(&line);
        }
        self.stdout.seen.clear();
    }

    /// Waits for a line on standard error that contains `text`.
    #[track_caller]
    pub(crate) fn wait_for_error_line(&mut self, text: &str) -> String {
        match self.stderr.wait_for(text) {
            Some(line) => line,
            None => panic!("no line with {text:?}: {:?}", self.wait()),
        }
    }

    /// Waits until it has ended, which the end of its output shows.
    pub(crate) fn wait(&mut self) -> Finished {
        let stdout = self.stdout.rest();
        let stderr = self.stderr.rest();
        if stdout.is_none() || stderr.is_none() {
            let _ = self.child.kill();
        }
        let code = self.child.wait().unwrap().code();
        let late = || {
            panic!(
                "process {} did not end in time; it said:\n{}{}",
                self.child.id(),
                self.stdout.seen,
                self.stderr.seen
            )
        };
        Finished {
            code,
            stdout: stdout.unwrap_or_else(late),
            stderr: stderr.unwrap_or_else(late),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a pipe, read by a thread so that waiting for one can have a deadline.
struct Lines {
    incoming: mpsc::Receiver<String>,
    seen: String,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, incoming) = mpsc::sync_channel(1024);
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            incoming,
            seen: String::new(),
        }
    }

    fn wait_for(&mut self, text: &str) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self
                .incoming
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
                .ok()?;
            self.keep(&line);
            if line.contains(text) {
                return Some(line);
            }
        }
    }

    /// All that was and will be read; `None` if the pipe is not closed in time.
    fn rest(&mut self) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self
                .incoming
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.keep(&line),
                Err(RecvTimeoutError::Disconnected) => return Some(std::mem::take(&mut self.seen)),
                Err(RecvTimeoutError::Timeout) => return None,
            }
        }
    }

    fn keep(&mut self, line: &str) {
        self.seen.push_str(line);
        self.seen.push('\n');
    }
}

/// The tracker's binary, which lies beside that of the command line.
pub(crate) fn tracker_binary() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_p2pshare")).with_file_name("p2pshare-tracker");
    assert!(
        path.exists(),
        "{} is missing; build it with `cargo build -p p2pshare-tracker`, or run `cargo test --workspace`",
        path.display()
    );
    path
}

fn subfolders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

/// Whether two files have the same content.
pub(crate) fn same_content(a: &Path, b: &Path) -> bool {
    fs::read(a).unwrap() == fs::read(b).unwrap()
}
