//! A method's state between two training steps.

use serde_json::Value;
use std::collections::BTreeMap;
use tch::Tensor;

/// A step of a training run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The epoch, from 1.
    pub epoch: u32,
    /// The pass over the training split within the epoch, from 0.
    pub pass: usize,
    /// The batch within the pass, from 0.
    pub step: usize,
    /// Batches per pass.
    pub steps: usize,
}

/// Everything that a method needs to resume bit-exactly.
#[derive(Debug, Default)]
pub struct MethodState {
    /// Weights, optimizer moments and memories by name, on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// Step counts, learning rates, best values.
    pub scalars: serde_json::Map<String, Value>,
}
