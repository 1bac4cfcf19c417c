//! Spans of an attempt.

use super::exporter::{Tracer, tracer};
use halfheard_shared::ids::{AttemptId, JobId};
use opentelemetry::{
    KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// The target of the spans that [`context`] makes for logs.
const CONTEXT: &str = "trace_context";

/// Whether anybody is sent spans.
pub fn is_on() -> bool {
    tracer().is_some()
}

/// The id of an attempt's trace: the attempt's id as 32 hexadecimal digits.
pub fn trace_id(attempt: AttemptId) -> String {
    attempt.0.simple().to_string()
}

/// What log lines about an attempt carry: the job, and the id of its trace.
pub fn context(job: JobId, attempt: AttemptId) -> tracing::Span {
    // Of the highest level, so that every line that is logged has it.
    tracing::error_span!(target: CONTEXT, "attempt", %job, trace_id = trace_id(attempt))
}

/// The filter of a log that shows what [`context`] adds, or not: lines for people would be long.
pub fn in_logs(filter: EnvFilter, shown: bool) -> EnvFilter {
    let level = if shown {
        LevelFilter::ERROR
    } else {
        LevelFilter::OFF
    };
    // What the target is, is written out above.
    match format!("{CONTEXT}={level}").parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
}

/// The trace of an attempt that is sent.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    tracer: &'static Tracer,
    attempt: AttemptId,
}

/// What a span is below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Nothing: the coordinator's span of the whole.
    Whole,
    /// The whole.
    Coordinator,
    /// The worker's span of its part.
    Worker,
}

impl Trace {
    /// The trace of an attempt; `None` if traces are off or this one is not among the sampled ones.
    pub fn of(attempt: AttemptId) -> Option<Self> {
        let tracer = tracer()?;
        let trace = Self { tracer, attempt };
        tracer.sampling.takes(trace.id()).then_some(trace)
    }

    fn id(&self) -> TraceId {
        TraceId::from_bytes(self.attempt.0.into_bytes())
    }

    /// The ids of the two spans that both programs know, from the halves of the attempt's id: the one
    /// has its version and the other its variant in it, so neither is zero.
    fn half(&self, second: bool) -> SpanId {
        let (first, last) = self.attempt.0.as_u64_pair();
        SpanId::from_bytes(if second { last } else { first }.to_be_bytes())
    }

    fn whole(&self) -> SpanId {
        self.half(true)
    }

    /// Sends the coordinator's span of an attempt, from the moment its job was ready. Once for each:
    /// a report may be repeated. `failure`: how it went wrong.
    pub fn whole_ended(
        &self,
        name: &'static str,
        from: SystemTime,
        to: SystemTime,
        failure: Option<String>,
        attributes: Vec<KeyValue>,
    ) -> bool {
        if !self.tracer.ended.is_new(self.attempt) {
            return false;
        }
        self.send(
            self.whole(),
            SpanId::INVALID,
            name,
            (from, to),
            failure,
            attributes,
        );
        true
    }

    /// Sends the worker's span of an attempt.
    pub fn attempt_ended(
        &self,
        name: &'static str,
        from: SystemTime,
        failure: Option<String>,
        attributes: Vec<KeyValue>,
    ) {
        let to = SystemTime::now();
        self.send(
            self.half(false),
            self.whole(),
            name,
            (from, to),
            failure,
            attributes,
        );
    }

    /// Sends the span of a part that is over.
    pub fn part(
        &self,
        scope: Scope,
        name: &'static str,
        (from, to): (SystemTime, SystemTime),
        attributes: Vec<KeyValue>,
    ) {
        let parent = match scope {
            Scope::Whole => SpanId::INVALID,
            Scope::Coordinator => self.whole(),
            Scope::Worker => self.half(false),
        };
        let (_, random) = uuid::Uuid::new_v4().as_u64_pair();
        let id = SpanId::from_bytes(random.to_be_bytes());
        self.send(id, parent, name, (from, to), None, attributes);
    }

    /// Sends the span of a part of the worker's that is over now and took so long.
    pub fn just_ended(&self, name: &'static str, took: Duration, attributes: Vec<KeyValue>) {
        let now = SystemTime::now();
        let from = now.checked_sub(took).unwrap_or(now);
        self.part(Scope::Worker, name, (from, now), attributes);
    }

    fn send(
        &self,
        id: SpanId,
        parent: SpanId,
        name: &'static str,
        (from, to): (SystemTime, SystemTime),
        failure: Option<String>,
        attributes: Vec<KeyValue>,
    ) {
        let flags = TraceFlags::SAMPLED;
        let is_remote = parent == self.whole() && id == self.half(false);
        self.tracer.send(SpanData {
            span_context: SpanContext::new(self.id(), id, flags, false, TraceState::NONE),
            parent_span_id: parent,
            parent_span_is_remote: is_remote,
            span_kind: SpanKind::Internal,
            name: Cow::Borrowed(name),
            // The clocks of two machines, or of the database and this one, may differ.
            start_time: from.min(to),
            end_time: to,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: failure.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.tracer.scope.clone(),
        });
    }
}
