//! Cancel, pause, resume and retry, as far as rows are concerned; `coord` does rows and broker together.
//!
//! Rows are locked in the order of their ids, as everywhere. A transaction that deadlocks all the same
//! is repeated.

use crate::{
    JobKind, JobState, Store, StoreError, SweepState, retry::retry_rollback, submit::JobCounts,
};
use halfheard_shared::ids::{JobId, SweepId};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

/// Which jobs to reopen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reopen {
    /// The cancelled ones.
    Cancelled,
    /// The failed ones.
    Failed,
    /// Both.
    Both,
    /// One failed job and, if it is a training job, the evaluations that failed with it.
    One(JobId),
}

/// A job as an operator sees it.
#[derive(Clone, Debug)]
pub struct JobRow {
    /// Primary key.
    pub id: JobId,
    /// Training, evaluation or no-op.
    pub kind: JobKind,
    /// Its state.
    pub state: JobState,
    /// The training job of an evaluation, and its state.
    pub train_job: Option<(JobId, JobState)>,
}

/// A locked row of a sweep: its state does not change until this is dropped.
#[derive(Debug)]
pub struct LockedSweep {
    /// What the operator wants.
    pub state: SweepState,
    tx: Transaction<'static, Postgres>,
}

impl LockedSweep {
    /// Releases the lock.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn release(self) -> Result<(), StoreError> {
        Ok(self.tx.commit().await?)
    }
}

impl Store {
    /// Cancels a sweep and, in the same transaction, its unfinished jobs. Returns their number.
    ///
    /// # Errors
    ///
    /// The database's, as for all methods here.
    pub async fn cancel(&self, sweep: SweepId) -> Result<u64, StoreError> {
        retry_rollback(|| self.cancel_once(sweep)).await
    }

    async fn cancel_once(&self, sweep: SweepId) -> Result<u64, StoreError> {
        let mut tx = self.pool().begin().await?;
        sqlx::query!(
            "UPDATE sweep SET state = 'cancelled', changed = now()
             WHERE id = $1 AND state <> 'cancelled'",
            sweep.0
        )
        .execute(&mut *tx)
        .await?;
        let cancelled = sqlx::query!(
            "WITH mine AS (
                 SELECT id FROM job
                 WHERE sweep = $1 AND state IN ('blocked', 'ready', 'queued', 'running')
                 ORDER BY id FOR NO KEY UPDATE
             )
             UPDATE job SET state = 'cancelled', finished = now()
             FROM mine WHERE job.id = mine.id",
            sweep.0
        )
        .execute(&mut *tx)
        .await?
        .rows_affected();
        tx.commit().await?;
        Ok(cancelled)
    }

    /// Pauses a running sweep or resumes a paused one. Returns whether that changed anything.
    pub async fn set_paused(&self, sweep: SweepId, paused: bool) -> Result<bool, StoreError> {
        let (before, after) = if paused {
            (SweepState::Running, SweepState::Paused)
        } else {
            (SweepState::Paused, SweepState::Running)
        };
        Ok(sqlx::query!(
            "UPDATE sweep SET state = $3, changed = now() WHERE id = $1 AND state = $2",
            sweep.0,
            before as SweepState,
            after as SweepState
        )
        .execute(self.pool())
        .await?
        .rows_affected()
            > 0)
    }

    /// Makes the queued jobs of a sweep ready again, after their messages were removed from the
    /// queues. Returns their number.
    pub async fn unqueue(&self, sweep: SweepId) -> Result<u64, StoreError> {
        retry_rollback(|| async {
            Ok(sqlx::query!(
                "WITH mine AS (
                     SELECT id FROM job WHERE sweep = $1 AND state = 'queued'
                     ORDER BY id FOR NO KEY UPDATE
                 )
                 UPDATE job SET state = 'ready', publications_before = job.publication - job.failures
                 FROM mine WHERE job.id = mine.id",
                sweep.0
            )
            .execute(self.pool())
            .await?
            .rows_affected())
        })
        .await
    }

    /// Reopens jobs of a sweep, and the sweep itself if it was cancelled. An evaluation whose model is
    /// not trained is blocked until it is.
    pub async fn reopen(&self, sweep: SweepId, which: Reopen) -> Result<JobCounts, StoreError> {
        retry_rollback(|| self.reopen_once(sweep, which)).await
    }

    async fn reopen_once(&self, sweep: SweepId, which: Reopen) -> Result<JobCounts, StoreError> {
        let cancelled = matches!(which, Reopen::Cancelled | Reopen::Both);
        let failed = !matches!(which, Reopen::Cancelled);
        let one = match which {
            Reopen::One(job) => Some(job.0),
            _ => None,
        };
        let mut tx = self.pool().begin().await?;
        if cancelled {
            sqlx::query!(
                "UPDATE sweep SET state = 'running', changed = now()
                 WHERE id = $1 AND state = 'cancelled'",
                sweep.0
            )
            .execute(&mut *tx)
            .await?;
        }
        // A cancelled job may have been published without being marked queued: the broker would drop
        // a message with the same publication number as a duplicate.
        let reopened = sqlx::query_as!(
            JobCounts,
            r#"WITH mine AS (
                   SELECT j.id FROM job j
                   WHERE j.sweep = $1
                     AND (($2 AND j.state = 'cancelled') OR ($3 AND j.state = 'failed'))
                     AND ($4::uuid IS NULL OR j.id = $4 OR j.train_job = $4)
                   ORDER BY j.id FOR NO KEY UPDATE
               ), changed AS (
                   UPDATE job SET
                       state = CASE WHEN t.id IS NULL OR t.state = 'done'
                                    THEN 'ready'::job_state ELSE 'blocked' END,
                       publication = j.publication
                           + CASE WHEN j.state = 'cancelled'
                                   AND (t.id IS NULL OR t.state = 'done') THEN 1 ELSE 0 END,
                       publications_before = j.publication
                           + CASE WHEN j.state = 'cancelled'
                                   AND (t.id IS NULL OR t.state = 'done') THEN 1 ELSE 0 END,
                       failures = 0, not_before = '-infinity', finished = NULL, last_error = NULL
                   FROM mine JOIN job j ON j.id = mine.id LEFT JOIN job t ON t.id = j.train_job
                   WHERE job.id = mine.id
                   RETURNING job.kind
               )
               SELECT count(*) FILTER (WHERE kind = 'train') AS "train!",
                      count(*) FILTER (WHERE kind = 'eval') AS "eval!",
                      count(*) FILTER (WHERE kind = 'noop') AS "noop!"
               FROM changed"#,
            sweep.0,
            cancelled,
            failed,
            one
        )
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(reopened)
    }

    /// Changes a sweep's priority; returns the previous one if it was different.
    pub async fn set_priority(
        &self,
        sweep: SweepId,
        priority: i32,
    ) -> Result<Option<i32>, StoreError> {
        Ok(sqlx::query_scalar!(
            "UPDATE sweep SET priority = $2
             FROM (SELECT id, priority FROM sweep WHERE id = $1 FOR NO KEY UPDATE) before
             WHERE sweep.id = before.id AND before.priority <> $2
             RETURNING before.priority",
            sweep.0,
            priority
        )
        .fetch_optional(self.pool())
        .await?)
    }

    /// Up to two jobs of a sweep whose ids begin with these hexadecimal digits.
    pub async fn jobs_by_prefix(
        &self,
        sweep: SweepId,
        digits: &str,
    ) -> Result<Vec<JobRow>, StoreError> {
        Ok(sqlx::query!(
            r#"SELECT j.id, j.kind AS "kind: JobKind", j.state AS "state: JobState",
                      j.train_job, t.state AS "train_state?: JobState"
               FROM job j LEFT JOIN job t ON t.id = j.train_job
               WHERE j.sweep = $1 AND starts_with(replace(j.id::text, '-', ''), $2)
               ORDER BY j.id LIMIT 2"#,
            sweep.0,
            digits
        )
        .fetch_all(self.pool())
        .await?
        .into_iter()
        .map(|row| JobRow {
            id: JobId(row.id),
            kind: row.kind,
            state: row.state,
            train_job: row.train_job.map(JobId).zip(row.train_state),
        })
        .collect())
    }

    /// The sweeps that are paused or cancelled.
    pub async fn paused_or_cancelled(&self) -> Result<Vec<(SweepId, SweepState)>, StoreError> {
        Ok(sqlx::query!(
            r#"SELECT id, state AS "state: SweepState" FROM sweep WHERE state <> 'running'"#
        )
        .fetch_all(self.pool())
        .await?
        .into_iter()
        .map(|row| (SweepId(row.id), row.state))
        .collect())
    }

    /// Locks a sweep's row, to publish its state elsewhere meanwhile; `None` if it does not exist.
    pub async fn lock_sweep(&self, sweep: SweepId) -> Result<Option<LockedSweep>, StoreError> {
        let mut tx = self.pool().begin().await?;
        let state = sqlx::query_scalar!(
            r#"SELECT state AS "state: SweepState" FROM sweep WHERE id = $1 FOR NO KEY UPDATE"#,
            sweep.0
        )
        .fetch_optional(&mut *tx)
        .await?;
        Ok(state.map(|state| LockedSweep { state, tx }))
    }

    /// How many dead letters and conflicts there are, over all sweeps.
    pub async fn set_aside(&self) -> Result<SetAside, StoreError> {
        Ok(sqlx::query_as!(
            SetAside,
            r#"SELECT (SELECT count(*) FROM dead_letter) AS "dead_letters!",
                      (SELECT count(*) FROM conflict) AS "conflicts!""#
        )
        .fetch_one(self.pool())
        .await?)
    }
}

/// What was kept but is not used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SetAside {
    /// Messages that could not be stored: table `dead_letter`.
    pub dead_letters: i64,
    /// Results that differ from the first one: table `conflict`.
    pub conflicts: i64,
}

impl SetAside {
    /// One line, or `None` if there is nothing.
    pub fn describe(&self) -> Option<String> {
        if *self == Self::default() {
            return None;
        }
        let plural = |count: i64, one: &str| match count {
            1 => format!("1 {one}"),
            n => format!("{n} {one}s"),
        };
        Some(format!(
            "set aside: {} (table dead_letter), {} (table conflict; `coord audit SWEEP`)",
            plural(self.dead_letters, "message"),
            plural(self.conflicts, "differing result")
        ))
    }
}

/// The digits of an id or its beginning, for [`Store::jobs_by_prefix`]; `None` if `text` is not one.
pub fn id_digits(text: &str) -> Option<String> {
    let digits = text.replace('-', "").to_lowercase();
    let complete = Uuid::parse_str(text).is_ok();
    let prefix =
        (4..=32).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (complete || prefix).then_some(digits)
}
