//! Long tables for export: one value per row.

use super::Evaluation;
use std::sync::Arc;

/// What can be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Export {
    /// Every metric of every evaluation.
    Results,
    /// Our means beside the published numbers.
    Comparison,
    /// Losses and metrics of every training epoch.
    Epochs,
    /// The prediction of every model for every test sample.
    Predictions,
}

/// A page of rows.
#[derive(Clone, Debug)]
pub enum Rows {
    /// Of [`Export::Results`].
    Results(Vec<MeasurementRow>),
    /// Of [`Export::Comparison`].
    Comparison(Vec<ComparisonRow>),
    /// Of [`Export::Epochs`].
    Epochs(Vec<EpochRow>),
    /// Of [`Export::Predictions`].
    Predictions(PredictionRows),
}

/// One metric of one evaluation.
#[derive(Clone, Debug)]
pub struct MeasurementRow {
    /// The method's id.
    pub method: String,
    /// The variant's id.
    pub variant: String,
    /// The dataset.
    pub dataset: String,
    /// The training seed.
    pub seed: i64,
    /// The case.
    pub case: String,
    /// `r`, `missing`, or another kind of case.
    pub kind: String,
    /// The missing rate, of kinds that have one.
    pub rate: Option<f64>,
    /// The wholly missing modalities.
    pub missing: String,
    /// The erasure seed; empty for the sweep's own.
    pub mask: String,
    /// The metric's id.
    pub metric: String,
    /// The criterion that selected the checkpoint.
    pub criterion: String,
    /// The state of the evaluation job.
    pub state: String,
    /// The value.
    pub value: Option<f64>,
    /// The kind of processor that trained the model.
    pub trained_processor: String,
    /// The kind of processor that evaluated it.
    pub evaluated_processor: String,
}

/// One of our means beside a published number.
#[derive(Clone, Debug)]
pub struct ComparisonRow {
    /// The paper's table.
    pub table: i64,
    /// The method's id.
    pub method: String,
    /// The variant's id.
    pub variant: String,
    /// The dataset.
    pub dataset: String,
    /// The case, or `r=mean`, `missing=mean`.
    pub case: String,
    /// The metric's id.
    pub metric: String,
    /// Our mean.
    pub reproduced: Option<f64>,
    /// Our standard deviation over seeds.
    pub reproduced_std: Option<f64>,
    /// The published number.
    pub published: Option<f64>,
    /// The number to compare with, corrected by the errata.
    pub valid: Option<f64>,
    /// Ours less the valid one.
    pub difference: Option<f64>,
    /// The kind of erratum, or nothing.
    pub erratum: String,
    /// Seeds that are done.
    pub seeds_completed: i64,
    /// Seeds of the spec.
    pub seeds_expected: i64,
}

/// One quantity of one training epoch.
#[derive(Clone, Debug)]
pub struct EpochRow {
    /// The method's id.
    pub method: String,
    /// The variant's id.
    pub variant: String,
    /// The dataset.
    pub dataset: String,
    /// The training seed.
    pub seed: i64,
    /// The epoch, from 1.
    pub epoch: i64,
    /// `loss.NAME`, a metric, or a duration.
    pub quantity: String,
    /// The value.
    pub value: Option<f64>,
}

/// The predictions of one evaluation: one row per criterion and sample.
#[derive(Clone, Debug)]
pub struct PredictionRows {
    /// The evaluation.
    pub evaluation: Evaluation,
    /// The labels of its test split.
    pub labels: Arc<[f32]>,
}
