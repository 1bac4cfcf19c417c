//! What failed in a sweep, grouped by the chain of errors.

use crate::{Store, StoreError, trainings::AskingSweep};
use halfheard_shared::ids::SweepId;
use uuid::Uuid;

/// Jobs that failed with the same chain of errors.
#[derive(Clone, Debug)]
pub struct FailureRow {
    /// Whether the jobs have failed for good; otherwise they will be retried.
    pub given_up: bool,
    /// `permanent`, `retryable`, …; empty if there was no attempt.
    pub failure_kind: String,
    /// The error and its causes, outermost first.
    pub errors: Vec<String>,
    /// How many jobs.
    pub jobs: i64,
    /// How many failed attempts.
    pub attempts: i64,
    /// Evaluations that failed only because their training job did.
    pub evaluations_not_begun: i64,
    /// The first jobs: `train lnln on mosi, seed 1111`.
    pub examples: Vec<String>,
    /// The ids of these jobs.
    pub example_jobs: Vec<Uuid>,
    /// Up to 16 workers that reported it.
    pub workers: Vec<String>,
}

impl Store {
    /// What failed in a sweep, with up to `examples` jobs per chain of errors: first what was given up,
    /// then by number of jobs.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn failures(
        &self,
        sweep: SweepId,
        examples: i32,
    ) -> Result<Vec<FailureRow>, StoreError> {
        // The last failed attempt counts for its job. An evaluation that failed without an attempt of
        // its own failed with its training job and is counted there.
        Ok(sqlx::query_as!(
            FailureRow,
            r#"WITH troubled AS MATERIALIZED (
                   -- The condition is that of the index.
                   SELECT j.* FROM job j JOIN sweep_job w ON w.job = j.id AND w.sweep = $1
                   WHERE j.state = 'failed' OR j.failures > 0
               ), last AS (
                   SELECT DISTINCT ON (a.job) a.job, a.worker, a.failure_kind, a.errors
                   FROM troubled j
                   JOIN attempt a ON a.job = j.id
                   WHERE j.state NOT IN ('done', 'cancelled')
                     AND (a.outcome = 'failed' OR a.failure_kind = 'crashed')
                   ORDER BY a.job, a.ended DESC NULLS LAST, a.id
               ), stuck AS (
                   SELECT j.id, j.kind::text AS work, j.method, j.variant, j.dataset, j.seed,
                          j.case_id, j.state = 'failed' AS given_up,
                          greatest(j.failures, 1)::bigint AS attempts,
                          l.worker, coalesce(l.failure_kind, '') AS failure_kind,
                          coalesce(l.errors, ARRAY[coalesce(j.last_error, 'unknown reason')])
                              AS errors,
                          (SELECT count(*) FROM job e JOIN sweep_job v ON v.job = e.id
                           WHERE v.sweep = $1 AND e.train_job = j.id AND e.state = 'failed' AND j.state = 'failed'
                             AND NOT EXISTS (SELECT FROM last WHERE last.job = e.id)) AS behind
                   FROM troubled j
                   LEFT JOIN last l ON l.job = j.id
                   LEFT JOIN job t ON t.id = j.train_job
                   WHERE (j.state = 'failed' OR l.job IS NOT NULL)
                     AND NOT (l.job IS NULL AND j.state = 'failed'
                              AND coalesce(t.state = 'failed', false))
               )
               SELECT given_up AS "given_up!", failure_kind AS "failure_kind!",
                      errors AS "errors!", count(*) AS "jobs!",
                      sum(attempts)::bigint AS "attempts!",
                      sum(behind)::bigint AS "evaluations_not_begun!",
                      (array_agg(concat_ws(' ', work, method || CASE WHEN variant = '' THEN ''
                                           ELSE '/' || variant END, 'on',
                                           dataset || ', seed', seed)
                                 || coalesce(', ' || case_id, '')
                                 ORDER BY dataset, method, variant, seed, case_id)
                      )[1:$2] AS "examples!",
                      (array_agg(id ORDER BY dataset, method, variant, seed, case_id)
                      )[1:$2] AS "example_jobs!",
                      array_remove((array_agg(DISTINCT worker))[1:16], NULL) AS "workers!"
               FROM stuck GROUP BY given_up, failure_kind, errors
               ORDER BY given_up DESC, count(*) DESC, errors"#,
            sweep.0,
            examples
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// The sweeps in which something failed that is not yet done, newest first.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn sweeps_with_failures(&self) -> Result<Vec<AskingSweep>, StoreError> {
        let rows = sqlx::query!(
            "SELECT id, name FROM sweep WHERE id IN (
                 SELECT w.sweep FROM job j JOIN sweep_job w ON w.job = j.id
                 -- The condition is that of the index.
                 WHERE (j.state = 'failed' OR j.failures > 0) AND j.state NOT IN ('done', 'cancelled'))
             ORDER BY created DESC, id"
        )
        .fetch_all(self.pool())
        .await?;
        let rows = rows.into_iter().map(|row| AskingSweep {
            sweep: SweepId(row.id),
            name: row.name,
        });
        Ok(rows.collect())
    }
}
