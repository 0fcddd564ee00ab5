//! The processes that are measured: those that this one started, which end with it, and what they use, as Linux
//! tells it under `/proc`.

use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command};

use crate::Outcome;

/// A process that this one started. It is killed when this is dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts it.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn spawn(command: &mut Command) -> Outcome<Self> {
        let name = command.get_program().display().to_string();
        let child = command
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        Ok(Self(child))
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// What it says, once, if it was spawned with a pipe.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        if self.0.kill().is_ok() {
            let _ = self.0.wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program that was built beside this one.
///
/// # Errors
/// If it was not.
pub fn program(name: &str) -> Outcome<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    match path.exists() {
        true => Ok(path),
        false => Err(format!("{} is missing: run `cargo build --release`", path.display()).into()),
    }
}

/// What a process has used so far.
#[derive(Copy, Clone, Debug)]
pub struct Usage {
    /// Seconds of CPU, of user and system together.
    pub cpu: f64,
    /// Peak of the resident memory, in MiB.
    pub peak_mib: u64,
    /// The resident memory of now, in MiB.
    pub resident_mib: u64,
}

impl Usage {
    /// The usage of the process `pid`.
    ///
    /// # Errors
    /// If there is no such process, or this is not Linux.
    pub fn of(pid: u32) -> Outcome<Self> {
        Self::read(&pid.to_string())
    }

    /// The usage of this process.
    ///
    /// # Errors
    /// If this is not Linux.
    pub fn own() -> Outcome<Self> {
        Self::read("self")
    }

    /// The usage in the words of [`Usage`]'s `Display`.
    ///
    /// # Errors
    /// If it is in other words.
    pub fn parse(text: &str) -> Outcome<Self> {
        let mut words = text.split_whitespace();
        let mut word = || words.next().ok_or("the usage is missing");
        Ok(Self {
            cpu: word()?.parse()?,
            peak_mib: word()?.parse()?,
            resident_mib: word()?.parse()?,
        })
    }

    fn read(process: &str) -> Outcome<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The name of the program may have spaces; what follows it has not.
        let (_, fields) = stat.rsplit_once(')').ok_or("no process")?;
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse::<u64>)
            .sum::<Result<_, _>>()?;
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        let mib = |name: &str| -> Outcome<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.split_whitespace().next());
            Ok(kib.ok_or("no such usage")?.parse::<u64>()? / 1024)
        };
        Ok(Self {
            cpu: ticks as f64 / TICKS_PER_SECOND,
            peak_mib: mib("VmHWM:")?,
            resident_mib: mib("VmRSS:")?,
        })
    }
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.cpu, self.peak_mib, self.resident_mib)
    }
}

/// The same on every Linux of today.
const TICKS_PER_SECOND: f64 = 100.0;
