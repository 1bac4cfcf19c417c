//! `coord cancel`: stops a sweep.

use crate::{config::Settings, local::connect::Database};
use std::process::ExitCode;

/// Arguments of `coord cancel`.
#[derive(clap::Args, Debug)]
pub struct CancelArgs {
    /// The sweep: its name, its id, or the beginning of its id
    sweep: String,
}

/// Cancels a sweep's unfinished jobs. What is done stays, and so do the saved states of trainings:
/// `coord retry`, or `coord submit` of the same spec, lets it go on from there.
///
/// # Errors
///
/// No such sweep, or several; the database cannot be reached.
pub async fn run(args: CancelArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let store = Database::open(settings).await?;
    let outcome = cancel(&args, settings, &store).await;
    store.close().await;
    outcome
}

async fn cancel(
    args: &CancelArgs,
    settings: &Settings,
    store: &Database,
) -> anyhow::Result<ExitCode> {
    let sweep = store.find_sweep(&args.sweep).await?;
    let cancelled = store.cancel(sweep.id).await?;
    // Workers hear of it now; without a broker, as soon as `coord serve` has one.
    let told = store.publish_control(settings, &sweep).await;
    if settings.json {
        let report = serde_json::json!({
            "sweep": sweep.id,
            "name": sweep.name,
            "cancelled_jobs": cancelled,
            "workers_told": told.is_ok(),
        });
        println!("{report}");
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{} ({}): {cancelled} jobs cancelled",
        sweep.name,
        sweep.id.short()
    );
    if let Err(reason) = told {
        eprintln!("workers are not told yet, `coord serve` will do it: {reason}");
    }
    Ok(ExitCode::SUCCESS)
}
