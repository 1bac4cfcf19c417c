//! Giving up a job: the one place that fails it together with the evaluations that depend on it.

use crate::{Store, StoreError, retry::retry_rollback, text::without_nul};
use halfheard_shared::ids::JobId;
use sqlx::PgConnection;
use uuid::Uuid;

impl Store {
    /// Gives up a job that no worker can finish: it does not fit into a message, or its result cannot be
    /// stored. The evaluations that depend on it fail with it.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn give_up(&self, job: JobId, reason: &str) -> Result<(), StoreError> {
        let reason = without_nul(reason);
        retry_rollback(|| self.give_up_once(job, &reason)).await
    }

    async fn give_up_once(&self, job: JobId, reason: &str) -> Result<(), StoreError> {
        let mut tx = self.pool().begin().await?;
        sqlx::query!(
            "UPDATE job SET state = 'failed', last_error = $2, finished = now()
             WHERE id = $1 AND state IN ('ready', 'queued', 'running')",
            job.0,
            reason
        )
        .execute(&mut *tx)
        .await?;
        fail_evaluations(&mut tx, &[job.0]).await?;
        Ok(tx.commit().await?)
    }
}

/// Fails the evaluations whose training job failed.
pub(crate) async fn fail_evaluations(
    tx: &mut PgConnection,
    trains: &[Uuid],
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE job SET state = 'failed', finished = now(),
                        last_error = 'training job failed: ' || coalesce(t.last_error, 'see its attempts')
         FROM job t
         WHERE t.id = ANY($1) AND t.state = 'failed'
           AND job.train_job = t.id AND job.state = 'blocked'",
        trains
    )
    .execute(tx)
    .await?;
    Ok(())
}
