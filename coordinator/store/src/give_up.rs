//! Giving up a job: the one place that fails it together with what waits for it.

use super::{Store, StoreError, fault::again};
use halfheard_shared::ids::JobId;
use sqlx::PgConnection;
use uuid::Uuid;

impl Store {
    /// Gives up a job that no worker can bring to an end: it cannot be put into a message, or its
    /// result cannot be stored. The evaluations that wait for it fail with it.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn give_up(&self, job: JobId, reason: &str) -> Result<(), StoreError> {
        let reason = reason.replace('\0', "\u{fffd}");
        again(|| self.give_up_once(job, &reason)).await
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

/// Marks evaluations failed whose training failed.
pub(super) async fn fail_evaluations(
    tx: &mut PgConnection,
    trains: &[Uuid],
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE job SET state = 'failed', finished = now(),
                        last_error = 'its training failed: ' || coalesce(t.last_error, 'see its attempts')
         FROM job t
         WHERE t.id = ANY($1) AND t.state = 'failed'
           AND job.train_job = t.id AND job.state = 'blocked'",
        trains
    )
    .execute(tx)
    .await?;
    Ok(())
}
