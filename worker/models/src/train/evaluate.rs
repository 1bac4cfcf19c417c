//! Evaluates one trained model on several cases.

use super::{
    Data, TrainError, build, catch_panics,
    data::{Erased, SplitData},
    predict::{Request, batches_of, predict_together},
    weights,
};
use crate::methods::Method;
use bytes::Bytes;
use halfheard_shared::{
    benchmark::Benchmark,
    case::Case,
    dataset::Split,
    erasure::ConfusionTable,
    features, metrics,
    wire::{CheckpointRef, CriterionResult, TrainSpec},
};
use std::{collections::BTreeMap, path::Path, rc::Rc, sync::Arc, time::Instant};
use tch::Device;

/// A model to load checkpoints into, reusable for all seeds of a training spec.
pub struct LoadedModel {
    spec: TrainSpec,
    method: Box<dyn Method>,
}

impl LoadedModel {
    /// Builds the model of `spec`.
    pub fn new(
        spec: &TrainSpec,
        data: &Data,
        encoder: &Path,
        device: Device,
    ) -> Result<Self, TrainError> {
        catch_panics(None, || {
            Ok(Self {
                spec: spec.clone(),
                method: build(spec, data, encoder, device)?,
            })
        })
    }

    /// Wraps a method built from `spec`.
    pub fn with(spec: TrainSpec, method: Box<dyn Method>) -> Self {
        Self { spec, method }
    }

    /// Whether checkpoints of `spec` can be loaded into it: only the seed and file paths may differ.
    pub fn fits(&self, spec: &TrainSpec) -> bool {
        let mut other = spec.clone();
        other.seed = self.spec.seed;
        other.data.path.clone_from(&self.spec.data.path);
        other.encoder.path.clone_from(&self.spec.encoder.path);
        other == self.spec
    }
}

/// A case and the checkpoints to evaluate on it, one per selection criterion.
#[derive(Clone, Debug)]
pub struct EvalCase {
    /// The case.
    pub case: Case,
    /// The checkpoints.
    pub checkpoints: Vec<CheckpointRef>,
    /// What words are heard as, for errors of speech recognition.
    pub confusions: Option<Arc<ConfusionTable>>,
}

/// One case's results.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseResult {
    /// One per selection criterion.
    pub results: Vec<CriterionResult>,
    /// The distinct prediction vectors, `[samples]` each.
    pub predictions: Vec<Vec<f32>>,
    /// Features, for missing rates and methods that show some.
    pub features: Option<StoredFeatures>,
}

/// One checkpoint's features of the first test samples of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredFeatures {
    /// The checkpoint's hash.
    pub checkpoint: String,
    /// Encoded [`features::Features`].
    pub content: Bytes,
}

impl EvalCase {
    /// The metrics of what each checkpoint predicted for the labels `[samples]`; `values` finds
    /// predictions by the checkpoint's hash.
    ///
    /// # Errors
    ///
    /// Predictions that have no metrics.
    pub fn measure<'v>(
        &self,
        benchmark: Benchmark,
        labels: &[f32],
        values: impl Fn(&str) -> Option<&'v [f32]>,
    ) -> Result<CaseResult, TrainError> {
        let mut evaluated = CaseResult {
            results: Vec::new(),
            predictions: Vec::new(),
            features: None,
        };
        let mut places: BTreeMap<&str, u32> = BTreeMap::new();
        for checkpoint in &self.checkpoints {
            let hash = checkpoint.blake3.as_str();
            let Some(values) = values(hash) else {
                // Unreachable: a case is measured when all of its checkpoints have predicted.
                continue;
            };
            let metrics = metrics::evaluate(benchmark, values, labels).map_err(|source| {
                TrainError::Prediction {
                    epoch: checkpoint.epoch,
                    source,
                }
            })?;
            let predictions = *places.entry(hash).or_insert_with(|| {
                evaluated.predictions.push(values.to_vec());
                evaluated.predictions.len() as u32 - 1
            });
            evaluated.results.push(CriterionResult {
                criterion: checkpoint.criterion.clone(),
                epoch: checkpoint.epoch,
                predictions,
                metrics,
            });
        }
        Ok(evaluated)
    }

    /// The checkpoint whose features are stored, if any.
    fn features_of(&self) -> Option<&str> {
        let mut checkpoints = self.checkpoints.iter();
        let shown = checkpoints.find(|c| c.criterion == features::CRITERION)?;
        self.case.rate().map(|_| shown.blake3.as_str())
    }
}

/// The progress of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalProgress {
    /// Completed cases.
    pub done: usize,
    /// Completed batches of the current cases, over all their checkpoints.
    pub batch: usize,
    /// All batches of the current cases.
    pub batches: usize,
}

/// Observes evaluations.
pub trait EvalObserver {
    /// Called when the evaluation of these cases starts, with their indices.
    fn cases_started(&mut self, cases: &[usize]);
    /// Returns whether to continue; called before every batch.
    fn should_continue(&mut self, at: EvalProgress) -> bool;
    /// Called when a case is finished, with its share of the time.
    fn case_finished(&mut self, case: usize, seconds: f64, outcome: Result<CaseResult, TrainError>);
}

/// Evaluates `cases` on the test split in groups, and reports each case to `observer` when it is
/// finished. Cases that share a text are in one group, where it is encoded once. Returns whether all
/// cases were finished. A case's result does not depend on which others are evaluated with it.
///
/// Checkpoints are fetched and loaded once per group, so groups after the first are large enough that
/// this takes a small part of their time.
///
/// # Errors
///
/// An error that affects all unfinished cases: a missing checkpoint, or a method that fails.
pub fn evaluate(
    model: &mut LoadedModel,
    spec: &TrainSpec,
    data: &Data,
    cases: &[EvalCase],
    fetch: &mut dyn FnMut(&CheckpointRef) -> Result<Bytes, TrainError>,
    observer: &mut dyn EvalObserver,
) -> Result<bool, TrainError> {
    catch_panics(None, || {
        let split = data.split(Split::Test)?;
        let erased = cases
            .iter()
            .map(|case| {
                let confusions = case.confusions.as_deref();
                let seed = spec.protocol.erasure_seed;
                split.damage_case(&case.case, seed, spec.tokens, confusions)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut run = Run {
            benchmark: spec.dataset,
            spec,
            split,
            cases,
            contents: Contents::new(fetch),
            loaded: None,
            forward: true,
            done: 0,
        };
        let mut groups = groups(&erased).into_iter().peekable();
        let mut size = 1;
        while groups.peek().is_some() {
            let mut portion = Vec::new();
            while portion.len() < size
                && let Some(group) = groups.next()
            {
                portion.extend(group);
            }
            observer.cases_started(&portion);
            let began = Instant::now();
            let more = groups.peek().is_some();
            let Some(part) = run.portion(model, &portion, &erased, more, observer)? else {
                return Ok(false);
            };
            let seconds = began.elapsed().as_secs_f64();
            let each = seconds / portion.len() as f64;
            for (&case, outcome) in portion.iter().zip(part.outcomes) {
                run.done += 1;
                observer.case_finished(case, each, outcome);
            }
            size = next_size(part.loading, seconds, portion.len());
        }
        Ok(true)
    })
}

/// Minimum seconds per portion, if there are enough cases.
const MIN_SECONDS: f64 = 30.0;
/// Minimum ratio of a portion's time to the time of loading its checkpoints.
const MIN_LOAD_RATIO: f64 = 10.0;
/// Maximum bytes of checkpoints kept between portions.
const MAX_KEPT: usize = 1 << 30;

/// The number of cases in the next portion, after one of `cases` cases took `seconds`, including
/// `loading` for its checkpoints.
fn next_size(loading: f64, seconds: f64, cases: usize) -> usize {
    let each = (seconds - loading).max(1e-6) / cases.max(1) as f64;
    // More than are ever evaluated together.
    ((MIN_SECONDS.max(MIN_LOAD_RATIO * loading) / each).ceil() as usize).clamp(1, 1 << 16)
}

/// Groups cases by their text, in order.
fn groups(erased: &[Erased]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (place, one) in erased.iter().enumerate() {
        match groups.iter_mut().find(|g| erased[g[0]].has_same_text(one)) {
            Some(group) => group.push(place),
            None => groups.push(vec![place]),
        }
    }
    groups
}

/// Contents of checkpoints. The first few are kept, the others fetched again.
struct Contents<'a> {
    fetch: &'a mut dyn FnMut(&CheckpointRef) -> Result<Bytes, TrainError>,
    kept: BTreeMap<String, Bytes>,
    bytes: usize,
}

impl<'a> Contents<'a> {
    fn new(fetch: &'a mut dyn FnMut(&CheckpointRef) -> Result<Bytes, TrainError>) -> Self {
        Self {
            fetch,
            kept: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Returns a checkpoint's content; `keep` says that it will be needed again.
    fn get(&mut self, checkpoint: &CheckpointRef, keep: bool) -> Result<Bytes, TrainError> {
        if let Some(content) = self.kept.get(&checkpoint.blake3) {
            return Ok(content.clone());
        }
        let content = (self.fetch)(checkpoint)?;
        if keep && self.bytes + content.len() <= MAX_KEPT {
            self.bytes += content.len();
            self.kept.insert(checkpoint.blake3.clone(), content.clone());
        }
        Ok(content)
    }
}

/// An evaluation in progress.
struct Run<'a> {
    benchmark: Benchmark,
    spec: &'a TrainSpec,
    split: Rc<SplitData>,
    cases: &'a [EvalCase],
    contents: Contents<'a>,
    /// The hash of the loaded checkpoint.
    loaded: Option<String>,
    /// The order of checkpoints in the next portion. It alternates, so the last one need not be
    /// reloaded.
    forward: bool,
    done: usize,
}

/// A finished portion.
struct Part {
    /// In the order of the cases.
    outcomes: Vec<Result<CaseResult, TrainError>>,
    /// Seconds spent fetching and loading checkpoints.
    loading: f64,
}

/// The predictions of one checkpoint for one case.
struct Predicted {
    values: Vec<f32>,
    features: Result<Option<features::Features>, TrainError>,
}

impl Run<'_> {
    /// Evaluates a portion; `more` says that another follows. Returns `None` if `observer` stopped it.
    fn portion(
        &mut self,
        model: &mut LoadedModel,
        portion: &[usize],
        erased: &[Erased],
        more: bool,
        observer: &mut dyn EvalObserver,
    ) -> Result<Option<Part>, TrainError> {
        let mut distinct: BTreeMap<&str, &CheckpointRef> = BTreeMap::new();
        for checkpoint in portion.iter().flat_map(|&i| &self.cases[i].checkpoints) {
            distinct.entry(&checkpoint.blake3).or_insert(checkpoint);
        }
        let mut order: Vec<_> = distinct.into_iter().collect();
        if !self.forward {
            order.reverse();
        }
        self.forward = !self.forward;
        let with = |hash: &str| -> Vec<usize> {
            let has = |&&i: &&usize| self.cases[i].checkpoints.iter().any(|c| c.blake3 == hash);
            portion.iter().filter(has).copied().collect()
        };
        let batches: usize = order.iter().map(|(hash, _)| with(hash).len()).sum();
        let mut at = EvalProgress {
            done: self.done,
            batch: 0,
            batches: batches * batches_of(&self.split),
        };
        let mut loading = 0.0;
        let mut predicted: BTreeMap<(usize, String), Predicted> = BTreeMap::new();
        for (hash, checkpoint) in order {
            if self.loaded.as_deref() != Some(hash) {
                let began = Instant::now();
                let content = self.contents.get(checkpoint, more)?;
                self.loaded = None;
                weights::load(model.method.vars(), &content, hash)?;
                self.loaded = Some(hash.to_owned());
                loading += began.elapsed().as_secs_f64();
            }
            let with_it = with(hash);
            let requests: Vec<Request<'_>> = with_it
                .iter()
                .map(|&i| Request {
                    erased: &erased[i],
                    features: self.cases[i].features_of() == Some(hash),
                })
                .collect();
            let mut should_continue = || {
                let should_continue = observer.should_continue(at);
                at.batch += 1;
                should_continue
            };
            let method = model.method.as_ref();
            let id = &self.spec.method;
            let together =
                predict_together(method, id, &self.split, &requests, &mut should_continue)?;
            let Some(together) = together else {
                return Ok(None);
            };
            for (i, (predictions, features)) in with_it.into_iter().zip(together) {
                let values = self.split.to_labels(&predictions)?;
                predicted.insert((i, hash.to_owned()), Predicted { values, features });
            }
        }
        let outcomes = portion
            .iter()
            .map(|&i| self.score(i, &mut predicted))
            .collect();
        Ok(Some(Part { outcomes, loading }))
    }

    /// The results of one case. An error in its predictions does not affect other cases.
    fn score(
        &self,
        place: usize,
        predicted: &mut BTreeMap<(usize, String), Predicted>,
    ) -> Result<CaseResult, TrainError> {
        let case = &self.cases[place];
        let mut features = None;
        for checkpoint in &case.checkpoints {
            let key = (place, checkpoint.blake3.clone());
            let Some(predicted) = predicted.get_mut(&key) else {
                // Unreachable: every checkpoint of every case has been predicted.
                continue;
            };
            if let Some(shown) = std::mem::replace(&mut predicted.features, Ok(None))? {
                features = Some(StoredFeatures {
                    checkpoint: checkpoint.blake3.clone(),
                    content: shown.to_bytes()?.into(),
                });
            }
        }
        let values = |hash: &str| {
            let predicted = predicted.get(&(place, hash.to_owned()))?;
            Some(predicted.values.as_slice())
        };
        let measured = case.measure(self.benchmark, self.split.labels(), values)?;
        Ok(CaseResult {
            features,
            ..measured
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portion_size_shrinks_with_the_time_per_case() {
        assert!(next_size(0.1, 0.2, 1) >= 300);
        assert_eq!(next_size(2.0, 62.0, 1), 1);
        // A minute of loading requires ten minutes of work: twenty cases of half a minute.
        assert_eq!(next_size(60.0, 90.0, 1), 20);
        assert!(next_size(0.0, 0.0, 0) > 1);
    }
}
