//! The identity file: who is logged in in a folder, and how the trackers of that ring are reached. With it any
//! command can start the background peer again; the session's secret is not in it.

use std::fmt;
use std::str::FromStr;

use p2pshare::{RingId, TrackerAddr, UserName};

/// Who is logged in, to which ring, through which trackers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct IdentityFile {
    /// As the account was created.
    pub(crate) user: UserName,
    pub(crate) ring: RingId,
    /// Those given at login, in order; at least one.
    pub(crate) trackers: Vec<TrackerAddr>,
}

impl fmt::Display for IdentityFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}\nuser {}\nring {}", self.user, self.ring)?;
        self.trackers
            .iter()
            .try_for_each(|tracker| writeln!(f, "tracker {tracker}"))
    }
}

impl FromStr for IdentityFile {
    type Err = BadIdentityFile;

    fn from_str(text: &str) -> Result<Self, BadIdentityFile> {
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(BadIdentityFile);
        }
        let (mut user, mut ring, mut trackers) = (None, None, Vec::new());
        for line in lines {
            match line.split_once(' ').ok_or(BadIdentityFile)? {
                ("user", name) => user = Some(name.parse().map_err(|_| BadIdentityFile)?),
                ("ring", id) => ring = Some(id.parse().map_err(|_| BadIdentityFile)?),
                ("tracker", addr) => trackers.push(addr.parse().map_err(|_| BadIdentityFile)?),
                _ => return Err(BadIdentityFile),
            }
        }
        match (user, ring) {
            (Some(user), Some(ring)) if !trackers.is_empty() => Ok(Self {
                user,
                ring,
                trackers,
            }),
            _ => Err(BadIdentityFile),
        }
    }
}

/// The text is not an identity file of this version.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct BadIdentityFile;

const FIRST_LINE: &str = "p2pshare identity 1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let file = IdentityFile {
            user: UserName::new("Alice").unwrap(),
            ring: RingId::from_bytes([0xab; 32]),
            trackers: vec![
                "127.0.0.1:9000".parse().unwrap(),
                "[::1]:9001".parse().unwrap(),
            ],
        };
        let text = file.to_string();
        let read: IdentityFile = text.parse().unwrap();
        assert_eq!((read.user.as_str(), &read), ("Alice", &file));
        assert!(
            text.starts_with("p2pshare identity 1\nuser Alice\nring abab"),
            "{text}"
        );
    }

    #[test]
    fn anything_else_is_refused() {
        let good = format!(
            "p2pshare identity 1\nuser a\nring {}\ntracker a:1\n",
            "00".repeat(32)
        );
        assert!(good.parse::<IdentityFile>().is_ok());
        for (from, to) in [
            ("identity 1", "identity 2"),
            ("user a\n", ""),
            ("tracker a:1\n", ""),
            ("user a", "user ../a"),
            ("a:1", "a"),
        ] {
            assert_eq!(
                good.replace(from, to).parse::<IdentityFile>(),
                Err(BadIdentityFile),
                "{from}"
            );
        }
    }
}
