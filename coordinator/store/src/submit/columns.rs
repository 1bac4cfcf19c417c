//! Planned jobs as columns, for statements that take arrays.

use crate::{JobCounts, JobKind, StoreError};
use halfheard_shared::{
    benchmark::Benchmark,
    ids::JobId,
    matrix::{self, Needs, PlannedJob, PlannedWork},
    numerics::leave_out_default,
    wire::TrainSpec,
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};
use uuid::Uuid;

/// A batch of jobs.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) id: Vec<Uuid>,
    pub(super) position: Vec<i64>,
    pub(super) kind: Vec<&'static str>,
    pub(super) method: Vec<String>,
    pub(super) variant: Vec<String>,
    pub(super) dataset: Vec<&'static str>,
    pub(super) seed: Vec<i64>,
    pub(super) case: Vec<Option<String>>,
    pub(super) confusions: Vec<Option<String>>,
    pub(super) train: Vec<Option<Uuid>>,
    pub(super) config: Vec<Option<Uuid>>,
    pub(super) memory: Vec<i64>,
    pub(super) label: Vec<Option<String>>,
}

/// A config, and what the jobs that train or evaluate it need of a worker.
pub(super) struct Config {
    pub(super) spec: serde_json::Value,
    pub(super) memory: i64,
    pub(super) label: Option<Arc<str>>,
}

/// Counts jobs and collects what they refer to.
#[derive(Default)]
pub(super) struct Planned {
    pub(super) counts: JobCounts,
    /// The distinct configs so far; few, however many jobs there are.
    pub(super) configs: BTreeMap<Uuid, Config>,
    /// The datasets so far that are not built in.
    pub(super) datasets: BTreeSet<Benchmark>,
    /// The last spec and its config: jobs of one model follow each other, and models that differ only
    /// in their seed.
    last: Option<(Arc<TrainSpec>, Uuid)>,
}

impl Planned {
    /// Appends a job to a batch.
    pub(super) fn push(&mut self, job: PlannedJob, rows: &mut Columns) -> Result<(), StoreError> {
        let position = self.counts.total();
        let (kind, spec, case, train) = match &job.work {
            PlannedWork::Train(spec) => (JobKind::Train, Some(spec), None, None),
            PlannedWork::Eval {
                train, spec, case, ..
            } => (JobKind::Eval, Some(spec), Some(case), Some(*train)),
            PlannedWork::Noop => (JobKind::Noop, None, None, None),
        };
        let confusions = match &job.work {
            PlannedWork::Eval { confusions, .. } => confusions.as_deref(),
            PlannedWork::Train(_) | PlannedWork::Noop => None,
        };
        let seed = spec.map_or(0, |spec| spec.seed);
        rows.seed
            .push(i64::try_from(seed).map_err(|_| StoreError::TooLarge {
                what: "the seed",
                value: seed,
            })?);
        let config = match spec {
            Some(spec) => Some(self.config(spec, &job.needs)?),
            None => None,
        };
        rows.id.push(job.id.0);
        rows.position.push(position);
        rows.kind.push(kind.as_str());
        let text =
            |of: fn(&TrainSpec) -> &String| spec.map_or_else(String::new, |spec| of(spec).clone());
        rows.method.push(text(|spec| &spec.method));
        rows.variant.push(text(|spec| &spec.variant));
        rows.dataset.push(spec.map_or("", |spec| spec.dataset.id()));
        rows.case.push(case.map(ToString::to_string));
        rows.confusions.push(confusions.map(str::to_owned));
        rows.train.push(train.map(|JobId(train)| train));
        rows.config.push(config);
        rows.memory.push(bytes(job.needs.memory));
        rows.label
            .push(job.needs.label.as_deref().map(str::to_owned));
        match kind {
            JobKind::Train => self.counts.train += 1,
            JobKind::Eval => self.counts.eval += 1,
            JobKind::Noop => self.counts.noop += 1,
        }
        Ok(())
    }

    /// The id of the config of `spec`, which does not depend on its seed.
    fn config(&mut self, spec: &Arc<TrainSpec>, needs: &Needs) -> Result<Uuid, StoreError> {
        if let Some((last, config)) = &self.last
            && (Arc::ptr_eq(last, spec) || same_but_seed(last, spec))
        {
            return Ok(*config);
        }
        if matches!(spec.dataset, Benchmark::Own(_)) {
            self.datasets.insert(spec.dataset);
        }
        let id = matrix::config_id(spec);
        if let Entry::Vacant(entry) = self.configs.entry(id) {
            // With the paths, which are no part of the id.
            let seedless = TrainSpec {
                seed: 0,
                ..TrainSpec::clone(spec)
            };
            let mut json = serde_json::to_value(&seedless)
                .map_err(|error| StoreError::stored("a training spec", error))?;
            leave_out_default(&mut json);
            entry.insert(Config {
                spec: json,
                memory: bytes(needs.memory),
                label: needs.label.clone(),
            });
        }
        self.last = Some((Arc::clone(spec), id));
        Ok(id)
    }
}

fn same_but_seed(a: &TrainSpec, b: &TrainSpec) -> bool {
    // The seed first, to save the clone for neighbors that differ in more than their seed.
    a.method == b.method
        && a.variant == b.variant
        && a.dataset == b.dataset
        && *a
            == TrainSpec {
                seed: a.seed,
                ..b.clone()
            }
}

fn bytes(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
