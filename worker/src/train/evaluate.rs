//! Evaluates one trained model on several cases.

use super::{
    Data, TrainError, benchmark, build, guarded,
    predict::{Asked, predict_together, to_host},
    weights,
};
use crate::models::Method;
use bytes::Bytes;
use missbench_shared::{
    case::Case,
    dataset::Split,
    features, metrics,
    wire::{CheckpointRef, CriterionResult, TrainSpec},
};
use std::{collections::BTreeMap, path::Path};
use tch::Device;

/// A model to load checkpoints into. It fits every training that differs in its seed alone.
pub struct Loaded {
    spec: TrainSpec,
    method: Box<dyn Method>,
}

impl Loaded {
    /// Builds the model of `spec`.
    pub fn new(
        spec: &TrainSpec,
        data: &Data,
        encoder: &Path,
        device: Device,
    ) -> Result<Self, TrainError> {
        guarded(None, || {
            Ok(Self {
                spec: spec.clone(),
                method: build(spec, data, encoder, device)?,
            })
        })
    }

    /// A model that has been built.
    pub fn with(spec: TrainSpec, method: Box<dyn Method>) -> Self {
        Self { spec, method }
    }

    /// Whether checkpoints of `spec` can be loaded into it: nothing but the seed may differ, and
    /// how the training went.
    pub fn fits(&self, spec: &TrainSpec) -> bool {
        let mut other = spec.clone();
        other.seed = self.spec.seed;
        other.data.path.clone_from(&self.spec.data.path);
        other.encoder.path.clone_from(&self.spec.encoder.path);
        other == self.spec
    }
}

/// A case and the checkpoints to evaluate on it, one for each selection criterion.
#[derive(Clone, Debug)]
pub struct EvalCase {
    /// The case.
    pub case: Case,
    /// The checkpoints.
    pub checkpoints: Vec<CheckpointRef>,
}

/// One case's results.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// One for each selection criterion.
    pub results: Vec<CriterionResult>,
    /// The distinct prediction vectors, `[samples]` each.
    pub predictions: Vec<Vec<f32>>,
    /// For missing rates, where the method shows some.
    pub features: Option<KeptFeatures>,
}

/// What one checkpoint makes of the first test samples of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptFeatures {
    /// The checkpoint's hash.
    pub checkpoint: String,
    /// Encoded [`features::Features`].
    pub content: Bytes,
}

impl EvalCase {
    /// The checkpoint whose features are kept, if any.
    fn shown(&self) -> Option<&str> {
        let mut checkpoints = self.checkpoints.iter();
        let shown = checkpoints.find(|c| c.criterion == features::CRITERION)?;
        matches!(self.case, Case::Rate(_)).then_some(shown.blake3.as_str())
    }
}

/// Evaluates `cases` on the test split. Each distinct checkpoint is brought by `fetch` and loaded
/// once for all cases. A case's result does not depend on which others are evaluated with it.
pub fn evaluate(
    model: &mut Loaded,
    spec: &TrainSpec,
    data: &Data,
    cases: &[EvalCase],
    fetch: &mut dyn FnMut(&CheckpointRef) -> Result<Bytes, TrainError>,
) -> Result<Vec<Evaluated>, TrainError> {
    guarded(None, || {
        let benchmark = benchmark(spec)?;
        let split = data.split(Split::Test)?;
        let erased = cases
            .iter()
            .map(|case| split.erase_case(&case.case, spec.protocol.erasure_seed, spec.tokens))
            .collect::<Result<Vec<_>, _>>()?;
        let mut distinct: BTreeMap<&str, &CheckpointRef> = BTreeMap::new();
        for checkpoint in cases.iter().flat_map(|case| &case.checkpoints) {
            distinct.entry(&checkpoint.blake3).or_insert(checkpoint);
        }
        // By case and checkpoint.
        let mut predicted: BTreeMap<(usize, &str), Vec<f32>> = BTreeMap::new();
        // By case.
        let mut shown: BTreeMap<usize, KeptFeatures> = BTreeMap::new();
        for (hash, checkpoint) in &distinct {
            let content = fetch(checkpoint)?;
            weights::load(model.method.vars(), &content, hash)?;
            drop(content);
            let with_it: Vec<usize> = (0..cases.len())
                .filter(|&i| cases[i].checkpoints.iter().any(|c| c.blake3 == **hash))
                .collect();
            let asked: Vec<Asked<'_>> = with_it
                .iter()
                .map(|&i| Asked {
                    erased: &erased[i],
                    features: cases[i].shown() == Some(hash),
                })
                .collect();
            let method = model.method.as_ref();
            let together = predict_together(method, &spec.method, &split, &asked)?;
            for (i, (predictions, features)) in with_it.into_iter().zip(together) {
                predicted.insert((i, *hash), to_host(&predictions)?);
                if let Some(features) = features {
                    let kept = KeptFeatures {
                        checkpoint: (*hash).to_owned(),
                        content: features.to_bytes()?.into(),
                    };
                    shown.insert(i, kept);
                }
            }
        }
        cases
            .iter()
            .enumerate()
            .map(|(i, case)| {
                let mut evaluated = Evaluated {
                    results: Vec::new(),
                    predictions: Vec::new(),
                    features: shown.remove(&i),
                };
                let mut places: BTreeMap<&str, u32> = BTreeMap::new();
                for checkpoint in &case.checkpoints {
                    let hash = checkpoint.blake3.as_str();
                    let Some(predictions) = predicted.get(&(i, hash)) else {
                        // Every checkpoint of every case was predicted above.
                        continue;
                    };
                    let place = *places.entry(hash).or_insert_with(|| {
                        evaluated.predictions.push(predictions.clone());
                        evaluated.predictions.len() as u32 - 1
                    });
                    let metrics = metrics::evaluate(benchmark, predictions, split.labels())
                        .map_err(|source| TrainError::Prediction {
                            epoch: checkpoint.epoch,
                            source,
                        })?;
                    evaluated.results.push(CriterionResult {
                        criterion: checkpoint.criterion.clone(),
                        epoch: checkpoint.epoch,
                        predictions: place,
                        metrics,
                    });
                }
                Ok(evaluated)
            })
            .collect()
    })
}
