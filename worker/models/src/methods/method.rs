//! The interface between a method and the trainer.

use super::{Batch, DataShape, Losses};
use crate::{
    context::{EncoderCache, Optimizations},
    error::MethodError,
    precision::Precision,
    state::{MethodState, Position},
};
use halfheard_shared::{case::Rate, methods::faults::Faults};
use serde_json::Value;
use std::path::Path;
use tch::{Device, Tensor, nn};

/// What a method is built from.
#[derive(Debug)]
pub struct Build<'a> {
    /// All hyper-parameters, from `shared/methods/<id>.toml` with variant and overrides applied.
    pub hyper: &'a Value,
    /// The dataset's protocol name: `mosi`, `mosei`, `sims`.
    pub dataset: &'a str,
    /// The dataset's sizes.
    pub data: DataShape,
    /// The text encoder's folder in the Hugging Face layout.
    pub encoder: &'a Path,
    /// The device of the method's tensors.
    pub device: Device,
    /// The faults of the method's reference that it keeps.
    pub faults: Faults,
    /// The maximum number of epochs, which some schedules depend on.
    pub max_epochs: u32,
    /// Which result-preserving optimizations to use.
    pub optimizations: Optimizations,
    /// In what the text encoder and transformers multiply matrices.
    pub precision: Precision,
}

/// The outcome of a training step.
#[derive(Debug)]
pub struct StepOutcome {
    /// Predictions before the update, `[B]`, detached.
    pub prediction: Tensor,
    /// The losses, still on the device: a step that read them would wait for it.
    pub losses: Losses,
}

/// Features of samples, shown in figures (the paper's Figure 8).
#[derive(Debug)]
pub struct Features {
    /// The language feature before its correction, `[B, W]` float.
    pub language: Tensor,
    /// The dominant feature after the correction, `[B, W]` float.
    pub dominant: Tensor,
}

/// What a method needs in its batches besides the erased inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Complete inputs in training.
    pub complete_in_training: bool,
    /// Complete inputs in evaluation.
    pub complete_in_evaluation: bool,
}

/// The validation loss by which the schedules and the early stopping of a reference go
/// ([`BatchMeanLoss`](halfheard_shared::methods::faults::Fault::BatchMeanLoss)): the mean of the losses of
/// batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReferenceValidation {
    /// What is missing of the validation split.
    pub erasure: ReferenceErasure,
    /// Whether the mean is rounded to four digits.
    pub rounded: bool,
}

/// What is missing of a reference's validation split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceErasure {
    /// Nothing.
    Complete,
    /// As much as of the training split, which the reference erases at one rate.
    AsTrained {
        /// The rate where training has no single one; `None` for that of the selection.
        otherwise: Option<Rate>,
    },
}

/// A model with its training procedure.
///
/// On a fresh start, the trainer first calls [`prepare`](Method::prepare) once for every training
/// batch in split order. For every epoch and pass it then calls [`begin_pass`](Method::begin_pass),
/// [`train_step`](Method::train_step) for every batch, and [`end_pass`](Method::end_pass); after the
/// last pass it predicts the selection split and calls [`end_epoch`](Method::end_epoch). It seeds
/// libtorch's generator before every step, so a method draws all its randomness from there and
/// keeps none across steps.
pub trait Method {
    /// The trainable and fixed weights, under the reference implementation's names.
    fn vars(&self) -> &nn::VarStore;

    /// What batches must contain.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Whether training uses complete inputs, whatever the protocol erases.
    fn trains_on_complete_inputs(&self) -> bool {
        false
    }

    /// Samples per training batch.
    fn batch_size(&self) -> usize;

    /// Reads one training batch before the first epoch, for methods that generate labels.
    fn prepare(&mut self, _batch: &Batch) -> Result<(), MethodError> {
        Ok(())
    }

    /// Passes over the training split per epoch.
    fn passes(&self) -> usize {
        1
    }

    /// How many of the `steps` batches of a pass are trained on; all by default.
    fn steps_of_pass(&self, _pass: usize, steps: usize) -> usize {
        steps
    }

    /// Begins a pass; `step` of the position is 0.
    fn begin_pass(&mut self, _at: Position) -> Result<(), MethodError> {
        Ok(())
    }

    /// Runs forward, backward and update for one batch. Reads nothing from the device, so the host is
    /// always ahead of it; who reads the losses finds out whether they are finite.
    fn train_step(&mut self, at: Position, batch: &Batch) -> Result<StepOutcome, MethodError>;

    /// Ends a pass.
    fn end_pass(&mut self, _at: Position) -> Result<(), MethodError> {
        Ok(())
    }

    /// Predicts `[B]` without gradients or dropout, reusing the encoder outputs in `cache`.
    fn predict(&self, batch: &Batch, cache: Option<&EncoderCache>) -> Result<Tensor, MethodError>;

    /// Returns the predictions of [`predict`](Self::predict), bit for bit, and features from the
    /// same forward pass if the method shows some.
    fn predict_with_features(
        &self,
        batch: &Batch,
        cache: Option<&EncoderCache>,
    ) -> Result<(Tensor, Option<Features>), MethodError> {
        Ok((self.predict(batch, cache)?, None))
    }

    /// The validation loss of predictions against labels, both `[N]`, which schedules and early
    /// stopping use.
    fn validation_loss(&self, prediction: &Tensor, labels: &Tensor) -> f64;

    /// Whether a schedule or early stopping goes by the validation loss.
    fn uses_validation_loss(&self) -> bool {
        self.patience().is_some()
    }

    /// How the method's reference takes the validation loss. That of MMSA's trainers by default: on
    /// complete data, `round(eval_loss / len(dataloader), 4)`.
    fn reference_validation(&self) -> ReferenceValidation {
        ReferenceValidation {
            erasure: ReferenceErasure::Complete,
            rounded: true,
        }
    }

    /// Ends an epoch; schedules step here.
    fn end_epoch(&mut self, _epoch: u32, _validation_loss: f64) -> Result<(), MethodError> {
        Ok(())
    }

    /// Epochs without a better validation loss before training stops; `None` disables early
    /// stopping.
    fn patience(&self) -> Option<u32> {
        None
    }

    /// Whether the state can be saved now, which it cannot while gradients accumulate.
    fn can_save(&self) -> bool {
        true
    }

    /// The state to save.
    fn state(&self) -> Result<MethodState, MethodError>;

    /// Restores a saved state.
    fn restore(&mut self, state: &MethodState) -> Result<(), MethodError>;
}
