//! What a training run reports, and how its observer directs it.

use bytes::Bytes;
use halfheard_shared::{
    hash::Hash,
    wire::{CheckpointRef, EpochLog},
};

/// What to do after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Train on.
    Continue,
    /// Save as soon as the method is at rest, then train on.
    Save,
    /// Save as soon as the method is at rest, then stop.
    SaveAndStop,
    /// Stop without saving.
    Stop,
}

/// The state of a training run after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The epoch in progress, from 1.
    pub epoch: u32,
    /// The maximum number of epochs.
    pub max_epochs: u32,
    /// Steps completed in this epoch, over all passes.
    pub step: usize,
    /// Steps per epoch.
    pub steps: usize,
    /// Samples of the last step; 0 if unknown.
    pub samples: usize,
    /// The mean loss of this epoch so far, on a GPU without the latest steps, whose losses are read later.
    pub loss: Option<f64>,
    /// Whether an epoch has just ended.
    pub epoch_ended: bool,
}

/// A saved state and the checkpoints it refers to.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Read by [`Trainer::resume`](super::Trainer::resume).
    pub state: Bytes,
    /// The best checkpoints so far, to be stored before the state.
    pub best: Vec<BestCheckpoint>,
    /// The last completed epoch.
    pub after_epoch: u32,
    /// Training steps that it holds, over all epochs and attempts.
    pub steps: u64,
}

/// A checkpoint that is the best so far by some criterion.
#[derive(Clone, Debug)]
pub struct BestCheckpoint {
    /// The hash that it is stored under.
    pub blake3: Hash,
    /// A safetensors file.
    pub content: Bytes,
}

/// Observes a training run and directs it.
pub trait TrainObserver {
    /// Returns what to do next; called after every step and every epoch.
    fn directive(&mut self, view: StepReport) -> Directive;
    /// Called at the end of an epoch.
    fn epoch_ended(&mut self, log: EpochLog);
    /// Called with a state to store.
    fn save(&mut self, snapshot: Snapshot);
    /// Called after each batch that is no step: before the first epoch, and when a split is predicted.
    fn advanced(&mut self) {}
}

/// How a training run ended.
#[derive(Debug)]
pub enum TrainOutcome {
    /// Every epoch was trained, or early stopping applied.
    Completed {
        /// One per selection criterion.
        checkpoints: Vec<CheckpointRef>,
        /// Their distinct contents.
        contents: Vec<BestCheckpoint>,
        /// Epochs trained.
        epochs: u32,
        /// Seconds over all attempts.
        seconds: f64,
    },
    /// The observer stopped it.
    Stopped {
        /// The last completed epoch.
        after_epoch: u32,
        /// Whether the state was saved.
        saved: bool,
    },
}
