//! `coord delete`: deletes a sweep.

use super::gc;
use crate::{
    config::Settings,
    housekeeping::{collect, confirm::confirm, own_store, size::Bytes},
    local::Database,
    output::Output,
};
use halfheard_shared::{artifacts::Amount, error::chain, ids::SweepId, text::count};
use serde::Serialize;
use std::{fmt, process::ExitCode, time::Duration};

/// Arguments of `coord delete`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Jobs that another sweep asks for stay, with their results. Artifacts stay until `coord gc`.

Example:
  coord delete old-trial && coord gc")]
pub(crate) struct DeleteArgs {
    /// The sweep: its name, its id, or a prefix of its id
    sweep: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// How long `coord gc` will keep saved states
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = gc::duration)]
    keep_states: Duration,
}

#[derive(Serialize)]
struct DeletedSweep {
    sweep: SweepId,
    name: String,
    /// Jobs that were deleted, with their results.
    deleted_jobs: u64,
    /// Jobs that other sweeps ask for.
    kept_jobs: u64,
    /// What `coord gc` would delete now; unknown if the store cannot be looked at.
    unneeded: Option<Amount>,
}

impl fmt::Display for DeletedSweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jobs = count(self.deleted_jobs as usize, "job");
        writeln!(
            f,
            "{} ({}): deleted with {jobs}",
            self.name,
            self.sweep.short()
        )?;
        if self.kept_jobs > 0 {
            let kept = count(self.kept_jobs as usize, "job");
            writeln!(f, "{kept} stay for other sweeps")?;
        }
        match self.unneeded {
            Some(unneeded) if unneeded.count > 0 => writeln!(
                f,
                "`coord gc` would free {} now, and more in an hour if jobs were at work",
                Bytes(unneeded.bytes)
            ),
            _ => Ok(()),
        }
    }
}

/// Deletes a sweep and everything that only it asks for.
///
/// # Errors
///
/// The sweep is unknown or ambiguous, the database fails, or there is nobody to ask.
pub(crate) async fn run(args: DeleteArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let outcome = delete(&args, settings, &database).await;
    database.close().await;
    if let Some(deleted) = outcome? {
        Output::of(settings).print(&deleted)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn delete(
    args: &DeleteArgs,
    settings: &Settings,
    database: &Database,
) -> anyhow::Result<Option<DeletedSweep>> {
    let sweep = database.find_sweep(&args.sweep).await?;
    let question = format!(
        "Delete the sweep {} ({}) with the results that only it has?",
        sweep.name,
        sweep.id.short()
    );
    if !confirm(&question, args.yes)? {
        return Ok(None);
    }
    let deleted = database.delete(sweep.id).await?;
    let unneeded = async {
        let artifacts = own_store::open_own(settings, database).await?;
        let findings = collect::look(&artifacts, database, args.keep_states).await?;
        anyhow::Ok(findings.unneeded())
    };
    let unneeded = match unneeded.await {
        Ok(unneeded) => Some(unneeded),
        Err(error) => {
            tracing::warn!(
                error = chain(error.as_ref()),
                "cannot look at the artifact store"
            );
            None
        }
    };
    Ok(Some(DeletedSweep {
        sweep: sweep.id,
        name: sweep.name,
        deleted_jobs: deleted.jobs,
        kept_jobs: deleted.kept,
        unneeded,
    }))
}
