//! Whether a method can be trained with these hyper-parameters on this dataset: what depends on
//! sizes is known before anything is queued. `coord plan` and the worker's methods ask the same
//! functions, so that what is planned can be built.

use super::{
    MethodInfo,
    faults::{Fault, Faults},
};
use crate::{
    benchmark::Benchmark,
    dataset::Shapes,
    encoder,
    wire::{self, Selection},
};
use serde_json::{Map, Value};

/// Whole numbers that divide `n`, smallest first, at most 16 of them.
pub(super) fn divisors(n: u64) -> Vec<u64> {
    // No width or number of heads is larger, and a damaged manifest may say anything.
    (1..=n.min(16_384))
        .filter(|d| n.is_multiple_of(*d))
        .take(16)
        .collect()
}

/// What is known of a dataset without reading its samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataFacts {
    /// The sizes that all samples share.
    pub shapes: Shapes,
    /// Samples of train, valid and test.
    pub samples: [usize; 3],
    /// Tokens of a training text that are not padding, in the mean and rounded up, where known.
    pub tokens: Option<usize>,
}

/// The features that MMSA distributes, by the benchmark's id.
static DISTRIBUTED: [(&str, DataFacts); 3] = [
    (
        "mosi",
        distributed([50, 375, 500], [5, 20], [1_284, 229, 686], 15),
    ),
    (
        "mosei",
        distributed([50, 500, 500], [74, 35], [16_326, 1_871, 4_659], 25),
    ),
    (
        "sims",
        distributed([39, 400, 55], [33, 709], [1_368, 456, 457], 20),
    ),
];

/// With steps of text, audio and vision, features of audio and vision, samples of the splits, and tokens of a text.
const fn distributed(
    steps: [usize; 3],
    dims: [usize; 2],
    samples: [usize; 3],
    tokens: usize,
) -> DataFacts {
    DataFacts {
        shapes: Shapes {
            text_len: steps[0],
            audio_len: steps[1],
            audio_dim: dims[0],
            vision_len: steps[2],
            vision_dim: dims[1],
        },
        samples,
        tokens: Some(tokens),
    }
}

impl DataFacts {
    /// The unaligned features that MMSA distributes of a benchmark, by its id.
    pub fn distributed(benchmark: &str) -> Option<&'static Self> {
        let (_, facts) = DISTRIBUTED.iter().find(|(id, _)| *id == benchmark)?;
        Some(facts)
    }
}

/// The sizes of a text encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderShape {
    /// Features a token.
    pub width: u64,
    /// Layers.
    pub layers: u64,
    /// Heads of each layer.
    pub heads: u64,
    /// Width of the feed-forward layers.
    pub intermediate: u64,
    /// Tokens of the vocabulary.
    pub vocabulary: u64,
    /// The longest text, in tokens.
    pub positions: u64,
}

impl EncoderShape {
    /// BERT base (Devlin et al., NAACL 2019), uncased English.
    pub const BERT_BASE: Self = Self {
        width: 768,
        layers: 12,
        heads: 12,
        intermediate: 3_072,
        vocabulary: 30_522,
        positions: 512,
    };
}

impl EncoderShape {
    /// The sizes in a configuration.
    pub fn of(config: &encoder::Config) -> Self {
        // Read and checked: all are positive.
        let size = |n: i64| u64::try_from(n).unwrap_or(0);
        Self {
            width: size(config.hidden_size),
            layers: size(config.num_hidden_layers),
            heads: size(config.num_attention_heads),
            intermediate: size(config.intermediate_size),
            vocabulary: size(config.vocab_size),
            positions: size(config.max_position_embeddings),
        }
    }
}

/// What a method is to be trained with.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// All its hyper-parameters, each within its range.
    pub hyper: &'a Map<String, Value>,
    /// The faults of its reference that it keeps.
    pub faults: Faults,
    /// The dataset, where its sizes are known.
    pub data: Option<&'a DataFacts>,
    /// The text encoder, where its sizes are known.
    pub encoder: Option<&'a EncoderShape>,
}

/// What a misfit is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Hyper-parameters that do not go together, or not with the dataset's sizes.
    Settings,
    /// A dataset that lacks what the method needs, whatever its hyper-parameters.
    Dataset,
    /// An encoder that the method cannot use.
    Encoder,
}

/// Why a method cannot be trained in a set-up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {help}")]
pub struct Misfit {
    /// What it is about.
    pub about: About,
    /// The hyper-parameters that take part, the one to change first.
    pub keys: &'static [&'static str],
    /// What was found and what is needed.
    pub what: String,
    /// What to do.
    pub help: String,
}

/// How a method fits a set-up.
#[derive(Clone, Debug)]
pub struct Fit<'a> {
    method: &'a MethodInfo,
    setup: Setup<'a>,
    misfits: Vec<Misfit>,
    notes: Vec<String>,
    idle: Vec<(&'static [&'static str], &'static str)>,
}

impl<'a> Fit<'a> {
    pub(super) fn new(method: &'a MethodInfo, setup: Setup<'a>) -> Self {
        Self {
            method,
            setup,
            misfits: Vec::new(),
            notes: Vec::new(),
            idle: Vec::new(),
        }
    }

    /// Everything that keeps the method from training; nothing, if it can.
    pub fn misfits(&self) -> &[Misfit] {
        &self.misfits
    }

    /// What can be trained and is worth knowing all the same.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Hyper-parameters that change nothing in this set-up, and why.
    pub fn idle(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.idle
            .iter()
            .flat_map(|(keys, why)| keys.iter().map(move |key| (*key, *why)))
    }

    pub(super) fn without_effect(
        &mut self,
        when: bool,
        keys: &'static [&'static str],
        why: &'static str,
    ) {
        if when {
            self.idle.push((keys, why));
        }
    }

    pub(super) fn method_id(&self) -> &'a str {
        &self.method.id
    }

    /// What is to be trained.
    pub(super) fn setup(&self) -> Setup<'a> {
        self.setup
    }

    pub(super) fn refuse(
        &mut self,
        about: About,
        keys: &'static [&'static str],
        what: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.misfits.push(Misfit {
            about,
            keys,
            what: what.into(),
            help: help.into(),
        });
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// A hyper-parameter that is a whole number; 0 where it is none, which [`MethodInfo::check`]
    /// has refused.
    pub(super) fn whole(&self, key: &str) -> u64 {
        let value = self.setup.hyper.get(key);
        value.and_then(Value::as_u64).unwrap_or(0)
    }

    /// A hyper-parameter that switches something on.
    pub(super) fn on(&self, key: &str) -> bool {
        self.setup.hyper.get(key) == Some(&Value::Bool(true))
    }

    /// Training samples, where known.
    pub(super) fn train_samples(&self) -> Option<u64> {
        self.setup.data.map(|data| data.samples[0] as u64)
    }

    /// Batches in a pass over the training split, and samples in the last of them, where known.
    pub(super) fn batches(&self) -> Option<(u64, u64)> {
        let samples = self.train_samples()?;
        let size = self.whole("batch_size").max(1);
        let steps = samples.div_ceil(size);
        Some((steps, samples - (steps.max(1) - 1) * size))
    }

    /// `width` must be a multiple of `heads`.
    pub(super) fn heads_divide(&mut self, keys: &'static [&'static str; 2]) {
        let [heads, width] = keys;
        let (count, size) = (self.whole(heads).max(1), self.whole(width));
        if size % count != 0 {
            let near = divisors(size);
            let range = self.method.ranges.get(*heads);
            let near: Vec<String> = near
                .into_iter()
                .filter(|&n| range.is_none_or(|range| range.has(&Value::from(n))))
                .map(|n| n.to_string())
                .collect();
            self.refuse(
                About::Settings,
                keys,
                format!("{width} {size} is not a multiple of {heads} {count}"),
                format!(
                    "set `{heads}` to one of {}, or another `{width}`",
                    near.join(", ")
                ),
            );
        }
    }

    /// What is asked of every method.
    pub(super) fn common(&mut self) {
        // As in the reference: what an incomplete group has gathered at the end of an epoch is
        // dropped.
        if self.method.hyper.contains_key("update_epochs")
            && let Some((steps, _)) = self.batches()
        {
            let group = self.whole("update_epochs");
            let each_batch = !self.setup.faults.keeps(Fault::DroppedGroups)
                || self.method.id == "tfr-net" && self.setup.faults.keeps(Fault::TfrDoubleStep);
            if group > steps && !each_batch {
                self.note(format!(
                    "an epoch has {steps} batch(es), fewer than the {group} of `update_epochs`: no \
                     weight will ever change"
                ));
            }
        }
    }

    /// A method whose centers or variances are of at least two samples.
    pub(super) fn two_samples(&mut self, why: &str) {
        if self.train_samples().is_some_and(|samples| samples < 2) {
            self.refuse(
                About::Dataset,
                &[],
                format!("the dataset has one training sample, and {why}"),
                "take a dataset with more training samples, or remove the method",
            );
        }
    }

    /// A method with a batch norm, whose last batch may be of one sample.
    pub(super) fn batch_norm(&mut self) {
        self.two_samples("a batch norm needs two to have a variance");
        self.one_left_over(
            "it is normed by the running means, as in evaluation (MMSA stops there)",
        );
    }

    /// Notes that the last batch of a pass has one sample, and what happens to it.
    pub(super) fn one_left_over(&mut self, then: &str) {
        if let Some((steps, 1)) = self.batches()
            && steps > 1
        {
            let samples = self.train_samples().unwrap_or(0);
            let size = self.whole("batch_size");
            self.note(format!(
                "{samples} training samples in batches of {size} leave one over: {then}"
            ));
        }
    }
}

/// Bytes that a result message may have beside its predictions: ids, names and metrics.
const BESIDE_PREDICTIONS: usize = 32 << 10;

/// The most test samples whose predictions fit into a result message, should each selection
/// criterion have chosen another checkpoint.
pub fn largest_test(benchmark: Benchmark, selection: Selection) -> usize {
    let vectors = selection.criteria(benchmark).len().max(1);
    (wire::MAX_BYTES - BESIDE_PREDICTIONS) / (size_of::<f32>() * vectors)
}

/// Whether the results of one evaluation fit into a message.
///
/// # Errors
///
/// They may not; with what was found and what is possible.
pub fn results_fit(
    benchmark: Benchmark,
    selection: Selection,
    test_samples: usize,
) -> Result<(), String> {
    let most = largest_test(benchmark, selection);
    if test_samples <= most {
        return Ok(());
    }
    Err(format!(
        "the test split has {test_samples} samples: with {} checkpoints of a model, their \
         predictions do not fit into a message of {} bytes. At most {most} samples can be tested \
         at once: split them into several datasets",
        selection.criteria(benchmark).len(),
        wire::MAX_BYTES
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{AttemptId, JobId},
        wire::{CriterionResult, ResultBody, ResultMessage, WorkerInfo},
    };

    /// A result as large as results can be: every criterion has another checkpoint, every metric is
    /// there, and the worker's names are long.
    fn result(benchmark: Benchmark, selection: Selection, samples: usize) -> ResultMessage {
        let metrics = benchmark.metrics().iter();
        let metrics: std::collections::BTreeMap<String, Option<f64>> =
            metrics.map(|m| (m.id.to_owned(), Some(0.123))).collect();
        let name = || "n".repeat(255);
        ResultMessage {
            job: JobId::derive(&[b"j"]),
            attempt: AttemptId::derive(&[b"a"]),
            worker: WorkerInfo {
                name: name(),
                host: name(),
                device: name(),
                version: name(),
                processor: name(),
            },
            body: ResultBody::Evaluated {
                seconds: 1e9,
                peak_memory: u64::MAX,
                results: selection
                    .criteria(benchmark)
                    .into_iter()
                    .map(|criterion| CriterionResult {
                        criterion,
                        epoch: u32::MAX,
                        predictions: u32::MAX,
                        metrics: metrics.clone(),
                    })
                    .collect(),
                predictions: vec![vec![0.5; samples]; selection.criteria(benchmark).len()],
            },
        }
    }

    #[test]
    fn results_of_largest_test_split_fit_a_message() {
        let selections = [Selection::Validation, Selection::Both];
        for (benchmark, selection) in Benchmark::ALL
            .into_iter()
            .flat_map(|b| selections.map(|selection| (b, selection)))
        {
            let most = largest_test(benchmark, selection);
            assert!(results_fit(benchmark, selection, most).is_ok());
            assert!(
                wire::encode(&result(benchmark, selection, most)).is_ok(),
                "{benchmark}"
            );
            let refused = results_fit(benchmark, selection, most + 1).unwrap_err();
            assert!(refused.contains(&most.to_string()), "{refused}");
            // The limit is close to what a message holds.
            let over = wire::encode(&result(benchmark, selection, most + most / 20));
            assert!(over.is_err(), "{benchmark}: {most} is far below the limit");
        }
    }
}
