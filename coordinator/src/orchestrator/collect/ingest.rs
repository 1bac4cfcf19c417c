//! Ingests one batch of results.
//!
//! A message that is itself invalid becomes a dead letter and is acknowledged, so that it does not
//! block the others. If the database is at fault (down, read-only, a permission or a column
//! missing), everything waits.

use super::super::{context::Lead, outage_log::OutageLog, traced};
use crate::observe::events;
use async_nats::jetstream::{AckKind, Message};
use halfheard_shared::{
    broker::{Names, reflected},
    error::chain,
    ids::{AttemptId, JobId},
    retry::Backoff,
    wire::{ResultMessage, Tell, decode_report},
};
use halfheard_store::{Fault, StoreError, ingest::DeadLetter};
use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, SystemTime},
};

/// How long the broker holds back a message that can be neither ingested nor rejected.
const POSTPONE: Duration = Duration::from_secs(60);

/// One batch on its way into the database.
struct Batch<'a> {
    lead: &'a Lead,
    /// When it did.
    arrived: SystemTime,
    messages: &'a [Message],
    /// Which messages were ingested or stored as dead letters, and are to be acknowledged.
    settled: Vec<bool>,
    /// The number of dead letters, and the reason for the first.
    dead_letters: (usize, Option<String>),
    /// The attempts that ended, by worker.
    ended: BTreeMap<String, Vec<AttemptId>>,
    /// Whether another coordinator leads: what is left is for it, at once.
    deposed: bool,
    outage: OutageLog,
}

/// Ingests one batch, waiting out any outage of the database, and acknowledges it.
///
/// A message is rejected only for its own content. After any other database error it is kept: here,
/// or on the broker if the other messages can be ingested without it.
///
/// Returns whether this coordinator still leads; if not, the broker gives what is left to the other.
pub(super) async fn ingest(lead: &Lead, messages: &[Message]) -> bool {
    let mut batch = Batch {
        lead,
        arrived: SystemTime::now(),
        messages,
        settled: vec![false; messages.len()],
        dead_letters: (0, None),
        ended: BTreeMap::new(),
        deposed: false,
        outage: OutageLog::new("ingesting results failed; retrying, none is acknowledged"),
    };
    let mut decoded = Vec::with_capacity(messages.len());
    let mut positions = Vec::with_capacity(messages.len());
    for (position, message) in messages.iter().enumerate() {
        match read(message, lead.broker.names()) {
            Ok(result) => {
                decoded.push(result);
                positions.push(position);
            }
            Err(reason) => batch.store_dead_letter(position, &reason).await,
        }
    }
    batch.ingest_all(&decoded, &positions).await;
    if let (count @ 1.., Some(reason)) = &batch.dead_letters {
        tracing::warn!(messages = count, reason, "stored as dead letters");
    }
    batch.acknowledge().await;
    // The workers keep what they reported until they are told that it is settled.
    for (worker, attempts) in std::mem::take(&mut batch.ended) {
        lead.broker
            .tell(&worker, &Tell::Released { attempts })
            .await;
    }
    !batch.deposed
}

/// Reads a report. A worker speaks for itself alone: the broker lets it write on its own subject only.
fn read(message: &Message, names: &Names) -> Result<ResultMessage, String> {
    if reflected(message.headers.as_ref()) {
        return Err("it is the answer of a stream, which no worker sends".to_owned());
    }
    let report = decode_report(&message.payload).map_err(|error| error.to_string())?;
    match names.worker_of(&message.subject) {
        Some(worker) if worker == report.worker.name => Ok(report),
        _ => Err(format!(
            "it speaks for worker {} and came on {}",
            report.worker.name, message.subject
        )),
    }
}

impl Batch<'_> {
    /// Ingests all messages. Halves the batch as long as the database rejects it as a whole.
    async fn ingest_all(&mut self, decoded: &[ResultMessage], positions: &[usize]) {
        let (store, retry) = (&self.lead.store, self.lead.retry_policy());
        let mut parts: Vec<Range<usize>> = std::iter::once(0..decoded.len()).collect();
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let messages = &decoded[part.clone()];
            let outcome = self
                .retry_transient(part.len(), || store.ingest(messages, &retry))
                .await;
            match outcome {
                Err(error) if error.is_deposed() => {
                    self.deposed = true;
                    return;
                }
                Ok(summary) => {
                    events::ingested(&summary);
                    traced::log(messages);
                    let attempts = summary.ended.iter().map(|(_, attempt)| *attempt);
                    let ingest = (self.arrived, SystemTime::now());
                    traced::ended(self.lead, attempts, Some(ingest));
                    let positions = &positions[part];
                    for &position in positions {
                        self.settled[position] = true;
                    }
                    for (worker, attempt) in summary.ended {
                        self.ended.entry(worker).or_default().push(attempt);
                    }
                    self.retrain(&summary.missing).await;
                    for (index, reason) in &summary.rejected {
                        self.store_dead_letter(positions[*index], reason).await;
                    }
                }
                Err(error) if part.len() > 1 => {
                    tracing::debug!(
                        error = chain(&error),
                        messages = part.len(),
                        "batch rejected; halving it"
                    );
                    let middle = part.start + part.len() / 2;
                    parts.push(middle..part.end);
                    parts.push(part.start..middle);
                }
                Err(error) => {
                    let start = part.start;
                    self.reject(&decoded[start], positions[start], &error).await;
                }
            }
        }
    }

    /// Sends trainings back whose checkpoints the store has lost.
    async fn retrain(&self, trainings: &[JobId]) {
        for &job in trainings {
            let reason = "the artifact store lost its checkpoints";
            match self.lead.store.retrain(job, reason).await {
                Ok(Some(_)) => {
                    tracing::warn!(%job, "a training is to be done again: {reason}");
                }
                Ok(None) => {}
                // The next worker that misses it says so again.
                Err(error) => {
                    tracing::warn!(%job, error = chain(&error), "cannot send a training back");
                }
            }
        }
    }

    /// Handles a result that the database does not accept even alone.
    async fn reject(&mut self, result: &ResultMessage, position: usize, error: &StoreError) {
        if error.fault() != Fault::Content {
            tracing::error!(error = chain(error), job = %result.job,
                "a result can be neither stored nor rejected; it stays on the broker");
            return;
        }
        let reason = chain(error);
        self.store_dead_letter(position, &reason).await;
        // Running the job again would produce the same result.
        let store = &self.lead.store;
        let reason = format!("its result cannot be stored: {reason}");
        let failed = self.retry_transient(1, || store.give_up(result.job, &reason));
        if let Err(error) = failed.await {
            tracing::error!(job = %result.job, error = chain(&error), "cannot fail the job");
        }
    }

    /// Stores a message as a dead letter. If that fails, the message is not acknowledged.
    async fn store_dead_letter(&mut self, position: usize, reason: &str) {
        let (store, messages) = (&self.lead.store, self.messages);
        let message = &messages[position];
        let sequence = message.info().map_or(0, |info| info.stream_sequence);
        let letter = DeadLetter {
            subject: message.subject.as_str(),
            sequence,
            reason,
            payload: &message.payload,
        };
        let stored = self
            .retry_transient(1, || store.store_dead_letter(&letter))
            .await;
        self.settled[position] = stored.is_ok();
        match stored {
            Ok(()) => {
                tracing::debug!(subject = %message.subject, sequence, reason, "dead letter stored");
                metrics::counter!("halfheard_dead_letters_total").increment(1);
                self.dead_letters.0 += 1;
                self.dead_letters.1.get_or_insert_with(|| reason.to_owned());
            }
            Err(error) if error.is_deposed() => self.deposed = true,
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    sequence,
                    reason,
                    "cannot store a dead letter; the message stays on the broker"
                );
            }
        }
    }

    /// Acknowledges settled messages and postpones the others.
    async fn acknowledge(&self) {
        let mut postponed = 0;
        for (message, settled) in self.messages.iter().zip(&self.settled) {
            // A lost acknowledgement leads to a redelivery, which changes nothing.
            let sent = if *settled {
                message.ack().await
            } else {
                postponed += 1;
                let delay = (!self.deposed).then_some(POSTPONE);
                message.ack_with(AckKind::Nak(delay)).await
            };
            if let Err(error) = sent {
                tracing::debug!(%error, "cannot send an acknowledgement");
            }
        }
        tracing::debug!(messages = self.messages.len(), postponed, "batch ingested");
    }

    /// Retries until `action` succeeds or fails for what is written or for its size.
    async fn retry_transient<T, F, Fut>(
        &mut self,
        messages: usize,
        mut action: F,
    ) -> Result<T, StoreError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, StoreError>>,
    {
        let mut backoff = Backoff::default();
        loop {
            let error = match action().await {
                Ok(value) => {
                    self.outage.recovered();
                    return Ok(value);
                }
                Err(error) => error,
            };
            events::database_failed(&error);
            match error.fault() {
                Fault::Transient | Fault::Refusal => {}
                // Another coordinator leads, and the broker gives it what is not acknowledged here.
                _ if error.is_deposed() => return Err(error),
                Fault::Timeout if messages == 1 => {}
                Fault::Timeout | Fault::Content | Fault::Other => return Err(error),
            }
            // What the workers report is not taken in: their silence says nothing.
            self.lead.hearing.interrupt();
            self.outage.failed(&chain(&error), messages);
            tokio::time::sleep(backoff.delay()).await;
        }
    }
}
