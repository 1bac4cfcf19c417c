//! An estimate of the time left from the pace since a display began.

use super::snapshot::Snapshot;
use halfheard_shared::ids::SweepId;
use std::time::{Duration, Instant};

/// The share of the work that must be observed before there is an estimate.
const MIN_SHARE: f64 = 0.02;

/// Estimates the time left from the pace since the first snapshot.
#[derive(Debug)]
pub struct Pace {
    sweep: SweepId,
    began: Option<(Instant, f64)>,
}

impl Pace {
    /// Starts without a snapshot of `sweep`.
    pub fn new(sweep: SweepId) -> Self {
        Self { sweep, began: None }
    }

    /// Returns the time left, once enough work was observed.
    pub fn left(&mut self, snapshot: &Snapshot) -> Option<Duration> {
        self.left_at(snapshot, Instant::now())
    }

    /// As [`Self::left`], with the time of the snapshot.
    pub fn left_at(&mut self, snapshot: &Snapshot, now: Instant) -> Option<Duration> {
        let (done, all) = snapshot.work(self.sweep);
        let (began, before) = *self.began.get_or_insert((now, done));
        let since = done - before;
        if all <= done || since < MIN_SHARE * (all - before) {
            return None;
        }
        let elapsed = now.duration_since(began).as_secs_f64();
        Duration::try_from_secs_f64(elapsed * (all - done) / since).ok()
    }
}
