//! The state of a sweep at one moment.

use super::workers::live_workers;
use halfheard_shared::{
    broker::Broker,
    ids::SweepId,
    wire::{Doing, Heartbeat},
};
use halfheard_store::{Store, StoreError, status::SweepProgress, sweeps::Progress};

/// The cost of an evaluation job, in training jobs of its dataset, while none has been timed.
pub(crate) const EVAL_COST: f64 = 1.0 / 64.0;

/// The state of a sweep at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Jobs by state.
    pub progress: Progress,
    /// Training jobs done.
    pub train_done: i64,
    /// All training jobs.
    pub train_jobs: i64,
    /// Evaluation jobs done.
    pub eval_done: i64,
    /// All evaluation jobs.
    pub eval_jobs: i64,
    /// Whether nothing of it is left to do: no job is open, or it was cancelled.
    pub finished: bool,
    /// Live workers, by name.
    pub workers: Vec<Heartbeat>,
}

impl Snapshot {
    /// Loads the state of a sweep. Without an answer from the broker there are no workers in it.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub async fn load(
        store: &Store,
        broker: Option<&Broker>,
        sweep: SweepId,
    ) -> Result<Self, StoreError> {
        let progress = store.sweep_progress(sweep).await?;
        let workers = match broker {
            Some(broker) => live_workers(broker).await,
            None => Vec::new(),
        };
        Ok(Self::of(progress, workers))
    }

    /// A state that was loaded elsewhere.
    pub fn of(progress: SweepProgress, workers: Vec<Heartbeat>) -> Self {
        let SweepProgress {
            progress,
            train_jobs,
            train_done,
            eval_jobs,
            eval_done,
            finished,
        } = progress;
        Self {
            progress,
            train_done,
            train_jobs,
            eval_done,
            eval_jobs,
            finished,
            workers,
        }
    }

    /// Returns work done and all work, in training jobs. Failed and cancelled jobs count as done.
    pub(crate) fn work(&self, sweep: SweepId) -> (f64, f64) {
        let open = self.progress.open() as f64;
        let (trains, evals) = (self.train_jobs as f64, self.eval_jobs as f64);
        let all = trains + evals * EVAL_COST;
        if open == 0.0 {
            return (all, all);
        }
        let done =
            self.train_done as f64 + self.eval_done as f64 * EVAL_COST + self.in_progress(sweep);
        (done.min(all), all)
    }

    /// Returns the completed share of training jobs in progress, summed up.
    pub(crate) fn in_progress(&self, sweep: SweepId) -> f64 {
        self.workers
            .iter()
            .filter_map(|worker| worker.doing.as_ref())
            .filter(|doing| doing.sweep == sweep)
            .map(share_of_training)
            .sum()
    }
}

/// Returns the completed share of a training job, 0 to 1.
fn share_of_training(doing: &Doing) -> f64 {
    if doing.max_epochs == 0 || doing.epoch == 0 {
        return 0.0;
    }
    let within = f64::from(doing.step) / f64::from(doing.steps.max(1));
    ((f64::from(doing.epoch - 1) + within) / f64::from(doing.max_epochs)).clamp(0.0, 1.0)
}
