//! Which artifacts are still needed.
//!
//! An artifact is asked about just before it is deleted; one that is not needed now is needed again only
//! if a worker writes it again, and then it is young, which protects it.

use crate::{Store, StoreError};
use halfheard_shared::ids::{AttemptId, JobId};
use std::{collections::HashSet, time::Duration};
use uuid::Uuid;

impl Store {
    /// Of these checkpoints, by hash, those that the results of a kept sweep refer to.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn needed_checkpoints(
        &self,
        hashes: &[String],
    ) -> Result<HashSet<String>, StoreError> {
        let needed = sqlx::query_scalar!(
            r#"WITH kept AS MATERIALIZED (
                   SELECT s.id FROM sweep s
                   WHERE s.retention = 'all'
                      OR EXISTS (SELECT FROM sweep_job w JOIN job j ON j.id = w.job
                                 WHERE w.sweep = s.id
                                   AND j.state IN ('blocked', 'ready', 'queued', 'running'))
               )
               SELECT DISTINCT c.blake3 AS "blake3!" FROM checkpoint c
               WHERE c.blake3 = ANY($1)
                 AND EXISTS (SELECT FROM sweep_job w JOIN kept k ON k.id = w.sweep
                             WHERE w.job = c.job)"#,
            hashes
        )
        .fetch_all(self.pool())
        .await?;
        Ok(needed.into_iter().collect())
    }

    /// Of these training jobs, those whose saved states are needed: they are not finished, or failed or
    /// were cancelled less than `keep` ago.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn needed_states(
        &self,
        jobs: &[JobId],
        keep: Duration,
    ) -> Result<HashSet<JobId>, StoreError> {
        let ids: Vec<Uuid> = jobs.iter().map(|job| job.0).collect();
        let needed = sqlx::query_scalar!(
            "SELECT id FROM job
             WHERE id = ANY($1)
               AND (state IN ('ready', 'queued', 'running')
                    OR state IN ('failed', 'cancelled')
                       AND changed > now() - make_interval(secs => $2))",
            &ids,
            keep.as_secs_f64()
        )
        .fetch_all(self.pool())
        .await?;
        Ok(needed.into_iter().map(JobId).collect())
    }

    /// Of these attempts, those that the database has.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn known_attempts(
        &self,
        attempts: &[AttemptId],
    ) -> Result<HashSet<AttemptId>, StoreError> {
        let ids: Vec<Uuid> = attempts.iter().map(|attempt| attempt.0).collect();
        let known = sqlx::query_scalar!("SELECT id FROM attempt WHERE id = ANY($1)", &ids)
            .fetch_all(self.pool())
            .await?;
        Ok(known.into_iter().map(AttemptId).collect())
    }

    /// The hashes of the datasets, encoders, external programs and tables of confusions that jobs refer
    /// to.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn needed_data(&self) -> Result<HashSet<String>, StoreError> {
        let needed = sqlx::query_scalar!(
            r#"SELECT DISTINCT hash AS "hash!" FROM config c
               CROSS JOIN LATERAL (VALUES (c.spec #>> '{data,blake3}'),
                                          (c.spec #>> '{encoder,blake3}'),
                                          ((c.spec ->> 'hyper')::jsonb #>> '{program,bundle}'))
                                  AS v (hash)
               WHERE hash IS NOT NULL
                 AND c.id IN (SELECT config FROM job WHERE config IS NOT NULL)
               UNION
               SELECT DISTINCT confusions FROM job WHERE confusions IS NOT NULL"#
        )
        .fetch_all(self.pool())
        .await?;
        Ok(needed.into_iter().collect())
    }

    /// For how long trainings are under way that have not reported their checkpoints: what was written
    /// since may be theirs. Counts those that were lost or failed in the last day, whose workers may
    /// still report.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn unreported_for(&self) -> Result<Duration, StoreError> {
        let seconds = sqlx::query_scalar!(
            r#"SELECT coalesce(extract(epoch FROM now() - min(a.granted)), 0)::double precision
                   AS "seconds!"
               FROM job j JOIN attempt a ON a.id = j.attempt
               WHERE j.kind = 'train'
                 AND (j.state IN ('queued', 'running')
                      OR j.state IN ('ready', 'failed', 'cancelled')
                         AND j.changed > now() - interval '1 day')"#
        )
        .fetch_one(self.pool())
        .await?;
        Ok(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
    }

    /// The checkpoints that results of kept sweeps refer to, by hash, after `after` in their order, at
    /// most `limit`; each with one of the trainings that delivered it and its size in bytes.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn kept_checkpoints(
        &self,
        after: &str,
        limit: i64,
    ) -> Result<Vec<KeptCheckpoint>, StoreError> {
        let rows = sqlx::query!(
            r#"WITH kept AS MATERIALIZED (
                   SELECT s.id FROM sweep s
                   WHERE s.retention = 'all'
                      OR EXISTS (SELECT FROM sweep_job w JOIN job j ON j.id = w.job
                                 WHERE w.sweep = s.id
                                   AND j.state IN ('blocked', 'ready', 'queued', 'running'))
               )
               SELECT c.blake3, max(c.bytes) AS "bytes!",
                      array_agg(DISTINCT c.job ORDER BY c.job) AS "jobs!"
               FROM checkpoint c
               WHERE c.blake3 > $1
                 AND EXISTS (SELECT FROM sweep_job w JOIN kept k ON k.id = w.sweep
                             WHERE w.job = c.job)
               GROUP BY c.blake3 ORDER BY c.blake3 LIMIT $2"#,
            after,
            limit
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| KeptCheckpoint {
                blake3: row.blake3,
                bytes: row.bytes,
                jobs: row.jobs.into_iter().map(JobId).collect(),
            })
            .collect())
    }

    /// Measured sizes and times of earlier trainings, for estimates.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn measured(&self) -> Result<Vec<Measured>, StoreError> {
        let rows = sqlx::query!(
            r#"WITH j AS MATERIALIZED (
                   SELECT job.id, kind, method, variant, dataset, attempt,
                          coalesce(c.spec #>> '{protocol,selection}', '') = 'both' AS both
                   FROM job JOIN config c ON c.id = job.config
                   WHERE job.state = 'done'
               )
               SELECT j.method, j.variant, j.dataset, j.both AS "both!",
                      percentile_cont(0.5) WITHIN GROUP (ORDER BY a.seconds / a.epochs)
                          AS "epoch_seconds!",
                      percentile_cont(0.5) WITHIN GROUP (ORDER BY a.epochs) AS "epochs!",
                      avg((SELECT sum(c.bytes) FROM checkpoint c WHERE c.job = j.id))
                          ::double precision AS checkpoint_bytes,
                      (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY e.seconds)
                       FROM j ej JOIN attempt e ON e.id = ej.attempt
                       WHERE ej.kind = 'eval' AND ej.method = j.method
                         AND ej.variant = j.variant AND ej.dataset = j.dataset
                         AND ej.both = j.both AND e.seconds IS NOT NULL) AS evaluation_seconds,
                      coalesce(avg((SELECT avg(l.eval_seconds) FROM epoch_log l
                                    WHERE l.job = j.id)), 0) AS "predict_seconds!"
               FROM j JOIN attempt a ON a.job = j.id AND a.outcome = 'done'
               WHERE j.kind = 'train' AND a.epochs > 0 AND a.seconds > 0
               GROUP BY j.method, j.variant, j.dataset, j.both"#
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| Measured {
                method: row.method,
                variant: row.variant,
                dataset: row.dataset,
                epoch_seconds: row.epoch_seconds,
                epochs: row.epochs,
                checkpoint_bytes: row.checkpoint_bytes,
                evaluation_seconds: row.evaluation_seconds,
                both: row.both,
                predict_seconds: row.predict_seconds,
            })
            .collect())
    }

    /// The bytes that the database takes on its disk.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn database_bytes(&self) -> Result<i64, StoreError> {
        let bytes =
            sqlx::query_scalar!(r#"SELECT pg_database_size(current_database()) AS "bytes!""#)
                .fetch_one(self.pool())
                .await?;
        Ok(bytes)
    }
}

/// A checkpoint that results refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCheckpoint {
    /// Its hash.
    pub blake3: String,
    /// Its size in bytes.
    pub bytes: i64,
    /// The training jobs that delivered it.
    pub jobs: Vec<JobId>,
}

/// What trainings of one model on one dataset took.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The method's id.
    pub method: String,
    /// The variant's id, empty for the method itself.
    pub variant: String,
    /// The dataset's name.
    pub dataset: String,
    /// Median seconds per epoch.
    pub epoch_seconds: f64,
    /// Median number of epochs.
    pub epochs: f64,
    /// Mean bytes of all checkpoints of one training, if there are any.
    pub checkpoint_bytes: Option<f64>,
    /// Median seconds of one evaluation, if there was any.
    pub evaluation_seconds: Option<f64>,
    /// Whether both splits chose checkpoints.
    pub both: bool,
    /// Mean seconds that predicting the splits that choose takes in an epoch.
    pub predict_seconds: f64,
}
