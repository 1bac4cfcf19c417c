//! Gathering: what workers report goes into the database, then is acknowledged.
//!
//! Messages are taken in batches, one transaction each. Nothing is acknowledged before its
//! transaction is committed, so a coordinator that dies gathers the same messages again, and the
//! database knows them. A message that is itself at fault is kept as a dead letter and
//! acknowledged: it must not block the others. Where the database is at fault (away, read-only, a
//! right or a column missing), everything waits.

use crate::{orchestrator::serve::ServeOptions, orchestrator::trouble::Trouble};
use async_nats::jetstream::{AckKind, Message, consumer::pull};
use futures::{FutureExt as _, StreamExt as _};
use halfheard_shared::retry::Backoff;
use halfheard_shared::{
    broker::{Broker, BrokerError, RESULTS},
    wire::{ResultMessage, decode},
};
use halfheard_store::{Fault, Store, StoreError, ingest::DeadLetter};
use std::{ops::Range, time::Duration};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The most messages in one transaction.
const BATCH: usize = 500;
/// The most bytes in one transaction; at least one message is taken however large.
const BATCH_BYTES: usize = 16 << 20;
/// How long a batch in hand may take after `stop`. Left in hand, it comes again after a while.
const LAST_BATCH: Duration = Duration::from_secs(3);

/// Takes in results until `stop`; wakes the dispatcher when jobs became ready or room came.
pub async fn gather(
    store: &Store,
    broker: &Broker,
    options: &ServeOptions,
    wake: &Notify,
    stop: &CancellationToken,
) {
    let mut backoff = Backoff::default();
    loop {
        let error = tokio::select! {
            error = follow(store, broker, options, wake, &mut backoff, stop) => error,
            () = async {
                stop.cancelled().await;
                tokio::time::sleep(LAST_BATCH).await;
            } => return,
        };
        if stop.is_cancelled() {
            return;
        }
        tracing::warn!(%error, "gathering waits");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.pause()) => {}
        }
        // The stream or the consumer may be gone.
        if let Err(error) = broker.ensure().await {
            tracing::warn!(%error, "the streams cannot be made");
        }
    }
}

/// Whether everything that workers have reported so far has been gathered. A sweep whose jobs are
/// all done may still have notes of epochs on their way.
///
/// # Errors
///
/// The broker cannot be asked.
pub async fn drained(broker: &Broker) -> Result<bool, BrokerError> {
    match broker.jetstream().get_stream(RESULTS).await {
        // A work queue: what is acknowledged is no longer in it.
        Ok(stream) => Ok(stream.cached_info().state.messages == 0),
        Err(error) => Err(BrokerError::Layout {
            what: format!("stream {RESULTS}"),
            action: "opened",
            reason: error.to_string(),
        }),
    }
}

/// Follows the stream of results until it breaks or, between two batches, `stop`; returns why.
async fn follow(
    store: &Store,
    broker: &Broker,
    options: &ServeOptions,
    wake: &Notify,
    backoff: &mut Backoff,
    stop: &CancellationToken,
) -> BrokerError {
    let broken = |reason: String| BrokerError::Layout {
        what: "the stream of results".to_owned(),
        action: "read",
        reason,
    };
    let mut messages = match open(broker).await {
        Ok(messages) => messages,
        Err(error) => return error,
    };
    loop {
        let first = tokio::select! {
            biased;
            () = stop.cancelled() => return broken("told to stop".to_owned()),
            first = messages.next() => first,
        };
        let Some(first) = first else {
            return broken("it ended".to_owned());
        };
        let mut batch = match first {
            Ok(message) => vec![message],
            Err(error) => return broken(error.to_string()),
        };
        let mut bytes = batch[0].payload.len();
        let mut end = None;
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            match messages.next().now_or_never() {
                Some(Some(Ok(message))) => {
                    bytes += message.payload.len();
                    batch.push(message);
                }
                Some(Some(Err(error))) => {
                    end = Some(broken(error.to_string()));
                    break;
                }
                Some(None) | None => break,
            }
        }
        take(store, &batch, options).await;
        wake.notify_one();
        backoff.reset();
        if let Some(error) = end {
            return error;
        }
    }
}

async fn open(broker: &Broker) -> Result<pull::Stream, BrokerError> {
    broker
        .results()
        .await?
        .stream()
        .max_messages_per_batch(BATCH)
        .max_bytes_per_batch(BATCH_BYTES)
        .expires(Duration::from_secs(10))
        .heartbeat(Duration::from_secs(3))
        .messages()
        .await
        .map_err(|error| BrokerError::Layout {
            what: "the stream of results".to_owned(),
            action: "read",
            reason: error.to_string(),
        })
}

/// What is said where the database keeps results waiting.
const WAITS: &str = "results wait for the database; none is acknowledged";
/// How long the broker keeps a message back that can be neither taken in nor condemned.
const ASIDE: Duration = Duration::from_secs(60);

/// One batch on its way into the database.
struct Intake<'a> {
    store: &'a Store,
    options: &'a ServeOptions,
    batch: &'a [Message],
    /// Which messages were taken in or kept as dead letters: those are acknowledged.
    settled: Vec<bool>,
    /// How many were kept as dead letters, and why the first of them.
    buried: (usize, Option<String>),
    trouble: Trouble,
}

/// Takes in one batch, however long the database does not take it, and acknowledges it.
///
/// Only what is wrong with a message itself condemns it. Whatever else the database says, the
/// message waits: in hand, or with the broker where the others can go on without it.
async fn take(store: &Store, batch: &[Message], options: &ServeOptions) {
    let mut intake = Intake {
        store,
        options,
        batch,
        settled: vec![false; batch.len()],
        buried: (0, None),
        trouble: Trouble::new(WAITS),
    };
    let mut decoded = Vec::with_capacity(batch.len());
    let mut places = Vec::with_capacity(batch.len());
    for (place, message) in batch.iter().enumerate() {
        match decode::<ResultMessage>(&message.payload) {
            Ok(result) => {
                decoded.push(result);
                places.push(place);
            }
            Err(error) => intake.bury(place, &error.to_string()).await,
        }
    }
    intake.all(&decoded, &places).await;
    if let (count @ 1.., Some(reason)) = &intake.buried {
        tracing::warn!(messages = count, reason, "kept as dead letters");
    }
    let mut aside = 0;
    for (message, settled) in batch.iter().zip(&intake.settled) {
        // Not acknowledged means delivered again, which changes nothing.
        let answer = match settled {
            true => message.ack().await,
            false => {
                aside += 1;
                message.ack_with(AckKind::Nak(Some(ASIDE))).await
            }
        };
        if let Err(error) = answer {
            tracing::debug!(%error, "an acknowledgement was not sent");
        }
    }
    tracing::debug!(messages = batch.len(), aside, "gathered");
}

impl Intake<'_> {
    /// Takes in messages, halved for as long as the database refuses some of them together.
    async fn all(&mut self, decoded: &[ResultMessage], places: &[usize]) {
        let mut parts: Vec<Range<usize>> = std::iter::once(0..decoded.len()).collect();
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let (store, retry) = (self.store, &self.options.retry);
            let messages = &decoded[part.clone()];
            let error = match self
                .waiting(part.len(), || store.ingest(messages, retry))
                .await
            {
                Ok(taken) => {
                    for place in &places[part.clone()] {
                        self.settled[*place] = true;
                    }
                    for (place, reason) in &taken.refused {
                        self.bury(places[part.start + place], reason).await;
                    }
                    continue;
                }
                Err(error) => error,
            };
            if part.len() > 1 {
                tracing::debug!(%error, messages = part.len(), "a batch was refused, halving it");
                let middle = part.start + part.len() / 2;
                parts.push(middle..part.end);
                parts.push(part.start..middle);
            } else if error.fault() == Fault::Content {
                let reason = error.to_string();
                self.bury(places[part.start], &reason).await;
                self.give_up(&decoded[part.start], &reason).await;
            } else {
                tracing::error!(%error, job = %decoded[part.start].job,
                    "a result can be neither stored nor condemned: it stays with the broker");
            }
        }
    }

    /// Keeps a message as a dead letter. One that cannot be kept is not acknowledged.
    async fn bury(&mut self, place: usize, reason: &str) {
        let (store, batch) = (self.store, self.batch);
        let message = &batch[place];
        let sequence = message.info().map_or(0, |info| info.stream_sequence);
        let letter = DeadLetter {
            subject: message.subject.as_str(),
            sequence,
            reason,
            payload: &message.payload,
        };
        let kept = self.waiting(1, || store.store_dead_letter(&letter)).await;
        self.settled[place] = kept.is_ok();
        match kept {
            Ok(()) => {
                tracing::debug!(subject = %message.subject, sequence, reason, "a dead letter");
                self.buried.0 += 1;
                self.buried.1.get_or_insert_with(|| reason.to_owned());
            }
            Err(error) => {
                tracing::error!(%error, sequence, reason, "a dead letter cannot be kept: it stays with the broker");
            }
        }
    }

    /// Gives up a job whose result cannot be stored: doing it again would bring the same.
    async fn give_up(&mut self, result: &ResultMessage, reason: &str) {
        let store = self.store;
        let reason = format!("its result cannot be stored: {reason}");
        if let Err(error) = self.waiting(1, || store.give_up(result.job, &reason)).await {
            tracing::error!(job = %result.job, %error, "a job cannot be given up");
        }
    }

    /// Tries again for as long as it is not what is written that is at fault, nor how much of it.
    async fn waiting<T, F, Fut>(&mut self, messages: usize, mut action: F) -> Result<T, StoreError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, StoreError>>,
    {
        let mut backoff = Backoff::default();
        loop {
            let error = match action().await {
                Ok(done) => {
                    self.trouble.over();
                    return Ok(done);
                }
                Err(error) => error,
            };
            match error.fault() {
                Fault::Transient | Fault::Refusal => {}
                Fault::Timeout if messages == 1 => {}
                Fault::Timeout | Fault::Content | Fault::Other => return Err(error),
            }
            self.trouble.met(&error, messages);
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}
