//! What is known of the sizes that a method must fit.

use crate::{
    encoder::TextFacts,
    hash::Hash,
    methods::{DataFacts, EncoderShape},
};

/// What is known of the sizes of a dataset and its encoder.
#[derive(Clone, Default)]
pub(super) struct Ground {
    pub(super) data: Option<DataFacts>,
    pub(super) encoder: Option<EncoderShape>,
    /// What its texts need of an encoder.
    pub(super) texts: Option<TextFacts>,
    /// Names its labels.
    pub(super) labels: Option<Hash>,
}
