//! The worker's part of an attempt's trace.

use super::leases::JobLease;
use halfheard_shared::{
    ids::AttemptId,
    wire::{EpochLog, ResultBody, Work},
};
use halfheard_telemetry::traces::{KeyValue, Scope, Trace};
use std::time::{Duration, SystemTime};

/// What preparing, computing or storing for an attempt took; it is over now.
pub(super) fn part(attempt: AttemptId, name: &'static str, began: SystemTime) {
    if let Some(trace) = Trace::of(attempt) {
        trace.part(Scope::Worker, name, (began, SystemTime::now()), Vec::new());
    }
}

/// An epoch that is over now.
pub(super) fn epoch(attempt: AttemptId, log: &EpochLog) {
    let Some(trace) = Trace::of(attempt) else {
        return;
    };
    let took = Duration::try_from_secs_f64(log.train_seconds + log.eval_seconds);
    let mut attributes = vec![
        KeyValue::new("epoch", i64::from(log.epoch)),
        KeyValue::new("train_seconds", log.train_seconds),
        KeyValue::new("eval_seconds", log.eval_seconds),
    ];
    attributes.extend(
        log.losses
            .get("loss")
            .map(|loss| KeyValue::new("loss", *loss)),
    );
    trace.just_ended("epoch", took.unwrap_or_default(), attributes);
}

/// A state that is saved now.
pub(super) fn saved(attempt: AttemptId, took: Duration, after_epoch: u32, is_stored: bool) {
    if let Some(trace) = Trace::of(attempt) {
        let attributes = vec![
            KeyValue::new("after_epoch", i64::from(after_epoch)),
            KeyValue::new("stored", is_stored),
        ];
        trace.just_ended("save", took, attributes);
    }
}

/// A case whose computation is over now.
pub(super) fn case(attempt: AttemptId, seconds: f64) {
    if let Some(trace) = Trace::of(attempt) {
        let took = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        trace.just_ended("case", took, Vec::new());
    }
}

/// An attempt whose end is to be reported.
pub(super) struct Reporting {
    trace: Trace,
    name: &'static str,
    accepted: SystemTime,
    reporting: SystemTime,
    failure: Option<String>,
    attributes: Vec<KeyValue>,
}

impl Reporting {
    /// `None` if nobody is told.
    pub(super) fn begin(lease: &JobLease, worker: &str, body: &ResultBody) -> Option<Self> {
        let trace = Trace::of(lease.attempt())?;
        let (name, what) = match &lease.job.work {
            Work::Train(_) => ("train", None),
            Work::Eval { case, .. } => ("evaluate", Some(case.to_string())),
            Work::Noop => return None,
        };
        let mut attributes = vec![
            KeyValue::new("halfheard.job", lease.job.job.to_string()),
            KeyValue::new("halfheard.worker", worker.to_owned()),
        ];
        attributes.extend(what.map(|case| KeyValue::new("halfheard.case", case)));
        let (outcome, failure) = match body {
            ResultBody::Failed(failure) => ("failed", Some(failure.chain.join(": "))),
            ResultBody::Declined { fault, .. } => ("declined", Some(fault.to_string())),
            ResultBody::HandedBack { .. } => ("handed_back", None),
            _ => ("done", None),
        };
        attributes.push(KeyValue::new("halfheard.outcome", outcome));
        Some(Self {
            trace,
            name,
            accepted: lease.accepted(),
            reporting: SystemTime::now(),
            failure,
            attributes,
        })
    }

    /// The broker has the report, or nobody waits for that any more.
    pub(super) fn end(self) {
        let span = (self.reporting, SystemTime::now());
        self.trace.part(Scope::Worker, "report", span, Vec::new());
        self.trace
            .attempt_ended(self.name, self.accepted, self.failure, self.attributes);
    }
}
