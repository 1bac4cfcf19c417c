//! `coord priority`: the short form of `coord set --priority`.

use super::set::set;
use crate::{config::Settings, local::Database, output::Output};
use halfheard_store::terms::Terms;
use std::process::ExitCode;

/// Arguments of `coord priority`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  coord priority demo 5     serve it before sweeps of lower priority; others: `coord set`")]
pub(crate) struct PriorityArgs {
    /// The sweep: its name, its id, or a prefix of its id
    sweep: String,
    /// Sweeps with a higher one are served first
    #[arg(allow_hyphen_values = true, value_name = "N")]
    priority: i32,
}

/// Changes the priority of a sweep while it runs.
///
/// # Errors
///
/// The sweep is unknown or the database fails.
pub(crate) async fn run(args: PriorityArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let outcome = set(&args.sweep, &Terms::with_priority(args.priority), &database).await;
    database.close().await;
    Output::of(settings).print(&outcome?)?;
    Ok(ExitCode::SUCCESS)
}
