//! The coordinator's part of the traces of attempts.

use super::context::Lead;
use halfheard_shared::{
    error::chain,
    ids::AttemptId,
    wire::{ResultBody, ResultMessage},
};
use halfheard_store::{JobKind, Store, StoreError, traced::TracedAttempt};
use halfheard_telemetry::traces::{self, KeyValue, Scope, Trace};
use std::time::SystemTime;
use tokio::sync::Semaphore;

/// How many batches of attempts are looked up at once; traces of more are dropped.
static LOOKUPS: Semaphore = Semaphore::const_new(4);

/// Logs the final reports of a batch that was ingested.
pub(super) fn log(messages: &[ResultMessage]) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    for message in messages {
        let outcome = match &message.body {
            ResultBody::Trained { .. } | ResultBody::Evaluated { .. } => "done",
            ResultBody::Failed(_) => "failed",
            ResultBody::HandedBack { .. } => "handed_back",
            ResultBody::Declined { .. } => "declined",
            _ => continue,
        };
        traces::context(message.job, message.attempt).in_scope(|| {
            tracing::debug!(worker = message.worker.name, outcome, "report ingested");
        });
    }
}

/// Sends the spans of attempts that ended, without waiting for it. `ingest`: when the batch of their
/// reports arrived, and when it was in the database.
pub(super) fn ended(
    lead: &Lead,
    attempts: impl Iterator<Item = AttemptId>,
    ingest: Option<(SystemTime, SystemTime)>,
) {
    if !traces::is_on() {
        return;
    }
    let attempts: Vec<AttemptId> = attempts.filter(|&id| Trace::of(id).is_some()).collect();
    let Ok(permit) = LOOKUPS.try_acquire() else {
        return;
    };
    if attempts.is_empty() {
        return;
    }
    let store = lead.store.clone();
    tokio::spawn(async move {
        if let Err(error) = send(&store, &attempts, ingest).await {
            tracing::debug!(error = chain(&error), "no traces of some attempts");
        }
        drop(permit);
    });
}

async fn send(
    store: &Store,
    attempts: &[AttemptId],
    ingest: Option<(SystemTime, SystemTime)>,
) -> Result<(), StoreError> {
    for row in store.traced_attempts(attempts).await? {
        let Some(trace) = Trace::of(row.attempt) else {
            continue;
        };
        let now = SystemTime::now();
        let granted = SystemTime::from(row.granted);
        let ready = row.ready.map_or(granted, SystemTime::from);
        let to = ingest.map_or(now, |(_, to)| to);
        if !trace.whole_ended(name(&row), ready, to, failure(&row), attributes(&row)) {
            continue;
        }
        trace.part(Scope::Coordinator, "queue", (ready, granted), Vec::new());
        if let Some(started) = row.started {
            let span = (granted, started.into());
            trace.part(Scope::Coordinator, "grant", span, Vec::new());
        }
        if let Some(span) = ingest {
            trace.part(Scope::Coordinator, "ingest", span, Vec::new());
        }
    }
    Ok(())
}

fn name(row: &TracedAttempt) -> &'static str {
    match row.kind {
        JobKind::Train => "training job",
        JobKind::Eval => "evaluation job",
        JobKind::Noop => "no-op job",
    }
}

/// How it went wrong: what was handed back goes on elsewhere.
fn failure(row: &TracedAttempt) -> Option<String> {
    let outcome = row.outcome.as_deref()?;
    match outcome {
        "done" | "handed_back" | "revoked" if row.failure_kind.is_none() => None,
        _ => Some(match &row.failure_kind {
            Some(kind) => format!("{outcome}: {kind}"),
            None => outcome.to_owned(),
        }),
    }
}

fn attributes(row: &TracedAttempt) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("halfheard.job", row.job.to_string()),
        KeyValue::new("halfheard.attempt", row.attempt.to_string()),
        KeyValue::new("halfheard.model", row.model.clone()),
        KeyValue::new("halfheard.dataset", row.dataset.clone()),
        KeyValue::new("halfheard.seed", row.seed),
        KeyValue::new("halfheard.worker", row.worker.clone()),
    ];
    let texts = [
        ("halfheard.sweep", row.sweep.map(|sweep| sweep.to_string())),
        ("halfheard.case", row.case.clone()),
        ("halfheard.outcome", row.outcome.clone()),
    ];
    attributes.extend(
        texts
            .into_iter()
            .filter_map(|(key, text)| Some(KeyValue::new(key, text?))),
    );
    attributes
}
