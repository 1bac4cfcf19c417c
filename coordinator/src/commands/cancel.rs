//! `coord cancel`: cancels a sweep.

use super::failures::jobs;
use crate::{config::Settings, local::Database, output::Output};
use halfheard_shared::{ids::SweepId, text::count};
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
    /// Those that another sweep asks for: they go on.
    shared_jobs: i64,
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jobs = jobs(self.cancelled_jobs.cast_signed());
        write!(
            f,
            "{} ({}): {jobs} cancelled",
            self.name,
            self.sweep.short()
        )?;
        if self.shared_jobs > 0 {
            let shared = count(self.shared_jobs.unsigned_abs() as usize, "job");
            write!(f, "; {shared} go on for other sweeps")?;
        }
        Ok(())
    }
}

/// Cancels a sweep's unfinished jobs, unless another sweep asks for them too. Finished jobs and saved states of training jobs stay: `coord
/// retry`, or `coord submit` of the same spec, continues from there.
///
/// # Errors
///
/// The sweep is unknown or ambiguous, or the database fails.
pub(crate) async fn run(args: CancelArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let outcome = cancel(&args, &database).await;
    database.close().await;
    Output::of(settings).print(&outcome?)?;
    Ok(ExitCode::SUCCESS)
}

async fn cancel(args: &CancelArgs, database: &Database) -> anyhow::Result<Cancelled> {
    let sweep = database.find_sweep(&args.sweep).await?;
    Ok(Cancelled {
        sweep: sweep.id,
        cancelled_jobs: database.cancel(sweep.id).await?.jobs,
        shared_jobs: database.progress(sweep.id).await?.open(),
        name: sweep.name,
    })
}
