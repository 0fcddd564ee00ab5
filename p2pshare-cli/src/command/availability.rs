//! `availability`: how much of a file can be had from those who are online right now.

use std::collections::BTreeMap;

use p2pshare::{FileName, GroupName};

use crate::context::{Context, unexpected};
use crate::control::{AvailabilityRow, Outcome, Request};
use crate::failure::Failure;
use crate::render::{self, Canvas};

pub(crate) async fn run(
    context: &Context,
    group: GroupName,
    name: FileName,
) -> Result<String, Failure> {
    let request = Request::Availability {
        group: group.clone(),
        name: name.clone(),
    };
    match context.ask(&request).await? {
        Outcome::Availability(of) => Ok(format!(
            "{name} in '{group}'\n{}",
            describe(&of, Canvas::of_stdout())
        )),
        other => Err(unexpected(&other)),
    }
}

fn describe(of: &AvailabilityRow, canvas: Canvas) -> String {
    let mut text = format!("  holders online  {}", of.holders);
    let parts = of.holders.saturating_sub(of.whole);
    if parts > 0 {
        text += &format!(", of which {parts} with a part");
    }
    if of.untold > 0 {
        text += &format!(" ({} did not say which)", of.untold);
    }
    text += &format!("\n  whole copies    {}", of.whole);
    // What the rarest chunk comes to.
    let copies = of.runs.iter().map(|(_, holders)| *holders).min();
    let copies = copies.unwrap_or(0);
    if copies > of.whole {
        text += &format!(", {copies} put together from all");
    }
    text += "\n";
    text += &format!("  chunks          {}\n", of.chunks);
    let columns = columns(of, canvas.width.saturating_sub(FRAME));
    text += &match canvas.is_plain {
        true => plain_bar(&columns),
        false => bar(&columns),
    };
    text + &rare_to_common(of)
}

/// The file cut into columns of about as many chunks, and how many have the rarest of each.
fn columns(of: &AvailabilityRow, width: usize) -> Vec<u32> {
    let width = u64::try_from(width).unwrap_or(u64::MAX);
    let count = width.clamp(1, u64::from(of.chunks).max(1));
    let mut columns = vec![u32::MAX; usize::try_from(count).unwrap_or(1)];
    let mut begin = 0;
    for &(length, holders) in &of.runs {
        let end = begin + u64::from(length);
        // The columns that the run touches: `chunk * count / chunks` is that of a chunk.
        let chunks = u64::from(of.chunks).max(1);
        let column = |chunk: u64| usize::try_from(chunk * count / chunks).unwrap_or(usize::MAX);
        if end > begin {
            let touched = columns.get_mut(column(begin)..=column(end - 1));
            for lowest in touched.into_iter().flatten() {
                *lowest = holders.min(*lowest);
            }
        }
        begin = end;
    }
    columns
}

/// In blocks whose heights go from what fewest have to what most have.
fn bar(columns: &[u32]) -> String {
    let had = || columns.iter().copied().filter(|&count| count > 0);
    let (low, high) = (had().min().unwrap_or(0), had().max().unwrap_or(0));
    let top = BLOCKS.len() - 1;
    let block = |count: &u32| match (*count, high - low) {
        (0, _) => NOBODY,
        (_, 0) => BLOCKS[top],
        (count, range) => {
            let height = u64::from(count - low) * top as u64 / u64::from(range);
            BLOCKS[usize::try_from(height).unwrap_or(top).min(top)]
        }
    };
    let bar: String = columns.iter().map(block).collect();
    let legend = match (low, high) {
        (0, _) => format!("{NOBODY} nobody"),
        _ if low == high => format!("{NOBODY} nobody, {} {}", BLOCKS[top], people(low)),
        _ => format!(
            "{NOBODY} nobody, {} {low} to {} {}",
            BLOCKS[0],
            BLOCKS[top],
            people(high)
        ),
    };
    format!("  [{bar}]\n   {legend}\n")
}

/// In digits, for scripts and whoever has nothing else.
fn plain_bar(columns: &[u32]) -> String {
    let digit = |count: &u32| char::from_digit(*count, 10).unwrap_or('+');
    let bar: String = columns.iter().map(digit).collect();
    format!("  [{bar}]\n   0 nobody, 1 to 9 holders, + more\n")
}

/// How many chunks so many have, from the rarest on; of those that nobody has, also which.
fn rare_to_common(of: &AvailabilityRow) -> String {
    let mut by_holders: BTreeMap<u32, u64> = BTreeMap::new();
    for &(length, holders) in &of.runs {
        *by_holders.entry(holders).or_default() += u64::from(length);
    }
    let mut lines: Vec<String> = Vec::new();
    let levels = by_holders.len();
    for (at, (&holders, &chunks)) in by_holders.iter().enumerate() {
        if at + 1 == LEVELS_SHOWN && levels > LEVELS_SHOWN {
            let rest: u64 = by_holders.range(holders..).map(|(_, chunks)| chunks).sum();
            lines.push(format!(
                "  {} with {holders} holders or more",
                chunks_of(rest)
            ));
            break;
        }
        lines.push(match holders {
            0 => format!("  {} with nobody: {}", chunks_of(chunks), nowhere(of)),
            _ => format!("  {} with {}", chunks_of(chunks), people(holders)),
        });
    }
    match by_holders.get(&0) {
        Some(_) if of.untold > 0 => {
            lines.push("  it is not known whether the file can be completed now".to_owned());
        }
        Some(_) => lines.push("  the file cannot be completed now".to_owned()),
        None => {}
    }
    lines.join("\n")
}

/// The chunks that nobody has, as `17, 20-31`.
fn nowhere(of: &AvailabilityRow) -> String {
    let (mut runs, mut begin) = (Vec::new(), 0_u64);
    for &(length, holders) in &of.runs {
        let end = begin + u64::from(length);
        if holders == 0 {
            runs.push(match length {
                1 => begin.to_string(),
                _ => format!("{begin}-{}", end.saturating_sub(1)),
            });
        }
        begin = end;
    }
    let more = runs.len().saturating_sub(RUNS_SHOWN);
    runs.truncate(RUNS_SHOWN);
    let mut text = runs.join(", ");
    if more > 0 {
        text += &format!(", and {more} more places");
    }
    text
}

fn chunks_of(chunks: u64) -> String {
    render::counted(chunks, "chunk")
}

fn people(holders: u32) -> String {
    render::counted(holders.into(), "holder")
}

/// From what fewest have to what most have.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What nobody has.
const NOBODY: char = '·';

/// What stands beside the bar in its line.
const FRAME: usize = "  []".len();

/// Lines of how many have how many chunks.
const LEVELS_SHOWN: usize = 6;

/// Places of the file that are named when nobody has them.
const RUNS_SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn row(whole: u32, untold: u32, runs: &[(u32, u32)]) -> AvailabilityRow {
        AvailabilityRow {
            chunks: runs.iter().map(|(length, _)| length).sum(),
            holders: whole + untold + 2,
            whole,
            untold,
            runs: runs.to_vec(),
        }
    }

    fn drawn(of: &AvailabilityRow, width: usize, is_plain: bool) -> Vec<String> {
        let text = describe(of, Canvas { width, is_plain });
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn parts_that_nobody_has_are_seen_and_named() {
        let of = row(0, 0, &[(17, 2), (1, 0), (2, 1), (12, 0), (8, 12)]);
        let expected = [
            "  holders online  2, of which 2 with a part",
            "  whole copies    0",
            "  chunks          40",
        ];
        let drawn_plain = drawn(&of, 80, true);
        assert_eq!(drawn_plain[..3], expected);
        let bar = format!(
            "  [{}0{}{}{}]",
            "2".repeat(17),
            "11",
            "0".repeat(12),
            "+".repeat(8)
        );
        assert_eq!(drawn_plain[3], bar);
        let rest = [
            "  13 chunks with nobody: 17, 20-31",
            "  2 chunks with 1 holder",
            "  17 chunks with 2 holders",
            "  8 chunks with 12 holders",
            "  the file cannot be completed now",
        ];
        assert_eq!(drawn_plain[5..], rest);
        let of = row(0, 1, &[(1, 0), (1, 1)]);
        let last = drawn(&of, 80, true).pop();
        let unsure = "  it is not known whether the file can be completed now";
        assert_eq!(last.as_deref(), Some(unsure));
        // Two halves are a copy.
        let of = row(0, 0, &[(2, 1), (3, 2)]);
        let lines = drawn(&of, 80, true);
        assert_eq!(lines[1], "  whole copies    0, 1 put together from all");
        assert_eq!(
            lines.last().map(String::as_str),
            Some("  3 chunks with 2 holders")
        );
        let of = row(1, 0, &[(5, 1)]);
        assert_eq!(
            drawn(&of, 80, true).pop().as_deref(),
            Some("  5 chunks with 1 holder")
        );
    }

    #[test]
    fn a_bar_is_as_wide_as_the_terminal_and_shows_the_rarest_of_each_column() {
        // One chunk of two million that nobody has is seen.
        let of = row(0, 0, &[(1_000_000, 3), (1, 0), (1_097_151, 1)]);
        for width in [20, 80, 211] {
            let line = drawn(&of, width, false).swap_remove(3);
            assert_eq!(line.chars().count(), width, "{line}");
            assert_eq!(line.matches(NOBODY).count(), 1, "{line}");
            assert!(line.starts_with("  [█") && line.ends_with("▁]"), "{line}");
        }
        let legend = drawn(&of, 80, false).swap_remove(4);
        assert_eq!(legend, "   · nobody, ▁ 1 to █ 3 holders");
        // Fewer chunks than columns have one each; what all have alike is not rare.
        let of = row(3, 0, &[(5, 3)]);
        assert_eq!(drawn(&of, 80, false)[3], "  [█████]");
        assert_eq!(drawn(&of, 80, false)[4], "   · nobody, █ 3 holders");
        // Whatever the width and the runs, nothing is out of place.
        for of in [row(0, 0, &[]), row(0, 0, &[(0, 1)]), row(0, 0, &[(3, 0)])] {
            for width in [0, 1, 4, 5, 80] {
                drawn(&of, width, false);
            }
        }
    }

    #[test]
    fn many_levels_and_many_holes_are_summed_up() {
        let runs: Vec<(u32, u32)> = (0..40).map(|i| (1, i % 20)).collect();
        let text = describe(
            &row(0, 0, &runs),
            Canvas {
                width: 80,
                is_plain: true,
            },
        );
        assert!(
            text.contains("\n  30 chunks with 5 holders or more\n"),
            "{text}"
        );
        let runs: Vec<(u32, u32)> = (0..40).map(|i| (1, i % 2)).collect();
        let text = describe(
            &row(0, 0, &runs),
            Canvas {
                width: 80,
                is_plain: true,
            },
        );
        assert!(
            text.contains(": 0, 2, 4, 6, 8, 10, 12, 14, and 12 more places\n"),
            "{text}"
        );
    }
}
