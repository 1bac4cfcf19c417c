//! What figures need beside the results of a sweep.

use halfheard_shared::{
    benchmark::Benchmark,
    case::Rate,
    dataset::Split,
    features::Features,
    hash::Hash,
    results::{Filter, Model, Predictions},
};
use std::collections::HashMap;

/// What a figure needs beside the sweep's results.
#[derive(Clone, Debug)]
pub enum Needs {
    /// Nothing else.
    Nothing,
    /// The label counts of imported datasets: [`Inputs::splits`].
    Splits,
    /// Predictions: [`Inputs::predictions`].
    Predictions(Filter),
    /// Features of the artifact store: [`Inputs::features`], one for each of these.
    Features(Vec<NeededFeatures>),
}

/// What [`Needs`] asks for.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// By the BLAKE3 hash of a dataset, the label counts of its training and validation split.
    pub splits: HashMap<String, Vec<SplitCounts>>,
    /// The predictions that pass the filter.
    pub predictions: Predictions,
    /// The features of the first seed with any, for each that is needed.
    pub features: Vec<Option<LoadedFeatures>>,
    /// The address of the artifact store, without login.
    pub artifacts: String,
}

/// A split with the number of samples of each class, the most negative first.
pub type SplitCounts = (Split, Vec<u64>);

/// The features of a model on a dataset that the figure is drawn from: those of the first seed whose
/// checkpoint has any.
#[derive(Clone, Debug)]
pub struct NeededFeatures {
    /// The model.
    pub model: Model,
    /// The dataset.
    pub dataset: Benchmark,
    /// The missing rates.
    pub rates: Vec<Rate>,
    /// Seeds with the hashes of their checkpoints.
    pub checkpoints: Vec<(u64, Hash)>,
}

/// The features that were found.
#[derive(Clone, Debug)]
pub struct LoadedFeatures {
    /// The seed.
    pub seed: u64,
    /// By rate; `None` if they are not in the store.
    pub features: Vec<Option<Features>>,
}
