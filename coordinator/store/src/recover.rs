//! Recovery of jobs whose message is lost.

use crate::{Store, StoreError};
use chrono::{DateTime, Utc};
use halfheard_shared::ids::{JobId, SweepId};
use std::time::Duration;
use uuid::Uuid;

/// A published, unfinished job whose state has not changed for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StalledJob {
    /// The job.
    pub job: JobId,
    /// The sweep it belongs to.
    pub sweep: SweepId,
    /// Number of its last publication.
    pub publication: i32,
    /// Time of its last change of state.
    pub changed: DateTime<Utc>,
}

impl Store {
    /// Published, unfinished jobs whose state has not changed for `grace`.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn stalled_jobs(&self, grace: Duration) -> Result<Vec<StalledJob>, StoreError> {
        Ok(sqlx::query!(
            "SELECT id, sweep, publication, changed FROM job
             WHERE state IN ('queued', 'running')
               AND changed <= now() - make_interval(secs => $1)",
            grace.as_secs_f64()
        )
        .fetch_all(self.pool())
        .await?
        .into_iter()
        .map(|row| StalledJob {
            job: JobId(row.id),
            sweep: SweepId(row.sweep),
            publication: row.publication,
            changed: row.changed,
        })
        .collect())
    }

    /// Makes jobs ready again whose message is lost, unless they have changed since they were read.
    /// Returns how many.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn republish(&self, lost: &[StalledJob]) -> Result<u64, StoreError> {
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
