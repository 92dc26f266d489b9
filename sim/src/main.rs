//! The simulator, as a program. `job-sim help` says what it can do.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
