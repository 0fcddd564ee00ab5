//! CPU time and peak memory of a process, as Linux tells them under `/proc`.

use std::error::Error;

/// What a process has used so far.
#[derive(Copy, Clone, Debug)]
pub struct Usage {
    /// Seconds of CPU, of user and system together.
    pub cpu: f64,
    /// Peak of the resident memory, in MiB.
    pub peak_mib: u64,
}

impl Usage {
    /// The usage of the process `pid`.
    ///
    /// # Errors
    /// If there is no such process, or this is not Linux.
    pub fn of(pid: u32) -> Result<Self, Box<dyn Error>> {
        Self::read(&pid.to_string())
    }

    /// The usage of this process.
    ///
    /// # Errors
    /// If this is not Linux.
    pub fn own() -> Result<Self, Box<dyn Error>> {
        Self::read("self")
    }

    /// The usage in the words of [`Usage`]'s `Display`.
    ///
    /// # Errors
    /// If it is in other words.
    pub fn parse(text: &str) -> Result<Self, Box<dyn Error>> {
        let mut words = text.split_whitespace();
        let mut word = || words.next().ok_or("the usage is missing");
        Ok(Self {
            cpu: word()?.parse()?,
            peak_mib: word()?.parse()?,
        })
    }

    fn read(process: &str) -> Result<Self, Box<dyn Error>> {
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
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.split_whitespace().next())
            .ok_or("no peak")?;
        Ok(Self {
            cpu: ticks as f64 / TICKS_PER_SECOND,
            peak_mib: peak.parse::<u64>()? / 1024,
        })
    }
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.cpu, self.peak_mib)
    }
}

/// The same on every Linux of today.
const TICKS_PER_SECOND: f64 = 100.0;
