//! `coord retry`: sets jobs going again that were given up.

use crate::{
    config::Settings,
    local::connect::Database,
    orchestrator::{
        retry::{self, Selection},
        sweep_control::{PublishError, publish_soon},
    },
};
use halfheard_store::{SweepState, submit::JobCounts, sweeps::SweepRow};
use std::process::ExitCode;

/// Arguments of `coord retry`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  coord retry demo                what failed runs again, and a cancelled sweep goes on
  coord retry demo --failed       only what failed
  coord retry demo --job 4b1f     one job; of a training its evaluations too

What is done stays: no result is computed a second time. After `coord run`, run the same command
again: it goes on with what was set going.")]
pub struct RetryArgs {
    /// The sweep: its name, its id, or the beginning of its id
    sweep: String,
    /// Only this job, by the beginning of its id (`coord status SWEEP --json` lists them)
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Only jobs that failed, and not those that were cancelled
    #[arg(long)]
    failed: bool,
}

/// Sets failed and cancelled jobs of a sweep going again.
///
/// # Errors
///
/// No such sweep or job; a job that cannot be retried, and why; the database cannot be reached.
pub async fn run(args: RetryArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let store = Database::open(settings).await?;
    let outcome = retry(&args, settings, &store).await;
    store.close().await;
    outcome
}

async fn retry(
    args: &RetryArgs,
    settings: &Settings,
    store: &Database,
) -> anyhow::Result<ExitCode> {
    let sweep = store.find_sweep(&args.sweep).await?;
    let selection = match &args.job {
        Some(id) => Selection::Job(id.clone()),
        None if args.failed => Selection::Failed,
        None => Selection::All,
    };
    let reopened = retry::retry(store, &sweep, &selection).await?;
    let told = store.publish_control(settings, &sweep).await;
    let progress = store.progress(sweep.id).await?;
    if settings.json {
        let report = serde_json::json!({
            "sweep": sweep.id,
            "name": sweep.name,
            "retried": reopened,
            "jobs": progress,
            "paused": sweep.state == SweepState::Paused,
            "workers_told": told.is_ok(),
        });
        println!("{report}");
        return Ok(ExitCode::SUCCESS);
    }
    let name = format!("{} ({})", sweep.name, sweep.id.short());
    if reopened.total() == 0 {
        println!(
            "{name}: nothing to retry; no job failed or was cancelled: {} done, {} to do",
            progress.done,
            progress.open()
        );
        return Ok(ExitCode::SUCCESS);
    }
    println!("{name}: {}", words(reopened));
    if sweep.state == SweepState::Paused {
        println!(
            "the sweep is paused: `coord resume {}` lets it go on",
            sweep.id.short()
        );
    }
    if let Err(reason) = told {
        eprintln!("workers are not told yet, `coord serve` will do it: {reason}");
    }
    Ok(ExitCode::SUCCESS)
}

/// `2 trainings and 32 evaluations go again`.
pub(crate) fn words(reopened: JobCounts) -> String {
    let plural = |count: i64, one: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {one}s")),
    };
    let parts: Vec<String> = [
        plural(reopened.train, "training"),
        plural(reopened.eval, "evaluation"),
        plural(reopened.noop, "no-op job"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let verb = if reopened.total() == 1 { "goes" } else { "go" };
    format!("{} {verb} again", parts.join(" and "))
}

impl Database {
    /// Publishes the state of a sweep to the broker. A private database that was started for this
    /// command has no broker and needs none: `coord run` publishes to its own.
    pub(crate) async fn publish_control(
        &self,
        settings: &Settings,
        sweep: &SweepRow,
    ) -> Result<(), PublishError> {
        if self.is_private() {
            return Ok(());
        }
        publish_soon(self, &settings.broker, sweep.id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_again_is_said_in_words() {
        let some = |train, eval| {
            words(JobCounts {
                train,
                eval,
                noop: 0,
            })
        };
        assert_eq!(some(1, 0), "1 training goes again");
        assert_eq!(some(2, 32), "2 trainings and 32 evaluations go again");
    }
}
