//! `coord cancel`: cancels a sweep.

use super::{failures::jobs, notify::notify_workers};
use crate::{config::Settings, local::Database, output::Output};
use halfheard_shared::ids::SweepId;
use serde::Serialize;
use std::{fmt, process::ExitCode};

/// Arguments of `coord cancel`.
#[derive(clap::Args, Debug)]
pub(crate) struct CancelArgs {
    /// The sweep: its name, its id, or a prefix of its id
    sweep: String,
}

#[derive(Serialize)]
struct Cancelled {
    sweep: SweepId,
    name: String,
    cancelled_jobs: u64,
    workers_notified: bool,
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jobs = jobs(self.cancelled_jobs.cast_signed());
        write!(
            f,
            "{} ({}): {jobs} cancelled",
            self.name,
            self.sweep.short()
        )
    }
}

/// Cancels a sweep's unfinished jobs. Finished jobs and saved states of training jobs stay: `coord
/// retry`, or `coord submit` of the same spec, continues from there.
///
/// # Errors
///
/// The sweep is unknown or ambiguous, or the database fails.
pub(crate) async fn run(args: CancelArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let outcome = cancel(&args, settings, &database).await;
    database.close().await;
    Output::of(settings).print(&outcome?)?;
    Ok(ExitCode::SUCCESS)
}

async fn cancel(
    args: &CancelArgs,
    settings: &Settings,
    database: &Database,
) -> anyhow::Result<Cancelled> {
    let sweep = database.find_sweep(&args.sweep).await?;
    Ok(Cancelled {
        sweep: sweep.id,
        cancelled_jobs: database.cancel(sweep.id).await?,
        workers_notified: notify_workers(database, settings, sweep.id).await,
        name: sweep.name,
    })
}
