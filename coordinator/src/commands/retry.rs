//! `coord retry`: runs failed and cancelled jobs again.

use crate::{
    config::Settings,
    local::Database,
    orchestrator::retry::{self, Selection},
    output::Output,
};
use halfheard_shared::{ids::SweepId, text::count};
use halfheard_store::{JobCounts, SweepState, sweeps::Progress};
use serde::Serialize;
use std::{fmt, process::ExitCode};

/// Arguments of `coord retry`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  coord retry demo                run failed jobs again, and continue a cancelled sweep
  coord retry demo --failed       failed jobs only
  coord retry demo --job 4b1f     one job; for a training job its evaluation jobs too

No result is computed twice. A job that several sweeps ask for runs again for all of them. After `coord run`, run that command again: it continues with the jobs
to retry.")]
pub(crate) struct RetryArgs {
    /// The sweep: its name, its id, or a prefix of its id
    sweep: String,
    /// Retry only this job, given by a prefix of its id (listed by `coord status SWEEP --json`)
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Retry only jobs that failed, not those that were cancelled
    #[arg(long)]
    failed: bool,
}

#[derive(Serialize)]
struct Retried {
    sweep: SweepId,
    name: String,
    retried: JobCounts,
    jobs: Progress,
    paused: bool,
}

impl fmt::Display for Retried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.sweep.short();
        if self.retried.total() == 0 {
            return write!(
                f,
                "{} ({id}): nothing to retry; no job failed or was cancelled ({} done, {} open)",
                self.name,
                self.jobs.done,
                self.jobs.open()
            );
        }
        write!(f, "{} ({id}): {}", self.name, describe(self.retried))?;
        if self.paused {
            write!(
                f,
                "\nthe sweep is paused; resume it with `coord resume {id}`"
            )?;
        }
        Ok(())
    }
}

/// Runs failed and cancelled jobs of a sweep again.
///
/// # Errors
///
/// The sweep or job is unknown, the job cannot be retried, or the database fails.
pub(crate) async fn run(args: RetryArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let outcome = retry(&args, &database).await;
    database.close().await;
    Output::of(settings).print(&outcome?)?;
    Ok(ExitCode::SUCCESS)
}

async fn retry(args: &RetryArgs, database: &Database) -> anyhow::Result<Retried> {
    let sweep = database.find_sweep(&args.sweep).await?;
    let selection = match &args.job {
        Some(id) => Selection::Job(id.clone()),
        None if args.failed => Selection::Failed,
        None => Selection::All,
    };
    let retried = retry::retry(database, &sweep, &selection).await?;
    Ok(Retried {
        sweep: sweep.id,
        retried,
        jobs: database.progress(sweep.id).await?,
        paused: sweep.state == SweepState::Paused,
        name: sweep.name,
    })
}

/// Says `2 training jobs and 32 evaluation jobs will run again`.
pub(crate) fn describe(jobs: JobCounts) -> String {
    let kinds = [
        (jobs.train, "training job"),
        (jobs.eval, "evaluation job"),
        (jobs.noop, "no-op job"),
    ];
    let parts: Vec<String> = kinds
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, noun)| count(number.unsigned_abs() as usize, noun))
        .collect();
    format!("{} will run again", parts.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retried_jobs_are_counted_by_kind() {
        let some = |train, eval| {
            describe(JobCounts {
                train,
                eval,
                noop: 0,
            })
        };
        assert_eq!(some(1, 0), "1 training job will run again");
        assert_eq!(
            some(2, 32),
            "2 training jobs and 32 evaluation jobs will run again"
        );
    }
}
