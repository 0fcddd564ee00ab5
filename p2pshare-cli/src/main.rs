//! The program `p2pshare`; what it does is in the library beside it, where fuzzing finds it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    p2pshare_cli::main()
}
