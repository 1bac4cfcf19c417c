//! External programs as methods: what a spec says of one, what a worker hands to it, what it says back.
//!
//! A program trains a model and predicts, in any language. It never measures: the worker erases, selects
//! and computes the metrics from what the program predicts. `docs/guide/own-program.md` is its manual.

use crate::{
    dataset::Shapes,
    encoder::TokenIds,
    hash::Hash,
    wire::{Fidelity, Selection, TrainSpec},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What a worker that runs external programs says among its methods: no method can have this id.
pub const METHOD: &str = "external";
/// The key of a [`Program`] among the hyper-parameters of a training: it is part of what is trained, and
/// so of the training's identity.
pub const HYPER_KEY: &str = "program";
/// The most bytes that the files of a program may have.
pub const MAX_PROGRAM: u64 = 64 << 20;
/// The version of the job file and of events.
pub const VERSION: u32 = 2;
/// The variable that tells a program where its job file is.
pub const JOB_VARIABLE: &str = "HALFHEARD_JOB";
/// The most bytes that a line of events may have.
pub const MAX_LINE: usize = 4 << 20;
/// The last bytes of what a program writes to standard error that the database keeps.
pub const OUTPUT_TAIL: usize = 64 << 10;

/// A program, as part of a training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The command with its arguments, run in a copy of the folder of its files.
    pub command: Vec<String>,
    /// Programs and Python modules that a machine must have.
    #[serde(default)]
    pub needs: Vec<String>,
    /// BLAKE3 of each file by its path.
    pub files: BTreeMap<String, Hash>,
    /// BLAKE3 of the [`crate::bundle::Bundle`] of the files, by which workers find it.
    pub bundle: Hash,
}

/// The program of a training cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the program of {method} cannot be read: {reason}")]
pub struct InvalidProgram {
    method: String,
    reason: String,
}

/// What an external program trains.
#[derive(Clone, Debug, PartialEq)]
pub struct ExternalTraining {
    /// The program.
    pub program: Program,
    /// Its hyper-parameters.
    pub hyper: Map<String, Value>,
}

impl ExternalTraining {
    /// Of a training; `None` for a method of the registry.
    ///
    /// # Errors
    ///
    /// What stands for the program is not valid.
    pub fn of(spec: &TrainSpec) -> Result<Option<Self>, InvalidProgram> {
        let invalid = |error: serde_json::Error| InvalidProgram {
            method: spec.method.clone(),
            reason: error.to_string(),
        };
        let mut hyper: Map<String, Value> = serde_json::from_str(&spec.hyper).map_err(invalid)?;
        let Some(program) = hyper.remove(HYPER_KEY) else {
            return Ok(None);
        };
        let program = serde_json::from_value(program).map_err(invalid)?;
        Ok(Some(Self { program, hyper }))
    }
}

/// What a program is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Train, and predict the selection splits after each epoch.
    Train,
    /// Predict the test split in some cases.
    Evaluate,
}

/// `job.json`, whose path is in the variable `HALFHEARD_JOB`. Paths in it are absolute, or relative to
/// its folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobFile {
    /// The version of this format.
    pub version: u32,
    /// What to do.
    pub task: Task,
    /// The method's id.
    pub method: String,
    /// The variant; empty for the method itself.
    pub variant: String,
    /// The training's seed.
    pub seed: u64,
    /// Where to compute: `cpu` or `cuda:0`.
    pub device: String,
    /// CPU threads to use.
    pub threads: u32,
    /// The most epochs to train; a program may stop earlier.
    pub max_epochs: u32,
    /// The hyper-parameters.
    pub hyper: Map<String, Value>,
    /// The complete dataset.
    pub dataset: JobDataset,
    /// The text encoder.
    pub encoder: JobEncoder,
    /// The training regime.
    pub regime: Regime,
    /// When training: what to predict after each epoch, of the validation split before the test split.
    pub selection: Vec<JobSelection>,
    /// When training: the folder of the state that an earlier attempt saved.
    pub state: Option<String>,
    /// When training: the last epoch that this state holds; 0 without one.
    pub after_epoch: u32,
    /// When evaluating: what to predict.
    pub cases: Vec<JobCase>,
}

/// The dataset of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobDataset {
    /// Its name.
    pub name: String,
    /// The file (safetensors), as `coord data import` writes it.
    pub path: String,
    /// The sizes of its samples.
    pub shapes: Shapes,
    /// Samples of each split.
    pub samples: BTreeMap<String, usize>,
}

/// The text encoder of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobEncoder {
    /// Its folder in the Hugging Face layout.
    pub path: String,
    /// Its special tokens: erased tokens become `unknown`.
    pub tokens: TokenIds,
}

/// How to train and select.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Regime {
    /// What is missing of the samples that it trains on.
    pub train_missing: crate::regime::Regime,
    /// The seed of erasure.
    pub erasure_seed: u32,
    /// On which splits epochs are selected.
    pub selection: Selection,
    /// With which missing rate.
    pub selection_rate: f64,
    /// As the reference code does, or as the papers say.
    pub fidelity: Fidelity,
    /// Whether new rates of training are compared with the same uniform numbers in every epoch.
    pub repeated_numbers: bool,
}

/// What to predict after each epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobSelection {
    /// The split.
    pub split: String,
    /// The case.
    pub case: String,
    /// The erased split (safetensors): `text`, `audio`, `vision`, their lengths and masks.
    pub inputs: String,
    /// Its samples: as many predictions are expected.
    pub samples: usize,
}

/// A case to predict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobCase {
    /// The case: `r=0.3`, `missing=la`.
    pub case: String,
    /// The erased test split, as in [`JobSelection::inputs`].
    pub inputs: String,
    /// Its samples.
    pub samples: usize,
    /// The checkpoints to predict with, each once.
    pub checkpoints: Vec<String>,
}

/// Predictions `[samples]` on the scale of the labels, in the split's order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Predictions {
    /// The values.
    Values(Vec<f32>),
    /// A safetensors file in the job's folder with the tensor `predictions`, float32.
    File(String),
}

/// The predictions of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum EpochPredictions {
    /// Of the selection split, where there is one.
    One(Predictions),
    /// By the name of the split, where there are several.
    Each(BTreeMap<String, Predictions>),
}

/// What a program says: one JSON object a line on standard output, nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// It advances within an epoch.
    Progress {
        /// The epoch in progress, from 1.
        epoch: u32,
        /// Steps done in it.
        #[serde(default)]
        step: u32,
        /// Steps of an epoch; 0 if unknown.
        #[serde(default)]
        steps: u32,
        /// The mean loss so far.
        #[serde(default)]
        loss: Option<f64>,
    },
    /// An epoch is done. Epochs come in order.
    Epoch {
        /// From 1.
        epoch: u32,
        /// Mean training losses by name; `loss` is the whole.
        losses: BTreeMap<String, f64>,
        /// Predictions of the selection splits.
        predictions: EpochPredictions,
        /// The model after this epoch: a file in the job's folder, which the worker takes.
        checkpoint: String,
    },
    /// A state to resume from is complete: a file or folder in the job's folder, which the worker takes.
    State {
        /// The last epoch that it holds, which was reported before.
        after_epoch: u32,
        /// Its path.
        path: String,
    },
    /// The predictions of a checkpoint for a case.
    Predictions {
        /// The case.
        case: String,
        /// The checkpoint, as the job file names it.
        checkpoint: String,
        /// Its predictions.
        predictions: Predictions,
    },
    /// All is done; the program exits with 0.
    Finished {},
}

/// The JSON schema of `job.json`.
pub fn job_schema() -> Value {
    schemars::schema_for!(JobFile).to_value()
}

/// The JSON schema of an event.
pub fn event_schema() -> Value {
    schemars::schema_for!(Event).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Compares a file of `schemas/` with `now`; `UPDATE_GOLDEN=1` writes it.
    fn is_current(name: &str, now: &Value) {
        let path = format!("{}/../schemas/{name}", env!("CARGO_MANIFEST_DIR"));
        let now = serde_json::to_string_pretty(now).unwrap() + "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &now).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), now);
    }

    #[test]
    fn schemas_of_job_and_events_are_current() {
        is_current("job.schema.json", &job_schema());
        is_current("event.schema.json", &event_schema());
    }

    #[test]
    fn events_are_read_and_anything_else_is_refused() {
        let read = |value: Value| serde_json::from_value::<Event>(value);
        let epoch = json!({"event": "epoch", "epoch": 1, "losses": {"loss": 0.5},
            "predictions": [0.25, -1], "checkpoint": "c"});
        assert!(matches!(
            read(epoch.clone()).unwrap(),
            Event::Epoch { predictions: EpochPredictions::One(Predictions::Values(values)), .. }
                if values == [0.25, -1.0]
        ));
        let mut both = epoch.clone();
        both["predictions"] = json!({"valid": [0.25], "test": "p"});
        assert!(matches!(
            read(both).unwrap(),
            Event::Epoch { predictions: EpochPredictions::Each(splits), .. } if splits.len() == 2
        ));
        let file =
            json!({"event": "predictions", "case": "r=0", "checkpoint": "c", "predictions": "p"});
        assert!(read(file).is_ok());
        assert!(read(json!({"event": "finished"})).is_ok());
        for wrong in [
            json!({"event": "metrics", "acc2": 1.0}),
            json!({"event": "finished", "acc2": 1.0}),
            json!({"epoch": 1}),
            json!([1]),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
        let mut metric = epoch;
        metric["mae"] = json!(0.0);
        assert!(read(metric).is_err(), "a program cannot report a metric");
    }
}
