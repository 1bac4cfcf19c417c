//! Who watches evaluations on libtorch's thread: passes on which case is done, and says when to
//! stop.

use super::{inject, shutdown::Shutdown, presence::Status};
use halfheard_models::train::{At, Evaluated, TrainError, Watch};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// How long evaluations go on after the worker was told to leave: a case that is nearly done is
/// done, and there is time to report it.
const LAST: Duration = Duration::from_secs(4);

/// What happened to a case, by its place.
pub enum Event {
    /// The work on these begins.
    Begins(Vec<usize>),
    /// It is done, or failed by itself, after so many seconds of its own.
    Ended(usize, f64, Result<Evaluated, TrainError>),
}

/// Watches the evaluations of one trained model.
pub struct EvalMonitor {
    /// When to leave.
    pub shutdown: Shutdown,
    /// Set when the sweep is cancelled.
    pub cancelled: Arc<AtomicBool>,
    /// What the worker is doing.
    pub status: Status,
    /// Where events go.
    pub events: mpsc::UnboundedSender<Event>,
}

impl EvalMonitor {
    fn stops(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.shutdown.is_past(LAST)
    }
}

impl Watch for EvalMonitor {
    fn begins(&mut self, cases: &[usize]) {
        // Nobody hears it where the worker has left already.
        let _ = self.events.send(Event::Begins(cases.to_vec()));
    }

    fn goes_on(&mut self, at: At) -> bool {
        self.status.update(|doing| {
            doing.case = at.done as u32 + 1;
            doing.step = at.batch as u32;
            doing.steps = at.batches as u32;
        });
        while inject::holds(at.done) && !self.stops() {
            std::thread::sleep(Duration::from_millis(20));
        }
        !self.stops()
    }

    fn ended(&mut self, case: usize, seconds: f64, outcome: Result<Evaluated, TrainError>) {
        let _ = self.events.send(Event::Ended(case, seconds, outcome));
    }
}
