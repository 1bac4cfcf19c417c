//! The command.

use super::{
    hardware::Hardware,
    jobs,
    needs::unmet_by_workers,
    states::{self, States},
    summary::Summary,
};
use crate::{
    config::Settings,
    output::Output,
    submission::{self, Synthesize},
    tuning,
};
use std::{path::PathBuf, process::ExitCode};

/// Arguments of `coord plan`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  coord plan deploy/benchmark.toml          what it expands to, and what is done already, by any sweep
  coord plan deploy/demo.toml --jobs        each job
  coord plan deploy/paper.toml --hardware h100x8
                                            what it costs on eight GPUs

Times are measured where the same was trained before. Where not, `--hardware` estimates them from
operations and rates, without what recurrent networks and small batches wait for.

Nothing is written; the spec is checked as `coord submit` checks it.")]
pub(crate) struct PlanArgs {
    /// The spec, a TOML file
    spec: PathBuf,
    /// List every job
    #[arg(long)]
    jobs: bool,
    /// Forecast the time on this hardware: h100, a100, rtx4090 or cpu:GFLOPS, with xN for N devices (h100x8)
    #[arg(long, value_name = "HARDWARE", conflicts_with = "jobs")]
    hardware: Option<Hardware>,
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
        let tuned = tuning::of_installed_worker(&settings.data_dir)
            .and_then(Result::ok)
            .and_then(|tuning| tuning::of_sweep(&tuning, &loaded))
            .map(|choice| choice.candidate.slots);
        output.print(&Summary::new(
            &loaded,
            sweep,
            &states,
            &unmet,
            tuned,
            args.hardware,
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
