//! `coord status`: how far the sweeps are.

use crate::{
    commands::failures::{self, FailureGroup},
    commands::forecast::Forecast,
    commands::progress::{Display, Pace, Snapshot, describe_worker, in_words, living},
    config::{Origin, Settings},
    exit::Exit,
    local::connect::Database,
};
use comfy_table::{CellAlignment, Table, presets};
use halfheard_shared::shutdown::Shutdown;
use halfheard_shared::{
    broker::Broker,
    wire::{Heartbeat, nobody_can},
};
use halfheard_store::{Store, SweepState, status::ModelStatus, sweeps::SweepRow};
use serde_json::{Value, json};
use std::{process::ExitCode, time::Duration};

/// Causes of failures that are shown at once.
const FAILURES: usize = 20;
/// Why nothing runs of a sweep that `coord run` was at.
const STOPPED: &str = "the servers of `coord run` are stopped";
/// How often `--watch` looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the broker is waited for: status without it is still of use.
const BROKER_PATIENCE: Duration = Duration::from_secs(3);

/// Arguments of `coord status`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  coord status                all sweeps, and the workers that live
  coord status demo           one sweep: its jobs, its models, its failures with their errors
  coord status demo --watch   until it is finished; ends with 3 if jobs failed")]
pub struct StatusArgs {
    /// The sweep: its name, its id, or the beginning of its id [default: all of them]
    sweep: Option<String>,
    /// Stay and show progress until the sweep is finished [without a sweep: the newest]
    #[arg(long)]
    watch: bool,
}

/// Prints how far the sweeps are.
///
/// # Errors
///
/// No such sweep, or a database out of reach.
pub async fn run(args: StatusArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let database = Database::open(settings).await?;
    let outcome = show(&args, settings, &database).await;
    database.close().await;
    outcome
}

async fn show(args: &StatusArgs, settings: &Settings, store: &Store) -> anyhow::Result<ExitCode> {
    // Nothing says where a broker is, and none of ours runs: then there is none to ask.
    let stopped = settings.broker_origin == Origin::Default
        && settings.database_origin == Origin::Default
        && crate::local::Servers::exists(&settings.data_dir);
    let (broker, trouble) = if stopped {
        (None, Some(STOPPED.to_owned()))
    } else {
        match tokio::time::timeout(BROKER_PATIENCE, settings.broker.connect()).await {
            Ok(Ok(broker)) => (Some(broker), None),
            Ok(Err(error)) => (None, Some(error.to_string())),
            Err(_) => (None, Some("the broker does not answer".to_owned())),
        }
    };
    let sweep = match &args.sweep {
        Some(text) => Some(store.find_sweep(text).await?),
        None if args.watch => store.sweeps().await?.into_iter().next(),
        None => None,
    };
    match sweep {
        Some(sweep) if args.watch => watch(store, broker.as_ref(), &sweep, settings).await,
        Some(sweep) => {
            one(store, broker.as_ref(), trouble, &sweep, settings).await?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            all(store, broker.as_ref(), trouble, settings).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Shows progress until nothing of the sweep is left to do.
async fn watch(
    store: &Store,
    broker: Option<&Broker>,
    sweep: &SweepRow,
    settings: &Settings,
) -> anyhow::Result<ExitCode> {
    let interrupt = Shutdown::on_signals(Exit::Interrupted.code())?;
    let mut display = if settings.json {
        Display::silent(sweep.id)
    } else {
        Display::new(sweep.id)
    };
    let mut pace = Pace::new(sweep.id);
    let mut forecast = Forecast::new(sweep.id);
    loop {
        let snapshot = Snapshot::take(store, broker, sweep.id).await?;
        let left = forecast.left(store, &snapshot).await;
        if settings.json {
            let left = left.or(pace.left(&snapshot)).map(|left| left.as_secs());
            println!("{}", snapshot_json(&snapshot, left));
        } else {
            display.show(&snapshot, left);
        }
        if snapshot.progress.open() == 0 {
            display.clear();
            one(store, broker, None, sweep, settings).await?;
            return Ok(Exit::of_sweep(snapshot.progress.failed).into());
        }
        if interrupt.or(tokio::time::sleep(LOOK_EVERY)).await.is_err() {
            display.clear();
            return Ok(Exit::Interrupted.into());
        }
    }
}

fn snapshot_json(snapshot: &Snapshot, left: Option<u64>) -> Value {
    json!({
        "jobs": snapshot.progress,
        "train_done": snapshot.train_done,
        "train_jobs": snapshot.train_jobs,
        "eval_done": snapshot.eval_done,
        "eval_jobs": snapshot.eval_jobs,
        "seconds_left": left,
        "workers": snapshot.workers,
        "nobody_can": nobody_can(&snapshot.workers),
    })
}

/// All sweeps.
async fn all(
    store: &Store,
    broker: Option<&Broker>,
    trouble: Option<String>,
    settings: &Settings,
) -> anyhow::Result<()> {
    let sweeps = store.sweeps().await?;
    let workers = match broker {
        Some(broker) => living(broker).await,
        None => Vec::new(),
    };
    let mut rows = Vec::new();
    for sweep in &sweeps {
        rows.push((sweep, store.progress(sweep.id).await?));
    }
    let aside = store.set_aside().await?;
    if settings.json {
        let sweeps: Vec<Value> = rows
            .iter()
            .map(|(sweep, progress)| {
                json!({
                    "id": sweep.id,
                    "name": sweep.name,
                    "state": sweep.state,
                    "priority": sweep.priority,
                    "created": sweep.created,
                    "jobs": progress,
                    "finished": progress.open() == 0,
                })
            })
            .collect();
        let whole = json!({
            "sweeps": sweeps,
            "workers": workers,
            "nobody_can": nobody_can(&workers),
            "broker_trouble": trouble,
            "set_aside": aside,
        });
        println!("{whole:#}");
        return Ok(());
    }
    if rows.is_empty() {
        println!("no sweeps yet: `coord run SPEC` or `coord submit SPEC` makes one");
    } else {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "sweep",
            "name",
            "state",
            "submitted",
            "jobs",
            "done",
            "running",
            "waiting",
            "failed",
        ]);
        for (sweep, progress) in rows {
            table.add_row([
                sweep.id.short(),
                sweep.name.clone(),
                state(sweep, progress.open(), trouble.as_deref() == Some(STOPPED)),
                sweep.created.format("%Y-%m-%d %H:%M").to_string(),
                progress.total().to_string(),
                progress.done.to_string(),
                progress.running.to_string(),
                (progress.open() - progress.running).to_string(),
                progress.failed.to_string(),
            ]);
        }
        for column in table.column_iter_mut().skip(4) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("{}", table.trim_fmt());
    }
    println!();
    if let Some(aside) = aside.describe() {
        println!("{aside}");
    }
    print_workers(&workers, trouble.as_deref());
    Ok(())
}

/// What a sweep is at. Where the private servers are `stopped`, nothing runs, whatever is wanted.
fn state(sweep: &SweepRow, open: i64, stopped: bool) -> String {
    match sweep.state {
        SweepState::Running if open == 0 => "finished".to_owned(),
        SweepState::Running if stopped => "interrupted".to_owned(),
        state => state.to_string(),
    }
}

fn print_workers(workers: &[Heartbeat], trouble: Option<&str>) {
    if let Some(trouble) = trouble {
        println!("workers: not known, {trouble}");
        return;
    }
    if workers.is_empty() {
        println!("workers: none lives; start one with `worker`");
        return;
    }
    println!("workers:");
    for beat in workers {
        println!(
            "  {} ({}, {}): {}",
            beat.worker.name,
            beat.worker.host,
            beat.worker.device,
            describe_worker(beat)
        );
    }
    if let Some(nobody) = nobody_can(workers) {
        println!("{nobody}; the sweeps go on by themselves once that is mended");
    }
}

/// `METHOD` or `METHOD/VARIANT`.
fn model_name(model: &ModelStatus) -> String {
    match model.variant.as_str() {
        "" => model.method.clone(),
        variant => format!("{}/{variant}", model.method),
    }
}

/// What failed, a paragraph for each cause.
fn print_failures(failures: &[FailureGroup]) {
    if failures.is_empty() {
        return;
    }
    println!("\nfailures by cause:");
    for failure in failures.iter().take(FAILURES) {
        println!("  {}", failure.describe().replace('\n', "\n  "));
    }
    if failures.len() > FAILURES {
        println!(
            "  and {} more causes (--json has all)",
            failures.len() - FAILURES
        );
    }
}

/// One sweep.
async fn one(
    store: &Store,
    broker: Option<&Broker>,
    trouble: Option<String>,
    sweep: &SweepRow,
    settings: &Settings,
) -> anyhow::Result<()> {
    let snapshot = Snapshot::take(store, broker, sweep.id).await?;
    let models = store.models(sweep.id).await?;
    let failures = failures::grouped(store, sweep.id).await?;
    let left = Forecast::new(sweep.id).left(store, &snapshot).await;
    let progress = snapshot.progress;
    if settings.json {
        let models: Vec<Value> = models
            .iter()
            .map(|model| {
                json!({
                    "model": model_name(model),
                    "dataset": model.dataset,
                    "seed": model.seed,
                    "state": model.state,
                    "epoch": model.epoch,
                    "loss": model.loss,
                    "worker": model.worker,
                    "evaluations_completed": model.completed,
                    "evaluations_expected": model.expected,
                })
            })
            .collect();
        let mut whole = snapshot_json(&snapshot, left.map(|left| left.as_secs()));
        whole["sweep"] = json!({
            "id": sweep.id, "name": sweep.name, "state": sweep.state, "created": sweep.created,
        });
        whole["models"] = models.into();
        whole["failures"] = json!(failures);
        whole["broker_trouble"] = trouble.into();
        println!("{whole:#}");
        return Ok(());
    }
    println!(
        "{} ({}): {}, submitted {}",
        sweep.name,
        sweep.id,
        state(sweep, progress.open(), trouble.as_deref() == Some(STOPPED)),
        sweep.created.format("%Y-%m-%d %H:%M UTC")
    );
    println!(
        "jobs: {} done of {}, {} running, {} queued, {} ready, {} waiting for their model, {} failed, {} cancelled",
        progress.done,
        progress.total(),
        progress.running,
        progress.queued,
        progress.ready,
        progress.blocked,
        progress.failed,
        progress.cancelled
    );
    if let Some(left) = left {
        println!("time left: about {}", in_words(left));
    }
    println!();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "model",
        "dataset",
        "seed",
        "training",
        "epoch",
        "loss",
        "evaluated",
        "worker",
    ]);
    for model in &models {
        table.add_row([
            model_name(model),
            model.dataset.clone(),
            model.seed.to_string(),
            model.state.to_string(),
            model
                .epoch
                .map_or_else(String::new, |epoch| epoch.to_string()),
            model
                .loss
                .map_or_else(String::new, |loss| format!("{loss:.4}")),
            format!("{}/{}", model.completed, model.expected),
            model.worker.clone().unwrap_or_default(),
        ]);
    }
    for number in [2, 4, 5, 6] {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{}", table.trim_fmt());
    print_failures(&failures);
    if progress.open() > 0 {
        println!();
        print_workers(&snapshot.workers, trouble.as_deref());
    }
    Ok(())
}
