//! The tracker daemon of p2pshare: one member of a ring, from its command line to its clean end. What a tracker
//! does is the library's; here is where its data lies, what it says, and what stops it.

mod args;
mod console;
mod plan;
mod ring;
mod serve;

use std::process::ExitCode;

use args::Command;
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let filter = EnvFilter::try_from_env("P2PSHARE_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = match args.command {
        Some(Command::Ring(command)) => runtime
            .block_on(ring::run(command))
            .map_err(|error| error.to_string()),
        None => runtime
            .block_on(serve::run(args))
            .map_err(|error| error.to_string()),
    };
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
