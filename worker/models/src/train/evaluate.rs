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
    features, metrics,
    wire::{CheckpointRef, CriterionResult, TrainSpec},
};
use std::{collections::BTreeMap, path::Path, rc::Rc, time::Instant};
use tch::Device;

/// A model to load checkpoints into. It fits every training that differs in its seed alone.
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
pub struct CaseResult {
    /// One for each selection criterion.
    pub results: Vec<CriterionResult>,
    /// The distinct prediction vectors, `[samples]` each.
    pub predictions: Vec<Vec<f32>>,
    /// For missing rates, where the method shows some.
    pub features: Option<StoredFeatures>,
}

/// What one checkpoint makes of the first test samples of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredFeatures {
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

/// Where evaluations stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalProgress {
    /// Cases that are done.
    pub done: usize,
    /// Batches done of those under way, over all of their checkpoints.
    pub batch: usize,
    /// All of these.
    pub batches: usize,
}

/// Who watches evaluations.
pub trait EvalObserver {
    /// The work on these cases begins, by their places.
    fn cases_started(&mut self, cases: &[usize]);
    /// Request before every batch: whether to go on.
    fn should_continue(&mut self, at: EvalProgress) -> bool;
    /// A case is done or failed by itself, after so many seconds of its own.
    fn case_finished(&mut self, case: usize, seconds: f64, outcome: Result<CaseResult, TrainError>);
}

/// Evaluates `cases` on the test split, portion by portion: `watch` hears of each case when it is
/// done. Cases that have a text in common are in one portion, where it is encoded once. Returns
/// whether all were done; those that were not are not heard of. A case's result does not depend on
/// which others are evaluated with it.
///
/// A checkpoint is brought by `fetch` and loaded once a portion, so portions after the first are so
/// large that this takes little of their time.
///
/// # Errors
///
/// What concerns all cases that are not done: a checkpoint that cannot be had, a method that fails.
pub fn evaluate(
    model: &mut LoadedModel,
    spec: &TrainSpec,
    data: &Data,
    cases: &[EvalCase],
    fetch: &mut dyn FnMut(&CheckpointRef) -> Result<Bytes, TrainError>,
    watch: &mut dyn EvalObserver,
) -> Result<bool, TrainError> {
    catch_panics(None, || {
        let split = data.split(Split::Test)?;
        let erased = cases
            .iter()
            .map(|case| split.erase_case(&case.case, spec.protocol.erasure_seed, spec.tokens))
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
            watch.cases_started(&portion);
            let began = Instant::now();
            let more = groups.peek().is_some();
            let Some(part) = run.portion(model, &portion, &erased, more, watch)? else {
                return Ok(false);
            };
            let seconds = began.elapsed().as_secs_f64();
            let own = seconds / portion.len() as f64;
            for (&case, outcome) in portion.iter().zip(part.outcomes) {
                run.done += 1;
                watch.case_finished(case, own, outcome);
            }
            size = next_size(part.loading, seconds, portion.len());
        }
        Ok(true)
    })
}

/// Seconds that a portion takes at least, where there are cases enough.
const PORTION: f64 = 30.0;
/// How many times as long as loading its checkpoints a portion takes at least.
const LOADS: f64 = 10.0;
/// Bytes of checkpoints that are held from one portion to the next.
const HELD: usize = 1 << 30;

/// How many cases the next portion has, after one of `cases` cases took `seconds`, `loading` of
/// them for its checkpoints.
fn next_size(loading: f64, seconds: f64, cases: usize) -> usize {
    let each = (seconds - loading).max(1e-6) / cases.max(1) as f64;
    // At most all that are ever taken together and more.
    ((PORTION.max(LOADS * loading) / each).ceil() as usize).clamp(1, 1 << 16)
}

/// Cases by their text, in order.
fn groups(erased: &[Erased]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (place, one) in erased.iter().enumerate() {
        match groups.iter_mut().find(|g| erased[g[0]].has_text_of(one)) {
            Some(group) => group.push(place),
            None => groups.push(vec![place]),
        }
    }
    groups
}

/// Checkpoints' contents: the first few are held, the others brought again.
struct Contents<'a> {
    fetch: &'a mut dyn FnMut(&CheckpointRef) -> Result<Bytes, TrainError>,
    held: BTreeMap<String, Bytes>,
    bytes: usize,
}

impl<'a> Contents<'a> {
    fn new(fetch: &'a mut dyn FnMut(&CheckpointRef) -> Result<Bytes, TrainError>) -> Self {
        Self {
            fetch,
            held: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// `hold`: it will be asked for again.
    fn get(&mut self, checkpoint: &CheckpointRef, hold: bool) -> Result<Bytes, TrainError> {
        if let Some(content) = self.held.get(&checkpoint.blake3) {
            return Ok(content.clone());
        }
        let content = (self.fetch)(checkpoint)?;
        if hold && self.bytes + content.len() <= HELD {
            self.bytes += content.len();
            self.held.insert(checkpoint.blake3.clone(), content.clone());
        }
        Ok(content)
    }
}

/// Evaluations under way.
struct Run<'a> {
    benchmark: Benchmark,
    spec: &'a TrainSpec,
    split: Rc<SplitData>,
    cases: &'a [EvalCase],
    contents: Contents<'a>,
    /// The checkpoint whose weights the model has.
    loaded: Option<String>,
    /// Which way the next portion goes through the checkpoints: to and fro, so that one need not
    /// be loaded again.
    forward: bool,
    done: usize,
}

/// A portion that is done.
struct Part {
    /// By the cases' order.
    outcomes: Vec<Result<CaseResult, TrainError>>,
    /// Seconds spent on bringing and loading checkpoints.
    loading: f64,
}

/// What one checkpoint makes of one case.
struct Predicted {
    values: Vec<f32>,
    features: Result<Option<features::Features>, TrainError>,
}

impl Run<'_> {
    /// `None` where `watch` did not want to go on. `more`: another portion follows.
    fn portion(
        &mut self,
        model: &mut LoadedModel,
        portion: &[usize],
        erased: &[Erased],
        more: bool,
        watch: &mut dyn EvalObserver,
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
            let asked: Vec<Request<'_>> = with_it
                .iter()
                .map(|&i| Request {
                    erased: &erased[i],
                    features: self.cases[i].shown() == Some(hash),
                })
                .collect();
            let mut should_continue = || {
                let should_continue = watch.should_continue(at);
                at.batch += 1;
                should_continue
            };
            let method = model.method.as_ref();
            let id = &self.spec.method;
            let together = predict_together(method, id, &self.split, &asked, &mut should_continue)?;
            let Some(together) = together else {
                return Ok(None);
            };
            for (i, (predictions, features)) in with_it.into_iter().zip(together) {
                let values = self.split.answers(&predictions)?;
                predicted.insert((i, hash.to_owned()), Predicted { values, features });
            }
        }
        let outcomes = portion
            .iter()
            .map(|&i| self.score(i, &mut predicted))
            .collect();
        Ok(Some(Part { outcomes, loading }))
    }

    /// The results of one case. What is wrong with its predictions concerns no other.
    fn score(
        &self,
        place: usize,
        predicted: &mut BTreeMap<(usize, String), Predicted>,
    ) -> Result<CaseResult, TrainError> {
        let case = &self.cases[place];
        let mut evaluated = CaseResult {
            results: Vec::new(),
            predictions: Vec::new(),
            features: None,
        };
        let mut places: BTreeMap<&str, u32> = BTreeMap::new();
        for checkpoint in &case.checkpoints {
            let hash = checkpoint.blake3.as_str();
            let Some(predicted) = predicted.get_mut(&(place, hash.to_owned())) else {
                // Every checkpoint of every case was predicted before.
                continue;
            };
            if let Some(features) = std::mem::replace(&mut predicted.features, Ok(None))? {
                evaluated.features = Some(StoredFeatures {
                    checkpoint: hash.to_owned(),
                    content: features.to_bytes()?.into(),
                });
            }
            let at = *places.entry(hash).or_insert_with(|| {
                evaluated.predictions.push(predicted.values.clone());
                evaluated.predictions.len() as u32 - 1
            });
            let labels = self.split.labels();
            let metrics =
                metrics::evaluate(self.benchmark, &predicted.values, labels).map_err(|source| {
                    TrainError::Prediction {
                        epoch: checkpoint.epoch,
                        source,
                    }
                })?;
            evaluated.results.push(CriterionResult {
                criterion: checkpoint.criterion.clone(),
                epoch: checkpoint.epoch,
                predictions: at,
                metrics,
            });
        }
        Ok(evaluated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_are_large_where_a_case_is_short_and_small_where_it_is_long() {
        assert!(next_size(0.1, 0.2, 1) >= 300);
        assert_eq!(next_size(2.0, 62.0, 1), 1);
        // Loading for a minute: ten minutes of work, twenty cases of half a minute.
        assert_eq!(next_size(60.0, 90.0, 1), 20);
        assert!(next_size(0.0, 0.0, 0) > 1);
    }
}
