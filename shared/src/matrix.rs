//! The matrix: the jobs that a resolved spec expands to, lazily, in constant memory.
//!
//! A job's id derives from what it computes, not from who asks for it: two sweeps that ask for the
//! same training share it, its result and its checkpoints.

use crate::{
    case::{Case, Damage},
    ids::{JobId, SweepId},
    numerics::leave_out_default,
    spec::ResolvedSpec,
    wire::TrainSpec,
};
use std::sync::Arc;
use uuid::Uuid;

/// A job of the matrix.
#[derive(Clone, Debug)]
pub struct PlannedJob {
    /// Its id, from what it does.
    pub id: JobId,
    /// What it does.
    pub work: PlannedWork,
    /// Which workers can do it. Not part of its identity.
    pub needs: Needs,
}

impl PlannedJob {
    /// A job that every worker can do.
    pub fn new(id: JobId, work: PlannedWork) -> Self {
        Self {
            id,
            work,
            needs: Needs::default(),
        }
    }
}

/// What a job asks of the worker that is to do it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Bytes of memory that its device must have; 0 if any.
    pub memory: u64,
    /// A label that it must have.
    pub label: Option<Arc<str>>,
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
        /// The hash of the table of what words are heard as, for errors of speech recognition.
        confusions: Option<Arc<str>>,
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

/// A training spec as its content: without the seed, and without the paths, which are only hints.
/// Part of a training job's identity, and what table `config` holds under [`config_id`].
pub fn config_of(spec: &TrainSpec) -> TrainSpec {
    let mut config = TrainSpec {
        seed: 0,
        ..spec.clone()
    };
    config.data.path.clear();
    config.encoder.path.clear();
    config
}

/// The id of what is trained, whatever the seed and wherever the files lie.
pub fn config_id(spec: &TrainSpec) -> Uuid {
    // Strings, numbers and lists: serialization cannot fail.
    let mut json = serde_json::to_value(config_of(spec)).unwrap_or_default();
    leave_out_default(&mut json);
    let hash = blake3::hash(json.to_string().as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The id of a training job: of what it trains, its seed, and the nonce of a submission that asks for
/// everything anew.
pub fn train_job_id(config: Uuid, seed: u64, nonce: Option<&str>) -> JobId {
    JobId::derive(&[
        b"train",
        config.as_bytes(),
        &seed.to_le_bytes(),
        nonce.unwrap_or_default().as_bytes(),
    ])
}

/// The id of an evaluation job: of its model, its case, and the hash of the table that the case needs,
/// if it needs one.
pub fn eval_job_id(train: JobId, case: &Case, confusions: Option<&str>) -> JobId {
    let case = case.to_string();
    let mut parts = vec![train.as_bytes().as_slice(), b"eval", case.as_bytes()];
    parts.extend(confusions.map(str::as_bytes));
    JobId::derive(&parts)
}

/// The id of a no-op job, which has no content and belongs to one sweep.
pub fn noop_job_id(sweep: SweepId, position: u64) -> JobId {
    JobId::derive(&[sweep.as_bytes(), b"noop", &position.to_le_bytes()])
}

/// The jobs of `spec`, by method, dataset and seed: each training job, then its evaluation jobs.
/// With a nonce they are other jobs than those of any other submission.
pub fn expand(
    spec: Arc<ResolvedSpec>,
    nonce: Option<&str>,
) -> impl Iterator<Item = PlannedJob> + Send + use<> {
    let nonce: Option<Arc<str>> = nonce.map(Into::into);
    // `resolve` writes only cases that read back.
    let cases: Arc<[Case]> = spec.cases.iter().filter_map(|c| c.parse().ok()).collect();
    let datasets = spec.datasets.len();
    (0..spec.methods.len() * datasets).flat_map(move |i| {
        let method = &spec.methods[i / datasets];
        let dataset = &spec.datasets[i % datasets];
        // Serializing and hashing once for all seeds.
        let config = config_id(&spec.train_spec(method, dataset, 0));
        let needs = Needs {
            memory: method.needs.memory,
            label: method.needs.label.as_deref().map(Into::into),
        };
        let cases: Arc<[PlannedCase]> = {
            let confusions = spec.confusions(method, dataset).map(Arc::from);
            let of = |case: &Case| PlannedCase {
                case: *case,
                confusions: match case.damage {
                    Damage::Asr(_) => confusions.clone(),
                    _ => None,
                },
            };
            cases.iter().map(of).collect()
        };
        let (spec, nonce) = (Arc::clone(&spec), nonce.clone());
        (0..spec.seeds.len()).flat_map(move |s| {
            let method = &spec.methods[i / datasets];
            let dataset = &spec.datasets[i % datasets];
            let model = Arc::new(spec.train_spec(method, dataset, spec.seeds[s]));
            let train = train_job_id(config, model.seed, nonce.as_deref());
            let needs = needs.clone();
            model_jobs(train, model, Arc::clone(&cases)).map(move |job| PlannedJob {
                needs: needs.clone(),
                ..job
            })
        })
    })
}

/// A case of one model.
struct PlannedCase {
    case: Case,
    confusions: Option<Arc<str>>,
}

/// A training job and the evaluation jobs of its model.
fn model_jobs(
    train: JobId,
    spec: Arc<TrainSpec>,
    cases: Arc<[PlannedCase]>,
) -> impl Iterator<Item = PlannedJob> + Send {
    let training = PlannedJob::new(train, PlannedWork::Train(Arc::clone(&spec)));
    let evaluations = (0..cases.len()).map(move |c| {
        let PlannedCase { case, confusions } = &cases[c];
        let work = PlannedWork::Eval {
            train,
            spec: Arc::clone(&spec),
            case: *case,
            confusions: confusions.clone(),
        };
        PlannedJob::new(eval_job_id(train, case, confusions.as_deref()), work)
    });
    std::iter::once(training).chain(evaluations)
}

#[cfg(test)]
mod tests;
