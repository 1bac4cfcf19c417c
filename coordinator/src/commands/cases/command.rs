//! The command.

use super::{
    args::{CasesArgs, CasesCommand},
    export::export,
};
use crate::{config::Settings, output::Output};
use std::process::ExitCode;

/// Runs a subcommand.
///
/// # Errors
///
/// The spec is invalid, names other cases or datasets, or the folder cannot be written.
pub(crate) async fn run(args: CasesArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let output = Output::of(settings);
    match args.command {
        CasesCommand::Export(args) => output.print(&export(&args, settings, output)?)?,
    }
    Ok(ExitCode::SUCCESS)
}
