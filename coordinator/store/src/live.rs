//! What goes on at the moment: the map of a sweep, and since when workers have what they work on.

use crate::{JobState, Store, StoreError};
use chrono::{DateTime, Utc};
use halfheard_shared::ids::{JobId, SweepId};
use std::collections::HashMap;

/// The metric whose value a cell of the map shows once it is done.
pub const MAP_METRIC: &str = "mae";

/// One training job of a sweep with the evaluations of its model.
#[derive(Clone, Debug, PartialEq)]
pub struct MapCell {
    /// The training job.
    pub job: JobId,
    /// The method's id.
    pub method: String,
    /// The variant's id; empty for the method itself.
    pub variant: String,
    /// The dataset's name.
    pub dataset: String,
    /// The training seed.
    pub seed: i64,
    /// State of the training job.
    pub training: JobState,
    /// The last epoch that was logged.
    pub epoch: Option<i32>,
    /// Evaluations that workers have.
    pub evaluating: i64,
    /// Evaluations that are done.
    pub done: i64,
    /// Evaluations that failed.
    pub failed: i64,
    /// All evaluations.
    pub expected: i64,
    /// The mean of [`MAP_METRIC`] over the evaluations at missing rates that are done, or over all that
    /// are done where none is at a rate.
    pub value: Option<f64>,
}

impl Store {
    /// The training jobs of a sweep by dataset, method, variant and seed.
    ///
    /// # Errors
    ///
    /// The database's, as for all methods here.
    pub async fn sweep_map(&self, sweep: SweepId) -> Result<Vec<MapCell>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT t.id, t.method, t.variant, t.dataset, t.seed, t.state AS "training: JobState",
                      l.epoch AS "epoch?", e.evaluating AS "evaluating!", e.done AS "done!",
                      e.failed AS "failed!", e.expected AS "expected!", e.value
               FROM sweep_job w
               JOIN job t ON t.id = w.job AND t.kind = 'train'
               LEFT JOIN metric m ON m.dataset = t.dataset AND m.metric = $2
               LEFT JOIN LATERAL (
                   SELECT epoch FROM epoch_log WHERE job = t.id ORDER BY epoch DESC LIMIT 1
               ) l ON true
               CROSS JOIN LATERAL (
                   SELECT count(*) AS expected,
                          count(*) FILTER (WHERE j.state IN ('queued', 'running')) AS evaluating,
                          count(*) FILTER (WHERE j.state = 'done') AS done,
                          count(*) FILTER (WHERE j.state = 'failed') AS failed,
                          coalesce(avg(r.value) FILTER (WHERE case_kind(j.case_id) = 'r'),
                                   avg(r.value)) AS value
                   FROM job j
                   JOIN sweep_job v ON v.job = j.id AND v.sweep = w.sweep
                   LEFT JOIN result r ON j.state = 'done' AND r.job = j.id
                        AND r.criterion = m.criterion AND r.metric = m.metric
                   WHERE j.train_job = t.id
               ) e
               WHERE w.sweep = $1
               ORDER BY t.dataset, t.method, t.variant, t.seed, t.id"#,
            sweep.0,
            MAP_METRIC
        )
        .fetch_all(self.pool())
        .await?;
        let rows = rows.into_iter().map(|row| MapCell {
            job: JobId(row.id),
            method: row.method,
            variant: row.variant,
            dataset: row.dataset,
            seed: row.seed,
            training: row.training,
            epoch: row.epoch,
            evaluating: row.evaluating,
            done: row.done,
            failed: row.failed,
            expected: row.expected,
            value: row.value,
        });
        Ok(rows.collect())
    }

    /// Since when each worker has what it works on.
    pub async fn working_since(&self) -> Result<HashMap<String, DateTime<Utc>>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT a.worker, max(coalesce(a.started, a.granted)) AS "since!"
               FROM job j JOIN attempt a ON a.id = j.attempt
               WHERE j.state = 'running' GROUP BY a.worker"#
        )
        .fetch_all(self.pool())
        .await?;
        let rows = rows.into_iter().map(|row| (row.worker, row.since));
        Ok(rows.collect())
    }
}
