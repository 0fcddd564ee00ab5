//! The trackers of one list as processes of their own: in one folder, or each in a folder as on a host of its own.

use std::collections::BTreeSet;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

use rand::RngExt;
use rustix::process::Signal;

use super::{Finished, PATIENCE, Process, tracker_binary};

pub(crate) struct Ring {
    pub(crate) addrs: Vec<String>,
    /// Where the list and `ring.key` of each lie.
    folders: Vec<PathBuf>,
    trackers: Vec<Option<Process>>,
}

impl Ring {
    /// A list in one folder; nothing runs yet.
    pub(crate) fn in_one_folder(folder: &Path, count: usize) -> Self {
        Self::new(vec![folder.to_owned(); count])
    }

    /// A copy of the list in a folder for each; nothing runs yet.
    pub(crate) fn on_hosts(folder: &Path, count: usize) -> Self {
        let hosts = (1..=count).map(|host| folder.join(format!("host-{host}")));
        Self::new(hosts.collect())
    }

    fn new(folders: Vec<PathBuf>) -> Self {
        let addrs = free_addrs(folders.len());
        for folder in &folders {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join(LIST), addrs.join("\n")).unwrap();
        }
        Self {
            addrs,
            trackers: folders.iter().map(|_| None).collect(),
            folders,
        }
    }

    pub(crate) fn folder(&self, tracker: usize) -> &Path {
        &self.folders[tracker]
    }

    pub(crate) fn data_dir(&self, tracker: usize) -> PathBuf {
        let port = self.addrs[tracker].rsplit(':').next().unwrap();
        self.folders[tracker].join(format!("tracker-{port}"))
    }

    /// The list in the order in which a client is to try it.
    pub(crate) fn from(&self, first: usize) -> String {
        let mut addrs = self.addrs.clone();
        addrs.rotate_left(first);
        addrs.join(",")
    }

    /// A tracker as it is started by hand, with what `extra` says besides.
    pub(crate) fn command(&self, tracker: usize) -> Command {
        let mut command = Command::new(tracker_binary());
        command
            .current_dir(&self.folders[tracker])
            .env("HOME", &self.folders[tracker])
            .args([LIST, &(tracker + 1).to_string()]);
        command
    }

    /// Starts one, and waits until it listens.
    pub(crate) fn start(&mut self, tracker: usize) {
        self.start_as(tracker, self.command(tracker));
    }

    /// Starts one by a command that becomes it, and waits until it listens.
    pub(crate) fn start_as(&mut self, tracker: usize, command: Command) {
        let mut process = Process::spawn(command);
        process.wait_until_said("Type 'quit' to stop the tracker");
        self.trackers[tracker] = Some(process);
    }

    /// Starts all, and waits until the ring is founded and each reaches each.
    pub(crate) fn start_all(&mut self) {
        for tracker in 0..self.addrs.len() {
            self.start(tracker);
            // As an operator would copy it to the other hosts.
            let key = self.folders[0].join("ring.key");
            for folder in &self.folders {
                let copy = folder.join("ring.key");
                if !copy.exists() {
                    fs::copy(&key, copy).unwrap();
                }
            }
        }
        for tracker in 0..self.addrs.len() {
            self.wait_until_whole(tracker);
        }
    }

    /// Waits until a tracker has said that it reaches all.
    pub(crate) fn wait_until_whole(&mut self, tracker: usize) {
        let count = self.addrs.len();
        let text = format!("{count} of {count} trackers reachable");
        self.process(tracker).wait_until_said(&text);
    }

    /// Waits until a tracker reaches all, whatever it has said before, and is up to date.
    pub(crate) fn wait_until_whole_now(&self, tracker: usize) {
        let deadline = Instant::now() + PATIENCE;
        let count = self.addrs.len();
        let whole = format!(": {count} of {count} trackers reachable, ");
        loop {
            let mut command = Command::new(tracker_binary());
            command
                .current_dir(&self.folders[tracker])
                .args(["ring", "status", LIST])
                .arg((tracker + 1).to_string());
            let status = Process::spawn(command).wait();
            if status.stdout.contains(&whole) && status.stdout.contains("up to date\n") {
                return;
            }
            assert!(Instant::now() < deadline, "{status:?}");
        }
    }

    pub(crate) fn process(&mut self, tracker: usize) -> &mut Process {
        self.trackers[tracker].as_mut().unwrap()
    }

    /// Waits until one has ended by itself.
    pub(crate) fn ended(&mut self, tracker: usize) -> Finished {
        self.trackers[tracker].take().unwrap().wait()
    }

    pub(crate) fn is_running(&self, tracker: usize) -> bool {
        self.trackers[tracker].is_some()
    }

    pub(crate) fn signal(&self, tracker: usize, signal: Signal) {
        self.trackers[tracker].as_ref().unwrap().signal(signal);
    }

    /// Ends one by a signal, and waits until it is gone.
    pub(crate) fn end(&mut self, tracker: usize, signal: Signal) {
        let mut process = self.trackers[tracker].take().unwrap();
        process.signal(signal);
        let code = process.wait().code;
        let clean = (signal != Signal::KILL).then_some(0);
        assert_eq!(code, clean, "tracker {tracker} after {signal:?}");
    }
}

/// Addresses whose ports, and those 1000 above, were free a moment ago and are not given out by the system, nor again
/// by this.
pub(crate) fn free_addrs(count: usize) -> Vec<String> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let (mut given, mut addrs) = (GIVEN.lock().unwrap(), Vec::new());
    while addrs.len() < count {
        let port = rand::rng().random_range(12_000..30_000);
        let addr = |port| format!("127.0.0.1:{port}");
        let is_free = |port| !given.contains(&port) && UdpSocket::bind(addr(port)).is_ok();
        if is_free(port) && is_free(port + 1000) {
            given.extend([port, port + 1000]);
            addrs.push(addr(port));
        }
    }
    addrs
}

pub(crate) const LIST: &str = "tracker_info.txt";
