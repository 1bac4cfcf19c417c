//! A forecast of the time left, from the durations of a sweep's own jobs.
//!
//! Evaluation jobs of one model run as a bundle, so attempts of one worker overlap. What counts is how
//! long workers were busy, divided by the jobs that they completed.

use super::snapshot::{EVAL_COST, Snapshot};
use halfheard_shared::{error::chain, ids::SweepId};
use halfheard_store::{Store, StoreError, forecast::WorkRow};
use std::time::{Duration, Instant};

/// How often the database is queried.
const QUERY_EVERY: Duration = Duration::from_secs(10);

/// What each open job still costs, summed up, in seconds of one worker; `None` while nothing of a
/// kind that is still to be done has been timed.
fn seconds_of_work(all: &[WorkRow]) -> Option<f64> {
    // Other methods on the same dataset are the next best estimate, then any job of the kind.
    let mean = |of: &dyn Fn(&&WorkRow) -> bool| {
        let (busy, timed) = all
            .iter()
            .filter(of)
            .fold((0.0, 0.0), |(busy, timed), work| {
                (busy + work.busy, timed + work.timed)
            });
        (timed > 0.0).then_some(busy / timed)
    };
    let mut total = 0.0;
    for work in all.iter().filter(|work| work.open > 0) {
        let own = (work.timed > 0.0).then(|| work.busy / work.timed);
        let each = own
            .or_else(|| mean(&|w| w.trains == work.trains && w.dataset == work.dataset))
            .or_else(|| mean(&|w| w.trains == work.trains))
            .or_else(|| {
                let train = mean(&|w| w.trains && w.dataset == work.dataset);
                train
                    .filter(|_| !work.trains)
                    .map(|train| train * EVAL_COST)
            })?;
        total += work.open as f64 * each;
    }
    Some(total)
}

/// Queries the database now and then, and counts down in between.
#[derive(Debug)]
pub struct Forecast {
    sweep: SweepId,
    last: Option<(Instant, Option<Duration>)>,
}

impl Forecast {
    /// A forecast for `sweep`.
    pub fn new(sweep: SweepId) -> Self {
        Self { sweep, last: None }
    }

    /// Returns the time left, once jobs have been timed. If the database fails, it is unknown: a
    /// forecast is not worth an error.
    pub async fn left(&mut self, store: &Store, snapshot: &Snapshot) -> Option<Duration> {
        if let Some((queried, left)) = self.last
            && queried.elapsed() < QUERY_EVERY
        {
            return left.map(|left| left.saturating_sub(queried.elapsed()));
        }
        let left = match left(store, snapshot, self.sweep).await {
            Ok(left) => left,
            Err(error) => {
                tracing::debug!(error = chain(&error), "no forecast");
                None
            }
        };
        self.last = Some((Instant::now(), left));
        left
    }
}

async fn left(
    store: &Store,
    snapshot: &Snapshot,
    sweep: SweepId,
) -> Result<Option<Duration>, StoreError> {
    if snapshot.progress.open() == 0 || snapshot.workers.is_empty() {
        return Ok(None);
    }
    let all = store.work(sweep).await?;
    let open: i64 = all.iter().map(|work| work.open).sum();
    let Some(seconds) = seconds_of_work(&all) else {
        return Ok(None);
    };
    // Subtract the completed share of jobs in progress.
    let trains: i64 = all.iter().filter(|w| w.trains).map(|w| w.open).sum();
    let training = all.iter().filter(|w| w.trains && w.open > 0).cloned();
    let each = seconds_of_work(&training.collect::<Vec<_>>()).unwrap_or(0.0) / trains.max(1) as f64;
    let seconds = (seconds - snapshot.in_progress(sweep) * each).max(0.0);
    // More workers than jobs are of no use.
    let workers = (snapshot.workers.len() as f64).min(open as f64).max(1.0);
    Ok(Duration::try_from_secs_f64(seconds / workers).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(trains: bool, dataset: &str, open: i64, timed: f64, busy: f64) -> WorkRow {
        WorkRow {
            trains,
            dataset: dataset.to_owned(),
            open,
            timed,
            busy,
        }
    }

    #[test]
    fn job_costs_as_much_as_similar_jobs() {
        let all = [
            work(true, "mosi", 2, 1.0, 100.0),
            work(false, "mosi", 16, 32.0, 64.0),
        ];
        assert_eq!(seconds_of_work(&all), Some(232.0));
        // Another method on the same dataset precedes another dataset.
        let all = [
            work(true, "mosi", 0, 2.0, 200.0),
            work(true, "mosei", 0, 1.0, 900.0),
            work(true, "mosi", 1, 0.0, 0.0),
        ];
        assert_eq!(seconds_of_work(&all), Some(100.0));
        // Nothing evaluated yet: estimated from training jobs. Nothing trained yet: unknown.
        let all = [
            work(true, "mosi", 1, 1.0, 128.0),
            work(false, "mosi", 16, 0.0, 0.0),
        ];
        assert_eq!(seconds_of_work(&all), Some(160.0));
        let all = [
            work(true, "mosi", 1, 0.0, 0.0),
            work(false, "mosi", 16, 16.0, 4.0),
        ];
        assert_eq!(seconds_of_work(&all), None);
    }
}
