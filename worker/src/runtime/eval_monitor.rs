//! Monitors evaluation jobs on the compute thread: forwards which case is done and decides when to
//! stop.

use super::{
    engine::JobMemory,
    inject,
    presence::Status,
    watch::{Phase, Watch},
};
use crate::shutdown::Deadlines;
use halfheard_models::train::{CaseResult, EvalObserver, EvalProgress, TrainError};
use halfheard_shared::shutdown::Shutdown;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What happened to a case, by its index.
pub(super) enum Event {
    Started(Vec<usize>),
    /// Completed or failed on its own, after this many seconds of its own and with this many bytes of
    /// memory.
    Ended(usize, f64, u64, Result<CaseResult, TrainError>),
}

/// Monitors the evaluation of one trained model.
pub(super) struct EvalMonitor {
    pub(super) shutdown: Shutdown,
    pub(super) deadlines: Deadlines,
    /// Cancelled when the case's job is taken away; `None` once it has ended.
    pub(super) released: Vec<Option<CancellationToken>>,
    pub(super) status: Status,
    pub(super) watch: Watch,
    pub(super) memory: JobMemory,
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// Whether an external program predicts, whose silence has a limit of its own.
    pub(super) external: bool,
}

impl EvalMonitor {
    /// Whether nobody waits for any of the cases that are left, or the shutdown does not.
    fn should_stop(&self) -> bool {
        let mut left = self.released.iter().flatten();
        left.all(CancellationToken::is_cancelled)
            || self.shutdown.is_past(self.deadlines.evaluation())
    }
}

impl EvalObserver for EvalMonitor {
    fn cases_started(&mut self, cases: &[usize]) {
        // The receiver is gone if the worker no longer waits for these cases.
        let _ = self.events.send(Event::Started(cases.to_vec()));
        self.watch.enter(match self.external {
            true => Phase::Waiting,
            false => Phase::Steps,
        });
    }

    fn should_continue(&mut self, at: EvalProgress) -> bool {
        inject::hang();
        self.watch.advanced();
        self.status.update(|doing| {
            doing.case = at.done as u32 + 1;
            doing.step = at.batch as u32;
            doing.steps = at.batches as u32;
        });
        while inject::holds(at.done) && !self.should_stop() {
            self.watch.advanced();
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
        if let Some(ended) = self.released.get_mut(case) {
            *ended = None;
        }
        let bytes = self.memory.bytes();
        let _ = self
            .events
            .send(Event::Ended(case, seconds, bytes, outcome));
    }
}
