//! `coord pause` and `coord resume`: a sweep makes room for others, and goes on.

use crate::{config::Settings, local::connect::Database};
use halfheard_store::SweepState;
use std::process::ExitCode;

/// Arguments of `coord pause` and `coord resume`.
#[derive(clap::Args, Debug)]
pub struct PauseArgs {
    /// The sweep: its name, its id, or the beginning of its id
    sweep: String,
}

/// Pauses a sweep: what workers have begun goes on, and nothing else of it is begun.
///
/// # Errors
///
/// No such sweep; a cancelled one; the database cannot be reached.
pub async fn pause(args: PauseArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    run(&args, settings, true).await
}

/// Lets a paused sweep go on.
///
/// # Errors
///
/// As [`pause`].
pub async fn resume(args: PauseArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    run(&args, settings, false).await
}

async fn run(args: &PauseArgs, settings: &Settings, paused: bool) -> anyhow::Result<ExitCode> {
    let store = Database::open(settings).await?;
    let outcome = change(args, settings, &store, paused).await;
    store.close().await;
    outcome
}

async fn change(
    args: &PauseArgs,
    settings: &Settings,
    store: &Database,
    paused: bool,
) -> anyhow::Result<ExitCode> {
    let sweep = store.find_sweep(&args.sweep).await?;
    anyhow::ensure!(
        sweep.state != SweepState::Cancelled,
        "sweep `{}` is cancelled: `coord retry {}` lets it go on",
        sweep.name,
        sweep.id.short()
    );
    let changed = store.set_paused(sweep.id, paused).await?;
    let told = store.publish_control(settings, &sweep).await;
    if settings.json {
        let report = serde_json::json!({
            "sweep": sweep.id,
            "name": sweep.name,
            "state": if paused { SweepState::Paused } else { SweepState::Running },
            "changed": changed,
            "workers_told": told.is_ok(),
        });
        println!("{report}");
        return Ok(ExitCode::SUCCESS);
    }
    let what = match (paused, changed) {
        (true, true) => "paused; what workers have begun goes on",
        (true, false) => "is paused already",
        (false, true) => "goes on",
        (false, false) => "was not paused",
    };
    println!("{} ({}): {what}", sweep.name, sweep.id.short());
    if let Err(reason) = told {
        eprintln!("workers are not told yet, `coord serve` will do it: {reason}");
    }
    Ok(ExitCode::SUCCESS)
}
