//! How attempts of each worker ended lately, and what workers declined.

use crate::{Store, StoreError};
use halfheard_shared::ids::{JobId, SweepId};
use std::{collections::HashMap, time::Duration};

/// How attempts of one worker ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerTally {
    /// With a result.
    pub done: i64,
    /// With an error of the job's own.
    pub failed: i64,
    /// Otherwise: handed back, lost, stalled or revoked.
    pub other: i64,
}

/// Attempts that one worker declined for one fault of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclinedRow {
    /// The worker.
    pub worker: String,
    /// Its machine.
    pub host: String,
    /// What it lacked: `store`, `data_folder`, `dataset`, `encoder`, `checkpoint`, `method`, `device`.
    pub fault: String,
    /// How many attempts.
    pub attempts: i64,
    /// One of the jobs.
    pub job: JobId,
    /// The last error and its causes, outermost first.
    pub errors: Vec<String>,
    /// When it was last.
    pub last: Option<chrono::DateTime<chrono::Utc>>,
}

impl Store {
    /// How attempts ended within `time` before now, by worker.
    ///
    /// # Errors
    ///
    /// The database's, as for all methods here.
    pub async fn worker_tallies(
        &self,
        time: Duration,
    ) -> Result<HashMap<String, WorkerTally>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT worker, count(*) FILTER (WHERE outcome = 'done') AS "done!",
                      count(*) FILTER (WHERE outcome = 'failed') AS "failed!",
                      count(*) FILTER (WHERE outcome NOT IN ('done', 'failed')) AS "other!"
               FROM attempt WHERE ended > now() - make_interval(secs => $1) GROUP BY worker"#,
            time.as_secs_f64()
        )
        .fetch_all(self.pool())
        .await?;
        let rows = rows.into_iter().map(|row| {
            let tally = WorkerTally {
                done: row.done,
                failed: row.failed,
                other: row.other,
            };
            (row.worker, tally)
        });
        Ok(rows.collect())
    }

    /// What workers declined of the unfinished jobs of a sweep, or of all; the most frequent first, at
    /// most `limit` rows.
    pub async fn declined(
        &self,
        sweep: Option<SweepId>,
        limit: u32,
    ) -> Result<Vec<DeclinedRow>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT a.worker, min(a.host) AS "host!", a.failure_kind AS "fault!",
                      count(*) AS "attempts!",
                      (array_agg(j.id ORDER BY a.ended DESC))[1] AS "job!",
                      (array_agg(to_jsonb(a.errors) ORDER BY a.ended DESC))[1]
                          AS "errors!: sqlx::types::Json<Vec<String>>",
                      max(a.ended) AS last
               FROM attempt a JOIN job j ON j.id = a.job
               WHERE a.outcome = 'handed_back' AND a.failure_kind IS NOT NULL
                 AND j.state NOT IN ('done', 'cancelled')
                 AND ($1::uuid IS NULL OR EXISTS (SELECT FROM sweep_job w
                                                  WHERE w.job = j.id AND w.sweep = $1))
               GROUP BY a.worker, a.failure_kind
               ORDER BY count(*) DESC, a.worker, a.failure_kind LIMIT $2"#,
            sweep.map(|sweep| sweep.0),
            i64::from(limit)
        )
        .fetch_all(self.pool())
        .await?;
        let rows = rows.into_iter().map(|row| DeclinedRow {
            worker: row.worker,
            host: row.host,
            fault: row.fault,
            attempts: row.attempts,
            job: JobId(row.job),
            errors: row.errors.0,
            last: row.last,
        });
        Ok(rows.collect())
    }
}
