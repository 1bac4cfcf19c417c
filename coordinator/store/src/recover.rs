//! Finding jobs that no message stands for.

use super::{Store, StoreError};
use chrono::{DateTime, Utc};
use halfheard_shared::ids::{JobId, SweepId};
use std::time::Duration;
use uuid::Uuid;

/// A published, unfinished job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The job.
    pub job: JobId,
    /// Its sweep.
    pub sweep: SweepId,
    /// Its publication.
    pub publication: i32,
    /// When its state changed last.
    pub changed: DateTime<Utc>,
}

impl Store {
    /// Published, unfinished jobs whose state has not changed for `grace`.
    pub async fn published(&self, grace: Duration) -> Result<Vec<Published>, StoreError> {
        Ok(sqlx::query!(
            "SELECT id, sweep, publication, changed FROM job
             WHERE state IN ('queued', 'running')
               AND changed <= now() - make_interval(secs => $1)",
            grace.as_secs_f64()
        )
        .fetch_all(self.pool())
        .await?
        .into_iter()
        .map(|row| Published {
            job: JobId(row.id),
            sweep: SweepId(row.sweep),
            publication: row.publication,
            changed: row.changed,
        })
        .collect())
    }

    /// Makes jobs ready again whose message is lost, unless something has happened to them since
    /// they were looked at. Returns how many.
    pub async fn republish(&self, lost: &[Published]) -> Result<u64, StoreError> {
        let (ids, publications): (Vec<Uuid>, Vec<i32>) =
            lost.iter().map(|row| (row.job.0, row.publication)).unzip();
        let changed: Vec<DateTime<Utc>> = lost.iter().map(|row| row.changed).collect();
        Ok(sqlx::query!(
            "WITH mine AS (
                 SELECT j.id FROM job j
                 JOIN unnest($1::uuid[], $2::integer[], $3::timestamptz[])
                      AS i (id, publication, changed) USING (id)
                 WHERE j.state IN ('queued', 'running') AND j.publication = i.publication
                   AND j.changed = i.changed
                 ORDER BY j.id FOR NO KEY UPDATE OF j
             )
             UPDATE job SET state = 'ready', not_before = '-infinity',
                            publications_before = job.publication - job.failures
             FROM mine WHERE job.id = mine.id",
            &ids,
            &publications,
            &changed
        )
        .execute(self.pool())
        .await?
        .rows_affected())
    }
}
