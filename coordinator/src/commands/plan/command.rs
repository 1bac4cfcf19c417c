//! The command.

use super::{
    jobs,
    needs::unmet_by_workers,
    states::{self, States},
    summary::Summary,
};
use crate::{
    config::Settings,
    output::Output,
    submission::{self, Synthesize},
};
use std::{path::PathBuf, process::ExitCode};

/// Arguments of `coord plan`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  coord plan deploy/benchmark.toml          what it expands to, and what is done already, by any sweep
  coord plan deploy/demo.toml --jobs        each job

Nothing is written; the spec is checked as `coord submit` checks it.")]
pub(crate) struct PlanArgs {
    /// The spec, a TOML file
    spec: PathBuf,
    /// List every job
    #[arg(long)]
    jobs: bool,
}

/// Prints what a spec expands to.
///
/// # Errors
///
/// The spec is invalid. A database that cannot be reached is only noted: then nothing is known of jobs that
/// other sweeps have done. A broker that cannot be reached is not mentioned: workers may be started
/// later.
pub(crate) async fn run(args: PlanArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let loaded = submission::load(&args.spec, &settings.data_dir, Synthesize::PlanOnly)?;
    // Without the datasets' hashes there is no id yet.
    let sweep = loaded
        .pending
        .is_empty()
        .then(|| loaded.resolved.sweep_id(None));
    let states = match sweep {
        Some(sweep) => states::load(settings, &loaded, sweep).await,
        None => States::Pending,
    };
    let output = Output::of(settings);
    if args.jobs {
        jobs::print(&loaded, sweep, &states, output)?;
    } else {
        let unmet = unmet_by_workers(&loaded, settings).await;
        output.print(&Summary::new(&loaded, sweep, &states, &unmet))?;
    }
    Ok(ExitCode::SUCCESS)
}
