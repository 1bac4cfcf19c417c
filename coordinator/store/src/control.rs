//! Cancel, pause, resume, retry and delete. They change rows only: the leader notices what workers have
//! that is not theirs any more, and tells them.

use crate::{
    JobCounts, JobKind, JobState, Store, StoreError,
    retry::retry_rollback,
    sharing::{self, Lease, Stopped, Which},
};
use halfheard_shared::ids::{JobId, SweepId};
use sqlx::PgConnection;
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

/// What became of a deleted sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Jobs that were deleted with everything about them: no other sweep asks for them.
    pub jobs: u64,
    /// Jobs that other sweeps ask for, which stay.
    pub kept: u64,
    /// Attempts at work on the deleted ones, and on jobs that only cancelled sweeps ask for.
    pub released: Vec<Lease>,
}

impl Store {
    /// Cancels a sweep and, in the same transaction, those of its unfinished jobs that no other sweep
    /// asks for; the others are scheduled under the next one.
    ///
    /// # Errors
    ///
    /// The database's, as for all methods here.
    pub async fn cancel(&self, sweep: SweepId) -> Result<Stopped, StoreError> {
        retry_rollback(|| async {
            let mut tx = sharing::begin(self).await?;
            let stopped = cancel_in(&mut tx, sweep).await?;
            tx.commit().await?;
            Ok(stopped)
        })
        .await
    }

    /// Pauses a running sweep: jobs that a running sweep asks for as well go on under that one, jobs
    /// that have begun continue, and the others are taken back from the workers that have them.
    /// `because` is for a pause that no operator asked for. Returns what was taken back, or `None` if
    /// the sweep was not running.
    pub async fn pause(
        &self,
        sweep: SweepId,
        because: Option<&str>,
    ) -> Result<Option<Vec<Lease>>, StoreError> {
        retry_rollback(|| async {
            let mut tx = sharing::begin(self).await?;
            let released = pause_in(&mut tx, sweep, because).await?;
            tx.commit().await?;
            Ok(released)
        })
        .await
    }

    /// Resumes a paused sweep. Returns whether it was paused.
    pub async fn resume(&self, sweep: SweepId) -> Result<bool, StoreError> {
        retry_rollback(|| async {
            let mut tx = sharing::begin(self).await?;
            let changed = sqlx::query!(
                "UPDATE sweep SET state = 'running', stopped_because = NULL, changed = now()
                 WHERE id = $1 AND state = 'paused'",
                sweep.0
            )
            .execute(&mut *tx)
            .await?
            .rows_affected()
                > 0;
            sharing::reschedule(&mut tx, sweep).await?;
            tx.commit().await?;
            Ok(changed)
        })
        .await
    }

    /// Pauses the running sweeps of which more jobs have failed than they allow. Returns them with the
    /// reason, which is also kept in their rows. Nothing happens while an operator's change is under
    /// way: then the next call does it.
    pub async fn pause_failing(&self) -> Result<Vec<(SweepId, String)>, StoreError> {
        let failing = sqlx::query!(
            r#"SELECT s.id, s.max_failures AS "max_failures!", f.failed AS "failed!"
               FROM sweep s
               CROSS JOIN LATERAL (
                   SELECT coalesce(sum(jobs), 0)::bigint AS failed FROM tally
                   WHERE sweep = s.id AND state = 'failed'
               ) f
               WHERE s.state = 'running' AND s.max_failures IS NOT NULL
                 AND f.failed > s.max_failures
               ORDER BY s.id"#
        )
        .fetch_all(self.pool())
        .await?;
        let mut stopped = Vec::new();
        for row in failing {
            let Some(mut tx) = sharing::try_begin(self).await? else {
                break;
            };
            let because = format!("{} jobs failed, more than {}", row.failed, row.max_failures);
            let paused = pause_in(&mut tx, SweepId(row.id), Some(&because)).await?;
            tx.commit().await?;
            if paused.is_some() {
                stopped.push((SweepId(row.id), because));
            }
        }
        Ok(stopped)
    }

    /// Reopens jobs of a sweep, and the sweep itself if it was cancelled. An evaluation whose model is
    /// not trained is blocked until it is. A job that several sweeps ask for runs again for all of
    /// them.
    pub async fn reopen(&self, sweep: SweepId, which: Reopen) -> Result<JobCounts, StoreError> {
        let selected = Which {
            cancelled: matches!(which, Reopen::Cancelled | Reopen::Both),
            failed: !matches!(which, Reopen::Cancelled),
            one: match which {
                Reopen::One(job) => Some(job),
                _ => None,
            },
        };
        retry_rollback(|| async {
            let mut tx = sharing::begin(self).await?;
            if selected.cancelled && sharing::uncancel(&mut tx, sweep).await? {
                sharing::reschedule(&mut tx, sweep).await?;
            }
            sharing::lock_jobs(&mut tx, sweep, true).await?;
            let reopened = sharing::reopen(&mut tx, sweep, selected).await?;
            sharing::settle(&mut tx, sweep).await?;
            tx.commit().await?;
            Ok(reopened)
        })
        .await
    }

    /// Deletes a sweep, and with everything about them the jobs that no other sweep asks for. The
    /// others are scheduled under the next one. Artifacts stay until they are collected.
    pub async fn delete(&self, sweep: SweepId) -> Result<Deleted, StoreError> {
        retry_rollback(|| async {
            let mut tx = sharing::begin(self).await?;
            let deleted = delete_in(&mut tx, sweep).await?;
            tx.commit().await?;
            Ok(deleted)
        })
        .await
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
               FROM sweep_job w
               JOIN job j ON j.id = w.job
               LEFT JOIN job t ON t.id = j.train_job
               WHERE w.sweep = $1 AND starts_with(replace(j.id::text, '-', ''), $2)
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

async fn cancel_in(tx: &mut PgConnection, sweep: SweepId) -> Result<Stopped, StoreError> {
    sqlx::query!(
        "UPDATE sweep SET state = 'cancelled', stopped_because = NULL, changed = now()
         WHERE id = $1 AND state <> 'cancelled'",
        sweep.0
    )
    .execute(&mut *tx)
    .await?;
    sharing::reschedule(&mut *tx, sweep).await?;
    sharing::cancel_unwanted(tx, sweep).await
}

async fn pause_in(
    tx: &mut PgConnection,
    sweep: SweepId,
    because: Option<&str>,
) -> Result<Option<Vec<Lease>>, StoreError> {
    let paused = sqlx::query!(
        "UPDATE sweep SET state = 'paused', stopped_because = $2, changed = now()
         WHERE id = $1 AND state = 'running'",
        sweep.0,
        because
    )
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if paused == 0 {
        return Ok(None);
    }
    sharing::reschedule(&mut *tx, sweep).await?;
    Ok(Some(sharing::revoke_queued(tx, sweep).await?))
}

async fn delete_in(tx: &mut PgConnection, sweep: SweepId) -> Result<Deleted, StoreError> {
    // What nobody else wants ends here, and what others want moves to them.
    let released = cancel_in(&mut *tx, sweep).await?.released;
    let jobs = sqlx::query!(
        "DELETE FROM job USING (
             SELECT j.id FROM sweep_job w JOIN job j ON j.id = w.job
             WHERE w.sweep = $1
               AND NOT EXISTS (SELECT FROM sweep_job o WHERE o.job = w.job AND o.sweep <> $1)
             ORDER BY j.id FOR UPDATE OF j
         ) mine
         WHERE job.id = mine.id",
        sweep.0
    )
    .execute(&mut *tx)
    .await?
    .rows_affected();
    let kept = sqlx::query!("DELETE FROM sweep_job WHERE sweep = $1", sweep.0)
        .execute(&mut *tx)
        .await?
        .rows_affected();
    // Of those whose other sweeps are cancelled, too.
    sqlx::query!(
        "UPDATE job SET sweep = first.sweep, position = first.position
         FROM (SELECT DISTINCT ON (w.job) w.job, w.sweep, w.position
               FROM job j JOIN sweep_job w ON w.job = j.id JOIN sweep s ON s.id = w.sweep
               WHERE j.sweep = $1
               ORDER BY w.job, s.state, s.priority DESC, s.created, s.id) first
         WHERE job.id = first.job",
        sweep.0
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("DELETE FROM config c WHERE NOT EXISTS (SELECT FROM job j WHERE j.config = c.id)")
        .execute(&mut *tx)
        .await?;
    sqlx::query!("DELETE FROM tally WHERE sweep = $1", sweep.0)
        .execute(&mut *tx)
        .await?;
    sqlx::query!("DELETE FROM tally_metric WHERE sweep = $1", sweep.0)
        .execute(&mut *tx)
        .await?;
    sqlx::query!("DELETE FROM sweep WHERE id = $1", sweep.0)
        .execute(tx)
        .await?;
    Ok(Deleted {
        jobs,
        kept,
        released,
    })
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
            "set aside: {} (`coord dead-letters`), {} (table conflict; `coord audit SWEEP`)",
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
