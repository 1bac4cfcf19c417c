//! Network blocks that several methods share.

mod basic;
pub mod bert;
pub(crate) mod cross_modal;
pub(crate) mod dropout;
mod gru;
pub(crate) mod narrow_attention;
mod numbers;
pub(crate) mod rnn;
pub(crate) mod similarity;
pub(crate) mod token_transformer;
pub(crate) mod transformer;
pub(crate) mod unimodal_labels;

pub(crate) use basic::{conv1d, layer_norm, linear, linear_no_bias, reverse_gradient};
