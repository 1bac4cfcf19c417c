//! The jobs of a sweep and what its results rest on.

use super::Model;
use crate::{benchmark::Benchmark, case::Case, hash::Hash, ids::JobId};
use std::{collections::BTreeMap, sync::Arc};

/// A training job or, with a case, an evaluation job.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The dataset.
    pub dataset: Benchmark,
    /// The model.
    pub model: Model,
    /// The seed.
    pub seed: u64,
    /// The case of an evaluation.
    pub case: Option<Case>,
    /// How far it is.
    pub outcome: JobOutcome,
    /// The last error of a failed attempt.
    pub error: Option<String>,
}

/// How many jobs of a model there are, over all seeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobTally {
    /// The dataset.
    pub dataset: Benchmark,
    /// The model.
    pub model: Model,
    /// The case of evaluations; `None` of trainings.
    pub case: Option<Case>,
    /// How far they are.
    pub outcome: JobOutcome,
    /// How many.
    pub jobs: u64,
}

impl JobTally {
    /// How many jobs there are in all.
    pub fn all<'t>(tallies: impl IntoIterator<Item = &'t Self>) -> u64 {
        tallies.into_iter().map(|tally| tally.jobs).sum()
    }

    /// How many of them are as far as `outcome`.
    pub fn with<'t>(tallies: impl IntoIterator<Item = &'t Self>, outcome: JobOutcome) -> u64 {
        Self::all(tallies.into_iter().filter(|t| t.outcome == outcome))
    }
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// Not finished: blocked, ready, queued or running.
    Open,
    /// Its result is stored.
    Done,
    /// Given up.
    Failed,
    /// Cancelled with its sweep.
    Cancelled,
}

/// The stored values of an evaluation, by criterion and metric; `None` where undefined.
pub type StoredValues = BTreeMap<(String, String), Option<f64>>;

/// The file of a dataset.
#[derive(Clone, Debug)]
pub struct DatasetFile {
    /// The dataset.
    pub dataset: Benchmark,
    /// The file's BLAKE3 hash.
    pub blake3: String,
    /// Samples of the training, validation and test split.
    pub sizes: [usize; 3],
    /// The labels of the test split, `[samples]`.
    pub test_labels: Arc<[f32]>,
}

/// A result that differs from the one that is stored.
#[derive(Clone, Debug)]
pub struct Conflict {
    /// The dataset.
    pub dataset: Benchmark,
    /// The model.
    pub model: Model,
    /// The seed.
    pub seed: u64,
    /// The case of an evaluation.
    pub case: Option<Case>,
    /// The kind of message: `trained`, `evaluated`.
    pub what: String,
    /// The worker whose result was refused.
    pub worker: String,
    /// That worker's device.
    pub device: String,
    /// The worker whose result is kept.
    pub first_worker: Option<String>,
}

/// A program on a kind of machine that did jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The dataset of the jobs.
    pub dataset: Benchmark,
    /// The model of the jobs.
    pub model: Model,
    /// Whether they were evaluations.
    pub evaluations: bool,
    /// The worker's version and revision.
    pub version: String,
    /// `cpu`, or the name of the GPU.
    pub device: String,
    /// `machine` or `portable`.
    pub numerics: String,
    /// The kind of processor or GPU; several, joined by `+`, where a training was resumed on another.
    pub processor: String,
    /// How many jobs.
    pub jobs: usize,
}

/// Something that results rest on.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Its kind: `trained with`.
    pub name: String,
    /// The thing itself.
    pub value: String,
    /// How many evaluations rest on it.
    pub evaluations: i64,
}

/// A checkpoint, by the seed that it was trained with.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The dataset.
    pub dataset: Benchmark,
    /// The model.
    pub model: Model,
    /// The seed.
    pub seed: u64,
    /// Its hash in the artifact store.
    pub hash: Hash,
}
