//! `coord serve`: runs the daemon.

use crate::{
    config::Settings,
    exit::Exit,
    http::HttpArgs,
    infrastructure,
    notify::NotifyArgs,
    orchestrator::collect::drained,
    orchestrator::{
        options::ServeOptions,
        serve::{holder, serve},
    },
};
use halfheard_shared::{
    broker::Broker,
    env,
    service_manager::{self, State},
    shutdown::Shutdown,
};
use halfheard_store::{Store, lifecycle::RetryPolicy};
use halfheard_telemetry::traces;
use std::{process::ExitCode, time::Duration};
use tokio_util::sync::CancellationToken;

/// How often `--once` checks whether anything is left.
const POLL: Duration = Duration::from_millis(500);

/// Arguments of `coord serve`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
OTEL_EXPORTER_OTLP_ENDPOINT sends traces of jobs to an OpenTelemetry collector, by OTLP over HTTP
(docs/guide/tracing.md).

Examples:
  coord serve --notify '/usr/local/bin/tell ops@example.org'   run a script when a sweep ends or stalls
  coord serve --notify-webhook /etc/halfheard/webhook          post it to the address in that file")]
pub(crate) struct ServeArgs {
    /// Exit when no sweep has open jobs
    #[arg(long)]
    once: bool,
    /// Apply missing migrations first, as `coord migrate` does
    #[arg(long)]
    migrate: bool,
    /// Maximum number of attempts at a job
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..))]
    attempts: i32,
    /// Seconds before a failed job is retried; each further delay is four times as long
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    retry_delay: f64,
    #[command(flatten)]
    http: HttpArgs,
    #[command(flatten)]
    notify: NotifyArgs,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds from 0 to 86400".to_owned()),
    }
}

/// Serves until SIGTERM or Ctrl-C.
///
/// # Errors
///
/// Settings are invalid: a wrong login, a database without migrations; the servers lack something
/// without which nothing works. Unavailable servers are waited
/// for.
pub(crate) async fn run(args: ServeArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let notify = args.notify.options(&env::process)?;
    traces::start(
        traces::COORD,
        &holder(),
        env!("CARGO_PKG_VERSION"),
        &env::process,
    )?;
    let signals = Shutdown::on_signals(Exit::Interrupted.code())?;
    // `--once` ends the daemon, too, and is not a signal.
    let shutdown = signals.token().child_token();
    tokio::spawn(async move {
        signals.requested().await;
        tracing::info!("stopping");
        service_manager::notify(State::Stopping);
    });
    let listening = args.http.listen().await?;
    let page = listening.map(|listening| listening.start(&shutdown));
    let (store, broker) = tokio::select! {
        () = shutdown.cancelled() => return Ok(ExitCode::SUCCESS),
        connected = async {
            let store = Store::connect_with_retry(&settings.database).await?;
            if args.migrate {
                store.migrate().await?;
            }
            store.check().await?;
            let broker = settings.broker.connect_with_retry().await?;
            infrastructure::check(&store, &broker).await?;
            anyhow::Ok((store, broker))
        } => connected?,
    };
    tracing::info!(
        broker = settings.broker.address(),
        database = settings.database_address(),
        "serving"
    );
    service_manager::notify(State::Ready);
    if let Some(page) = &page {
        page.show(&store, &broker, settings.places());
    }
    let options = ServeOptions {
        retry: RetryPolicy {
            attempts: args.attempts,
            delay: Duration::from_secs_f64(args.retry_delay),
            ..RetryPolicy::default()
        },
        notify,
        ..ServeOptions::default()
    };
    if args.once {
        tokio::spawn(stop_when_done(
            store.clone(),
            broker.clone(),
            shutdown.clone(),
        ));
    }
    let served = serve(store.clone(), broker, options, shutdown).await;
    if let Some(page) = page {
        page.finish().await;
    }
    traces::stop().await;
    served?;
    if args.once && store.has_failed_jobs().await? {
        return Ok(Exit::FailedJobs.into());
    }
    Ok(ExitCode::SUCCESS)
}

async fn stop_when_done(store: Store, broker: Broker, shutdown: CancellationToken) {
    loop {
        tokio::time::sleep(POLL).await;
        let done = async { anyhow::Ok(!store.has_open_jobs().await? && drained(&broker).await?) };
        match done.await {
            Ok(true) => {
                shutdown.cancel();
                return;
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "cannot check for open jobs")
            }
        }
    }
}
