//! What coordinator and workers say to each other: requests for jobs, grants, heartbeats, reports.
//!
//! Grants and reports are one version byte, then bincode 2 (standard configuration). Decoding is
//! bounded: a payload over [`MAX_BYTES`] or with bytes left over is refused. `schemas/wire/` holds
//! golden bytes; a change of format fails a test there and asks for a new [`VERSION`]. Requests,
//! heartbeats and [`Tell`] are JSON, which may gain fields.

mod clean;
mod fault;
mod lease;
mod previous;

pub use crate::faults::Fidelity;
pub use clean::Unusable;
pub use fault::{Fault, FaultKind, Trouble, nobody_can};
pub use lease::{Answer, Ask, Held, Tell};
pub use previous::decode_report;

use crate::{
    benchmark::{Benchmark, whole},
    case::Case,
    encoder::TokenIds,
    faults::{self, Faults},
    ids::{AttemptId, JobId, SweepId},
    numerics::Numerics,
    regime::Regime,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The version of the format that this release writes.
pub const VERSION: u8 = 4;
/// The version of the release before, which a coordinator still speaks with its workers.
pub const PREVIOUS: u8 = 3;

/// The most bytes a payload may have: NATS' own default limit for one message.
pub const MAX_BYTES: usize = 1 << 20;

/// Why a payload could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Nothing came.
    #[error("the message is empty")]
    Empty,
    /// Written by another release.
    #[error(
        "the message has format version {found}, this program speaks {VERSION}: run the same release of coord and worker"
    )]
    Version {
        /// The version byte found.
        found: u8,
    },
    /// The artifact is too large.
    #[error("the message has {bytes} bytes, over the limit of {MAX_BYTES}")]
    TooLarge {
        /// The size in bytes.
        bytes: usize,
    },
    /// Bytes behind the end of the value.
    #[error("the message has {0} bytes too many")]
    Trailing(usize),
    /// Not what it should be.
    #[error("the message cannot be read: {0}")]
    Decode(#[from] bincode::error::DecodeError),
    /// Cannot be written.
    #[error("the message cannot be written: {0}")]
    Encode(#[from] bincode::error::EncodeError),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_BYTES>()
}

/// Writes `message` with its version byte.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    encode_as(VERSION, message)
}

/// Writes `message` under the version of its reader, for messages that are the same in both.
fn encode_as<T: Serialize>(version: u8, message: &T) -> Result<Vec<u8>, WireError> {
    let mut out = vec![version];
    out.extend(bincode::serde::encode_to_vec(message, config())?);
    if out.len() > MAX_BYTES {
        return Err(WireError::TooLarge { bytes: out.len() });
    }
    Ok(out)
}

/// Reads what [`encode`] wrote.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    if bytes.len() > MAX_BYTES {
        return Err(WireError::TooLarge { bytes: bytes.len() });
    }
    let (&version, rest) = bytes.split_first().ok_or(WireError::Empty)?;
    if version != VERSION {
        return Err(WireError::Version { found: version });
    }
    decode_body(rest)
}

/// Reads what follows the version byte.
fn decode_body<T: DeserializeOwned>(rest: &[u8]) -> Result<T, WireError> {
    let (message, read) = bincode::serde::decode_from_slice(rest, config())?;
    match rest.len() - read {
        0 => Ok(message),
        left => Err(WireError::Trailing(left)),
    }
}

/// A file by its content. Workers look for it under their data folder by hash, then at `path`
/// (accepted only if its content has the hash), then in the artifact store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// BLAKE3 of the content, 64 hexadecimal digits.
    pub blake3: String,
    /// Where the submitting machine had it: a hint.
    pub path: String,
}

/// What a training job trains: everything that its result depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainSpec {
    /// The method's id, `lnln`.
    pub method: String,
    /// The variant's id behind the slash, `no-dmc`; empty for the method itself.
    pub variant: String,
    /// The dataset, with the protocol that it follows (decides metrics and families).
    #[serde(with = "whole")]
    pub dataset: Benchmark,
    /// The imported dataset file (safetensors).
    pub data: BlobRef,
    /// The text encoder: a folder in the Hugging Face layout; `blake3` is the
    /// [`crate::encoder::identity`] of its weights and `path` the folder.
    pub encoder: BlobRef,
    /// The special tokens of the encoder's vocabulary, which the folder on a worker need not have.
    #[serde(default)]
    pub tokens: TokenIds,
    /// Seeds initial weights, order, dropout and training erasure.
    pub seed: u64,
    /// The most epochs to train.
    pub max_epochs: u32,
    /// All hyper-parameters, defaults filled in, as a JSON object.
    pub hyper: String,
    /// How to train and select.
    pub protocol: Protocol,
    /// To which bits to compute.
    #[serde(default)]
    pub numerics: Numerics,
}

/// The parts of the protocol that a spec may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocol {
    /// On which split the best epoch is chosen.
    pub selection: Selection,
    /// What is missing of the training split.
    pub train_missing: Regime,
    /// Seed of the test (and validation) erasure: 1111 in the reference for every run.
    pub erasure_seed: u32,
    /// Missing rate of the split that checkpoints are selected on, in thousandths (the reference: 500).
    pub selection_rate: u16,
    /// Faithful to the reference code, or to the paper where the two differ.
    pub fidelity: Fidelity,
    /// The faults of the method's reference that are switched otherwise than `fidelity` says, in
    /// order.
    pub switched: Vec<faults::Fault>,
}

impl Protocol {
    /// The faults of references that training keeps.
    pub fn faults(&self) -> Faults {
        let bundle = Faults::from(self.fidelity);
        let switch =
            |faults: Faults, fault: &faults::Fault| faults.with(*fault, !bundle.keeps(*fault));
        self.switched.iter().fold(bundle, switch)
    }
}

/// The split that the best epoch is chosen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// The validation split: the test split is looked at once, at the end.
    Validation,
    /// The test split, as the paper's code does.
    Test,
    /// Both, with checkpoints for each: tables show those chosen on the validation split, and how
    /// much better those chosen on the test split look.
    Both,
}

/// One checkpoint of a trained model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRef {
    /// The selection criterion's id (see [`crate::metrics`]).
    pub criterion: String,
    /// The epoch it was taken after, from 1.
    pub epoch: u32,
    /// BLAKE3 of the safetensors file: its name in the artifact store.
    pub blake3: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What a job asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Train a model.
    Train(TrainSpec),
    /// Evaluate a trained model on one case.
    Eval {
        /// The training job.
        train: JobId,
        /// What it trained.
        spec: TrainSpec,
        /// The case.
        case: Case,
        /// The hash of the table of what words are heard as, which is an artifact: for errors of speech
        /// recognition.
        confusions: Option<String>,
        /// One checkpoint for each selection criterion.
        checkpoints: Vec<CheckpointRef>,
    },
    /// Nothing: measures the path itself.
    Noop,
}

/// A job that is granted to a worker, in an [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobMessage {
    /// The sweep under which it is scheduled, for people: several may ask for it.
    pub sweep: SweepId,
    /// Its id.
    pub job: JobId,
    /// The attempt that the worker is to report about.
    pub attempt: AttemptId,
    /// What to do.
    pub work: Work,
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// The worker's unique name: host, process and slot.
    pub name: String,
    /// The machine.
    pub host: String,
    /// `cpu`, or the GPU's name.
    pub device: String,
    /// The program's version and revision.
    pub version: String,
    /// What the last bits of its results depend on: instruction set, maker and threads of its
    /// processor, or its GPU; `portable` where they do not. Of a training that another kind of
    /// machine began, both, in order.
    #[serde(default)]
    pub processor: String,
}

/// A report on the wire, in the stream of results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultMessage {
    /// The job.
    pub job: JobId,
    /// The attempt that speaks.
    pub attempt: AttemptId,
    /// Who.
    pub worker: WorkerInfo,
    /// What.
    pub body: ResultBody,
}

/// A report of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ResultBody {
    /// The attempt began.
    Started {
        /// The last epoch that an earlier attempt had completed, 0 for a fresh start.
        resumed_after_epoch: u32,
    },
    /// An epoch was trained.
    Epoch(EpochLog),
    /// A training job is done.
    Trained {
        /// One for each selection criterion.
        checkpoints: Vec<CheckpointRef>,
        /// Epochs trained, over all attempts.
        epochs: u32,
        /// Seconds spent, over all attempts.
        seconds: f64,
        /// The most bytes of the device's memory that were used; 0 if unknown.
        peak_memory: u64,
    },
    /// An evaluation job is done.
    Evaluated {
        /// One for each selection criterion.
        results: Vec<CriterionResult>,
        /// The distinct prediction vectors that `results` point into, each `[samples]`, in the
        /// order of the test split.
        predictions: Vec<Vec<f32>>,
        /// Seconds spent on this case: of what several cases shared, its part.
        seconds: f64,
        /// The most bytes of the device's memory that were used; 0 if unknown.
        peak_memory: u64,
    },
    /// A no-op job is done.
    Noop,
    /// The attempt failed.
    Failed(Failure),
    /// The worker shut down and handed the job back.
    HandedBack {
        /// The last completed epoch that its saved state holds.
        after_epoch: u32,
    },
    /// The worker cannot do the job for a reason of its own, and gave it back, for another worker.
    Declined {
        /// The last completed epoch that its saved state holds.
        after_epoch: u32,
        /// What is wrong with the worker.
        fault: Fault,
    },
    /// What an external program wrote to standard error. It changes nothing.
    Output {
        /// The end of it, at most [`crate::external::OUTPUT_TAIL`] bytes.
        tail: String,
        /// Bytes of the whole.
        bytes: u64,
        /// Whether the whole is in the artifact store ([`crate::artifacts::Key::Output`]).
        stored: bool,
    },
}

/// One epoch of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochLog {
    /// From 1.
    pub epoch: u32,
    /// Mean training losses by name: `loss` is the whole, the others its parts. A part that was
    /// infinite or NaN in some step, as only an unused one may be, is absent.
    pub losses: BTreeMap<String, f64>,
    /// Metrics on the selection split; an undefined one is `None`.
    pub metrics: BTreeMap<String, Option<f64>>,
    /// Wall seconds of training.
    pub train_seconds: f64,
    /// Wall seconds of evaluation.
    pub eval_seconds: f64,
    /// The criteria for which this epoch is the best so far.
    pub best_for: Vec<String>,
}

/// The metrics of one selection criterion's checkpoint on one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CriterionResult {
    /// The criterion's id.
    pub criterion: String,
    /// The checkpoint's epoch.
    pub epoch: u32,
    /// Index into the message's `predictions`.
    pub predictions: u32,
    /// All metrics, as fractions and raw values; an undefined one is `None`.
    pub metrics: BTreeMap<String, Option<f64>>,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The error and its causes, outermost first.
    pub chain: Vec<String>,
    /// What kind it is.
    pub kind: FailureKind,
}

/// The kind of failure, which decides about a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The job cannot succeed: bad hyper-parameters, a dataset without what the method needs, an
    /// error that the same job meets again wherever it runs.
    Permanent,
    /// It may succeed elsewhere or later: no more threads or files.
    Retryable,
    /// The loss or a prediction was not finite. Training is deterministic, so the job would fail again.
    NonFinite,
    /// The job was granted repeatedly and no worker survived to report an outcome. Said by the
    /// coordinator alone.
    Crashed,
    /// The device's memory did not suffice: it may succeed on one with more.
    OutOfMemory,
    /// The report does not fit the job. Said by the coordinator alone.
    Invalid,
}

/// A worker's entry in the heartbeat bucket, key `<worker name>`, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Who.
    pub worker: WorkerInfo,
    /// Process id.
    pub pid: u32,
    /// The process: a worker that was started again has another.
    #[serde(default)]
    pub session: Uuid,
    /// Everything that was granted to it and is not settled.
    #[serde(default)]
    pub holds: Vec<Held>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// What it is doing, if anything.
    pub doing: Option<Doing>,
    /// What is wrong with it, if anything.
    #[serde(default)]
    pub trouble: Option<Trouble>,
    /// The version in which it reads and writes; 0 if unknown.
    #[serde(default)]
    pub wire: u8,
    /// The ids of the methods that it has.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Its labels, such as `a100`.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Bytes of its device's memory; 0 if unknown.
    #[serde(default)]
    pub device_memory: u64,
}

/// The job that a worker is processing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Doing {
    /// The sweep.
    pub sweep: SweepId,
    /// The job.
    pub job: JobId,
    /// For people: `train lnln on mosi, seed 1111`.
    pub what: String,
    /// The epoch in progress, from 1; 0 outside training.
    pub epoch: u32,
    /// Maximum number of epochs.
    pub max_epochs: u32,
    /// Steps done in this epoch.
    pub step: u32,
    /// Steps in an epoch.
    pub steps: u32,
    /// The latest mean loss.
    pub loss: Option<f64>,
    /// Of evaluations that were taken together: which one is in progress, from 1; 0 otherwise. Steps
    /// are then batches of it.
    #[serde(default)]
    pub case: u32,
    /// How many there are.
    #[serde(default)]
    pub cases: u32,
}
