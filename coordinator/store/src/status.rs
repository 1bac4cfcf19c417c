//! What `coord status`, `plan`, `compare` and `doctor` show: counts, states and models of a sweep.

use crate::{JobState, Store, StoreError, sweeps::Progress};
use futures::TryStreamExt as _;
use halfheard_shared::ids::{JobId, SweepId};
use std::collections::HashMap;
use uuid::Uuid;

/// The most models of a sweep that are all listed.
pub const LISTED: i64 = 500;

/// Jobs that are asked for at once.
const ASKED: usize = 10_000;

/// A sweep's jobs by state, and how many of each kind are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepProgress {
    /// Jobs by state.
    pub progress: Progress,
    /// Training jobs.
    pub train_jobs: i64,
    /// Training jobs that are done.
    pub train_done: i64,
    /// Evaluation jobs.
    pub eval_jobs: i64,
    /// Evaluation jobs that are done.
    pub eval_done: i64,
    /// Whether nothing of it is left to do: no job is open, or it was cancelled.
    pub finished: bool,
}

/// A job that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownJob {
    /// Its state.
    pub state: JobState,
    /// The sweep that it is scheduled under.
    pub sweep: Option<SweepId>,
}

/// A training job with the evaluations of its model.
#[derive(Clone, Debug)]
pub struct ModelStatus {
    /// The method's id.
    pub method: String,
    /// The variant's id; empty for the method itself.
    pub variant: String,
    /// The dataset's name.
    pub dataset: String,
    /// Training seed.
    pub seed: i64,
    /// State of the training job.
    pub state: JobState,
    /// The last epoch that was logged.
    pub epoch: Option<i32>,
    /// Mean training loss of that epoch.
    pub loss: Option<f64>,
    /// The worker of the latest attempt.
    pub worker: Option<String>,
    /// Evaluations that are done.
    pub completed: i64,
    /// All evaluations.
    pub expected: i64,
}

impl Store {
    /// A sweep's jobs by state and kind.
    ///
    /// # Errors
    ///
    /// The database's, as for all methods here.
    pub async fn sweep_progress(&self, sweep: SweepId) -> Result<SweepProgress, StoreError> {
        let row = sqlx::query!(
            r#"SELECT blocked AS "blocked!", ready AS "ready!", queued AS "queued!",
                      running AS "running!", done AS "done!", failed AS "failed!",
                      cancelled AS "cancelled!", train_done AS "train_done!",
                      train_jobs AS "train_jobs!", eval_done AS "eval_done!",
                      eval_jobs AS "eval_jobs!", finished AS "finished!"
               FROM sweep_progress WHERE sweep = $1"#,
            sweep.0
        )
        .fetch_one(self.pool())
        .await?;
        Ok(SweepProgress {
            progress: Progress {
                blocked: row.blocked,
                ready: row.ready,
                queued: row.queued,
                running: row.running,
                done: row.done,
                failed: row.failed,
                cancelled: row.cancelled,
            },
            train_jobs: row.train_jobs,
            train_done: row.train_done,
            eval_jobs: row.eval_jobs,
            eval_done: row.eval_done,
            finished: row.finished,
        })
    }

    /// The models of a sweep, by dataset, method, variant and seed. Of a sweep with more than [`LISTED`] only those
    /// whose training jobs failed or workers have, at most so many.
    pub async fn models(&self, sweep: SweepId) -> Result<Vec<ModelStatus>, StoreError> {
        Ok(sqlx::query_as!(
            ModelStatus,
            r#"WITH listed AS MATERIALIZED (
                   SELECT w.job FROM sweep_job w JOIN job j ON j.id = w.job
                   WHERE w.sweep = $1 AND j.kind = 'train'
                     AND (SELECT train_jobs FROM sweep WHERE id = $1) <= $2
                   UNION ALL
                   (SELECT id FROM job
                    WHERE sweep = $1 AND kind = 'train' AND state IN ('failed', 'queued', 'running')
                      AND (SELECT train_jobs FROM sweep WHERE id = $1) > $2
                    ORDER BY position LIMIT $2)
               )
               SELECT t.method AS "method!", t.variant AS "variant!", t.dataset AS "dataset!",
                      t.seed AS "seed!", t.state AS "state!: JobState", t.epoch AS "epoch?",
                      t.loss AS "loss?", t.worker AS "worker?", e.completed AS "completed!",
                      e.expected AS "expected!"
               FROM listed l
               -- OFFSET 0: these few one after the other, rather than all jobs of the sweep beside them.
               CROSS JOIN LATERAL (
                   SELECT * FROM job_status WHERE job = l.job AND sweep = $1 OFFSET 0
               ) t
               CROSS JOIN LATERAL (
                   SELECT count(*) AS expected,
                          count(*) FILTER (WHERE j.state = 'done') AS completed
                   FROM job j
                   WHERE j.train_job = l.job
                     -- Its own, or shared with the sweep under which it is scheduled.
                     AND (j.sweep = $1
                          OR EXISTS (SELECT FROM sweep_job w WHERE w.job = j.id AND w.sweep = $1))
               ) e
               ORDER BY t.dataset, t.method, t.variant, t.seed"#,
            sweep.0,
            LISTED
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// The states of those of `jobs` that exist, and the sweep that each is scheduled under.
    pub async fn job_states(
        &self,
        jobs: impl IntoIterator<Item = JobId>,
    ) -> Result<HashMap<JobId, KnownJob>, StoreError> {
        let mut known = HashMap::new();
        let mut jobs = jobs.into_iter().map(|job| job.0);
        loop {
            // There may be millions.
            let some: Vec<Uuid> = jobs.by_ref().take(ASKED).collect();
            if some.is_empty() {
                return Ok(known);
            }
            let mut rows = sqlx::query!(
                r#"SELECT id, sweep, state AS "state: JobState" FROM job WHERE id = ANY($1)"#,
                &some
            )
            .fetch(self.pool());
            while let Some(row) = rows.try_next().await? {
                let job = KnownJob {
                    state: row.state,
                    sweep: row.sweep.map(SweepId),
                };
                known.insert(JobId(row.id), job);
            }
        }
    }

    /// Whether a sweep was submitted.
    pub async fn is_submitted(&self, sweep: SweepId) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM sweep WHERE id = $1) AS "exists!""#,
            sweep.0
        )
        .fetch_one(self.pool())
        .await?)
    }

    /// The models of a sweep with a completed evaluation, as `METHOD` or `METHOD/VARIANT`.
    pub async fn evaluated_models(&self, sweep: SweepId) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT method || CASE variant WHEN '' THEN '' ELSE '/' || variant END AS "model!"
               FROM tally WHERE sweep = $1 AND kind = 'eval' AND state = 'done'
               GROUP BY 1 HAVING sum(jobs) > 0 ORDER BY 1"#,
            sweep.0
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// The server's version, `17.2`.
    pub async fn server_version(&self) -> Result<String, StoreError> {
        Ok(
            sqlx::query_scalar!(r#"SELECT current_setting('server_version') AS "version!""#)
                .fetch_one(self.pool())
                .await?,
        )
    }
}
