//! Training and evaluating one model. The trainer runs a method's procedure and resumes bit-exactly
//! from any step. Nothing here depends on the broker, the database or the artifact store.

mod best;
mod build;
mod data;
#[cfg(test)]
mod encoder_tests;
mod error;
mod evaluate;
mod fingerprint;
mod observer;
mod order;
mod predict;
mod save_schedule;
mod saved_state;
#[cfg(test)]
mod selection_tests;
#[cfg(test)]
pub(crate) mod testing;
mod trainer;
#[cfg(test)]
mod trainer_tests;
mod validation;
mod weights;

pub use best::{BestContents, named, references};
pub use build::build;
pub use data::{Data, PREDICTION_BATCH};
pub use error::{LastWords, TorchMessage, TrainError, catch_panics, chain, failure};
pub use evaluate::{
    CaseResult, EvalCase, EvalObserver, EvalProgress, LoadedModel, StoredFeatures, evaluate,
};
pub use observer::{BestCheckpoint, Directive, Snapshot, StepReport, TrainObserver, TrainOutcome};
pub use save_schedule::SaveSchedule;
pub use saved_state::{BestEpochs, BestRef, StateError};
pub use trainer::Trainer;
pub use validation::mean_of_batches;
