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

/// Operations a second while nothing was measured. Only how jobs compare with each other matters then.
const NOMINAL_RATE: f64 = 1e12;

/// Estimates the cost of the ready training jobs of `sweep`, or of all: the seconds of earlier trainings of the
/// same config, else those of an epoch of the same method on the same dataset, times as many epochs as its
/// trainings had. A job of which nothing is known keeps its cost, 0 at first. Its length, by which it is
/// granted, is then what its operations take at the rate of all that was measured. Estimates that are off by
/// less than a tenth stay.
pub(crate) async fn estimate(
    tx: &mut PgConnection,
    sweep: Option<SweepId>,
) -> Result<u64, StoreError> {
    Ok(sqlx::query!(
        "WITH trained AS MATERIALIZED (
             SELECT j.config, j.method, j.dataset, a.seconds, a.epochs, c.flop,
                    a.epochs / (c.spec ->> 'max_epochs')::float8 AS share
             FROM attempt a JOIN job j ON j.id = a.job JOIN config c ON c.id = j.config
             WHERE a.outcome = 'done' AND a.epochs > 0 AND a.seconds > 0 AND j.kind = 'train'
         ), by_config AS (
             SELECT config, avg(seconds) AS seconds FROM trained GROUP BY config
         ), by_method AS (
             SELECT method, dataset, avg(seconds / epochs) AS seconds, avg(share) AS share
             FROM trained GROUP BY method, dataset
         ), rate AS (
             SELECT coalesce(sum(flop * share) / sum(seconds), $2) AS flop FROM trained WHERE flop > 0
         ), mine AS (
             SELECT j.id, coalesce(e.cost, j.cost) AS cost, l.length
             FROM job j
             JOIN config c ON c.id = j.config
             CROSS JOIN rate r
             LEFT JOIN by_method m ON m.method = j.method AND m.dataset = j.dataset
             LEFT JOIN by_config b ON b.config = j.config
             CROSS JOIN LATERAL (
                 SELECT coalesce(b.seconds, m.seconds * m.share * (c.spec ->> 'max_epochs')::float8) AS cost
             ) e
             CROSS JOIN LATERAL (SELECT coalesce(e.cost, c.flop / r.flop, 0) AS length) l
             WHERE j.kind = 'train' AND j.state = 'ready'
               AND ($1::uuid IS NULL OR j.sweep = $1)
               AND (abs(j.cost - coalesce(e.cost, j.cost)) > 0.1 * coalesce(e.cost, 0)
                    OR abs(j.length - l.length) > 0.1 * l.length)
             ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
         )
         UPDATE job SET cost = mine.cost, length = mine.length FROM mine WHERE job.id = mine.id",
        sweep.map(|sweep| sweep.0),
        NOMINAL_RATE
    )
    .execute(tx)
    .await?
    .rows_affected())
}
