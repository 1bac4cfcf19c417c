//! Who asks for what: which sweep a job is scheduled under, and when it is nobody's any more.
//!
//! A job is scheduled under one of the sweeps that ask for it: a running one before a paused before a
//! cancelled one, then by priority, then by age. Whatever changes that order or who asks calls
//! [`reschedule`], and so the row of a job is always right. Operators' changes take effect one after
//! the other ([`begin`]); against the leader's transactions they are safe because rows are locked in the
//! order of their ids, as everywhere.

use crate::{JobCounts, Store, StoreError};
use halfheard_shared::ids::{AttemptId, JobId, SweepId};
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

/// Advisory lock of transactions that change who asks for what; the number is arbitrary. It lasts as
/// long as its transaction, so a pooler in between does not matter.
const LOCK: i64 = 0x6861_6c66_6173_6b73;

/// An attempt that no longer has its job, and the worker that is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The worker.
    pub worker: String,
    /// The attempt.
    pub attempt: AttemptId,
}

/// Jobs that were stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// How many.
    pub jobs: u64,
    /// Those of them that workers had.
    pub released: Vec<Lease>,
}

/// Which jobs of a sweep to reopen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Which {
    /// Cancelled ones.
    pub(crate) cancelled: bool,
    /// Failed ones, and whatever failed with them in other sweeps.
    pub(crate) failed: bool,
    /// Only this one and, if it is a training job, the evaluations of its model.
    pub(crate) one: Option<JobId>,
}

impl Which {
    /// The cancelled ones.
    pub(crate) const CANCELLED: Self = Self {
        cancelled: true,
        failed: false,
        one: None,
    };
}

/// Begins a transaction that changes who asks for what.
pub(crate) async fn begin(store: &Store) -> Result<Transaction<'static, Postgres>, StoreError> {
    let mut tx = store.begin().await?;
    // A million jobs take longer than a server may allow for one statement.
    sqlx::query!("SET LOCAL statement_timeout = 0")
        .execute(&mut *tx)
        .await?;
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", LOCK)
        .fetch_one(&mut *tx)
        .await?;
    Ok(tx)
}

/// As [`begin`], or `None` if another such transaction is under way: for the leader, which must not
/// wait.
pub(crate) async fn try_begin(
    store: &Store,
) -> Result<Option<Transaction<'static, Postgres>>, StoreError> {
    let mut tx = store.begin().await?;
    let locked = sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock($1) AS "locked!""#, LOCK)
        .fetch_one(&mut *tx)
        .await?;
    Ok(locked.then_some(tx))
}

/// Locks the rows on whose states [`reopen`] and [`settle`] decide. Until the end of the transaction no
/// training of them is done or fails: a report of it waits, and then releases the evaluations that were
/// added here.
///
/// Of a sweep that existed, these are its training jobs and what can be reopened; of a new one, all
/// jobs that it shares: they are still scheduled under other sweeps. Training jobs come first, because
/// whoever stores the report of one locks its evaluations afterwards.
pub(crate) async fn lock_jobs(
    tx: &mut PgConnection,
    sweep: SweepId,
    existed: bool,
) -> Result<(), StoreError> {
    sqlx::query!(
        "SELECT count(*) FROM (
             SELECT FROM sweep_job w JOIN job j ON j.id = w.job
             WHERE w.sweep = $1
               AND CASE WHEN $2 THEN j.kind = 'train' OR j.state IN ('failed', 'cancelled')
                        ELSE j.sweep IS DISTINCT FROM $1 END
             ORDER BY j.kind <> 'train', j.id FOR NO KEY UPDATE OF j
         ) locked",
        sweep.0,
        existed
    )
    .fetch_one(tx)
    .await?;
    Ok(())
}

/// Makes a cancelled sweep run again. Returns whether it was cancelled.
pub(crate) async fn uncancel(tx: &mut PgConnection, sweep: SweepId) -> Result<bool, StoreError> {
    Ok(sqlx::query!(
        "UPDATE sweep SET state = 'running', stopped_because = NULL, changed = now()
         WHERE id = $1 AND state = 'cancelled'",
        sweep.0
    )
    .execute(tx)
    .await?
    .rows_affected()
        > 0)
}

/// Moves the jobs of a sweep under whichever sweep ranks first of those that ask for them. Returns how
/// many moved.
pub(crate) async fn reschedule(tx: &mut PgConnection, sweep: SweepId) -> Result<u64, StoreError> {
    Ok(sqlx::query!(
        "WITH first AS (
             SELECT DISTINCT ON (w.job) w.job, w.sweep, w.position
             FROM sweep_job mine
             JOIN sweep_job w ON w.job = mine.job
             JOIN sweep s ON s.id = w.sweep
             WHERE mine.sweep = $1
             ORDER BY w.job, s.state, s.priority DESC, s.created, s.id
         ), moved AS (
             SELECT j.id, f.sweep, f.position
             FROM first f JOIN job j ON j.id = f.job
             WHERE j.sweep IS DISTINCT FROM f.sweep OR j.position <> f.position
             ORDER BY j.id FOR NO KEY UPDATE OF j
         )
         UPDATE job SET sweep = moved.sweep, position = moved.position
         FROM moved WHERE job.id = moved.id",
        sweep.0
    )
    .execute(tx)
    .await?
    .rows_affected())
}

/// Cancels the unfinished jobs of a cancelled sweep that no other sweep asks for: those that are
/// scheduled under a cancelled one all the same.
pub(crate) async fn cancel_unwanted(
    tx: &mut PgConnection,
    sweep: SweepId,
) -> Result<Stopped, StoreError> {
    let row = sqlx::query!(
        r#"WITH mine AS (
               SELECT j.id, j.worker,
                      CASE WHEN j.state IN ('queued', 'running') THEN j.attempt END AS attempt
               FROM sweep_job w
               JOIN job j ON j.id = w.job
               JOIN sweep s ON s.id = j.sweep
               WHERE w.sweep = $1 AND s.state = 'cancelled'
                 AND j.state IN ('blocked', 'ready', 'queued', 'running')
               ORDER BY j.id FOR NO KEY UPDATE OF j
           ), cancelled AS (
               UPDATE job SET state = 'cancelled', finished = now(), lease_until = NULL
               FROM mine WHERE job.id = mine.id
           ), ended AS (
               UPDATE attempt SET outcome = 'revoked', ended = now()
               FROM mine WHERE attempt.id = mine.attempt AND attempt.outcome IS NULL
           )
           SELECT count(*) AS "jobs!",
                  coalesce(array_agg(attempt) FILTER (WHERE attempt IS NOT NULL), '{}')
                      AS "attempts!",
                  coalesce(array_agg(worker) FILTER (WHERE attempt IS NOT NULL), '{}')
                      AS "workers!"
           FROM mine"#,
        sweep.0
    )
    .fetch_one(tx)
    .await?;
    Ok(Stopped {
        jobs: row.jobs.unsigned_abs(),
        released: leases(row.workers, row.attempts),
    })
}

/// Takes the jobs that no worker has begun, and that are scheduled under this sweep, back from the
/// workers that have them.
pub(crate) async fn revoke_queued(
    tx: &mut PgConnection,
    sweep: SweepId,
) -> Result<Vec<Lease>, StoreError> {
    let row = sqlx::query!(
        r#"WITH mine AS (
               SELECT j.id, j.worker, j.attempt FROM job j
               WHERE j.sweep = $1 AND j.state = 'queued'
               ORDER BY j.id FOR NO KEY UPDATE
           ), taken AS (
               UPDATE job SET state = 'ready', lease_until = NULL
               FROM mine WHERE job.id = mine.id
           ), ended AS (
               UPDATE attempt SET outcome = 'revoked', ended = now()
               FROM mine WHERE attempt.id = mine.attempt AND attempt.outcome IS NULL
           )
           SELECT coalesce(array_agg(attempt), '{}') AS "attempts!",
                  coalesce(array_agg(worker), '{}') AS "workers!"
           FROM mine"#,
        sweep.0
    )
    .fetch_one(tx)
    .await?;
    Ok(leases(row.workers, row.attempts))
}

fn leases(workers: Vec<String>, attempts: Vec<Uuid>) -> Vec<Lease> {
    let leases = workers.into_iter().zip(attempts);
    leases
        .map(|(worker, attempt)| Lease {
            worker,
            attempt: AttemptId(attempt),
        })
        .collect()
}

/// Reopens jobs of a sweep: a cancelled one whose result arrived all the same is done, the others
/// are ready, and evaluations blocked until [`settle`]. Returns how many are to be done.
pub(crate) async fn reopen(
    tx: &mut PgConnection,
    sweep: SweepId,
    which: Which,
) -> Result<JobCounts, StoreError> {
    Ok(sqlx::query_as!(
        JobCounts,
        r#"WITH mine AS (
               SELECT j.id FROM sweep_job w JOIN job j ON j.id = w.job
               WHERE w.sweep = $1
                 AND (($2 AND j.state = 'cancelled') OR ($3 AND j.state = 'failed'))
                 AND ($4::uuid IS NULL OR j.id = $4 OR j.train_job = $4)
               UNION
               -- Evaluations that only other sweeps ask for failed with the training job that they
               -- share: it runs again for all.
               SELECT e.id
               FROM sweep_job w
               JOIN job t ON t.id = w.job AND t.kind = 'train' AND t.state = 'failed'
               JOIN job e ON e.train_job = t.id AND e.state = 'failed'
               WHERE w.sweep = $1 AND $3 AND ($4::uuid IS NULL OR t.id = $4)
           ), locked AS (
               SELECT j.id, j.state = 'cancelled' AND j.outcome IS NOT NULL AS done
               FROM mine JOIN job j ON j.id = mine.id
               WHERE j.state IN ('cancelled', 'failed')
               ORDER BY j.id FOR NO KEY UPDATE OF j
           ), changed AS (
               UPDATE job SET
                   state = CASE WHEN locked.done THEN 'done'::job_state
                                WHEN kind = 'eval' THEN 'blocked' ELSE 'ready' END,
                   failures = 0, losses = 0, not_before = '-infinity', last_error = NULL,
                   finished = CASE WHEN locked.done THEN finished END
               FROM locked WHERE job.id = locked.id
               RETURNING kind, state
           )
           SELECT count(*) FILTER (WHERE kind = 'train') AS "train!",
                  count(*) FILTER (WHERE kind = 'eval') AS "eval!",
                  count(*) FILTER (WHERE kind = 'noop') AS "noop!"
           FROM changed WHERE state <> 'done'"#,
        sweep.0,
        which.cancelled,
        which.failed,
        which.one.map(|job| job.0)
    )
    .fetch_one(tx)
    .await?)
}

/// Brings the evaluations of a sweep into line with their training jobs: ready where that is done,
/// failed where it failed, blocked where it is to run (again).
pub(crate) async fn settle(tx: &mut PgConnection, sweep: SweepId) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH mine AS (
             SELECT e.id, t.state AS training, t.last_error
             FROM sweep_job w
             JOIN job e ON e.id = w.job
             JOIN job t ON t.id = e.train_job
             WHERE w.sweep = $1
               AND ((e.state = 'blocked' AND t.state IN ('done', 'failed'))
                    OR (e.state = 'ready' AND t.state <> 'done'))
             ORDER BY e.id FOR NO KEY UPDATE OF e
         )
         UPDATE job SET
             state = CASE mine.training WHEN 'done' THEN 'ready'::job_state
                                        WHEN 'failed' THEN 'failed' ELSE 'blocked' END,
             finished = CASE WHEN mine.training = 'failed' THEN now() END,
             last_error = CASE WHEN mine.training = 'failed'
                               THEN 'training job failed: '
                                    || coalesce(mine.last_error, 'see its attempts') END
         FROM mine WHERE job.id = mine.id",
        sweep.0
    )
    .execute(tx)
    .await?;
    Ok(())
}
