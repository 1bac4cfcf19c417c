//! `coord`: the coordinator's program. All of it is in the library.

use clap::Parser as _;
use halfheard_coordinator::{
    cli::{Cli, exit},
    show_error,
};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(code) => code,
        Err(error) => {
            show_error::show(&error);
            ExitCode::from(exit::ERROR)
        }
    }
}
