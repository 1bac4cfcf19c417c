//! `coord`, the coordinator's program; see the library.

use clap::Parser as _;
use halfheard_coordinator::{cli::Cli, exit::Exit, show_error};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(code) => code,
        Err(error) => {
            show_error::show(&error);
            Exit::Error.into()
        }
    }
}
