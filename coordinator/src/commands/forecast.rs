//! How long a sweep will still take, from how long its own jobs took so far.
//!
//! An evaluation shares its bundle with others of its model, so that attempts of one worker overlap:
//! what counts is how long a worker was busy, divided by the jobs that came of it.

use crate::commands::progress::Snapshot;
use halfheard_shared::ids::SweepId;
use halfheard_store::Store;
use sqlx::Row as _;
use std::time::{Duration, Instant};

/// What an evaluation costs in trainings of its dataset, while none has been timed.
pub(crate) const EVAL_COST: f64 = 1.0 / 64.0;
/// How often the database is asked anew.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// Jobs of one kind, method and dataset.
#[derive(Clone, Debug, PartialEq)]
struct Work {
    trains: bool,
    dataset: String,
    /// Jobs that are still to be done.
    open: f64,
    /// Jobs whose time is known.
    timed: f64,
    /// Seconds that workers were busy with them.
    busy: f64,
}

/// What each open job still costs, summed up, in seconds of one worker; `None` while nothing of a
/// kind that is still to be done has been timed.
fn seconds_of_work(all: &[Work]) -> Option<f64> {
    // The same dataset's other methods are the next best guess, then anything of the kind.
    let mean = |of: &dyn Fn(&&Work) -> bool| {
        let (busy, timed) = all
            .iter()
            .filter(of)
            .fold((0.0, 0.0), |(busy, timed), work| {
                (busy + work.busy, timed + work.timed)
            });
        (timed > 0.0).then_some(busy / timed)
    };
    let mut total = 0.0;
    for work in all.iter().filter(|work| work.open > 0.0) {
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
        total += work.open * each;
    }
    Some(total)
}

/// Asks the database now and then, and counts down in between.
#[derive(Debug)]
pub struct Forecast {
    sweep: SweepId,
    last: Option<(Instant, Option<Duration>)>,
}

impl Forecast {
    /// A forecast of `sweep`.
    pub fn new(sweep: SweepId) -> Self {
        Self { sweep, last: None }
    }

    /// The time left, once there is something to tell it by. A database that does not answer leaves
    /// it unknown: a forecast is not worth an error.
    pub async fn left(&mut self, store: &Store, snapshot: &Snapshot) -> Option<Duration> {
        if let Some((asked, left)) = self.last
            && asked.elapsed() < ASK_EVERY
        {
            return left.map(|left| left.saturating_sub(asked.elapsed()));
        }
        let left = match left(store, snapshot, self.sweep).await {
            Ok(left) => left,
            Err(error) => {
                tracing::debug!(%error, "no forecast");
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
) -> Result<Option<Duration>, sqlx::Error> {
    if snapshot.progress.open() == 0 || snapshot.workers.is_empty() {
        return Ok(None);
    }
    let rows = sqlx::query(
        "WITH done AS (
             SELECT j.kind, j.method, j.variant, j.dataset, a.worker, a.seconds,
                    tstzrange(a.started, a.ended) AS span
             FROM job j JOIN attempt a ON a.job = j.id AND a.outcome = 'done'
             WHERE j.sweep = $1 AND j.state = 'done' AND a.ended > a.started
         ), busy AS (
             -- A training tells its own seconds, over all attempts.
             SELECT kind, method, variant, dataset, count(*) AS timed,
                    sum(coalesce(seconds, extract(epoch FROM upper(span) - lower(span)))) AS busy
             FROM done WHERE kind = 'train' GROUP BY kind, method, variant, dataset
             UNION ALL
             SELECT kind, method, variant, dataset, sum(timed),
                    sum((SELECT sum(extract(epoch FROM upper(s) - lower(s))) FROM unnest(spans) s))
             FROM (SELECT kind, method, variant, dataset, worker, count(*) AS timed,
                          range_agg(span) AS spans
                   FROM done WHERE kind <> 'train'
                   GROUP BY kind, method, variant, dataset, worker) w
             GROUP BY kind, method, variant, dataset
         )
         SELECT j.kind = 'train' AS trains, j.dataset,
                count(*) FILTER (WHERE j.state IN ('blocked', 'ready', 'queued', 'running')) AS open,
                coalesce(min(b.timed), 0)::float8 AS timed, coalesce(min(b.busy), 0)::float8 AS busy
         FROM job j LEFT JOIN busy b
           ON (b.kind, b.method, b.variant, b.dataset) = (j.kind, j.method, j.variant, j.dataset)
         WHERE j.sweep = $1
         GROUP BY j.kind, j.method, j.variant, j.dataset",
    )
    .bind(sweep.0)
    .fetch_all(store.pool())
    .await?;
    let mut all = Vec::new();
    for row in rows {
        all.push(Work {
            trains: row.try_get("trains")?,
            dataset: row.try_get("dataset")?,
            open: row.try_get::<i64, _>("open")? as f64,
            timed: row.try_get("timed")?,
            busy: row.try_get("busy")?,
        });
    }
    let open: f64 = all.iter().map(|work| work.open).sum();
    let Some(seconds) = seconds_of_work(&all) else {
        return Ok(None);
    };
    // What workers have done of the jobs in hand is behind them.
    let trains: f64 = all.iter().filter(|w| w.trains).map(|w| w.open).sum();
    let training = all.iter().filter(|w| w.trains && w.open > 0.0).cloned();
    let each = seconds_of_work(&training.collect::<Vec<_>>()).unwrap_or(0.0) / trains.max(1.0);
    let seconds = (seconds - snapshot.in_hand(sweep) * each).max(0.0);
    // More workers than jobs do not help.
    let workers = (snapshot.workers.len() as f64).min(open).max(1.0);
    Ok(Duration::try_from_secs_f64(seconds / workers).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(trains: bool, dataset: &str, open: f64, timed: f64, busy: f64) -> Work {
        Work {
            trains,
            dataset: dataset.to_owned(),
            open,
            timed,
            busy,
        }
    }

    #[test]
    fn jobs_cost_what_their_like_cost() {
        let all = [
            work(true, "mosi", 2.0, 1.0, 100.0),
            work(false, "mosi", 16.0, 32.0, 64.0),
        ];
        assert_eq!(seconds_of_work(&all), Some(232.0));
        // Another method of the dataset rather than another dataset.
        let all = [
            work(true, "mosi", 0.0, 2.0, 200.0),
            work(true, "mosei", 0.0, 1.0, 900.0),
            work(true, "mosi", 1.0, 0.0, 0.0),
        ];
        assert_eq!(seconds_of_work(&all), Some(100.0));
        // Nothing evaluated yet: a guess by the trainings. Nothing trained yet: not known.
        let all = [
            work(true, "mosi", 1.0, 1.0, 128.0),
            work(false, "mosi", 16.0, 0.0, 0.0),
        ];
        assert_eq!(seconds_of_work(&all), Some(160.0));
        let all = [
            work(true, "mosi", 1.0, 0.0, 0.0),
            work(false, "mosi", 16.0, 16.0, 4.0),
        ];
        assert_eq!(seconds_of_work(&all), None);
    }
}
