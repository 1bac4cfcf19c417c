//! `coord workers`.

use super::status::{BrokerState, versions};
use crate::{config::Settings, housekeeping::size::Bytes, local::Database, output::Output};
use chrono::{DateTime, Utc};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use halfheard_progress::describe_worker;
use halfheard_shared::{
    error::hinted,
    ids::JobId,
    text::plain,
    wire::{Heartbeat, Trouble, nobody_can},
};
use halfheard_store::{
    Store, StoreError,
    drained::{Drained, title},
};
use serde::Serialize;
use std::{collections::HashMap, fmt, process::ExitCode};

/// Arguments of `coord workers`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A worker that sits out has a fault of its own (no data, no room, a broken device) and tries again by
itself. Pace is training steps per second in the last epoch.

Examples:
  coord workers
  coord workers --json | jq -r '.workers[] | select(.state == \"sits_out\").name'
  coord drain NAME             have one finish what it has, and take no more")]
pub(crate) struct WorkersArgs {}

/// What a worker is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// At work.
    Working,
    /// Waiting for a job.
    Idle,
    /// At work, and takes nothing more.
    Draining,
    /// Takes nothing more.
    Drained,
    /// Cannot work for a fault of its own.
    SitsOut,
}

impl Standing {
    /// What a heartbeat says of a worker.
    pub(crate) fn of(beat: &Heartbeat, drained: bool) -> Self {
        let has_work = beat.doing.is_some() || !beat.holds.is_empty();
        match (drained, beat.doing.is_some()) {
            (true, _) if has_work => Self::Draining,
            (true, _) => Self::Drained,
            (false, true) => Self::Working,
            (false, false) => match &beat.trouble {
                Some(trouble) if trouble.sits_out => Self::SitsOut,
                _ => Self::Idle,
            },
        }
    }

    /// A symbol, as on the page.
    pub(crate) fn symbol(self) -> char {
        match self {
            Self::Working => '▶',
            Self::Idle => '○',
            Self::Draining | Self::Drained => '‖',
            Self::SitsOut => '✗',
        }
    }

    /// Its word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::Idle => "idle",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::SitsOut => "sits out",
        }
    }
}

/// The memory of a worker's device, or what its process has on the CPU.
pub(crate) fn memory(beat: &Heartbeat) -> String {
    match (beat.device_memory, beat.memory_bytes) {
        (0, 0) => String::new(),
        (0, resident) => Bytes(resident).to_string(),
        (device, _) => Bytes(device).to_string(),
    }
}

#[derive(Serialize)]
struct Worker {
    name: String,
    state: Standing,
    host: String,
    device: String,
    version: String,
    labels: Vec<String>,
    device_memory: u64,
    memory_bytes: u64,
    /// For people: what it does and what is wrong with it.
    description: String,
    job: Option<JobId>,
    /// Since when it has what it works on.
    since: Option<DateTime<Utc>>,
    steps_per_second: Option<f64>,
    /// What is wrong with it, and when it tries again.
    trouble: Option<Trouble>,
    drained: Vec<Drained>,
    #[serde(skip)]
    memory: String,
}

/// All live workers.
#[derive(Serialize)]
struct Workers {
    workers: Vec<Worker>,
    /// Drained names that no live worker has.
    drained_absent: Vec<Drained>,
    versions: Option<String>,
    nobody_can: Option<String>,
}

impl Workers {
    async fn load(store: &Store, beats: Vec<Heartbeat>) -> Result<Self, StoreError> {
        let drained = store.drained().await?;
        let since = store.working_since().await?;
        let paces = paces(store, &beats).await?;
        let is_of = |name: &Drained, beat: &Heartbeat| name.covers(&beat.worker);
        let worker = |beat: &Heartbeat| {
            let drained: Vec<Drained> = drained
                .iter()
                .filter(|name| is_of(name, beat))
                .cloned()
                .collect();
            let job = beat.doing.as_ref().map(|doing| doing.job);
            Worker {
                name: beat.worker.name.clone(),
                state: Standing::of(beat, !drained.is_empty()),
                host: beat.worker.host.clone(),
                device: beat.worker.device.clone(),
                version: beat.worker.version.clone(),
                labels: beat.labels.clone(),
                device_memory: beat.device_memory,
                memory_bytes: beat.memory_bytes,
                description: describe_worker(beat),
                job,
                since: job.and_then(|_| since.get(&beat.worker.name).copied()),
                steps_per_second: job.and_then(|job| paces.get(&job).copied()),
                trouble: beat.trouble.clone(),
                drained,
                memory: memory(beat),
            }
        };
        let absent = |name: &&Drained| !beats.iter().any(|beat| is_of(name, beat));
        Ok(Self {
            workers: beats.iter().map(worker).collect(),
            drained_absent: drained.iter().filter(absent).cloned().collect(),
            versions: versions(&beats),
            nobody_can: nobody_can(&beats),
        })
    }

    fn table(&self) -> Table {
        let labeled = self.workers.iter().any(|worker| !worker.labels.is_empty());
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        // On a terminal, the last column is wrapped rather than the lines.
        table.set_content_arrangement(ContentArrangement::Dynamic);
        let mut heading = vec!["worker", "state", "device", "memory", "steps/s", "since"];
        heading.extend(labeled.then_some("labels"));
        heading.push("doing");
        table.set_header(heading);
        for worker in &self.workers {
            let since = worker
                .since
                .map(|since| since.format("%m-%d %H:%M").to_string());
            let pace = worker.steps_per_second.map(|pace| format!("{pace:.1}"));
            let mut row = vec![
                plain(&worker.name),
                worker.state.word().to_owned(),
                format!("{}, {}", plain(&worker.host), plain(&worker.device)),
                worker.memory.clone(),
                pace.unwrap_or_default(),
                since.unwrap_or_default(),
            ];
            row.extend(labeled.then(|| plain(&worker.labels.join(", "))));
            row.push(worker.doing());
            table.add_row(row);
        }
        for number in [3, 4] {
            if let Some(column) = table.column_mut(number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

impl Worker {
    /// What it does, and by whom it was drained.
    fn doing(&self) -> String {
        let mut text = plain(&self.description);
        for name in &self.drained {
            let since = name.since.format("%m-%d %H:%M");
            text.push_str(&format!("; drained by {} since {since}", plain(&name.by)));
            if name.worker != self.name {
                text.push_str(&format!(" as {}", title(&name.worker)));
            }
        }
        text
    }
}

/// Steps per second in the last epoch of each training job in progress.
async fn paces(store: &Store, beats: &[Heartbeat]) -> Result<HashMap<JobId, f64>, StoreError> {
    let steps: HashMap<JobId, u32> = beats
        .iter()
        .filter_map(|beat| beat.doing.as_ref())
        .filter(|doing| doing.epoch > 0 && doing.steps > 0)
        .map(|doing| (doing.job, doing.steps))
        .collect();
    let jobs: Vec<JobId> = steps.keys().copied().collect();
    let epochs = store.training_epochs(&jobs).await?;
    // By epoch: the last one stays.
    let paced = epochs.into_iter().filter(|epoch| epoch.train_seconds > 0.0);
    Ok(paced
        .filter_map(|epoch| {
            let steps = steps.get(&epoch.job)?;
            Some((epoch.job, f64::from(*steps) / epoch.train_seconds))
        })
        .collect())
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.workers.is_empty() {
            true => writeln!(f, "no workers connected; start one with `worker`")?,
            false => writeln!(f, "{}", self.table().trim_fmt())?,
        }
        for name in &self.drained_absent {
            let since = name.since.format("%Y-%m-%d %H:%M UTC");
            let (title, by) = (title(&name.worker), plain(&name.by));
            writeln!(
                f,
                "drained, and not connected: {title} (by {by} since {since})"
            )?;
        }
        for line in [&self.versions, &self.nobody_can].into_iter().flatten() {
            writeln!(f, "{}", plain(line))?;
        }
        Ok(())
    }
}

/// Prints what each worker does.
///
/// # Errors
///
/// The database or the broker does not answer: who lives, the broker knows.
pub(crate) async fn run(_: WorkersArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let broker = BrokerState::connect(settings).await;
    if let Some(error) = broker.error() {
        let hint = "start it, or pass --nats-url; `coord status` works without";
        return Err(hinted(format!("workers are unknown: {error}"), hint).into());
    }
    let beats = broker.live_workers().await;
    let database = Database::open(settings).await?;
    let workers = Workers::load(&database, beats).await;
    database.close().await;
    Output::of(settings).print_pretty(&workers?)?;
    Ok(ExitCode::SUCCESS)
}
