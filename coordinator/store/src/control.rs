//! Cancelling, pausing, resuming and retrying: the rows' part. [`halfheard_coordinator::orchestrator::control`] does rows and
//! broker together.
//!
//! Rows are locked in the order of their ids, as everywhere. Where two transactions meet all the
//! same, the one that has to give way is repeated.

use super::{JobKind, JobState, Store, StoreError, SweepState, fault::again};
use halfheard_shared::ids::{JobId, SweepId};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

/// Which jobs are to be set going again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Those that were cancelled.
    Cancelled,
    /// Those that were given up.
    Failed,
    /// Both.
    Both,
    /// One that was given up and, where it is a training, the evaluations that failed with it.
    One(JobId),
}

/// Jobs that go again, or whose training does so first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Reopened {
    /// Trainings.
    pub trainings: i64,
    /// Evaluations.
    pub evaluations: i64,
    /// No-op jobs.
    pub noops: i64,
}

impl Reopened {
    /// All of them.
    pub fn total(&self) -> i64 {
        self.trainings + self.evaluations + self.noops
    }
}

/// A job as an operator looks at it.
#[derive(Clone, Debug)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// What kind it is.
    pub kind: JobKind,
    /// Where it stands.
    pub state: JobState,
    /// The training of an evaluation, and where that stands.
    pub training: Option<(JobId, JobState)>,
}

/// A sweep's row, held: what is wanted of it does not change until this is dropped.
#[derive(Debug)]
pub struct HeldSweep {
    /// What is wanted of it.
    pub state: SweepState,
    tx: Transaction<'static, Postgres>,
}

impl HeldSweep {
    /// Lets go.
    pub async fn release(self) -> Result<(), StoreError> {
        Ok(self.tx.commit().await?)
    }
}

impl Store {
    /// Cancels a sweep: its unfinished jobs too, in the same transaction. Returns how many there
    /// were.
    pub async fn cancel(&self, sweep: SweepId) -> Result<u64, StoreError> {
        again(|| self.cancel_once(sweep)).await
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

    /// Pauses a running sweep, or lets a paused one go on. Returns whether that changed anything.
    pub async fn pause(&self, sweep: SweepId, paused: bool) -> Result<bool, StoreError> {
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

    /// Takes back the published jobs of a sweep that no worker has begun, after their messages were
    /// taken off the queues. Returns how many.
    pub async fn unqueue(&self, sweep: SweepId) -> Result<u64, StoreError> {
        again(|| async {
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

    /// Sets jobs of a sweep going again, and the sweep with them where it was cancelled. An
    /// evaluation whose model is not trained waits for it.
    pub async fn reopen(&self, sweep: SweepId, which: Again) -> Result<Reopened, StoreError> {
        again(|| self.reopen_once(sweep, which)).await
    }

    async fn reopen_once(&self, sweep: SweepId, which: Again) -> Result<Reopened, StoreError> {
        let cancelled = matches!(which, Again::Cancelled | Again::Both);
        let failed = !matches!(which, Again::Cancelled);
        let one = match which {
            Again::One(job) => Some(job.0),
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
        // A cancelled job may have been published without a note of that: the broker would take a
        // message with the same number for that one and drop it.
        let reopened = sqlx::query_as!(
            Reopened,
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
               SELECT count(*) FILTER (WHERE kind = 'train') AS "trainings!",
                      count(*) FILTER (WHERE kind = 'eval') AS "evaluations!",
                      count(*) FILTER (WHERE kind = 'noop') AS "noops!"
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

    /// Gives a sweep another priority; returns the one it had, if that was another.
    pub async fn prioritise(
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
    pub async fn jobs_like(&self, sweep: SweepId, digits: &str) -> Result<Vec<JobRow>, StoreError> {
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
            training: row.train_job.map(JobId).zip(row.train_state),
        })
        .collect())
    }

    /// Sweeps that do not simply run, with what the operator wants of them.
    pub async fn controlled(&self) -> Result<Vec<(SweepId, SweepState)>, StoreError> {
        Ok(sqlx::query!(
            r#"SELECT id, state AS "state: SweepState" FROM sweep WHERE state <> 'running'"#
        )
        .fetch_all(self.pool())
        .await?
        .into_iter()
        .map(|row| (SweepId(row.id), row.state))
        .collect())
    }

    /// Holds a sweep's row, so that what is said of it elsewhere is what it says; `None` where there
    /// is no such sweep.
    pub async fn hold_sweep(&self, sweep: SweepId) -> Result<Option<HeldSweep>, StoreError> {
        let mut tx = self.pool().begin().await?;
        let state = sqlx::query_scalar!(
            r#"SELECT state AS "state: SweepState" FROM sweep WHERE id = $1 FOR NO KEY UPDATE"#,
            sweep.0
        )
        .fetch_optional(&mut *tx)
        .await?;
        Ok(state.map(|state| HeldSweep { state, tx }))
    }

    /// How many messages could not be taken in, and how many results differ from the one that
    /// stands, over all sweeps.
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

/// What was kept and not used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SetAside {
    /// Messages that could not be taken in: table `dead_letter`.
    pub dead_letters: i64,
    /// Results that differ from the one that stands: table `conflict`.
    pub conflicts: i64,
}

impl SetAside {
    /// In one line, if there is anything to tell.
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

/// The digits of an id or of its beginning, as [`Store::jobs_like`] wants them; `None` where it can
/// be none.
pub fn id_digits(text: &str) -> Option<String> {
    let digits = text.replace('-', "").to_lowercase();
    let whole = Uuid::parse_str(text).is_ok();
    let beginning =
        (4..=32).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (whole || beginning).then_some(digits)
}
