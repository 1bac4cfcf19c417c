//! The methods: what a method is, and the registry of those there are.
//!
//! A method is a model with its own training procedure. It knows tensors and nothing else: no
//! messages, no database, no files but its encoder's. Adding one takes its file here, its line in
//! [`REGISTRY`], and its hyper-parameters in `shared/methods/<id>.toml`: docs/guide/adding-a-method.md
//! goes through it.

pub mod almt;
pub mod cenet;
mod common;
pub mod lf_dnn;
pub mod lnln;
pub mod misa;
pub mod mmim;
mod multi_task;
pub mod self_mm;
pub mod tetfn;
pub mod tfr_net;

use halfheard_shared::{encoder::EncoderError, wire::Fidelity};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};
use tch::{Device, Tensor, nn};

/// Samples as a method sees them, on the method's device. B samples, text of L tokens, audio and
/// vision of Ta and Tv steps with Da and Dv features.
#[derive(Debug)]
pub struct Batch {
    /// Positions in the split, `[B]` int64.
    pub index: Tensor,
    /// The inputs after erasure: what every method predicts from.
    pub input: Inputs,
    /// The inputs before erasure, for methods that learn to reconstruct; absent in evaluation
    /// unless [`Method::needs`] asks for them.
    pub complete: Option<Inputs>,
    /// 1 where a step is neither padding nor erased, 0 elsewhere: text `[B, L]`, audio `[B, Ta]`,
    /// vision `[B, Tv]`, float.
    pub kept: PerModality<Tensor>,
    /// 1 where a step is not padding: shapes as `kept`, float.
    pub present: PerModality<Tensor>,
    /// Missing rate of each modality of each sample, `[B]` float.
    pub missing_rate: PerModality<Tensor>,
    /// Sentiment, `[B]` float.
    pub labels: Tensor,
    /// Sentiment by modality, `[B]` float each, where the dataset has it (SIMS).
    pub unimodal_labels: Option<PerModality<Tensor>>,
}

/// One value for each modality.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerModality<T> {
    /// Language.
    pub text: T,
    /// Acoustic.
    pub audio: T,
    /// Visual.
    pub vision: T,
}

/// The three inputs of a batch.
#[derive(Debug)]
pub struct Inputs {
    /// `[B, 3, L]` int64: token ids, attention mask, segments.
    pub text: Tensor,
    /// `[B, Ta, Da]` float.
    pub audio: Tensor,
    /// `[B, Tv, Dv]` float.
    pub vision: Tensor,
    /// Steps before padding, `[B]` int64.
    pub audio_lengths: Tensor,
    /// Steps before padding, `[B]` int64.
    pub vision_lengths: Tensor,
}

impl Batch {
    /// The number of samples.
    pub fn len(&self) -> i64 {
        self.labels.size()[0]
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The sizes of a dataset that a model is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataShape {
    /// Tokens a sample, L.
    pub text_length: i64,
    /// Steps a sample, Ta.
    pub audio_length: i64,
    /// Features a step, Da.
    pub audio_dim: i64,
    /// Steps a sample, Tv.
    pub vision_length: i64,
    /// Features a step, Dv.
    pub vision_dim: i64,
    /// Samples of the training split.
    pub train_samples: i64,
    /// Whether there are labels by modality.
    pub unimodal_labels: bool,
}

/// What a method is built from.
#[derive(Debug)]
pub struct Build<'a> {
    /// Hyper-parameters, all present (from `shared/methods/<id>.toml`, variant and overrides applied).
    pub hyper: &'a Value,
    /// The dataset's protocol name: `mosi`, `mosei`, `sims`.
    pub dataset: &'a str,
    /// The dataset's sizes.
    pub data: DataShape,
    /// The text encoder's folder in the Hugging Face layout.
    pub encoder: &'a Path,
    /// Where the method's tensors live.
    pub device: Device,
    /// As the reference code does or as the paper says.
    pub fidelity: Fidelity,
    /// The most epochs that will be trained: some schedules depend on it.
    pub max_epochs: u32,
}

/// Where training is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// From 1.
    pub epoch: u32,
    /// The pass over the training split within the epoch, from 0.
    pub pass: usize,
    /// The batch within the pass, from 0.
    pub step: usize,
    /// Batches in a pass.
    pub steps: usize,
}

/// What a training step did.
#[derive(Debug)]
pub struct StepOutcome {
    /// The step's predictions before the update, `[B]`, detached.
    pub prediction: Tensor,
    /// The losses by name: `loss` is the whole, the others its parts.
    pub losses: BTreeMap<&'static str, f64>,
}

/// Features of samples that figures look at (the paper's Figure 8).
#[derive(Debug)]
pub struct Features {
    /// The language feature before its correction, `[B, W]` float.
    pub language: Tensor,
    /// The dominant feature that the correction makes of it, `[B, W]` float.
    pub dominant: Tensor,
}

/// Why a method could not go on.
#[derive(Debug, thiserror::Error)]
pub enum MethodError {
    /// Hyper-parameters that make no model.
    #[error("hyper-parameters of {method}: {what}")]
    Hyper {
        /// The method's id.
        method: &'static str,
        /// What is wrong, and with which.
        what: String,
    },
    /// A dataset that lacks what the method needs.
    #[error("{method} cannot use this dataset: {what}")]
    Dataset {
        /// The method's id.
        method: &'static str,
        /// What is missing, and what to do.
        what: String,
    },
    /// An encoder that cannot be used.
    #[error(transparent)]
    Encoder(#[from] Box<EncoderError>),
    /// The loss is not finite.
    #[error("the loss is not finite at epoch {}, pass {}, step {} of {}: {}", at.epoch, at.pass + 1, at.step + 1, at.steps, parts(losses))]
    NonFinite {
        /// Where.
        at: Position,
        /// The parts of the loss.
        losses: BTreeMap<&'static str, f64>,
    },
    /// A saved state that does not fit.
    #[error("the saved state does not fit: {0}")]
    State(String),
    /// libtorch refused; out of memory is among these.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
}

fn parts(losses: &BTreeMap<&'static str, f64>) -> String {
    let parts: Vec<String> = losses
        .iter()
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    parts.join(", ")
}

/// Everything a method must remember to go on to the same bits.
#[derive(Debug, Default)]
pub struct MethodState {
    /// Weights, optimizer moments, memories: by name, on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// Step counts, learning rates, best values.
    pub scalars: serde_json::Map<String, Value>,
}

/// What a method wants in its batches beyond the erased inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Complete inputs in training.
    pub complete_in_training: bool,
    /// Complete inputs in evaluation too.
    pub complete_in_evaluation: bool,
}

/// A model with its training procedure.
///
/// The driver calls, in order: [`prepare`](Method::prepare) for every training batch in split
/// order, once, on a fresh start; then for every epoch and pass, [`begin_pass`](Method::begin_pass),
/// [`train_step`](Method::train_step) for every batch, [`end_pass`](Method::end_pass); then
/// predictions on the selection split and [`end_epoch`](Method::end_epoch). It reseeds libtorch's
/// generator before every step, so a method draws all its randomness from there and none outlives
/// a step.
pub trait Method {
    /// The trainable and fixed weights, under the reference implementation's names.
    fn vars(&self) -> &nn::VarStore;

    /// What batches must hold.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Samples in a training batch.
    fn batch_size(&self) -> usize;

    /// Reads the training split once before the first epoch (label generation).
    fn prepare(&mut self, _batch: &Batch) -> Result<(), MethodError> {
        Ok(())
    }

    /// Passes over the training split in an epoch.
    fn passes(&self) -> usize {
        1
    }

    /// How many of the `steps` batches of a pass are trained on: all, unless a method says less.
    fn steps_of_pass(&self, _pass: usize, steps: usize) -> usize {
        steps
    }

    /// A pass begins; `step` of the position is 0.
    fn begin_pass(&mut self, _at: Position) -> Result<(), MethodError> {
        Ok(())
    }

    /// Forward, backward and update for one batch.
    fn train_step(&mut self, at: Position, batch: &Batch) -> Result<StepOutcome, MethodError>;

    /// A pass ended.
    fn end_pass(&mut self, _at: Position) -> Result<(), MethodError> {
        Ok(())
    }

    /// Predictions `[B]` without gradients and without dropout.
    fn predict(&self, batch: &Batch) -> Result<Tensor, MethodError>;

    /// Predictions as [`predict`](Self::predict) gives them, to the same bits, and features of the
    /// same forward call where the method has some to show.
    fn predict_with_features(
        &self,
        batch: &Batch,
    ) -> Result<(Tensor, Option<Features>), MethodError> {
        Ok((self.predict(batch)?, None))
    }

    /// The validation loss of predictions against labels, `[N]` both: a scalar that schedules and
    /// early stopping go by.
    fn validation_loss(&self, prediction: &Tensor, labels: &Tensor) -> f64;

    /// An epoch ended with this validation loss: schedules step here.
    fn end_epoch(&mut self, epoch: u32, validation_loss: f64) -> Result<(), MethodError>;

    /// Epochs without a better validation loss after which training stops; `None`: never early.
    fn patience(&self) -> Option<u32> {
        None
    }

    /// Whether the state can be saved now: not while gradients wait for the next batch.
    fn at_rest(&self) -> bool {
        true
    }

    /// What must be remembered.
    fn state(&self) -> Result<MethodState, MethodError>;

    /// Goes back to what was remembered.
    fn restore(&mut self, state: &MethodState) -> Result<(), MethodError>;
}

/// Builds a method. Initial weights come from libtorch's generator, which the caller has seeded,
/// and from the encoder's folder.
pub type Builder = fn(&Build<'_>) -> Result<Box<dyn Method>, MethodError>;

/// The methods there are, by id.
pub const REGISTRY: &[(&str, Builder)] = &[
    ("misa", misa::build),
    ("self-mm", self_mm::build),
    ("mmim", mmim::build),
    ("cenet", cenet::build),
    ("tetfn", tetfn::build),
    ("tfr-net", tfr_net::build),
    ("almt", almt::build),
    ("lnln", lnln::build),
    ("lf-dnn", lf_dnn::build),
];

/// The builder of `method`.
pub fn builder(method: &str) -> Option<Builder> {
    REGISTRY
        .iter()
        .find(|(id, _)| *id == method)
        .map(|(_, builder)| *builder)
}
