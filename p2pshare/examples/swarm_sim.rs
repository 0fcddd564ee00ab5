//! Simulated swarms: one seeder, a crowd that wants its file, and the picker of the product; see the options below.
//!
//! ```sh
//! cargo run --release -p p2pshare --features __sim --example swarm_sim
//! ```

#![expect(clippy::print_stdout, reason = "it is a program that prints a report")]

use std::process::ExitCode;
use std::time::Instant;

use p2pshare::sim::swarm::{Picking, Swarm};

const USAGE: &str = "\
Lives through swarms in which everybody begins at once, and prints how much longer than it has to it takes until the
last one has the file; exit code 1 if a swarm of which nobody leaves or lies takes more than a given share longer.

  --peers N      how many want the file (default 1000)
  --chunks N     of how many chunks of 512 KiB it is (default 2048)
  --seed N       from which all chance comes (default 1)
  --within N     how many percent longer it may take (default 15)
  --speeds WHAT  equal: all send 10 Mbit/s; unequal: 5, 10, 20 and 40; both (default)
  --compare      beside it, the same with chunks picked at random and in order, with a tenth leaving at any time,
                 and with a tenth that say that they have everything and send garbage
";

struct Options {
    peers: usize,
    chunks: u32,
    seed: u64,
    within: f64,
    speeds: Vec<&'static str>,
    compare: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        peers: 1000,
        chunks: 2048,
        seed: 1,
        within: 15.0,
        speeds: vec![EQUAL, UNEQUAL],
        compare: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--compare" {
            options.compare = true;
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
        let wrong = || format!("{arg} cannot be {value}");
        match arg.as_str() {
            "--peers" => options.peers = value.parse().map_err(|_| wrong())?,
            "--chunks" => options.chunks = value.parse().map_err(|_| wrong())?,
            "--seed" => options.seed = value.parse().map_err(|_| wrong())?,
            "--within" => options.within = value.parse().map_err(|_| wrong())?,
            "--speeds" => {
                options.speeds = match value.as_str() {
                    EQUAL => vec![EQUAL],
                    UNEQUAL => vec![UNEQUAL],
                    "both" => vec![EQUAL, UNEQUAL],
                    _ => return Err(wrong()),
                }
            }
            _ => return Err(format!("no such option: {arg}")),
        }
    }
    match options.peers > 0 && options.chunks > 0 {
        true => Ok(options),
        false => Err("there have to be peers, and chunks".to_owned()),
    }
}

fn main() -> ExitCode {
    match options() {
        Ok(options) if report(&options) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(wrong) => {
            println!("{wrong}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Prints what came of all swarms, and returns whether those that have to be were fast enough.
fn report(options: &Options) -> bool {
    let (peers, chunks, seed) = (options.peers, options.chunks, options.seed);
    println!(
        "{peers} peers, {chunks} chunks, seed {seed}; times in simulated seconds, bound is before when it cannot be\n"
    );
    println!(
        "{:<9} {:<34} {:>6} {:>6} {:>6} {:>7} {:>7} {:>7} {:>6}",
        "speeds", "", "bound", "half", "last", "over", "copies", "twice", "took"
    );
    let mut all = true;
    for speeds in &options.speeds {
        let swarm = match *speeds {
            UNEQUAL => Swarm::new(peers, chunks, seed).unequal(),
            _ => Swarm::new(peers, chunks, seed),
        };
        let percent = show(speeds, "", &swarm);
        all &= percent.is_some_and(|percent| percent <= options.within);
        if options.compare {
            show(speeds, "at random", &swarm.clone().picking(Picking::Random));
            show(speeds, "in order", &swarm.clone().picking(Picking::InOrder));
            show(speeds, "a tenth leaves", &swarm.clone().leaving());
            show(speeds, "a tenth sends garbage", &swarm.lying());
        }
    }
    println!("\ncopies: what the seeder sent; twice: chunks that came again; took: real seconds");
    all
}

/// Lives through a swarm and prints what came of it; returns by how many percent it took longer than it has to.
fn show(speeds: &str, what: &str, swarm: &Swarm) -> Option<f64> {
    let began = Instant::now();
    let outcome = swarm.live();
    let bound = outcome.bound.as_secs_f64();
    let percent = outcome
        .last
        .map(|last| (last.as_secs_f64() / bound - 1.0) * 100.0);
    let or_never = |text: Option<String>| text.unwrap_or_else(|| "never".to_owned());
    println!(
        "{speeds:<9} {what:<34} {bound:>6.0} {:>6.0} {:>6} {:>7} {:>7.2} {:>5.2} % {:>6.1}",
        outcome.half.as_secs_f64(),
        or_never(
            outcome
                .last
                .map(|last| format!("{:.0}", last.as_secs_f64()))
        ),
        or_never(percent.map(|percent| format!("{percent:.1} %"))),
        outcome.seeder_copies,
        outcome.twice * 100.0,
        began.elapsed().as_secs_f64(),
    );
    percent
}

const EQUAL: &str = "equal";
const UNEQUAL: &str = "unequal";
