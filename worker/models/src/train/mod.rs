//! Training and evaluating one model: the driver that runs a method's procedure, knows where it
//! stands to the step, and can go on from there to the same bits. Nothing here knows of the broker,
//! the database or the artifact store.

pub mod data;
#[cfg(test)]
mod encoder_tests;
pub mod error;
pub mod evaluate;
pub mod order;
mod predict;
pub mod state;
#[cfg(test)]
pub(crate) mod testing;
mod trainer;
pub mod weights;

pub use data::Data;
pub use error::{TrainError, catch_panics, chain, failure};
pub use evaluate::{CaseResult, EvalCase, EvalObserver, EvalProgress, LoadedModel, StoredFeatures};
pub use trainer::{
    BestCheckpoint, Directive, SaveSchedule, Snapshot, StepReport, TrainObserver, TrainOutcome,
    Trainer,
};

use crate::methods::{Build, Method, MethodError, builder};
use halfheard_shared::{
    dataset::Split,
    encoder::{Encoder, EncoderFacts},
    methods,
    wire::TrainSpec,
};
use std::path::Path;
use tch::Device;

/// Builds a spec's method. Initial weights depend on the spec's seed alone.
pub fn build(
    spec: &TrainSpec,
    data: &Data,
    encoder: &Path,
    device: Device,
) -> Result<Box<dyn Method>, TrainError> {
    let wanted = spec.dataset.kind();
    if data.kind() != wanted {
        return Err(TrainError::Spec(format!(
            "the data file follows the protocol of {}, the job asks for {wanted}",
            data.kind()
        )));
    }
    // Not only when a model has been trained for hours.
    methods::results_fit(spec.dataset, data.samples(Split::Test)).map_err(TrainError::Spec)?;
    let hyper = serde_json::from_str(&spec.hyper)
        .map_err(|e| TrainError::Spec(format!("the hyper-parameters are no JSON: {e}")))?;
    let build = builder(&spec.method).ok_or_else(|| TrainError::Unknown {
        method: spec.method.clone(),
    })?;
    let shape = data.shape();
    let opened = Encoder::open(encoder).map_err(MethodError::from)?;
    // Beyond its tables libtorch would stop in mid-training, and on a GPU lose the device.
    if let Some(what) = data.texts().misfit(&EncoderFacts::of(&opened, spec.tokens)) {
        return Err(TrainError::Spec(format!(
            "the dataset does not fit the text encoder {}: {what}",
            encoder.display()
        )));
    }
    drop(opened);
    tch::manual_seed(spec.seed as i64);
    Ok(build(&Build {
        hyper: &hyper,
        dataset: spec.dataset.id(),
        data: shape,
        encoder,
        device,
        fidelity: spec.protocol.fidelity,
        max_epochs: spec.max_epochs,
    })?)
}
