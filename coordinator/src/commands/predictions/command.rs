//! The command.

use super::{
    args::{PredictionsArgs, PredictionsCommand},
    delete::delete,
    import::import,
};
use crate::{config::Settings, local::Database, output::Output};
use std::process::ExitCode;

/// Runs a subcommand.
///
/// # Errors
///
/// The file does not fit the sweep; other predictions of the same name are stored; the database fails.
pub(crate) async fn run(args: PredictionsArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let output = Output::of(settings);
    let outcome = async {
        match args.command {
            PredictionsCommand::Import(args) => {
                output.print(&import(&args, settings, &database).await?)?;
            }
            PredictionsCommand::Delete(args) => {
                if let Some(deleted) = delete(&args, &database).await? {
                    output.print(&deleted)?;
                }
            }
        }
        anyhow::Ok(ExitCode::SUCCESS)
    };
    let outcome = outcome.await;
    database.close().await;
    outcome
}
