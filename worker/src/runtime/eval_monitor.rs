//! Monitors evaluation jobs on the compute thread: forwards which case is done and decides when to
//! stop.

use super::{inject, presence::Status};
use halfheard_models::train::{CaseResult, EvalObserver, EvalProgress, TrainError};
use halfheard_shared::shutdown::Shutdown;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// How long evaluation continues during a shutdown: a case that is nearly done is finished, with
/// time left to report it.
const STOP_DEADLINE: Duration = Duration::from_secs(4);

/// What happened to a case, by its index.
pub(super) enum Event {
    Started(Vec<usize>),
    /// Completed or failed on its own, after this many seconds of its own.
    Ended(usize, f64, Result<CaseResult, TrainError>),
}

/// Monitors the evaluation of one trained model.
pub(super) struct EvalMonitor {
    pub(super) shutdown: Shutdown,
    /// Set when the sweep is cancelled.
    pub(super) cancelled: Arc<AtomicBool>,
    pub(super) status: Status,
    pub(super) events: mpsc::UnboundedSender<Event>,
}

impl EvalMonitor {
    fn should_stop(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.shutdown.is_past(STOP_DEADLINE)
    }
}

impl EvalObserver for EvalMonitor {
    fn cases_started(&mut self, cases: &[usize]) {
        // The receiver is gone if the worker no longer waits for these cases.
        let _ = self.events.send(Event::Started(cases.to_vec()));
    }

    fn should_continue(&mut self, at: EvalProgress) -> bool {
        self.status.update(|doing| {
            doing.case = at.done as u32 + 1;
            doing.step = at.batch as u32;
            doing.steps = at.batches as u32;
        });
        while inject::holds(at.done) && !self.should_stop() {
            std::thread::sleep(Duration::from_millis(20));
        }
        !self.should_stop()
    }

    fn case_finished(
        &mut self,
        case: usize,
        seconds: f64,
        outcome: Result<CaseResult, TrainError>,
    ) {
        let _ = self.events.send(Event::Ended(case, seconds, outcome));
    }
}
