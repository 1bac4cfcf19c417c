//! `coord`, the coordinator's program; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    halfheard_coordinator::cli::main()
}
