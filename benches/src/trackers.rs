//! A ring of real trackers in one folder, and somebody who gives commands there, as the programs do it that were built
//! beside this one.
//!
//! **Invariant.** The trackers are children of this process, and end with their [`Ring`].

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use crate::Outcome;
use crate::process::{Running, program};

/// Trackers that are one ring, in the order of their list.
#[derive(Debug)]
pub struct Ring {
    dir: PathBuf,
    trackers: Vec<Running>,
}

impl Ring {
    /// Starts so many trackers in the folder and waits until each reaches all.
    ///
    /// # Errors
    /// If one does not start, or the ring is not whole within half a minute; nothing runs then.
    pub fn start(dir: &Path, trackers: usize) -> Outcome<Self> {
        std::fs::write(dir.join(LIST), free_places(trackers)?.join("\n"))?;
        let mut ring = Self {
            dir: dir.to_owned(),
            trackers: Vec::new(),
        };
        let whole = format!("{trackers} of {trackers} trackers reachable");
        let mut said = Vec::new();
        for number in 1..=trackers {
            let (tracker, output) = ring.spawn(number)?;
            ring.trackers.push(tracker);
            said.push(when_said(output, whole.clone()));
        }
        for said in said {
            said.recv_timeout(START_PATIENCE)
                .map_err(|_| "the ring is not whole")?;
        }
        Ok(ring)
    }

    fn spawn(&self, number: usize) -> Outcome<(Running, ChildStdout)> {
        let mut command = Command::new(program("p2pshare-tracker")?);
        command
            .current_dir(&self.dir)
            .args([LIST, &number.to_string()])
            // That another one was killed is no news here.
            .env("P2PSHARE_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut tracker = Running::spawn(&mut command)?;
        let output = tracker.stdout().ok_or("the tracker has no output")?;
        Ok((tracker, output))
    }

    /// Kills a tracker as `kill -9` does; the first is 0.
    pub fn kill(&mut self, tracker: usize) {
        self.trackers[tracker].kill();
    }

    /// Starts a tracker again and waits until it reaches all.
    ///
    /// # Errors
    /// If it does not start, or does not reach all within half a minute.
    pub fn restart(&mut self, tracker: usize) -> Outcome<()> {
        let (process, output) = self.spawn(tracker + 1)?;
        self.trackers[tracker] = process;
        let all = self.trackers.len();
        let said = when_said(output, format!("{all} of {all} trackers reachable"));
        let said = said.recv_timeout(START_PATIENCE);
        said.map_err(|_| "the tracker does not reach the others".into())
    }

    /// The processes of the trackers.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.trackers.iter().map(Running::pid).collect()
    }

    /// Where the list of the trackers is.
    #[must_use]
    pub fn list(&self) -> PathBuf {
        self.dir.join(LIST)
    }
}

/// Somebody with a home, who gives commands.
#[derive(Debug)]
pub struct User {
    name: String,
    home: PathBuf,
    list: PathBuf,
}

impl User {
    /// Makes an account and logs in.
    ///
    /// # Errors
    /// If that is refused.
    pub fn log_in(name: &str, dir: &Path, list: PathBuf) -> Outcome<Self> {
        let user = Self {
            name: name.to_owned(),
            home: dir.join(name),
            list,
        };
        user.run(&["create_user", name, "pass123"])?;
        user.run(&["login", name, "pass123"])?;
        Ok(user)
    }

    /// Gives a command, and waits for its end.
    ///
    /// # Errors
    /// What it said, if it failed.
    pub fn run(&self, args: &[&str]) -> Outcome<String> {
        let output = Command::new(program("p2pshare")?)
            .arg("--trackers")
            .arg(&self.list)
            .arg("--home")
            .arg(&self.home)
            .args(args)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("p2pshare {args:?} failed: {said}").into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Bytes of chunks that the background peer has sent to others, to about a hundredth.
    ///
    /// # Errors
    /// If `status` fails, or says it in other words.
    pub fn sent_bytes(&self) -> Outcome<f64> {
        let status = self.run(&["status"])?;
        let said = status
            .lines()
            .find_map(|line| line.trim().strip_prefix("sent "));
        let mut words = said
            .ok_or("nothing is said of what was sent")?
            .split_whitespace();
        let number: f64 = words.next().ok_or("how much was sent?")?.parse()?;
        let unit = match words.next() {
            Some("B") => 1.0,
            Some("kB") => 1e3,
            Some("MB") => 1e6,
            Some("GB") => 1e9,
            Some("TB") => 1e12,
            unit => return Err(format!("a unit {unit:?}").into()),
        };
        Ok(number * unit)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["logout"]) {
            eprintln!("{}: {error}", self.name);
        }
    }
}

/// Tells when a process has said some words; what else it says is read too, so that it never waits.
fn when_said(output: ChildStdout, words: String) -> Receiver<()> {
    let (tell, told) = sync_channel(1);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if line.contains(&words) {
                let _ = tell.try_send(());
            }
        }
    });
    told
}

/// Addresses whose ports, and those of the ring above them, were free a moment ago.
fn free_places(count: usize) -> Outcome<Vec<String>> {
    let mut places = Vec::new();
    let mut held = Vec::new();
    while places.len() < count {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        let port = socket.local_addr()?.port();
        if let Some(below) = port.checked_sub(RING_PORT_OFFSET)
            && let Ok(other) = UdpSocket::bind(("127.0.0.1", below))
        {
            places.push(format!("127.0.0.1:{below}"));
            held.push((socket, other));
        }
    }
    Ok(places)
}

/// The list of the trackers in their folder.
const LIST: &str = "tracker_info.txt";
/// How far above its port a tracker speaks to the others.
const RING_PORT_OFFSET: u16 = 1000;
/// How long trackers may take until they reach each other.
const START_PATIENCE: Duration = Duration::from_secs(30);
