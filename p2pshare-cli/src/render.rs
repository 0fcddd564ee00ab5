//! How results look: tables, sizes and rates. Data goes to standard output, all of it at once, and talk to standard
//! error; nothing here decides anything.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Table, presets};
use indicatif::{DecimalBytes, HumanDuration};

use crate::control::LeftRow;
use crate::failure::Failure;

/// Prints the result of a command. A reader that has gone away, as in `| head`, is not an error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("cannot write the result", &error))
        }
        _ => Ok(()),
    }
}

/// Says something on standard error, which nobody has to listen to.
pub(crate) fn talk(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Said of a listing that may lack what is newest.
pub(crate) const STALE: &str = "(stale: cut off from the ring)";

/// A table without borders, so that scripts can read it too.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header)
        .add_rows(rows);
    table
        .lines()
        .map(|line| line.trim().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// What a drawing on standard output has room for.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Canvas {
    /// Columns.
    pub(crate) width: usize,
    /// Whether it is no terminal, so that nothing but ASCII is drawn.
    pub(crate) is_plain: bool,
}

impl Canvas {
    pub(crate) fn of_stdout() -> Self {
        let stdout = io::stdout();
        let is_plain = !stdout.is_terminal();
        let size = rustix::termios::tcgetwinsize(&stdout).ok();
        let width = size.map_or(0, |size| usize::from(size.ws_col));
        Self {
            // One that does not know its width may be as wide as they once all were.
            width: if is_plain || width == 0 { 80 } else { width },
            is_plain,
        }
    }
}

/// A number of things, as `1 chunk` or `2 chunks`.
pub(crate) fn counted(number: u64, thing: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{end}")
}

/// Bytes with a decimal unit, as `4.20 GB`.
pub(crate) fn size(bytes: u64) -> String {
    DecimalBytes(bytes).to_string()
}

/// What was moved in how long, as `4.20 GB in 12.3 s (341.46 MB/s)`.
pub(crate) fn moved(bytes: u64, elapsed: Duration) -> String {
    format!(
        "{} in {} ({})",
        size(bytes),
        time(elapsed),
        rate(bytes, elapsed)
    )
}

/// Bytes a second.
pub(crate) fn rate(bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(1e-6);
    format!("{}/s", size((bytes as f64 / seconds) as u64))
}

/// A time as short as it is still useful.
pub(crate) fn time(elapsed: Duration) -> String {
    match elapsed.as_millis() {
        0..10 => format!("{:.1} ms", elapsed.as_secs_f64() * 1000.0),
        millis @ 10..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{:.1} s", elapsed.as_secs_f64()),
        _ => HumanDuration(elapsed).to_string(),
    }
}

/// A peer that a download dropped, as `left peer 1a2b3c4d…: it sent a bad chunk 17`.
pub(crate) fn left(left: &LeftRow) -> String {
    format!("left peer {}: {}", left.peer, left.reason)
}

/// How much of something is there, as `41 %`; 100 only when nothing is missing.
pub(crate) fn percent(done: u64, total: u64) -> String {
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    format!("{percent} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_plain_columns() {
        let rows = [
            ["photos".to_owned(), "alice".to_owned()],
            ["b".to_owned(), String::new()],
        ];
        assert_eq!(
            table(["group", "owner"], rows),
            "group   owner\nphotos  alice\nb"
        );
    }

    #[test]
    fn sizes_rates_and_times_are_short() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(4_200_000_000), "4.20 GB");
        assert_eq!(
            moved(50_000_000, Duration::from_millis(500)),
            "50.00 MB in 500 ms (100.00 MB/s)"
        );
        assert_eq!(rate(0, Duration::ZERO), "0 B/s");
        assert_eq!(time(Duration::from_micros(420)), "0.4 ms");
        assert_eq!(time(Duration::from_millis(12_345)), "12.3 s");
        assert_eq!(time(Duration::from_secs(600)), "10 minutes");
        assert_eq!(
            (percent(199, 200), percent(1, 1), percent(0, 0)),
            ("99 %".into(), "100 %".into(), "0 %".into())
        );
    }
}
