//! Why a method cannot be built, trained or restored.

use crate::state::Position;
use halfheard_shared::encoder::EncoderError;
use std::collections::BTreeMap;

/// A method's error.
#[derive(Debug, thiserror::Error)]
pub enum MethodError {
    /// Hyper-parameters that describe no valid model.
    #[error("hyper-parameters of {method}: {what}")]
    Hyper {
        /// The method's id.
        method: &'static str,
        /// Which hyper-parameter is wrong, and how.
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
    /// An unusable text encoder.
    #[error(transparent)]
    Encoder(#[from] Box<EncoderError>),
    /// A loss of NaN or infinity.
    #[error("the loss is not finite at epoch {}, pass {}, step {} of {}: {}", at.epoch, at.pass + 1, at.step + 1, at.steps, list(losses))]
    NonFinite {
        /// The training step.
        at: Position,
        /// The parts of the loss.
        losses: BTreeMap<&'static str, f64>,
    },
    /// A saved state of another model.
    #[error("the saved state does not fit: {0}")]
    State(String),
    /// An error of libtorch, out of memory among them.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
}

fn list(losses: &BTreeMap<&'static str, f64>) -> String {
    let parts: Vec<String> = losses
        .iter()
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    parts.join(", ")
}
