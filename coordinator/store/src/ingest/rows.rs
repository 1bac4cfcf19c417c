//! The rows that a batch writes, and the same by column, as `UNNEST` takes them.

use super::int;
use crate::{
    columns::rows,
    job::AttemptOutcome,
    lifecycle::{Attempt, began, label},
    text::{NAME, bounded, causes, tail},
};
use chrono::{DateTime, Utc};
use halfheard_shared::{
    external::OUTPUT_TAIL,
    ids::{AttemptId, JobId},
    wire::{CheckpointRef, CriterionResult, EpochLog, FailureKind, ResultBody, ResultMessage},
};
use serde_json::{Value, json};
use uuid::Uuid;

rows! {
    /// What a batch changes in a row of table `attempt`.
    AttemptRow, AttemptColumns {
        id: Uuid,
        job: Uuid,
        processor: String,
        started: Option<DateTime<Utc>>,
        resumed_after_epoch: Option<i32>,
        ended: Option<DateTime<Utc>>,
        outcome: Option<AttemptOutcome>,
        failure_kind: Option<&'static str>,
        errors: Value,
        epochs: Option<i32>,
        seconds: Option<f64>,
        peak_memory: Option<i64>,
    }

    /// A row of table `attempt_output`.
    OutputRow, OutputColumns {
        attempt: Uuid,
        tail: String,
        bytes: i64,
        stored: bool,
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

impl OutputRow {
    /// Of a report about a program's output.
    pub(super) fn of(message: &ResultMessage) -> Option<Self> {
        let ResultBody::Output {
            tail: end,
            bytes,
            stored,
        } = &message.body
        else {
            return None;
        };
        Some(Self {
            attempt: message.attempt.0,
            tail: tail(end, OUTPUT_TAIL),
            bytes: i64::try_from(*bytes).unwrap_or(i64::MAX),
            stored: *stored,
        })
    }
}

impl AttemptRow {
    pub(super) fn new(message: &ResultMessage) -> Self {
        Self {
            id: message.attempt.0,
            job: message.job.0,
            processor: bounded(&message.worker.processor, NAME),
            started: None,
            resumed_after_epoch: None,
            ended: None,
            outcome: None,
            failure_kind: None,
            errors: json!([]),
            epochs: None,
            seconds: None,
            peak_memory: None,
        }
    }

    /// Whether the worker handed the job back for a fault of its own.
    pub(super) fn is_declined(&self) -> bool {
        self.outcome == Some(AttemptOutcome::HandedBack) && self.failure_kind.is_some()
    }

    /// Ends it because its report was rejected.
    pub(super) fn reject(&mut self, reason: &str, at: DateTime<Utc>) {
        self.outcome = Some(AttemptOutcome::Failed);
        self.failure_kind = Some(label(FailureKind::Invalid));
        self.errors = json!(["its report was rejected", reason]);
        self.ended = Some(at);
    }

    /// Adds what `message`, which arrived at `at`, changed of the attempt.
    pub(super) fn update(
        &mut self,
        message: &ResultMessage,
        before: &Attempt,
        after: &Attempt,
        at: DateTime<Utc>,
    ) {
        if !before.begun && after.begun {
            self.started = Some(at);
        }
        if let ResultBody::Started {
            resumed_after_epoch,
        } = &message.body
        {
            self.resumed_after_epoch = Some(int(*resumed_after_epoch));
        }
        if before.outcome == after.outcome {
            return;
        }
        self.outcome = after.outcome;
        self.ended = Some(at);
        match &message.body {
            ResultBody::Started { .. }
            | ResultBody::Epoch(_)
            | ResultBody::Noop
            | ResultBody::Output { .. } => {}
            ResultBody::Trained {
                epochs,
                seconds,
                peak_memory,
                ..
            } => {
                self.epochs = Some(int(*epochs));
                self.measured(*seconds, *peak_memory);
            }
            ResultBody::Evaluated {
                seconds,
                peak_memory,
                ..
            } => {
                self.started = self.started.max(Some(began(at, *seconds)));
                self.measured(*seconds, *peak_memory);
            }
            ResultBody::Failed(failure) => {
                self.failure_kind = Some(label(failure.kind));
                self.errors = json!(causes(&failure.chain));
            }
            ResultBody::HandedBack { after_epoch } => self.epochs = Some(int(*after_epoch)),
            ResultBody::Declined { after_epoch, fault } => {
                self.epochs = Some(int(*after_epoch));
                self.failure_kind = Some(fault.kind.as_str());
                let outermost = format!("cannot {}", fault.deed());
                self.errors = json!(causes(std::iter::once(&outermost).chain(&fault.chain)));
            }
        }
    }

    fn measured(&mut self, seconds: f64, peak_memory: u64) {
        self.seconds = Some(seconds).filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
        self.peak_memory = i64::try_from(peak_memory).ok().filter(|bytes| *bytes > 0);
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
    /// The metrics of one criterion. An undefined one is NULL.
    pub(super) fn of(job: JobId, result: &CriterionResult) -> impl Iterator<Item = Self> {
        result.metrics.iter().map(move |(metric, value)| Self {
            job: job.0,
            criterion: result.criterion.clone(),
            metric: metric.clone(),
            value: *value,
        })
    }
}
