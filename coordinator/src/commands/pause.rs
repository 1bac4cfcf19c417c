//! `coord pause` and `coord resume`.

use crate::{config::Settings, local::Database, output::Output};
use halfheard_shared::{error::hinted, ids::SweepId};
use halfheard_store::SweepState;
use serde::Serialize;
use std::{fmt, process::ExitCode};

/// Arguments of `coord pause` and `coord resume`.
#[derive(clap::Args, Debug)]
pub(crate) struct PauseArgs {
    /// The sweep: its name, its id, or a prefix of its id
    sweep: String,
}

#[derive(Serialize)]
struct Paused {
    sweep: SweepId,
    name: String,
    state: SweepState,
    changed: bool,
}

impl fmt::Display for Paused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.state, self.changed) {
            (SweepState::Paused, true) => "paused; jobs in progress continue",
            (SweepState::Paused, false) => "is already paused",
            (_, true) => "resumed",
            (_, false) => "was not paused",
        };
        write!(f, "{} ({}): {what}", self.name, self.sweep.short())
    }
}

/// Pauses a sweep: jobs in progress continue, no others start.
///
/// # Errors
///
/// The sweep is unknown or cancelled, or the database fails.
pub(crate) async fn pause(args: PauseArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    run(&args, settings, SweepState::Paused).await
}

/// Resumes a paused sweep.
///
/// # Errors
///
/// As [`pause`].
pub(crate) async fn resume(args: PauseArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    run(&args, settings, SweepState::Running).await
}

async fn run(args: &PauseArgs, settings: &Settings, state: SweepState) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let outcome = change(args, &database, state).await;
    database.close().await;
    Output::of(settings).print(&outcome?)?;
    Ok(ExitCode::SUCCESS)
}

async fn change(
    args: &PauseArgs,
    database: &Database,
    state: SweepState,
) -> anyhow::Result<Paused> {
    let sweep = database.find_sweep(&args.sweep).await?;
    if sweep.state == SweepState::Cancelled {
        return Err(hinted(
            format!("sweep `{}` is cancelled", sweep.name),
            format!("continue it with `coord retry {}`", sweep.id.short()),
        )
        .into());
    }
    let changed = match state {
        SweepState::Paused => database.pause(sweep.id, None).await?.is_some(),
        _ => database.resume(sweep.id).await?,
    };
    Ok(Paused {
        sweep: sweep.id,
        state,
        changed,
        name: sweep.name,
    })
}
