//! What is known of a training.

use crate::{Page, error::PageError};
use halfheard_shared::{
    benchmark::{Benchmark, Metric},
    ids::{AttemptId, JobId},
    text::plain,
    wire::Heartbeat,
};
use halfheard_store::{
    output::KeptOutput,
    trainings::{AskingSweep, AttemptRow, CaseRow, CheckpointRow, EpochRow, Sibling, Training},
};
use maud::{Markup, html};
use std::collections::BTreeMap;

/// What is known of a training.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) training: Training,
    /// Its dataset, with the metrics.
    pub(super) dataset: Option<Benchmark>,
    pub(super) sweeps: Vec<AskingSweep>,
    pub(super) siblings: Vec<Sibling>,
    /// Epochs of this training and of its siblings.
    pub(super) epochs: BTreeMap<JobId, Vec<EpochRow>>,
    /// Evaluations of this model and of its siblings'.
    pub(super) cases: BTreeMap<JobId, Vec<CaseRow>>,
    pub(super) attempts: Vec<AttemptRow>,
    pub(super) checkpoints: Vec<CheckpointRow>,
    pub(super) output: Option<(AttemptId, KeptOutput)>,
    /// The worker that is at it.
    pub(super) worker: Option<Heartbeat>,
}

impl Known {
    pub(super) async fn load(page: &Page, training: Training) -> Result<Self, PageError> {
        let (store, job) = (&page.store, training.job);
        let siblings = store.training_siblings(job).await?;
        let mut jobs = vec![job];
        jobs.extend(siblings.iter().map(|sibling| sibling.job));
        let mut epochs: BTreeMap<JobId, Vec<EpochRow>> = BTreeMap::new();
        for row in store.training_epochs(&jobs).await? {
            epochs.entry(row.job).or_default().push(row);
        }
        let mut cases: BTreeMap<JobId, Vec<CaseRow>> = BTreeMap::new();
        for row in store.training_cases(&jobs).await? {
            cases.entry(row.train_job).or_default().push(row);
        }
        let heard = page.heartbeats.heard().into_iter();
        let mut at_it =
            heard.filter(|beat| beat.doing.as_ref().is_some_and(|doing| doing.job == job));
        Ok(Self {
            dataset: store.benchmarks().await?.get(&training.dataset),
            sweeps: store.sweeps_asking(job).await?,
            attempts: store.attempts(job).await?,
            checkpoints: store.training_checkpoints(job).await?,
            output: store.last_output(job).await?,
            worker: at_it.next(),
            siblings,
            epochs,
            cases,
            training,
        })
    }

    /// This training's own epochs.
    pub(super) fn own_epochs(&self) -> &[EpochRow] {
        self.epochs
            .get(&self.training.job)
            .map_or(&[], Vec::as_slice)
    }

    /// The evaluations of this training's model.
    pub(super) fn own_cases(&self) -> &[CaseRow] {
        self.cases
            .get(&self.training.job)
            .map_or(&[], Vec::as_slice)
    }

    /// A metric by its id, also of one on the test split.
    pub(super) fn metric(&self, id: &str) -> Option<&'static Metric> {
        self.dataset?.metric(id.strip_prefix("test:").unwrap_or(id))
    }

    /// A worker's name, linked to what it does.
    pub(super) fn worker_link(&self, name: &str) -> Markup {
        let name = plain(name);
        html! {
            // Names of workers have no characters that mean something in an address.
            @if halfheard_shared::text::valid_worker(&name) {
                a href={ "/workers?filter=" (name) } { (name) }
            } @else {
                (name)
            }
        }
    }
}

/// A metric's name with its unit, for a heading.
pub(super) fn metric_title(id: &str, metric: Option<&Metric>) -> String {
    let on_test = if id.starts_with("test:") {
        " on the test split"
    } else {
        ""
    };
    match metric {
        Some(metric) if metric.percent => format!("{}{on_test}, %", metric.name),
        Some(metric) => format!("{}{on_test}", metric.name),
        None => plain(id).replace('_', " "),
    }
}

/// A metric's value in the unit of tables: percent where they print percent.
pub(super) fn scaled(value: Option<f64>, metric: Option<&Metric>) -> Option<f64> {
    let percent = metric.is_some_and(|metric| metric.percent);
    value.map(|value| if percent { value * 100.0 } else { value })
}

/// The same as tables print it; `–` if it is undefined.
pub(super) fn printed(value: Option<f64>, metric: Option<&Metric>) -> String {
    let decimals = if metric.is_some_and(|metric| metric.percent) {
        2
    } else {
        3
    };
    match scaled(value, metric).filter(|value| value.is_finite()) {
        Some(value) => format!("{value:.decimals$}").replace('-', "\u{2212}"),
        None => "–".to_owned(),
    }
}
