//! Building a method from a training spec.

use super::{Data, TrainError};
use crate::{
    context::Optimizations,
    methods::{Build, Method, MethodError, builder},
};
use halfheard_shared::{
    dataset::Split,
    encoder::{Encoder, EncoderFacts},
    methods,
    wire::TrainSpec,
};
use std::path::Path;
use tch::Device;

/// Builds the method of `spec`. Its initial weights depend on the spec's seed alone.
///
/// # Errors
///
/// The dataset, the encoder or the hyper-parameters do not fit.
pub fn build(
    spec: &TrainSpec,
    data: &Data,
    encoder: &Path,
    device: Device,
) -> Result<Box<dyn Method>, TrainError> {
    let wanted = spec.dataset.kind();
    if data.kind() != wanted {
        return Err(TrainError::Spec(format!(
            "the data file follows the protocol of {}, the job needs {wanted}",
            data.kind()
        )));
    }
    // Checked here rather than after hours of training.
    methods::results_fit(
        spec.dataset,
        spec.protocol.selection,
        data.samples(Split::Test),
    )
    .map_err(TrainError::Spec)?;
    let hyper = serde_json::from_str(&spec.hyper)
        .map_err(|e| TrainError::Spec(format!("hyper-parameters are not valid JSON: {e}")))?;
    let build = builder(&spec.method).ok_or_else(|| TrainError::Unknown {
        method: spec.method.clone(),
    })?;
    let shape = data.shape();
    let opened = Encoder::open(encoder).map_err(MethodError::from)?;
    // An index beyond the tables would fail in mid-training and, on a GPU, lose the device.
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
        faults: spec.protocol.faults(),
        max_epochs: spec.max_epochs,
        optimizations: Optimizations::ALL,
        precision: spec.numerics.into(),
    })?)
}
