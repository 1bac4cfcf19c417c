//! A sweep as a map: its training jobs by dataset, method and seed, each with its number.

use crate::{JobState, Store, StoreError, SweepState};
use halfheard_shared::ids::{JobId, SweepId};

/// A training job, as a cell of the map.
#[derive(Clone, Debug)]
pub struct MapRow {
    /// The job.
    pub job: JobId,
    /// The dataset's name.
    pub dataset: String,
    /// The method's id.
    pub method: String,
    /// The variant's id; empty for the method itself.
    pub variant: String,
    /// Training seed.
    pub seed: i64,
    /// Its state.
    pub state: JobState,
    /// The last epoch that was logged, of a job that a worker has.
    pub epoch: Option<i32>,
    /// Maximum number of epochs.
    pub max_epochs: Option<i32>,
    /// Evaluations of its model that are done.
    pub completed: i64,
    /// All evaluations of its model.
    pub expected: i64,
    /// Evaluations of its model that failed.
    pub failed: i64,
    /// The mean of a metric over the missing rates, or over all cases if it has no rates, once all of
    /// them are evaluated.
    pub value: Option<f64>,
}

/// A job with the sweep under which it can be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobHome {
    /// A sweep that asks for it: one that runs, if any does.
    pub sweep: SweepId,
    /// What its operator wants.
    pub sweep_state: SweepState,
    /// The job's state.
    pub state: JobState,
    /// The training job of its model: for a training job, itself.
    pub training: JobId,
    /// The state of that.
    pub training_state: JobState,
}

/// What a sweep's models are trained on: a dataset with the hash of its file.
#[derive(Clone, Debug)]
pub struct DataHash {
    /// The dataset's name.
    pub dataset: String,
    /// BLAKE3 of the imported file.
    pub blake3: Option<String>,
    /// BLAKE3 of the text encoder.
    pub encoder: Option<String>,
}

impl Store {
    /// The training jobs of a sweep in the order of its spec. `metrics` names the metric of each
    /// dataset whose mean is shown.
    ///
    /// # Errors
    ///
    /// The database's, as for all methods here.
    pub async fn map(
        &self,
        sweep: SweepId,
        metrics: &[(String, String)],
    ) -> Result<Vec<MapRow>, StoreError> {
        let (datasets, metrics): (Vec<String>, Vec<String>) = metrics.iter().cloned().unzip();
        Ok(sqlx::query!(
            r#"WITH shown AS (
                   SELECT m.dataset, m.metric, m.criterion
                   FROM unnest($2::text[], $3::text[]) AS asked (dataset, metric)
                   JOIN metric m USING (dataset, metric)
               ), evals AS (
                   SELECT e.train_job,
                          count(*) AS expected,
                          count(*) FILTER (WHERE e.state = 'done') AS completed,
                          count(*) FILTER (WHERE e.state = 'failed') AS failed,
                          bool_and(e.state = 'done') FILTER (WHERE c.is_rate) AS rates_done,
                          bool_and(e.state = 'done') AS all_done,
                          avg(r.value) FILTER (WHERE c.is_rate) AS over_rates,
                          avg(r.value) AS over_all
                   FROM sweep_job w
                   JOIN job e ON e.id = w.job
                   CROSS JOIN LATERAL (SELECT e.case_id ~ '^r=[0-9.]+$' AS is_rate) c
                   LEFT JOIN shown s ON s.dataset = e.dataset
                   LEFT JOIN result r ON r.job = e.id AND e.state = 'done'
                       AND r.criterion = s.criterion AND r.metric = s.metric
                   WHERE w.sweep = $1 AND e.kind = 'eval'
                   GROUP BY e.train_job
               )
               SELECT j.id, j.dataset, j.method, j.variant, j.seed, j.state AS "state: JobState",
                      CASE WHEN j.state IN ('queued', 'running') THEN
                          (SELECT max(l.epoch) FROM epoch_log l WHERE l.job = j.id) END AS epoch,
                      CASE WHEN j.state IN ('queued', 'running') THEN
                          (c.spec ->> 'max_epochs')::integer END AS max_epochs,
                      coalesce(e.completed, 0) AS "completed!",
                      coalesce(e.expected, 0) AS "expected!",
                      coalesce(e.failed, 0) AS "failed!",
                      CASE WHEN e.rates_done THEN e.over_rates
                           WHEN e.rates_done IS NULL AND e.all_done THEN e.over_all END AS value
               FROM sweep_job w
               JOIN job j ON j.id = w.job
               LEFT JOIN config c ON c.id = j.config
               LEFT JOIN evals e ON e.train_job = j.id
               WHERE w.sweep = $1 AND j.kind = 'train'
               ORDER BY w.position"#,
            sweep.0,
            &datasets,
            &metrics
        )
        .fetch_all(self.pool())
        .await?
        .into_iter()
        .map(|row| MapRow {
            job: JobId(row.id),
            dataset: row.dataset,
            method: row.method,
            variant: row.variant,
            seed: row.seed,
            state: row.state,
            epoch: row.epoch,
            max_epochs: row.max_epochs,
            completed: row.completed,
            expected: row.expected,
            failed: row.failed,
            value: row.value,
        })
        .collect())
    }

    /// A job with a sweep that asks for it.
    pub async fn job_home(&self, job: JobId) -> Result<Option<JobHome>, StoreError> {
        Ok(sqlx::query!(
            r#"SELECT s.id AS sweep, s.state AS "sweep_state: SweepState",
                      j.state AS "state: JobState", t.id AS training,
                      t.state AS "training_state: JobState"
               FROM job j
               JOIN job t ON t.id = coalesce(j.train_job, j.id)
               JOIN sweep_job w ON w.job = j.id
               JOIN sweep s ON s.id = w.sweep
               WHERE j.id = $1
               ORDER BY s.state, s.priority DESC, s.created, s.id LIMIT 1"#,
            job.0
        )
        .fetch_optional(self.pool())
        .await?
        .map(|row| JobHome {
            sweep: SweepId(row.sweep),
            sweep_state: row.sweep_state,
            state: row.state,
            training: JobId(row.training),
            training_state: row.training_state,
        }))
    }

    /// The datasets of a sweep with the hashes of their files and of their text encoders.
    pub async fn data_hashes(&self, sweep: SweepId) -> Result<Vec<DataHash>, StoreError> {
        Ok(sqlx::query_as!(
            DataHash,
            "SELECT DISTINCT j.dataset, c.spec #>> '{data,blake3}' AS blake3,
                    c.spec #>> '{encoder,blake3}' AS encoder
             FROM tally j JOIN config c ON c.id = j.config
             WHERE j.sweep = $1 AND j.kind = 'train'
             ORDER BY 1, 2, 3",
            sweep.0
        )
        .fetch_all(self.pool())
        .await?)
    }
}
