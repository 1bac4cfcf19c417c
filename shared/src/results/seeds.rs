//! Values of single seeds.

use super::Model;
use crate::{benchmark::Benchmark, case::Case};

/// One metric of one finished evaluation, from the checkpoint of the metric's own family.
#[derive(Clone, Debug, PartialEq)]
pub struct SeedValue {
    /// The dataset.
    pub dataset: Benchmark,
    /// The model.
    pub model: Model,
    /// The training seed.
    pub seed: u64,
    /// The case.
    pub case: Case,
    /// The metric's id.
    pub metric: &'static str,
    /// The value; `None` where the metric is undefined.
    pub value: Option<f64>,
}
