//! The command line of p2pshare: commands that last as long as what they do, and a background peer for each
//! identity that serves its files in between. What they can do is the library's; how it is said is theirs.

mod args;
mod background;
mod command;
mod context;
mod control;
mod exit_code;
mod explain;
mod failure;
mod home;
#[cfg(feature = "__internals")]
pub mod internals;
mod log;
mod password;
mod progress;
mod render;
mod transfer;

use std::process::ExitCode;

/// Does what the command line of this process says, and gives the code that it exits with.
#[must_use]
pub fn main() -> ExitCode {
    match args::parse() {
        Ok(cli) => command::run(cli),
        Err(failure) => {
            failure.report();
            failure.code().into()
        }
    }
}
