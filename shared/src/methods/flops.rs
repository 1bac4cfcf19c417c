//! How much computing a training takes, from the sizes of method, dataset and encoder: floating-point
//! operations of a training step and of an evaluated sample, and the bytes that a step moves.
//!
//! Counted are products of matrices: `2 m n k` operations for `[m, k]` times `[k, n]`. Attention is two
//! such products for each head, a recurrent network two for each step. A trained layer costs a step three
//! times its forward pass: the gradients of its inputs and of its weights are a product each. Norms,
//! activations, dropout and losses are not counted: they move memory rather than compute. Sequences count
//! with their full length, except texts in encoders that leave padding out (`layers::bert` of the worker).

mod blocks;
mod models;

use super::{
    MethodInfo, Setup,
    faults::Fault,
    fit::Fit,
    memory::{self, Sizes},
};
use serde::Serialize;

/// A forward pass, the gradients of inputs and those of weights.
const PASSES_OF_TRAINED: f64 = 3.0;

/// The work of one model on one dataset.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Flops {
    /// Operations of a training step: a full batch, forward and backward.
    pub step: f64,
    /// Operations of one sample that is predicted.
    pub sample: f64,
    /// Bytes that a training step moves at least: what the forward pass keeps is written and read again,
    /// and an update reads and writes weights, gradients and moments.
    pub step_bytes: f64,
    /// Training steps of an epoch, over all passes.
    pub steps: f64,
}

/// The operations of one sample, forward.
#[derive(Clone, Copy, Debug, Default)]
struct Forward {
    /// In a training step, with gradients.
    trained: f64,
    /// In a training step, without.
    frozen: f64,
    /// In an evaluation.
    evaluated: f64,
}

impl Forward {
    /// The same in training and evaluation.
    fn same(trained: f64) -> Self {
        Self {
            trained,
            frozen: 0.0,
            evaluated: trained,
        }
    }
}

/// The work of a method in this set-up; nothing, where the sizes of dataset or encoder are not known, or
/// for an external program, of which only its author knows.
pub fn counted(info: &MethodInfo, setup: Setup<'_>) -> Option<Flops> {
    let fit = Fit::new(info, setup);
    let sizes = Sizes::of(&fit)?;
    let forward = models::forward(&sizes)?;
    let memory = memory::needed(info, setup)?;
    let (steps, _) = fit.batches()?;
    let kept = 2.0 * memory.step as f64;
    let updated = 2.0 * memory.weights as f64 * updates(&fit);
    Some(Flops {
        step: sizes.batch * (PASSES_OF_TRAINED * forward.trained + forward.frozen),
        sample: forward.evaluated,
        step_bytes: kept + updated,
        steps: steps as f64 + bound_steps(&fit, steps as f64),
    })
}

/// Updates for each step: one for a group whose gradients are added up. TFR-Net's reference updates after
/// every batch, and after a group once more.
fn updates(fit: &Fit<'_>) -> f64 {
    let double = fit.method_id() == "tfr-net" && fit.setup().faults.keeps(Fault::TfrDoubleStep);
    match fit.whole("update_epochs") {
        0 => 1.0,
        group => (group as f64).recip() + if double { 1.0 } else { 0.0 },
    }
}

/// Steps of MMIM's first pass, which fits bounds on a share of the batches. Its gradients run through the
/// encoder, too.
fn bound_steps(fit: &Fit<'_>, steps: f64) -> f64 {
    if !fit.on("contrast") {
        return 0.0;
    }
    let share = fit.setup().hyper.get("bound_share");
    let share = share.and_then(serde_json::Value::as_f64).unwrap_or(1.0);
    (steps * share).ceil().clamp(1.0, steps.max(1.0))
}

#[cfg(test)]
mod tests;
