//! One training and what became of it: its epochs, attempts and checkpoints, the evaluations of its model, and
//! the same training with other seeds. What the page's curves and `coord top` are drawn from.

use crate::{JobKind, JobState, Store, StoreError, job::AttemptOutcome, output::KeptOutput};
use chrono::{DateTime, Utc};
use halfheard_shared::ids::{AttemptId, JobId, SweepId};
use sqlx::types::Json;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// The most other seeds that [`Store::training_siblings`] returns.
const MAX_SIBLINGS: i64 = 24;

/// A training job, or an evaluation or no-op job in its place.
#[derive(Clone, Debug)]
pub struct Training {
    /// Its id.
    pub job: JobId,
    /// Training, evaluation or no-op.
    pub kind: JobKind,
    /// The method's id.
    pub method: String,
    /// The variant's id; empty for the method itself.
    pub variant: String,
    /// The dataset's name.
    pub dataset: String,
    /// The training seed.
    pub seed: i64,
    /// The case of an evaluation.
    pub case_id: Option<String>,
    /// The training job of an evaluation.
    pub train_job: Option<JobId>,
    /// Its state.
    pub state: JobState,
    /// Attempts that failed with an error of the job's own.
    pub failures: i32,
    /// Attempts that began and ended without a word since the last saved state.
    pub losses: i32,
    /// Training steps in the last state that was saved.
    pub progress: i64,
    /// The last failure, outermost error first.
    pub last_error: Option<String>,
    /// When it is retried at the earliest, if that is later than now.
    pub retried_at: Option<DateTime<Utc>>,
    /// Start of the first attempt.
    pub started: Option<DateTime<Utc>>,
    /// When it was done, failed or cancelled.
    pub finished: Option<DateTime<Utc>>,
    /// What is trained, as workers receive it, with seed 0; nothing for no-op jobs.
    pub spec: Option<serde_json::Value>,
}

/// A sweep that asks for a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskingSweep {
    /// Its id.
    pub sweep: SweepId,
    /// Its name.
    pub name: String,
}

/// One epoch of a training.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochRow {
    /// The training job.
    pub job: JobId,
    /// From 1.
    pub epoch: i32,
    /// Mean training losses by name: `loss` is the total, the others its parts.
    pub losses: BTreeMap<String, Option<f64>>,
    /// Metrics on the selection split by name; where both splits select, those on the test split under
    /// `test:mae` and so on.
    pub metrics: BTreeMap<String, Option<f64>>,
    /// Seconds of training.
    pub train_seconds: f64,
    /// Seconds of evaluation.
    pub eval_seconds: f64,
    /// The selection criteria for which this epoch was the best so far.
    pub best_for: Vec<String>,
}

/// One grant of a job to a worker, and how it ended.
#[derive(Clone, Debug)]
pub struct AttemptRow {
    /// Its id.
    pub attempt: AttemptId,
    /// The worker.
    pub worker: String,
    /// The worker's machine.
    pub host: String,
    /// `cpu`, or the name of the GPU.
    pub device: String,
    /// The worker's version.
    pub version: String,
    /// The kind of processor.
    pub processor: String,
    /// When it was granted.
    pub granted: DateTime<Utc>,
    /// When it began.
    pub started: Option<DateTime<Utc>>,
    /// The last epoch that an earlier attempt completed.
    pub resumed_after_epoch: Option<i32>,
    /// When it ended.
    pub ended: Option<DateTime<Utc>>,
    /// How; nothing while it is running.
    pub outcome: Option<AttemptOutcome>,
    /// `permanent`, `retryable`, …; of a declined one, the fault of the worker.
    pub failure_kind: Option<String>,
    /// The error and its causes, outermost first.
    pub errors: Vec<String>,
    /// The most bytes of the device's memory that it used.
    pub peak_memory: Option<i64>,
}

/// The best weights of a training by one criterion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRow {
    /// The selection criterion; `test:mae` is `mae` on the test split, where both splits select.
    pub criterion: String,
    /// The epoch after which they were saved.
    pub epoch: i32,
    /// BLAKE3 of the file, 64 hexadecimal digits.
    pub blake3: String,
    /// Its size in bytes.
    pub bytes: i64,
}

/// The evaluation of a training's model on one case.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseRow {
    /// The training job.
    pub train_job: JobId,
    /// The evaluation job.
    pub job: JobId,
    /// The case.
    pub case_id: String,
    /// Its state.
    pub state: JobState,
    /// The last failure, outermost error first.
    pub last_error: Option<String>,
    /// Each metric from the checkpoint of its own family, once it is done; an undefined one is `None`.
    pub metrics: BTreeMap<String, Option<f64>>,
}

/// The same training with another seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sibling {
    /// The training job.
    pub job: JobId,
    /// Its seed.
    pub seed: i64,
    /// Its state.
    pub state: JobState,
}

impl Store {
    /// A job with what it trains.
    ///
    /// # Errors
    ///
    /// No job has this id; the database's, as for all methods here.
    pub async fn training(&self, job: JobId) -> Result<Training, StoreError> {
        let row = sqlx::query!(
            r#"SELECT j.kind AS "kind: JobKind", j.method, j.variant, j.dataset, j.seed, j.case_id,
                      j.train_job, j.state AS "state: JobState", j.failures, j.losses, j.progress,
                      j.last_error, j.started, j.finished,
                      CASE WHEN j.state = 'ready' AND j.not_before > now() THEN j.not_before END
                          AS retried_at,
                      c.spec AS "spec?"
               FROM job j LEFT JOIN config c ON c.id = j.config WHERE j.id = $1"#,
            job.0
        )
        .fetch_optional(self.pool())
        .await?
        .ok_or_else(|| StoreError::NoJob(job.to_string()))?;
        Ok(Training {
            job,
            kind: row.kind,
            method: row.method,
            variant: row.variant,
            dataset: row.dataset,
            seed: row.seed,
            case_id: row.case_id,
            train_job: row.train_job.map(JobId),
            state: row.state,
            failures: row.failures,
            losses: row.losses,
            progress: row.progress,
            last_error: row.last_error,
            retried_at: row.retried_at,
            started: row.started,
            finished: row.finished,
            spec: row.spec,
        })
    }

    /// The sweeps that ask for a job, newest first.
    pub async fn sweeps_asking(&self, job: JobId) -> Result<Vec<AskingSweep>, StoreError> {
        let rows = sqlx::query!(
            "SELECT s.id, s.name FROM sweep_job w JOIN sweep s ON s.id = w.sweep
             WHERE w.job = $1 ORDER BY s.created DESC, s.id",
            job.0
        )
        .fetch_all(self.pool())
        .await?;
        let rows = rows.into_iter().map(|row| AskingSweep {
            sweep: SweepId(row.id),
            name: row.name,
        });
        Ok(rows.collect())
    }

    /// The epochs of trainings, by training and epoch.
    pub async fn training_epochs(&self, jobs: &[JobId]) -> Result<Vec<EpochRow>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT job, epoch, losses AS "losses: Json<BTreeMap<String, Option<f64>>>",
                      metrics AS "metrics: Json<BTreeMap<String, Option<f64>>>",
                      train_seconds, eval_seconds, best_for
               FROM epoch_log WHERE job = ANY($1) ORDER BY job, epoch"#,
            &ids(jobs)
        )
        .fetch_all(self.pool())
        .await?;
        let rows = rows.into_iter().map(|row| EpochRow {
            job: JobId(row.job),
            epoch: row.epoch,
            losses: row.losses.0,
            metrics: row.metrics.0,
            train_seconds: row.train_seconds,
            eval_seconds: row.eval_seconds,
            best_for: row.best_for,
        });
        Ok(rows.collect())
    }

    /// The attempts at a job, in the order in which they were granted.
    pub async fn attempts(&self, job: JobId) -> Result<Vec<AttemptRow>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT id, worker, host, device, version, processor, granted, started,
                      resumed_after_epoch, ended, outcome AS "outcome: AttemptOutcome", failure_kind,
                      errors, peak_memory
               FROM attempt WHERE job = $1 ORDER BY granted, id"#,
            job.0
        )
        .fetch_all(self.pool())
        .await?;
        let rows = rows.into_iter().map(|row| AttemptRow {
            attempt: AttemptId(row.id),
            worker: row.worker,
            host: row.host,
            device: row.device,
            version: row.version,
            processor: row.processor,
            granted: row.granted,
            started: row.started,
            resumed_after_epoch: row.resumed_after_epoch,
            ended: row.ended,
            outcome: row.outcome,
            failure_kind: row.failure_kind,
            errors: row.errors,
            peak_memory: row.peak_memory,
        });
        Ok(rows.collect())
    }

    /// The checkpoints of a training, by criterion.
    pub async fn training_checkpoints(&self, job: JobId) -> Result<Vec<CheckpointRow>, StoreError> {
        Ok(sqlx::query_as!(
            CheckpointRow,
            "SELECT criterion, epoch, blake3, bytes FROM checkpoint WHERE job = $1
             ORDER BY criterion",
            job.0
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// The evaluations of trainings' models, by training and case.
    pub async fn training_cases(&self, jobs: &[JobId]) -> Result<Vec<CaseRow>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT e.train_job AS "train_job!", e.id, e.case_id AS "case_id!",
                      e.state AS "state: JobState", e.last_error,
                      coalesce((SELECT jsonb_object_agg(m.metric, r.value)
                                FROM metric m
                                JOIN result r ON r.job = e.id AND r.criterion = m.criterion
                                             AND r.metric = m.metric
                                WHERE m.dataset = e.dataset), '{}')
                          AS "metrics!: Json<BTreeMap<String, Option<f64>>>"
               FROM job e WHERE e.train_job = ANY($1) ORDER BY e.train_job, e.case_id"#,
            &ids(jobs)
        )
        .fetch_all(self.pool())
        .await?;
        let rows = rows.into_iter().map(|row| CaseRow {
            train_job: JobId(row.train_job),
            job: JobId(row.id),
            case_id: row.case_id,
            state: row.state,
            last_error: row.last_error,
            metrics: row.metrics.0,
        });
        Ok(rows.collect())
    }

    /// What the program of a job wrote, in its last attempt that wrote anything.
    pub async fn last_output(
        &self,
        job: JobId,
    ) -> Result<Option<(AttemptId, KeptOutput)>, StoreError> {
        let row = sqlx::query!(
            "SELECT a.id, o.tail, o.bytes, o.stored
             FROM attempt a JOIN attempt_output o ON o.attempt = a.id
             WHERE a.job = $1 ORDER BY a.granted DESC, a.id DESC LIMIT 1",
            job.0
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(row.map(|row| {
            let output = KeptOutput {
                tail: row.tail,
                bytes: row.bytes.max(0).unsigned_abs(),
                stored: row.stored,
            };
            (AttemptId(row.id), output)
        }))
    }

    /// How long the last epoch of each of these trainings took, in seconds of training.
    pub async fn epoch_seconds(&self, jobs: &[JobId]) -> Result<HashMap<JobId, f64>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT j.id AS "job!", e.train_seconds
               FROM unnest($1::uuid[]) AS j (id)
               CROSS JOIN LATERAL (SELECT train_seconds FROM epoch_log WHERE job = j.id
                                   ORDER BY epoch DESC LIMIT 1) e"#,
            &ids(jobs)
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| (JobId(row.job), row.train_seconds))
            .collect())
    }

    /// The same training with other seeds, by seed: the first 24.
    pub async fn training_siblings(&self, job: JobId) -> Result<Vec<Sibling>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT o.id, o.seed, o.state AS "state: JobState"
               FROM job j JOIN job o ON o.config = j.config AND o.kind = 'train' AND o.id <> j.id
               WHERE j.id = $1 AND j.kind = 'train' ORDER BY o.seed, o.id LIMIT $2"#,
            job.0,
            MAX_SIBLINGS
        )
        .fetch_all(self.pool())
        .await?;
        let rows = rows.into_iter().map(|row| Sibling {
            job: JobId(row.id),
            seed: row.seed,
            state: row.state,
        });
        Ok(rows.collect())
    }
}

fn ids(jobs: &[JobId]) -> Vec<Uuid> {
    jobs.iter().map(|job| job.0).collect()
}
