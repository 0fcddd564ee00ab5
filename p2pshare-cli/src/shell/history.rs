//! What was typed at earlier prompts: a file in the home, for its owner alone and bounded, in which no password is ever
//! written. A line that could not be understood might have one anywhere, and is not kept at all.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use super::words;
use crate::args::Command;
use crate::home::{self, Home};

/// The lines of all shells of a home. What goes wrong with it is no reason to end a shell.
pub(super) struct History {
    file: PathBuf,
    /// Lines that were added since the file was last cut.
    added: usize,
}

impl History {
    pub(super) fn at(home: &Home) -> Self {
        Self {
            file: home.path().join("history"),
            added: 0,
        }
    }

    /// The last lines that were kept, the oldest first. The file is cut to them.
    pub(super) fn load(&mut self) -> Vec<String> {
        self.added = 0;
        let Ok(text) = self.read() else {
            return Vec::new();
        };
        let all = text.lines().count();
        let lines: Vec<String> = text
            .lines()
            .skip(all.saturating_sub(LINES_MAX))
            .map(str::to_owned)
            .collect();
        if all > LINES_MAX {
            let _ = home::replace(&self.file, &(lines.join("\n") + "\n"));
        }
        lines
    }

    /// Adds a line.
    pub(super) fn keep(&mut self, line: Option<&str>) {
        let Some(line) = line.filter(|line| line.len() <= LINE_BYTES_MAX) else {
            return;
        };
        if self.append(line).is_ok() {
            self.added += 1;
        }
        if self.added >= LINES_MAX {
            self.load();
        }
    }

    /// The end of the file, as much as there can be in it.
    fn read(&self) -> io::Result<String> {
        let mut file = File::options()
            .read(true)
            .custom_flags(NO_LINK_NO_WAIT)
            .open(&self.file)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(FILE_BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn append(&self, line: &str) -> io::Result<()> {
        if let Some(folder) = self.file.parent() {
            home::create_private(folder)?;
        }
        let mut file = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(NO_LINK_NO_WAIT)
            .open(&self.file)?;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
        // In one piece, beside those of other shells.
        file.write_all(format!("{line}\n").as_bytes())
    }
}

/// The line as it may be kept: one with a password is told by its command and its user alone.
pub(super) fn without_password(line: &str, command: &Command) -> String {
    let (name, account) = match command {
        Command::CreateUser(account) => ("create_user", account),
        Command::Login(account) => ("login", account),
        _ => return line.trim_end().to_owned(),
    };
    match &account.password {
        Some(_) => format!("{name} {}", words::escape(account.user.as_str())),
        None => line.trim_end().to_owned(),
    }
}

/// Lines that are kept.
pub(super) const LINES_MAX: usize = 1000;

/// Bytes in a line that is kept.
const LINE_BYTES_MAX: usize = 4096;

/// Bytes that are read of the file: more than these are not lines that somebody typed.
const FILE_BYTES_MAX: u64 = 1 << 20;

const NO_LINK_NO_WAIT: i32 = rustix::fs::OFlags::NOFOLLOW
    .union(rustix::fs::OFlags::NONBLOCK)
    .bits() as i32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Global, parse_line};

    #[test]
    fn no_password_is_kept() {
        let kept = |line: &str| {
            let words = words::split(line).unwrap();
            let Ok(cli) = parse_line(&words, &Global::default()) else {
                panic!("{line}");
            };
            without_password(line, &cli.command)
        };
        for (line, expected) in [
            ("login Alice", "login Alice"),
            ("login Alice hunter2", "login Alice"),
            ("login hunter2 hunter2 --home hunter2", "login hunter2"),
            (
                "--as Bob create-user 'Alice' \"hunter 2\"",
                "create_user Alice",
            ),
            (
                "create_group hunter2 --open ",
                "create_group hunter2 --open",
            ),
        ] {
            assert_eq!(kept(line), expected, "{line}");
        }
    }

    #[test]
    fn the_file_is_bounded_and_for_its_owner_alone() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(&temp.path().join("home"))).unwrap();
        let mut history = History::at(&home);
        assert!(history.load().is_empty());
        for number in 0..2 * LINES_MAX + 10 {
            history.keep(Some(&format!("line {number}")));
        }
        history.keep(Some(&"x".repeat(LINE_BYTES_MAX + 1)));
        history.keep(None);
        let text = fs::read_to_string(home.path().join("history")).unwrap();
        assert!(text.lines().count() <= 2 * LINES_MAX);
        let lines = History::at(&home).load();
        assert_eq!(lines.len(), LINES_MAX);
        assert_eq!(lines[LINES_MAX - 1], format!("line {}", 2 * LINES_MAX + 9));
        let file = home.path().join("history");
        let mode = |file: &PathBuf| fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        history.keep(Some("once more"));
        assert_eq!(mode(&file), 0o600);
        // A link is not followed.
        let victim = temp.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(&victim, &file).unwrap();
        history.keep(Some("status"));
        assert_eq!(fs::read_to_string(victim).unwrap(), "mine");
    }
}
