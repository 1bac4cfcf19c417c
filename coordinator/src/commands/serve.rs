//! `coord serve`: the daemon.

use crate::{
    config::Settings,
    exit::Exit,
    orchestrator::collect::drained,
    orchestrator::{options::ServeOptions, serve::serve},
};
use halfheard_shared::broker::Broker;
use halfheard_store::{Store, lifecycle::RetryPolicy};
use std::{process::ExitCode, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How often `--once` looks whether anything is left.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Arguments of `coord serve`.
#[derive(clap::Args, Debug)]
pub struct ServeArgs {
    /// Leave when no sweep has anything left to do
    #[arg(long)]
    once: bool,
    /// Bring the database up to date first, as `coord migrate` does
    #[arg(long)]
    migrate: bool,
    /// How often a job that fails is tried
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..))]
    attempts: i32,
    /// Seconds before a job that failed is tried again; each further time four times as long
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    retry_delay: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0 to 86400".to_owned()),
    }
}

/// Serves until SIGTERM or Ctrl-C.
///
/// # Errors
///
/// Settings that cannot work: a wrong login, a database that was not migrated. Servers that are
/// away are waited for.
pub async fn run(args: ServeArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let shutdown = CancellationToken::new();
    on_signals(shutdown.clone())?;
    let (store, broker) = tokio::select! {
        () = shutdown.cancelled() => return Ok(ExitCode::SUCCESS),
        connected = async {
            let store = Store::connect_with_retry(&settings.database).await?;
            if args.migrate {
                store.migrate().await?;
            }
            store.check().await?;
            anyhow::Ok((store, settings.broker.connect_patiently().await?))
        } => connected?,
    };
    tracing::info!(
        broker = settings.broker.address(),
        database = settings.database_address(),
        "serving"
    );
    let options = ServeOptions {
        retry: RetryPolicy {
            attempts: args.attempts,
            delay: Duration::from_secs_f64(args.retry_delay),
        },
        ..ServeOptions::default()
    };
    if args.once {
        tokio::spawn(end_when_done(
            store.clone(),
            broker.clone(),
            shutdown.clone(),
        ));
    }
    serve(store.clone(), broker, options, shutdown).await;
    if args.once && store.has_failed_jobs().await? {
        return Ok(Exit::FailedJobs.into());
    }
    Ok(ExitCode::SUCCESS)
}

/// Cancels `shutdown` at the first SIGTERM or SIGINT. A second one ends the process: nothing is
/// lost by that.
fn on_signals(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                tracing::info!("stopping");
                shutdown.cancel();
            } else {
                std::process::exit(i32::from(Exit::Interrupted.code()));
            }
        }
    });
    Ok(())
}

async fn end_when_done(store: Store, broker: Broker, shutdown: CancellationToken) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let done = async { anyhow::Ok(!store.has_open_jobs().await? && drained(&broker).await?) };
        match done.await {
            Ok(true) => {
                shutdown.cancel();
                return;
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "cannot look whether anything is left"),
        }
    }
}
