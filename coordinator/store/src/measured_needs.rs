//! What jobs need of a worker: as their rows say, and how much memory, from what earlier ones took.

use crate::{Store, StoreError};
use halfheard_shared::methods;

/// What ready jobs need of a worker.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct OpenNeed {
    /// The least memory of its device in bytes; 0 if any.
    pub memory: i64,
    /// A label that it must have.
    pub label: Option<String>,
    /// How many jobs need it.
    pub jobs: i64,
}

impl Store {
    /// What the ready jobs of running sweeps need of workers, for those that need anything.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn open_needs(&self) -> Result<Vec<OpenNeed>, StoreError> {
        Ok(sqlx::query_as!(
            OpenNeed,
            r#"SELECT j.min_memory AS memory, j.label, count(*) AS "jobs!"
             FROM job j JOIN sweep s ON s.id = j.sweep
             WHERE j.state = 'ready' AND s.state = 'running'
               AND (j.min_memory > 0 OR j.label IS NOT NULL)
             GROUP BY 1, 2 ORDER BY 1, 2"#
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// The external programs whose jobs are ready in running sweeps, with the number of these jobs.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn open_externals(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let registry: Vec<String> = methods::all().iter().map(|info| info.id.clone()).collect();
        let rows = sqlx::query!(
            r#"SELECT j.method, count(*) AS "jobs!"
               FROM job j JOIN sweep s ON s.id = j.sweep
               WHERE j.state = 'ready' AND s.state = 'running' AND j.kind <> 'noop'
                 AND j.method <> ALL($1)
                 -- Most installations have none: then no job is looked at.
                 AND EXISTS (SELECT FROM tally t WHERE t.kind <> 'noop' AND t.method <> ALL($1))
               GROUP BY 1 ORDER BY 1"#,
            &registry
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows.into_iter().map(|row| (row.method, row.jobs)).collect())
    }

    /// Gives the ready jobs that ask for no memory what jobs of the same kind and model took on the same
    /// dataset, and a fifth more, but never more than a device had that did one: a job that fills its
    /// device to nine tenths must find one again. Of several measurements the smallest counts, since
    /// devices differ in what they take beside the job; a job that then runs out of memory asks for
    /// more by itself. Returns how many jobs changed.
    ///
    /// Only measurements on devices of known memory count.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn estimate_needs(&self) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let changed = sqlx::query!(
            "WITH model AS (
                 SELECT j.kind, j.method, j.variant, j.dataset,
                        min(least(a.peak_memory + a.peak_memory / 5, a.memory)) AS memory
                 FROM attempt a JOIN job j ON j.id = a.job
                 WHERE a.outcome = 'done' AND a.peak_memory > 0 AND a.memory > 0
                   AND j.kind <> 'noop'
                 GROUP BY j.kind, j.method, j.variant, j.dataset
             ), mine AS (
                 SELECT j.id, m.memory
                 FROM job j
                 JOIN model m ON m.kind = j.kind AND m.method = j.method
                             AND m.variant = j.variant AND m.dataset = j.dataset
                 WHERE j.state = 'ready' AND j.min_memory = 0
                 ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
             )
             UPDATE job SET min_memory = mine.memory FROM mine WHERE job.id = mine.id"
        )
        .execute(&mut *tx)
        .await?
        .rows_affected();
        tx.commit().await?;
        Ok(changed)
    }
}
