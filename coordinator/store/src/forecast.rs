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

/// So many jobs of a sweep that were done last say how long its jobs take.
const LATEST: i64 = 4096;

impl Store {
    /// Open jobs and the time that completed ones took: of a sweep with more than [`LATEST`] of them, those that were
    /// done last. Attempts of one worker at several evaluations overlap, so what counts is how long the worker was
    /// busy.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn work(&self, sweep: SweepId) -> Result<Vec<WorkRow>, StoreError> {
        Ok(sqlx::query_as!(
            WorkRow,
            r#"WITH latest AS (
                   (SELECT id, kind, method, variant, dataset FROM job
                    WHERE sweep = $1 AND state = 'done' ORDER BY finished DESC LIMIT $2)
                   UNION ALL
                   -- What it shares is scheduled under other sweeps.
                   (SELECT j.id, j.kind, j.method, j.variant, j.dataset
                    FROM sweep_job w JOIN job j ON j.id = w.job
                    WHERE w.sweep = $1 AND j.sweep <> $1 AND j.state = 'done'
                      AND (SELECT train_jobs + eval_jobs + noop_jobs FROM sweep WHERE id = $1) <= $2)
               ), done AS (
                   SELECT l.*, a.worker, a.seconds, tstzrange(a.started, a.ended) AS span
                   FROM latest l
                   -- OFFSET 0: attempts of these few, rather than all of them beside each other.
                   CROSS JOIN LATERAL (
                       SELECT * FROM attempt
                       WHERE job = l.id AND outcome = 'done' AND ended > started OFFSET 0
                   ) a
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
                      coalesce(sum(j.jobs) FILTER (
                          WHERE j.state IN ('blocked', 'ready', 'queued', 'running')), 0)::bigint
                          AS "open!",
                      coalesce(min(b.timed), 0)::float8 AS "timed!",
                      coalesce(min(b.busy), 0)::float8 AS "busy!",
                      min(s.variation)::float8 AS variation
               FROM tally j
               LEFT JOIN busy b
                 ON (b.kind, b.method, b.variant, b.dataset)
                    = (j.kind, j.method, j.variant, j.dataset)
               LEFT JOIN spread s
                 ON (s.kind, s.method, s.variant, s.dataset)
                    = (j.kind, j.method, j.variant, j.dataset)
               WHERE j.sweep = $1
               GROUP BY j.kind, j.method, j.variant, j.dataset"#,
            sweep.0,
            LATEST
        )
        .fetch_all(self.pool())
        .await?)
    }
}
