//! Giving up a job: the one place that fails it together with the evaluations that depend on it.

use crate::{Store, StoreError, retry::retry_rollback, text::bounded};
use halfheard_shared::ids::JobId;
use sqlx::PgConnection;
use uuid::Uuid;

/// Most characters of a reason.
const REASON: usize = 4000;

impl Store {
    /// Gives up a job that no worker can be given: its config cannot be read, or it does not fit into a
    /// message. The evaluations that depend on it fail with it.
    ///
    /// # Errors
    ///
    /// The database's; [`StoreError::Deposed`].
    pub async fn give_up(&self, job: JobId, reason: &str) -> Result<(), StoreError> {
        let reason = bounded(reason, REASON);
        retry_rollback(|| self.give_up_once(job, &reason)).await
    }

    async fn give_up_once(&self, job: JobId, reason: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        // A failure of its own, unlike that of an evaluation whose training failed.
        sqlx::query!(
            "WITH failed AS (
                 UPDATE job SET state = 'failed', last_error = $2, finished = now(),
                                failures = greatest(failures, 1), lease_until = NULL
                 WHERE id = $1 AND state IN ('ready', 'queued', 'running')
                 RETURNING attempt
             )
             UPDATE attempt SET outcome = 'failed', failure_kind = 'invalid', ended = now(),
                                errors = ARRAY[$2]
             FROM failed WHERE attempt.id = failed.attempt AND attempt.outcome IS NULL",
            job.0,
            reason
        )
        .execute(&mut *tx)
        .await?;
        fail_evaluations(&mut tx, &[job.0]).await?;
        Ok(tx.commit().await?)
    }
}

/// Fails the evaluations whose training job failed. They have no failures and no losses of their own,
/// by which they are known when the training is done after all.
pub(crate) async fn fail_evaluations(
    tx: &mut PgConnection,
    trains: &[Uuid],
) -> Result<(), StoreError> {
    if trains.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "WITH mine AS (
             SELECT e.id, 'training job failed: ' || coalesce(t.last_error, 'see its attempts') AS error
             FROM job t JOIN job e ON e.train_job = t.id
             WHERE t.id = ANY($1) AND t.state = 'failed' AND e.state = 'blocked'
             ORDER BY e.id FOR NO KEY UPDATE OF e
         )
         UPDATE job SET state = 'failed', failures = 0, losses = 0, finished = now(),
                        last_error = mine.error
         FROM mine WHERE job.id = mine.id",
        trains
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Makes the evaluations ready whose training job is done: those that wait for it, and those that had
/// failed with it. Returns how many.
pub(crate) async fn release_evaluations(
    tx: &mut PgConnection,
    trains: &[Uuid],
) -> Result<u64, StoreError> {
    if trains.is_empty() {
        return Ok(0);
    }
    Ok(sqlx::query!(
        "WITH mine AS (
             SELECT id FROM job
             WHERE train_job = ANY($1)
               AND (state = 'blocked' OR (state = 'failed' AND failures = 0 AND losses = 0))
             ORDER BY id FOR NO KEY UPDATE
         )
         UPDATE job SET state = 'ready', last_error = NULL, finished = NULL
         FROM mine WHERE job.id = mine.id",
        trains
    )
    .execute(tx)
    .await?
    .rows_affected())
}
