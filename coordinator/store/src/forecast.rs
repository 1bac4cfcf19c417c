//! How long the jobs of a sweep took so far.

use crate::{Store, StoreError};
use halfheard_shared::ids::SweepId;

/// The jobs of one kind, method, variant and dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkRow {
    /// Whether they are training jobs.
    pub trains: bool,
    /// The dataset's name.
    pub dataset: String,
    /// Unfinished jobs.
    pub open: i64,
    /// Completed jobs with a known duration.
    pub timed: f64,
    /// Seconds that workers were busy with those.
    pub busy: f64,
    /// The standard deviation of a job's duration as a share of the mean; `None` before two are timed.
    pub variation: Option<f64>,
}

impl Store {
    /// Open jobs and the time that completed ones took. Attempts of one worker at several evaluations
    /// overlap, so what counts is how long the worker was busy.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn work(&self, sweep: SweepId) -> Result<Vec<WorkRow>, StoreError> {
        Ok(sqlx::query_as!(
            WorkRow,
            r#"WITH done AS (
                   SELECT j.kind, j.method, j.variant, j.dataset, a.worker, a.seconds,
                          tstzrange(a.started, a.ended) AS span
                   FROM sweep_job w
                   JOIN job j ON j.id = w.job
                   JOIN attempt a ON a.job = j.id AND a.outcome = 'done'
                   WHERE w.sweep = $1 AND j.state = 'done' AND a.ended > a.started
               ), spread AS (
                   SELECT kind, method, variant, dataset,
                          stddev_samp(took) / nullif(avg(took), 0) AS variation
                   FROM (SELECT *, coalesce(seconds, extract(epoch FROM upper(span) - lower(span)))
                                       AS took FROM done) each
                   GROUP BY kind, method, variant, dataset
               ), busy AS (
                   -- A training job reports its own seconds, over all attempts.
                   SELECT kind, method, variant, dataset, count(*) AS timed,
                          sum(coalesce(seconds, extract(epoch FROM upper(span) - lower(span))))
                              AS busy
                   FROM done WHERE kind = 'train' GROUP BY kind, method, variant, dataset
                   UNION ALL
                   SELECT kind, method, variant, dataset, sum(timed),
                          sum((SELECT sum(extract(epoch FROM upper(s) - lower(s)))
                               FROM unnest(spans) s))
                   FROM (SELECT kind, method, variant, dataset, worker, count(*) AS timed,
                                range_agg(span) AS spans
                         FROM done WHERE kind <> 'train'
                         GROUP BY kind, method, variant, dataset, worker) w
                   GROUP BY kind, method, variant, dataset
               )
               SELECT j.kind = 'train' AS "trains!", j.dataset,
                      count(*) FILTER (
                          WHERE j.state IN ('blocked', 'ready', 'queued', 'running')) AS "open!",
                      coalesce(min(b.timed), 0)::float8 AS "timed!",
                      coalesce(min(b.busy), 0)::float8 AS "busy!",
                      min(s.variation)::float8 AS variation
               FROM sweep_job w
               JOIN job j ON j.id = w.job
               LEFT JOIN busy b
                 ON (b.kind, b.method, b.variant, b.dataset)
                    = (j.kind, j.method, j.variant, j.dataset)
               LEFT JOIN spread s
                 ON (s.kind, s.method, s.variant, s.dataset)
                    = (j.kind, j.method, j.variant, j.dataset)
               WHERE w.sweep = $1
               GROUP BY j.kind, j.method, j.variant, j.dataset"#,
            sweep.0
        )
        .fetch_all(self.pool())
        .await?)
    }
}
