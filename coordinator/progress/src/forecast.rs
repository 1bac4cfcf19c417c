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

/// How many standard deviations the bounds are away: nine of ten ends lie between them, as far as durations
/// are normal.
const DEVIATIONS: f64 = 1.645;
/// The standard deviation of a duration as a share of its mean, while nothing says otherwise.
const UNKNOWN_VARIATION: f64 = 0.5;

/// When a sweep ends, as far as the durations of its jobs tell. Workers that come or go are not foreseen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ending {
    /// The time left.
    pub left: Duration,
    /// It is less than this in one case of twenty.
    pub low: Duration,
    /// It is more than this in one case of twenty.
    pub high: Duration,
    /// The work left, in seconds of one worker.
    pub work: f64,
}

/// What the open jobs still cost, in seconds of one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Cost {
    seconds: f64,
    /// The variance of `seconds`, from the spread of durations and the few that a mean rests on.
    variance: f64,
    /// The standard deviation that comes from means of other methods: all err in the same direction.
    borrowed: f64,
    /// The longest mean duration of an open job.
    longest: f64,
}

impl Cost {
    fn deviation(&self) -> f64 {
        (self.variance + self.borrowed * self.borrowed).sqrt()
    }
}

/// Sums up what each open job still costs; `None` while nothing of a kind that is still to be done has been
/// timed.
fn cost_of_open(all: &[WorkRow]) -> Option<Cost> {
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
    let mut total = Cost::default();
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
        let open = work.open as f64;
        let deviation = each * work.variation.unwrap_or(UNKNOWN_VARIATION);
        total.seconds += open * each;
        total.variance += open * deviation * deviation;
        match own {
            Some(_) => total.variance += (open * deviation).powi(2) / work.timed,
            None => total.borrowed += open * each * UNKNOWN_VARIATION,
        }
        total.longest = total.longest.max(each);
    }
    Some(total)
}

#[cfg(test)]
fn seconds_of_work(all: &[WorkRow]) -> Option<f64> {
    cost_of_open(all).map(|cost| cost.seconds)
}

/// Queries the database now and then, and counts down in between.
#[derive(Debug)]
pub struct Forecast {
    sweep: SweepId,
    last: Option<(Instant, Option<Ending>)>,
}

impl Forecast {
    /// A forecast for `sweep`.
    pub fn new(sweep: SweepId) -> Self {
        Self { sweep, last: None }
    }

    /// Returns the time left, once jobs have been timed. If the database fails, it is unknown: a
    /// forecast is not worth an error.
    pub async fn left(&mut self, store: &Store, snapshot: &Snapshot) -> Option<Duration> {
        self.ending(store, snapshot).await.map(|ending| ending.left)
    }

    /// As [`Self::left`], with bounds.
    pub async fn ending(&mut self, store: &Store, snapshot: &Snapshot) -> Option<Ending> {
        if let Some((queried, ending)) = self.last
            && queried.elapsed() < QUERY_EVERY
        {
            return ending.map(|ending| ending.after(queried.elapsed()));
        }
        let ending = match forecast_ending(store, snapshot, self.sweep).await {
            Ok(ending) => ending,
            Err(error) => {
                tracing::debug!(error = chain(&error), "no forecast");
                None
            }
        };
        self.last = Some((Instant::now(), ending));
        ending
    }
}

impl Ending {
    /// The same end, seen so much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self {
            left: self.left.saturating_sub(time),
            low: self.low.saturating_sub(time),
            high: self.high.saturating_sub(time),
            work: self.work,
        }
    }
}

/// Forecasts when the sweep of a snapshot ends with its workers; `None` while jobs of a kind that is still
/// to be done have not been timed, or if no worker is there.
///
/// # Errors
///
/// The database's.
pub async fn forecast_ending(
    store: &Store,
    snapshot: &Snapshot,
    sweep: SweepId,
) -> Result<Option<Ending>, StoreError> {
    if snapshot.progress.open() == 0 || snapshot.workers.is_empty() {
        return Ok(None);
    }
    let all = store.work(sweep).await?;
    let open: i64 = all.iter().map(|work| work.open).sum();
    let Some(cost) = cost_of_open(&all) else {
        return Ok(None);
    };
    // Subtract the completed share of jobs in progress.
    let trains: i64 = all.iter().filter(|w| w.trains).map(|w| w.open).sum();
    let training = all.iter().filter(|w| w.trains && w.open > 0).cloned();
    let training = cost_of_open(&training.collect::<Vec<_>>()).unwrap_or_default();
    let each = training.seconds / trains.max(1) as f64;
    let seconds = (cost.seconds - snapshot.in_progress(sweep) * each).max(0.0);
    // More workers than jobs are of no use.
    let workers = (snapshot.workers.len() as f64).min(open as f64).max(1.0);
    Ok(ending(Cost { seconds, ..cost }, workers))
}

/// When work of this cost is done by so many workers.
fn ending(cost: Cost, workers: f64) -> Option<Ending> {
    let spread = DEVIATIONS * cost.deviation();
    // At the end some workers wait for the others: by at most the longest job (Graham 1969).
    let waiting = cost.longest * (1.0 - 1.0 / workers);
    let time = |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).ok();
    Some(Ending {
        left: time(cost.seconds / workers)?,
        low: time((cost.seconds - spread) / workers)?,
        high: time((cost.seconds + spread) / workers + waiting)?,
        work: cost.seconds,
    })
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
            variation: (timed > 1.0).then_some(0.1),
        }
    }

    #[test]
    fn bounds_narrow_with_what_was_timed() {
        let bounds = |timed: f64, workers: f64| {
            let all = [work(true, "mosi", 100, timed, timed * 60.0)];
            let ending = ending(cost_of_open(&all).unwrap(), workers).unwrap();
            assert!(ending.low < ending.left && ending.left < ending.high);
            assert_eq!(ending.work, 6000.0);
            (ending.high - ending.low).as_secs_f64()
        };
        // Six of a hundred minutes: 1.645 deviations of 6 s * sqrt(100 + 100^2 / 100) = 85 s.
        assert!((bounds(100.0, 1.0) - 2.0 * 1.645 * 84.85).abs() < 1.0);
        assert!(bounds(4.0, 1.0) > bounds(100.0, 1.0));
        // One timed job says little about the spread.
        assert!(bounds(1.0, 1.0) > 10.0 * bounds(100.0, 1.0));
        // Nothing is less certain than a method that has not run at all.
        let borrowed = [
            work(true, "mosi", 0, 100.0, 6000.0),
            work(true, "mosi", 100, 0.0, 0.0),
        ];
        assert_eq!(cost_of_open(&borrowed).unwrap().borrowed, 3000.0);
        // The last jobs keep some workers waiting.
        let one = ending(
            Cost {
                seconds: 60.0,
                longest: 60.0,
                ..Cost::default()
            },
            1.0,
        )
        .unwrap();
        assert_eq!(one.low, one.high);
        let two = ending(
            Cost {
                seconds: 120.0,
                longest: 60.0,
                ..Cost::default()
            },
            2.0,
        )
        .unwrap();
        assert_eq!(two.high - two.left, Duration::from_secs(30));
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
