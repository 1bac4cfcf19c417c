//! `coord`, the coordinator's program; see the library.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    halfheard_coordinator::cli::main().await
}
