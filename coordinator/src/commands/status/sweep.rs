//! The status of one sweep.

use super::{
    all::state,
    workers::{BrokerState, Workers},
};
use crate::commands::{
    failures::{self, FailureGroup},
    watch::{Forecast, Snapshot, format_duration},
};
use chrono::{DateTime, Utc};
use comfy_table::{CellAlignment, Table, presets};
use halfheard_results::tables::protocols;
use halfheard_shared::{
    ids::SweepId,
    results::Protocol,
    text::plain,
    wire::{Heartbeat, nobody_can},
};
use halfheard_store::{
    JobState, Store, StoreError, SweepState,
    drained::Drained,
    results::{self, ResultsError},
    status::ModelStatus,
    sweeps::{Progress, SweepRow},
    terms::SweepTerms,
};
use serde::Serialize;
use std::{fmt, time::Duration};

/// Maximum number of causes of failures shown.
const FAILURES: usize = 20;

/// The jobs of a sweep and the workers, as they are also printed by `--watch --json`.
#[derive(Serialize)]
pub(super) struct Jobs {
    jobs: Progress,
    train_done: i64,
    train_jobs: i64,
    eval_done: i64,
    eval_jobs: i64,
    seconds_left: Option<u64>,
    workers: Vec<Heartbeat>,
    nobody_can: Option<String>,
}

impl Jobs {
    pub(super) fn new(snapshot: &Snapshot, left: Option<Duration>) -> Self {
        Self {
            jobs: snapshot.progress,
            train_done: snapshot.train_done,
            train_jobs: snapshot.train_jobs,
            eval_done: snapshot.eval_done,
            eval_jobs: snapshot.eval_jobs,
            seconds_left: left.map(|left| left.as_secs()),
            nobody_can: nobody_can(&snapshot.workers),
            workers: snapshot.workers.clone(),
        }
    }
}

impl fmt::Display for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jobs = &self.jobs;
        writeln!(
            f,
            "jobs: {} done of {}, {} running, {} queued, {} ready, {} waiting for their model, {} \
             failed, {} cancelled",
            jobs.done,
            jobs.total(),
            jobs.running,
            jobs.queued,
            jobs.ready,
            jobs.blocked,
            jobs.failed,
            jobs.cancelled
        )?;
        if let Some(left) = self.seconds_left {
            let left = format_duration(Duration::from_secs(left));
            writeln!(f, "time left: about {left}")?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Model {
    model: String,
    dataset: String,
    seed: i64,
    state: JobState,
    epoch: Option<i32>,
    loss: Option<f64>,
    worker: Option<String>,
    evaluations_completed: i64,
    evaluations_expected: i64,
}

impl From<ModelStatus> for Model {
    fn from(status: ModelStatus) -> Self {
        Self {
            model: match status.variant.as_str() {
                "" => status.method,
                variant => format!("{}/{variant}", status.method),
            },
            dataset: status.dataset,
            seed: status.seed,
            state: status.state,
            epoch: status.epoch,
            loss: status.loss,
            worker: status.worker,
            evaluations_completed: status.completed,
            evaluations_expected: status.expected,
        }
    }
}

#[derive(Serialize)]
struct Sweep {
    id: SweepId,
    name: String,
    state: SweepState,
    #[serde(flatten)]
    terms: SweepTerms,
    stopped_because: Option<String>,
    created: DateTime<Utc>,
}

/// The status of one sweep.
#[derive(Serialize)]
pub(super) struct Report {
    sweep: Sweep,
    #[serde(flatten)]
    jobs: Jobs,
    protocols: Vec<Protocol>,
    models: Vec<Model>,
    /// Models of a large sweep that are not listed: their training jobs wait, or are done.
    models_left_out: i64,
    failures: Vec<FailureGroup>,
    broker_error: Option<String>,
    drained: Vec<Drained>,
    #[serde(skip)]
    servers_stopped: bool,
}

impl Report {
    pub(super) async fn load(
        store: &Store,
        broker: &BrokerState,
        sweep: SweepRow,
    ) -> Result<Self, ResultsError> {
        let forecast = async {
            let snapshot = Snapshot::load(store, broker.get(), sweep.id).await?;
            let left = Forecast::new(sweep.id).left(store, &snapshot).await;
            Ok::<_, StoreError>((snapshot, left))
        };
        // At once: of a million jobs each takes a while.
        let (forecast, models, protocols, failures, drained) = tokio::join!(
            forecast,
            store.models(sweep.id),
            protocols_of(store, sweep.id),
            failures::load(store, sweep.id),
            store.drained(),
        );
        let ((snapshot, left), models) = (forecast?, models?);
        let listed = i64::try_from(models.len()).unwrap_or(i64::MAX);
        Ok(Self {
            models_left_out: (snapshot.train_jobs - listed).max(0),
            jobs: Jobs::new(&snapshot, left),
            protocols: protocols?,
            models: models.into_iter().map(Model::from).collect(),
            failures: failures?,
            broker_error: broker.error(),
            drained: drained?,
            servers_stopped: broker.is_stopped(),
            sweep: Sweep {
                id: sweep.id,
                name: sweep.name,
                state: sweep.state,
                terms: sweep.terms,
                stopped_because: sweep.stopped_because,
                created: sweep.created,
            },
        })
    }

    fn table(&self) -> Table {
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
        for model in &self.models {
            table.add_row([
                model.model.clone(),
                model.dataset.clone(),
                model.seed.to_string(),
                model.state.to_string(),
                model.epoch.map_or_else(String::new, |e| e.to_string()),
                model.loss.map_or_else(String::new, |l| format!("{l:.4}")),
                format!(
                    "{}/{}",
                    model.evaluations_completed, model.evaluations_expected
                ),
                model.worker.clone().unwrap_or_default(),
            ]);
        }
        for number in [2, 4, 5, 6] {
            if let Some(column) = table.column_mut(number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

async fn protocols_of(store: &Store, sweep: SweepId) -> Result<Vec<Protocol>, ResultsError> {
    results::Snapshot::begin(store, sweep)
        .await?
        .protocols()
        .await
}

/// The state, with the reason if the coordinator paused the sweep by itself.
fn why(sweep: &Sweep, state: String) -> String {
    match &sweep.stopped_because {
        Some(because) => format!("{state} ({})", plain(because)),
        None => state,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sweep, open) = (&self.sweep, self.jobs.jobs.open());
        writeln!(
            f,
            "{} ({}): {}, submitted {}",
            sweep.name,
            sweep.id,
            why(sweep, state(sweep.state, open, self.servers_stopped)),
            sweep.created.format("%Y-%m-%d %H:%M UTC"),
        )?;
        for line in protocols::lines(&self.protocols, |_| true) {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "{}\n{}", self.jobs, self.table().trim_fmt())?;
        if self.models_left_out > 0 {
            let left_out = self.models_left_out;
            writeln!(
                f,
                "and {left_out} more models, of which no training job runs or failed"
            )?;
        }
        if !self.failures.is_empty() {
            writeln!(f, "\nfailures by cause:")?;
        }
        for failure in self.failures.iter().take(FAILURES) {
            writeln!(f, "  {}", failure.describe().replace('\n', "\n  "))?;
        }
        if self.failures.len() > FAILURES {
            let more = self.failures.len() - FAILURES;
            writeln!(f, "  and {more} more causes (--json lists all)")?;
        }
        if open > 0 {
            let workers = Workers {
                workers: &self.jobs.workers,
                broker_error: self.broker_error.as_deref(),
                drained: &self.drained,
            };
            write!(f, "\n{workers}")?;
        }
        Ok(())
    }
}
