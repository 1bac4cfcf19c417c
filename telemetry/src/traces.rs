//! Traces: the way of each job through both programs, as OpenTelemetry spans.
//!
//! A trace is one attempt, and its id is the attempt's: both programs, the database and the logs name the
//! same trace, and nothing about it travels between them. Spans are made when what they are about is over,
//! put into a bounded queue, and sent by a thread of its own: whatever the collector does, no work waits.
//!
//! Off unless the standard variables name a collector (`OTEL_EXPORTER_OTLP_ENDPOINT`).

mod exporter;
mod sampling;
mod span;

pub use exporter::{COORD, TracesError, WORKER, start, stop};
pub use opentelemetry::KeyValue;
pub use span::{Scope, Trace, context, in_logs, is_on, trace_id};
