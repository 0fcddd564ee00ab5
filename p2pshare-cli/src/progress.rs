//! Progress of a transfer on standard error: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::control::{Phase, Progress};
use crate::render;

/// Shows the progress of one transfer; wiped from a terminal when dropped.
pub(crate) struct ProgressView {
    bar: Option<ProgressBar>,
    plain: PlainLines,
}

impl ProgressView {
    /// Nothing is shown before the first [`show`](Self::show).
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr()
            .is_terminal()
            .then(|| ProgressBar::new(0).with_style(style()));
        Self {
            bar,
            plain: PlainLines::default(),
        }
    }

    pub(crate) fn show(&mut self, progress: Progress) {
        match &self.bar {
            // Nothing is known of it yet, and a bar of nothing would be a full one.
            Some(_) if progress.total_bytes == 0 => {}
            Some(bar) => {
                bar.update(|state| {
                    state.set_len(progress.total_bytes);
                    state.set_pos(progress.done_bytes);
                });
                bar.set_message(describe(&progress));
            }
            None => {
                if let Some(line) = self.plain.line(Instant::now(), &progress) {
                    render::talk(line);
                }
            }
        }
    }
}

impl Drop for ProgressView {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Decides when a line is worth printing: at each new phase, when there is another reason that nothing comes, and then
/// every few seconds.
#[derive(Default)]
struct PlainLines {
    phase: Option<(Phase, Instant, u64)>,
    printed: Option<Instant>,
    stall: Option<String>,
}

impl PlainLines {
    fn line(&mut self, now: Instant, progress: &Progress) -> Option<String> {
        let is_new_stall = progress.stall.is_some() && progress.stall != self.stall;
        if let Some((_, began, from_bytes)) = &mut self.phase
            && self.stall.is_some()
        {
            // How fast it is shows from the end of the stall on.
            (*began, *from_bytes) = (now, progress.done_bytes);
        }
        self.stall.clone_from(&progress.stall);
        let (_, began, from_bytes) = match self.phase {
            Some(phase) if phase.0 == progress.phase => {
                let printed = self.printed.unwrap_or(now);
                if now.saturating_duration_since(printed) < PLAIN_INTERVAL && !is_new_stall {
                    return None;
                }
                phase
            }
            _ => *self
                .phase
                .insert((progress.phase, now, progress.done_bytes)),
        };
        self.printed = Some(now);
        let mut line = describe(progress);
        if progress.total_bytes > 0 {
            let (done, total) = (progress.done_bytes, progress.total_bytes);
            let percent = render::percent(done, total);
            line = format!(
                "{line}: {} of {} ({percent})",
                render::size(done),
                render::size(total)
            );
        }
        let elapsed = now.saturating_duration_since(began);
        let moved = progress.done_bytes.saturating_sub(from_bytes);
        if moved > 0 && elapsed > Duration::ZERO && progress.stall.is_none() {
            let rest = progress.total_bytes.saturating_sub(progress.done_bytes);
            let eta = elapsed.mul_f64(rest as f64 / moved as f64);
            line = format!(
                "{line}, {}, {} left",
                render::rate(moved, elapsed),
                render::time(eta)
            );
        }
        Some(line)
    }
}

fn describe(progress: &Progress) -> String {
    let doing = match progress.phase {
        Phase::Hashing => "hashing".to_owned(),
        Phase::Waiting => "waiting for peers".to_owned(),
        Phase::Preparing => "preparing".to_owned(),
        Phase::Downloading if progress.peers == 1 => "downloading from 1 peer".to_owned(),
        Phase::Downloading => format!("downloading from {} peers", progress.peers),
        Phase::Finishing => "finishing".to_owned(),
        Phase::Verifying => "verifying".to_owned(),
    };
    match &progress.stall {
        Some(stall) => format!("{doing} ({stall})"),
        None => doing,
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar())
}

const BAR: &str =
    "{msg} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}, {eta} left";

/// How often a line is printed where standard error is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_with_each_phase_and_then_slowly() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let progress = |phase, done_bytes| Progress {
            phase,
            done_bytes,
            total_bytes: 100_000_000,
            peers: 2,
            stall: None,
        };
        let mut lines = PlainLines::default();
        let first = lines.line(at(0), &progress(Phase::Waiting, 0)).unwrap();
        assert_eq!(first, "waiting for peers: 0 B of 100.00 MB (0 %)");
        assert_eq!(lines.line(at(1), &progress(Phase::Waiting, 0)), None);
        assert!(
            lines
                .line(at(2), &progress(Phase::Downloading, 0))
                .is_some()
        );
        assert_eq!(
            lines.line(at(6), &progress(Phase::Downloading, 10_000_000)),
            None
        );
        assert_eq!(
            lines
                .line(at(12), &progress(Phase::Downloading, 50_000_000))
                .unwrap(),
            "downloading from 2 peers: 50.00 MB of 100.00 MB (50 %), 5.00 MB/s, 10.0 s left"
        );
        let stalled = |why: &str| Progress {
            stall: Some(why.to_owned()),
            ..progress(Phase::Downloading, 60_000_000)
        };
        assert_eq!(
            lines.line(at(13), &progress(Phase::Downloading, 60_000_000)),
            None
        );
        // A stall is said at once, each reason once, and then slowly too.
        assert_eq!(
            lines
                .line(at(14), &stalled("nobody online has chunk 17"))
                .unwrap(),
            "downloading from 2 peers (nobody online has chunk 17): 60.00 MB of 100.00 MB (60 %)"
        );
        assert_eq!(
            lines.line(at(15), &stalled("nobody online has chunk 17")),
            None
        );
        assert!(lines.line(at(16), &stalled("the disk is slow")).is_some());
        assert_eq!(
            lines
                .line(at(116), &progress(Phase::Downloading, 60_000_000))
                .unwrap(),
            "downloading from 2 peers: 60.00 MB of 100.00 MB (60 %)"
        );
        assert_eq!(
            lines
                .line(at(126), &progress(Phase::Downloading, 80_000_000))
                .unwrap(),
            "downloading from 2 peers: 80.00 MB of 100.00 MB (80 %), 2.00 MB/s, 10.0 s left"
        );
    }

    #[test]
    fn the_template_of_the_bar_is_sound() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }
}
