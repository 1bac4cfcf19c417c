//! Sweeps and their progress.

use crate::{
    JobCounts, Store, StoreError, SweepState,
    store::label,
    terms::{Retention, SweepTerms},
};
use chrono::{DateTime, Utc};
use halfheard_shared::ids::SweepId;

/// A sweep.
#[derive(Clone, Debug)]
pub struct SweepRow {
    /// Primary key.
    pub id: SweepId,
    /// The name in its spec.
    pub name: String,
    /// What the operator wants.
    pub state: SweepState,
    /// Why the coordinator paused it by itself.
    pub stopped_because: Option<String>,
    /// Owner, priority and the like.
    pub terms: SweepTerms,
    /// When it was submitted.
    pub created: DateTime<Utc>,
    /// Jobs by kind.
    pub jobs: JobCounts,
}

/// A sweep's jobs by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// Waiting for their training job.
    pub blocked: i64,
    /// Waiting for a worker.
    pub ready: i64,
    /// A worker has them and has not begun.
    pub queued: i64,
    /// In progress on a worker.
    pub running: i64,
    /// Completed.
    pub done: i64,
    /// Given up.
    pub failed: i64,
    /// Cancelled.
    pub cancelled: i64,
}

impl Progress {
    /// Unfinished jobs.
    pub fn open(&self) -> i64 {
        self.blocked + self.ready + self.queued + self.running
    }

    /// All jobs.
    pub fn total(&self) -> i64 {
        self.open() + self.done + self.failed + self.cancelled
    }
}

impl Store {
    /// All sweeps, newest first.
    ///
    /// # Errors
    ///
    /// The database's, as for all methods here.
    pub async fn sweeps(&self) -> Result<Vec<SweepRow>, StoreError> {
        Ok(sqlx::query!(
            r#"SELECT id, name, state AS "state: SweepState", stopped_because, owner, priority,
                      weight, max_running, max_failures, retention AS "retention: Retention",
                      created, train_jobs, eval_jobs, noop_jobs
               FROM sweep ORDER BY created DESC, id"#
        )
        .fetch_all(self.pool())
        .await?
        .into_iter()
        .map(|row| SweepRow {
            id: SweepId(row.id),
            name: row.name,
            state: row.state,
            stopped_because: row.stopped_because,
            terms: SweepTerms {
                owner: row.owner,
                priority: row.priority,
                weight: row.weight,
                max_running: row.max_running,
                max_failures: row.max_failures,
                retention: row.retention,
            },
            created: row.created,
            jobs: JobCounts {
                train: row.train_jobs,
                eval: row.eval_jobs,
                noop: row.noop_jobs,
            },
        })
        .collect())
    }

    /// The sweep that `text` names: by its name, its id, or the first four or more digits of its id.
    pub async fn find_sweep(&self, text: &str) -> Result<SweepRow, StoreError> {
        let digits = text.replace('-', "").to_lowercase();
        let by_id = digits.len() >= 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let mut found: Vec<SweepRow> = self
            .sweeps()
            .await?
            .into_iter()
            .filter(|sweep| {
                sweep.name == text
                    || (by_id && sweep.id.0.simple().to_string().starts_with(&digits))
            })
            .collect();
        match found.len() {
            0 => Err(StoreError::NoSweep(text.to_owned())),
            1 => Ok(found.swap_remove(0)),
            count => {
                let some: Vec<String> = found
                    .iter()
                    .take(4)
                    .map(|sweep| label(&sweep.name, sweep.id))
                    .collect();
                Err(StoreError::AmbiguousSweep {
                    text: text.to_owned(),
                    count,
                    some: some.join(", "),
                })
            }
        }
    }

    /// A sweep's jobs by state.
    pub async fn progress(&self, sweep: SweepId) -> Result<Progress, StoreError> {
        Ok(sqlx::query_as!(
            Progress,
            r#"SELECT blocked AS "blocked!", ready AS "ready!", queued AS "queued!", running AS "running!",
                      done AS "done!", failed AS "failed!", cancelled AS "cancelled!"
               FROM sweep_progress WHERE sweep = $1"#,
            sweep.0
        )
        .fetch_optional(self.pool())
        .await?
        .unwrap_or_default())
    }

    /// Whether any running sweep has unfinished jobs.
    pub async fn has_open_jobs(&self) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT EXISTS (
                   SELECT FROM sweep s JOIN tally t ON t.sweep = s.id
                   WHERE s.state = 'running' AND t.state IN ('blocked', 'ready', 'queued', 'running')
                   GROUP BY s.id HAVING sum(t.jobs) > 0
               ) AS "open!""#
        )
        .fetch_one(self.pool())
        .await?)
    }

    /// Whether any sweep that is not cancelled has failed jobs.
    pub async fn has_failed_jobs(&self) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT EXISTS (
                   SELECT FROM sweep s JOIN tally t ON t.sweep = s.id
                   WHERE s.state <> 'cancelled' AND t.state = 'failed'
                   GROUP BY s.id HAVING sum(t.jobs) > 0
               ) AS "failed!""#
        )
        .fetch_one(self.pool())
        .await?)
    }
}
