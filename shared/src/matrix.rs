//! The matrix: the jobs that a resolved spec expands to, lazily, in constant memory.

use crate::{
    case::Case,
    ids::{JobId, SweepId},
    spec::ResolvedSpec,
    wire::TrainSpec,
};
use std::sync::Arc;

/// A job of the matrix.
#[derive(Clone, Debug)]
pub struct PlannedJob {
    /// Its id, from the sweep's id and what it does.
    pub id: JobId,
    /// What it does.
    pub work: PlannedWork,
}

/// What a job of the matrix does.
#[derive(Clone, Debug)]
pub enum PlannedWork {
    /// Trains a model.
    Train(Arc<TrainSpec>),
    /// Evaluates a trained model.
    Eval {
        /// The job that trains it.
        train: JobId,
        /// What that trains.
        spec: Arc<TrainSpec>,
        /// The case.
        case: Case,
    },
    /// Does nothing: measures the overhead. No spec asks for it.
    Noop,
}

/// How many jobs a spec expands to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Training jobs.
    pub train: usize,
    /// Evaluation jobs.
    pub eval: usize,
}

/// How many jobs `spec` expands to.
pub fn counts(spec: &ResolvedSpec) -> Counts {
    let train = spec.methods.len() * spec.datasets.len() * spec.seeds.len();
    Counts {
        train,
        eval: train * spec.cases.len(),
    }
}

/// The id of a training job.
pub fn train_job_id(sweep: SweepId, spec: &TrainSpec) -> JobId {
    JobId::derive(&[
        sweep.as_bytes(),
        b"train",
        spec.method.as_bytes(),
        spec.variant.as_bytes(),
        spec.dataset.id().as_bytes(),
        &spec.seed.to_le_bytes(),
    ])
}

/// The id of an evaluation job.
pub fn eval_job_id(train: JobId, case: &Case) -> JobId {
    JobId::derive(&[train.as_bytes(), b"eval", case.to_string().as_bytes()])
}

/// The jobs of `spec`, by method, dataset and seed: each training job, then its evaluation jobs.
pub fn expand(spec: Arc<ResolvedSpec>, sweep: SweepId) -> impl Iterator<Item = PlannedJob> + Send {
    // `resolve` writes only cases that read back.
    let cases: Arc<[Case]> = spec.cases.iter().filter_map(|c| c.parse().ok()).collect();
    let (methods, datasets) = (spec.methods.len(), spec.datasets.len());
    let models = methods * datasets * spec.seeds.len();
    (0..models).flat_map(move |i| {
        let seeds = spec.seeds.len();
        let method = &spec.methods[i / (datasets * seeds)];
        let dataset = &spec.datasets[i / seeds % datasets];
        let train_spec = Arc::new(spec.train_spec(method, dataset, spec.seeds[i % seeds]));
        let train = train_job_id(sweep, &train_spec);
        let training = PlannedJob {
            id: train,
            work: PlannedWork::Train(train_spec.clone()),
        };
        let cases = cases.clone();
        let evaluations = (0..cases.len()).map(move |c| PlannedJob {
            id: eval_job_id(train, &cases[c]),
            work: PlannedWork::Eval {
                train,
                spec: train_spec.clone(),
                case: cases[c],
            },
        });
        std::iter::once(training).chain(evaluations)
    })
}
