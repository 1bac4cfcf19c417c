//! How long training jobs will take, from what earlier ones took: the longest are granted first.

use crate::{Store, StoreError};
use halfheard_shared::ids::SweepId;
use sqlx::PgConnection;

impl Store {
    /// Estimates the cost of all ready training jobs anew. Returns how many estimates changed.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn estimate_costs(&self) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let changed = estimate(&mut tx, None).await?;
        tx.commit().await?;
        Ok(changed)
    }
}

/// Estimates the cost of the ready training jobs of `sweep`, or of all: the seconds that an epoch took
/// so far with the same config, else with the same method on the same dataset, times the epochs. A job
/// of which nothing is known keeps its cost, 0 at first. Estimates that are off by less than a tenth
/// stay.
pub(crate) async fn estimate(
    tx: &mut PgConnection,
    sweep: Option<SweepId>,
) -> Result<u64, StoreError> {
    Ok(sqlx::query!(
        "WITH epoch AS MATERIALIZED (
             SELECT j.config, j.method, j.dataset, a.seconds / a.epochs AS seconds
             FROM attempt a JOIN job j ON j.id = a.job
             WHERE a.outcome = 'done' AND a.epochs > 0 AND a.seconds > 0 AND j.kind = 'train'
         ), by_config AS (
             SELECT config, avg(seconds) AS seconds FROM epoch GROUP BY config
         ), by_method AS (
             SELECT method, dataset, avg(seconds) AS seconds FROM epoch GROUP BY method, dataset
         ), mine AS (
             SELECT j.id, e.seconds
             FROM job j
             JOIN config c ON c.id = j.config
             JOIN by_method m ON m.method = j.method AND m.dataset = j.dataset
             LEFT JOIN by_config b ON b.config = j.config
             CROSS JOIN LATERAL (
                 SELECT coalesce(b.seconds, m.seconds) * (c.spec ->> 'max_epochs')::float8 AS seconds
             ) e
             WHERE j.kind = 'train' AND j.state = 'ready'
               AND ($1::uuid IS NULL OR j.sweep = $1)
               AND abs(j.cost - e.seconds) > 0.1 * e.seconds
             ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
         )
         UPDATE job SET cost = mine.seconds FROM mine WHERE job.id = mine.id",
        sweep.map(|sweep| sweep.0)
    )
    .execute(tx)
    .await?
    .rows_affected())
}
