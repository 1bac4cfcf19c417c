//! The command.

use super::{
    args::{DataArgs, DataCommand},
    check, create, list,
};
use crate::{config::Settings, output::Output};
use halfheard_shared::dataset::DataFolder;
use std::process::ExitCode;

/// Runs a subcommand.
///
/// # Errors
///
/// A file is refused, a dataset is damaged or missing, or the data folder is not writable.
pub(crate) async fn run(args: DataArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let folder = DataFolder::new(&settings.data_dir);
    let output = Output::of(settings);
    match args.command {
        DataCommand::Import(args) => output.print(&create::import(&args, &folder, output)?)?,
        DataCommand::Synthesize(args) => {
            output.print(&create::synthesize(&args, &folder, output)?)?;
        }
        DataCommand::List => output.print_pretty(&list::Datasets::load(&folder)?)?,
        DataCommand::Check(args) => output.print(&check::check(&args.dataset, &folder)?)?,
    }
    Ok(ExitCode::SUCCESS)
}
