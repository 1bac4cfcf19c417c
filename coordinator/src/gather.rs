//! Gathering: what workers report goes into the database, then is acknowledged.
//!
//! Messages are taken in batches, one transaction each. Nothing is acknowledged before its
//! transaction is committed, so a coordinator that dies gathers the same messages again, and the
//! database knows them. A message that cannot be taken in is kept as a dead letter and
//! acknowledged: it must not block the others.

use crate::{
    backoff::Backoff,
    serve::ServeOptions,
    store::{Store, StoreError, intake::DeadLetter},
};
use async_nats::jetstream::{Message, consumer::pull};
use futures::{FutureExt as _, StreamExt as _};
use missbench_shared::{
    broker::{Broker, BrokerError, RESULTS},
    wire::{ResultMessage, decode},
};
use std::time::Duration;
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
        take(store, batch, options).await;
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

/// Takes in one batch, however long Postgres stays away, and acknowledges it.
async fn take(store: &Store, batch: Vec<Message>, options: &ServeOptions) {
    let mut decoded = Vec::with_capacity(batch.len());
    let mut origin = Vec::with_capacity(batch.len());
    for message in &batch {
        match decode::<ResultMessage>(&message.payload) {
            Ok(result) => {
                decoded.push(result);
                origin.push(message);
            }
            Err(error) => bury(store, message, &error.to_string()).await,
        }
    }
    match patiently(|| store.take_in(&decoded, &options.retry)).await {
        Ok(taken) => {
            for (place, reason) in &taken.refused {
                bury(store, origin[*place], reason).await;
            }
        }
        Err(error) => {
            tracing::warn!(%error, messages = decoded.len(),
                "a batch was refused, taking its messages one by one");
            for (result, message) in decoded.iter().zip(&origin) {
                let one = std::slice::from_ref(result);
                match patiently(|| store.take_in(one, &options.retry)).await {
                    Ok(taken) => {
                        for (_, reason) in &taken.refused {
                            bury(store, message, reason).await;
                        }
                    }
                    Err(error) => {
                        let reason = error.to_string();
                        bury(store, message, &reason).await;
                        let reason = format!("its result cannot be stored: {reason}");
                        if let Err(error) =
                            patiently(|| store.fail_untakable(result.job, &reason)).await
                        {
                            tracing::error!(job = %result.job, %error, "a job cannot be given up");
                        }
                    }
                }
            }
        }
    }
    for message in &batch {
        // Not acknowledged means delivered again, which changes nothing.
        if let Err(error) = message.ack().await {
            tracing::debug!(%error, "an acknowledgement was not sent");
        }
    }
    tracing::debug!(messages = batch.len(), "gathered");
}

async fn bury(store: &Store, message: &Message, reason: &str) {
    let sequence = message.info().map_or(0, |info| info.stream_sequence);
    tracing::warn!(subject = %message.subject, sequence, reason, "a message cannot be taken in");
    let letter = DeadLetter {
        subject: message.subject.as_str(),
        sequence,
        reason,
        payload: &message.payload,
    };
    if let Err(error) = patiently(|| store.bury(&letter)).await {
        tracing::error!(%error, "a dead letter cannot be kept");
    }
}

/// Tries again for as long as the error is one that passes.
async fn patiently<T, F, Fut>(mut action: F) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    let mut backoff = Backoff::default();
    loop {
        match action().await {
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "Postgres is away, trying again");
                tokio::time::sleep(backoff.pause()).await;
            }
            outcome => return outcome,
        }
    }
}
