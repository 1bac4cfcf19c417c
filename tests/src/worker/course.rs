//! Jobs that take their time, as those of a real worker do.

use halfheard_shared::wire::ResultBody;
use std::time::Duration;

/// What happens in the course of a job.
#[derive(Clone, Debug)]
pub enum Event {
    /// The worker reports this.
    Say(ResultBody),
    /// A state of this many training steps is stored.
    Saved(u64),
}

/// The course of a job, which ends with its last event.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// The last epoch in the state that it begins from, 0 without one.
    pub resumed_after_epoch: u32,
    /// Training steps in that state.
    pub resumed: u64,
    /// What happens, by time since the job was granted, in order.
    pub events: Vec<(Duration, Event)>,
}
