//! The rows that a batch writes, and the same by column, as `UNNEST` takes them.

use super::int;
use crate::{
    job::AttemptOutcome,
    lifecycle::{Job, began},
    text::without_nul,
};
use chrono::{DateTime, Utc};
use halfheard_shared::{
    ids::{AttemptId, JobId},
    wire::{CheckpointRef, CriterionResult, EpochLog, FailureKind, ResultBody, ResultMessage},
};
use serde_json::{Value, json};
use uuid::Uuid;

/// Declares a row and the columns that an iterator of rows collects into.
macro_rules! rows {
    ($(#[doc = $doc:literal] $row:ident, $columns:ident { $($field:ident: $type:ty),+ $(,)? })+) => {$(
        #[doc = $doc]
        pub(super) struct $row {
            $(pub(super) $field: $type),+
        }

        #[doc = concat!("The columns of many [`", stringify!($row), "`].")]
        #[derive(Default)]
        pub(super) struct $columns {
            $(pub(super) $field: Vec<$type>),+
        }

        impl FromIterator<$row> for $columns {
            fn from_iter<I: IntoIterator<Item = $row>>(rows: I) -> Self {
                let mut columns = Self::default();
                for row in rows {
                    $(columns.$field.push(row.$field);)+
                }
                columns
            }
        }
    )+};
}

rows! {
    /// A row of table `attempt`, as far as this batch tells.
    AttemptRow, AttemptColumns {
        id: Uuid,
        job: Uuid,
        publication: i32,
        delivery: Option<i64>,
        worker: String,
        host: String,
        device: String,
        version: String,
        processor: String,
        started: Option<DateTime<Utc>>,
        resumed_after_epoch: Option<i32>,
        ended: Option<DateTime<Utc>>,
        outcome: Option<AttemptOutcome>,
        failure_kind: Option<&'static str>,
        errors: Value,
        epochs: Option<i32>,
        seconds: Option<f64>,
    }

    /// What a batch changes in a row of table `job`.
    JobRow, JobColumns {
        id: Uuid,
        state: &'static str,
        publication: i32,
        failures: i32,
        attempt: Option<Uuid>,
        outcome: Option<Vec<u8>>,
        started: Option<DateTime<Utc>>,
        finished: Option<DateTime<Utc>>,
        last_error: Option<String>,
        delay: f64,
    }

    /// A row of table `epoch_log`.
    EpochRow, EpochColumns {
        job: Uuid,
        epoch: i32,
        attempt: Uuid,
        losses: Value,
        metrics: Value,
        train_seconds: f64,
        eval_seconds: f64,
        best_for: Value,
    }

    /// A row of table `checkpoint`.
    CheckpointRow, CheckpointColumns {
        job: Uuid,
        criterion: String,
        epoch: i32,
        blake3: String,
        bytes: i64,
        attempt: Uuid,
    }

    /// A row of table `prediction`.
    PredictionRow, PredictionColumns {
        job: Uuid,
        number: i32,
        samples: i32,
        data: Vec<u8>,
    }

    /// A row of table `evaluation`.
    EvaluationRow, EvaluationColumns {
        job: Uuid,
        criterion: String,
        epoch: i32,
        prediction: i32,
        attempt: Uuid,
    }

    /// A row of table `result`.
    ValueRow, ValueColumns {
        job: Uuid,
        criterion: String,
        metric: String,
        value: Option<f64>,
    }
}

impl AttemptRow {
    pub(super) fn new(message: &ResultMessage) -> Self {
        let worker = &message.worker;
        Self {
            id: message.attempt.0,
            job: message.job.0,
            publication: int(message.publication),
            delivery: None,
            worker: without_nul(&worker.name),
            host: without_nul(&worker.host),
            device: without_nul(&worker.device),
            version: without_nul(&worker.version),
            processor: without_nul(&worker.processor),
            started: None,
            resumed_after_epoch: None,
            ended: None,
            outcome: None,
            failure_kind: None,
            errors: json!([]),
            epochs: None,
            seconds: None,
        }
    }

    /// Whether the worker handed the job back for a fault of its own.
    pub(super) fn is_declined(&self) -> bool {
        self.outcome == Some(AttemptOutcome::HandedBack) && self.failure_kind.is_some()
    }

    /// Adds what `message`, sent at `at`, tells of the attempt.
    pub(super) fn update(&mut self, message: &ResultMessage, at: DateTime<Utc>) {
        match &message.body {
            ResultBody::Started {
                delivery,
                resumed_after_epoch,
            } => {
                self.started = Some(at);
                self.delivery = Some(i64::try_from(*delivery).unwrap_or(i64::MAX));
                self.resumed_after_epoch = Some(int(*resumed_after_epoch));
                return;
            }
            ResultBody::Epoch(_) => return,
            ResultBody::Trained {
                epochs, seconds, ..
            } => {
                self.epochs = Some(int(*epochs));
                self.seconds = Some(*seconds).filter(|seconds| seconds.is_finite());
            }
            ResultBody::Failed(failure) => {
                self.failure_kind = Some(match failure.kind {
                    FailureKind::Permanent => "permanent",
                    FailureKind::Retryable => "retryable",
                    FailureKind::NonFinite => "non_finite",
                    FailureKind::Crashed => "crashed",
                });
                self.errors = failure.chain.iter().map(|text| without_nul(text)).collect();
            }
            ResultBody::HandedBack { after_epoch } => self.epochs = Some(int(*after_epoch)),
            ResultBody::Declined { after_epoch, fault } => {
                self.epochs = Some(int(*after_epoch));
                self.failure_kind = Some(fault.kind.as_str());
                let outermost = format!("cannot {}", fault.deed());
                self.errors = std::iter::once(&outermost)
                    .chain(&fault.chain)
                    .map(|text| without_nul(text))
                    .collect();
            }
            ResultBody::Evaluated { seconds, .. } => {
                self.started = self.started.max(Some(began(at, *seconds)));
                self.seconds = Some(*seconds).filter(|seconds| seconds.is_finite());
            }
            ResultBody::Noop => {}
        }
        self.ended = Some(at);
    }
}

impl From<&Job> for JobRow {
    fn from(job: &Job) -> Self {
        Self {
            id: job.id.0,
            state: job.state.as_str(),
            publication: job.publication,
            failures: job.failures,
            attempt: job.attempt.map(|attempt| attempt.0),
            outcome: job.outcome.map(|digest| digest.to_vec()),
            started: job.started,
            finished: job.finished,
            last_error: job.last_error.as_deref().map(without_nul),
            delay: job.delay.as_secs_f64(),
        }
    }
}

impl EpochRow {
    pub(super) fn new(job: JobId, attempt: AttemptId, log: &EpochLog) -> Self {
        Self {
            job: job.0,
            epoch: int(log.epoch),
            attempt: attempt.0,
            losses: json!(log.losses),
            metrics: json!(log.metrics),
            train_seconds: log.train_seconds,
            eval_seconds: log.eval_seconds,
            best_for: json!(log.best_for),
        }
    }
}

impl CheckpointRow {
    pub(super) fn new(job: JobId, attempt: AttemptId, checkpoint: &CheckpointRef) -> Self {
        Self {
            job: job.0,
            criterion: checkpoint.criterion.clone(),
            epoch: int(checkpoint.epoch),
            blake3: checkpoint.blake3.clone(),
            bytes: i64::try_from(checkpoint.bytes).unwrap_or(i64::MAX),
            attempt: attempt.0,
        }
    }
}

impl PredictionRow {
    pub(super) fn new(job: JobId, number: usize, vector: &[f32]) -> Self {
        Self {
            job: job.0,
            number: int(number),
            samples: int(vector.len()),
            data: vector.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }
}

impl EvaluationRow {
    pub(super) fn new(job: JobId, attempt: AttemptId, result: &CriterionResult) -> Self {
        Self {
            job: job.0,
            criterion: result.criterion.clone(),
            epoch: int(result.epoch),
            prediction: int(result.predictions),
            attempt: attempt.0,
        }
    }
}

impl ValueRow {
    /// The metrics of one criterion. An undefined one is NULL, never NaN.
    pub(super) fn of(job: JobId, result: &CriterionResult) -> impl Iterator<Item = Self> {
        result.metrics.iter().map(move |(metric, value)| Self {
            job: job.0,
            criterion: result.criterion.clone(),
            metric: metric.clone(),
            value: value.filter(|value| value.is_finite()),
        })
    }
}
