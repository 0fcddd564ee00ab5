//! The ring under simulated trouble, seed by seed; see the options below.
//!
//! ```sh
//! cargo run --release -p p2pshare --features __sim --example ring_sim -- --seeds 1000
//! ```

#![expect(clippy::print_stdout, reason = "it is a program that prints a report")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use p2pshare::sim::{self, Report};

const USAGE: &str = "\
Lives through seeded worlds of the ring and prints what came of them; exit code 1 if anything was wrong.

  --seeds N      that many seeds, from --seed on (default 1000)
  --seconds N    as many seeds as fit into that time
  --seed N       the first seed (default 1); with nothing else, only this one
  --fault NAME   plants a mistake in the ring, which has to be found
  --faults       a table: of --seeds seeds (default 200), in how many each mistake is found
";

struct Options {
    first: Option<u64>,
    seeds: Option<u64>,
    time: Option<Duration>,
    fault: Option<String>,
    table: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        first: None,
        seeds: None,
        time: None,
        fault: None,
        table: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{text} is no number"));
        match arg.as_str() {
            "--seed" => options.first = Some(number(value()?)?),
            "--seeds" => options.seeds = Some(number(value()?)?),
            "--seconds" => options.time = Some(Duration::from_secs(number(value()?)?)),
            "--fault" => options.fault = Some(value()?),
            "--faults" => options.table = true,
            _ => return Err(format!("no such option: {arg}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let outcome = options().and_then(|options| match options.table {
        true => table(&options),
        false => worlds(&options),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(wrong) => {
            println!("{wrong}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Lives through worlds, and returns whether nothing was wrong.
fn worlds(options: &Options) -> Result<bool, String> {
    let began = Instant::now();
    let first = options.first.unwrap_or(1);
    let most = match (options.seeds, options.time, options.first) {
        (Some(seeds), ..) => seeds,
        (None, Some(_), _) => u64::MAX,
        (None, None, Some(_)) => 1,
        (None, None, None) => 1000,
    };
    let (mut sum, mut seeds) = (Report::default(), 0);
    while seeds < most && options.time.is_none_or(|time| began.elapsed() < time) {
        let seed = first.wrapping_add(seeds);
        let report = run(seed, options.fault.as_deref())?;
        seeds += 1;
        sum.add(&report);
        if !report.violations().is_empty() {
            println!("seed {seed}: {}", report.violations().join("\n"));
            println!("again: {}\n", command(seed, options.fault.as_deref()));
            if options.fault.is_some() || sum.violations().len() >= VIOLATIONS_MAX {
                break;
            }
        }
    }
    print(&sum, seeds, began.elapsed());
    Ok(sum.violations().is_empty())
}

fn print(sum: &Report, seeds: u64, elapsed: Duration) {
    let hours = sum.simulated().as_secs_f64() / 3600.0;
    let rate = seeds as f64 / elapsed.as_secs_f64();
    println!(
        "seeds            {seeds} in {:.1} s ({rate:.0} per second)",
        elapsed.as_secs_f64()
    );
    println!("simulated hours  {hours:.1}");
    for (what, counts) in [("operations", sum.told()), ("faults", sum.broken())] {
        println!("{what:<16} {}", counts.values().sum::<u64>());
        for (kind, count) in counts {
            println!("  {kind:<24} {count}");
        }
    }
    println!("trace            {:016x}", sum.trace());
    println!("violations       {}", sum.violations().len());
}

/// In how many worlds each mistake is found. Returns whether each was, at least once.
fn table(options: &Options) -> Result<bool, String> {
    let (first, seeds) = (options.first.unwrap_or(1), options.seeds.unwrap_or(200));
    let mut all = true;
    println!(
        "{:<24} {:<12} {:<12} found in, of {seeds} seeds",
        "mistake", "made in", "worlds"
    );
    for mistake in sim::mistakes() {
        let fault = mistake.name;
        let mut found = 0;
        for seed in first..first + seeds {
            found += u64::from(!run(seed, Some(fault))?.violations().is_empty());
        }
        let place = if mistake.in_product {
            "ring"
        } else {
            "simulator"
        };
        println!("{fault:<24} {place:<12} {:<12} {found}", mistake.worlds);
        all &= found > 0;
    }
    Ok(all)
}

fn run(seed: u64, fault: Option<&str>) -> Result<Report, String> {
    sim::run(seed, fault).map_err(|name| {
        let names: Vec<_> = sim::mistakes().iter().map(|it| it.name).collect();
        format!(
            "no mistake is called {name}; there are {}",
            names.join(", ")
        )
    })
}

fn command(seed: u64, fault: Option<&str>) -> String {
    let fault = fault
        .map(|fault| format!(" --fault {fault}"))
        .unwrap_or_default();
    format!(
        "cargo run --release -p p2pshare --features __sim --example ring_sim -- --seed {seed}{fault}"
    )
}

/// After so many, more are no news.
const VIOLATIONS_MAX: usize = 10;
