//! Blocks that several methods share, each in one place.

pub mod bert;
pub mod cross_modal;
pub mod rnn;
pub mod similarity;
pub mod token_transformer;
pub mod transformer;
pub mod unimodal_labels;

use tch::Tensor;

/// The identity whose gradient is turned round and scaled by `weight` (Ganin & Lempitsky 2015):
/// forward `x`, backward `-weight * dL/dx`.
pub fn reverse_gradient(x: &Tensor, weight: f64) -> Tensor {
    x * -weight + (x * (1.0 + weight)).detach()
}
