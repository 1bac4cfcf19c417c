//! What jobs took, by what they compute and on which device.

use crate::{Store, StoreError};

/// How long jobs of one kind took that train or evaluate the same, on one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// Whether they are training jobs.
    pub trains: bool,
    /// What is trained, as workers receive it, with seed 0.
    pub spec: serde_json::Value,
    /// `cpu`, or the name of the GPU.
    pub device: String,
    /// How many jobs.
    pub jobs: i64,
    /// Median seconds: of an epoch, with its predictions, or of an evaluation.
    pub seconds: f64,
    /// Median epochs of a training.
    pub epochs: Option<f64>,
}

impl Store {
    /// What completed jobs of all sweeps took, the most frequent first. Devices are told apart by the
    /// attempt that brought the result.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn timings(&self) -> Result<Vec<Timing>, StoreError> {
        Ok(sqlx::query_as!(
            Timing,
            r#"SELECT j.kind = 'train' AS "trains!", c.spec, a.device, count(*) AS "jobs!",
                      percentile_cont(0.5) WITHIN GROUP (
                          ORDER BY CASE j.kind WHEN 'train' THEN a.seconds / a.epochs
                                               ELSE a.seconds END) AS "seconds!",
                      percentile_cont(0.5) WITHIN GROUP (ORDER BY a.epochs) AS epochs
               FROM job j
               JOIN config c ON c.id = j.config
               JOIN attempt a ON a.job = j.id AND a.outcome = 'done'
               WHERE j.state = 'done' AND a.seconds > 0 AND a.device <> ''
                 AND (j.kind = 'eval' OR j.kind = 'train' AND a.epochs > 0)
               GROUP BY j.kind, c.id, a.device
               ORDER BY count(*) DESC, c.id, a.device"#
        )
        .fetch_all(self.pool())
        .await?)
    }
}
