//! Result collector: reads what workers report, ingests it into the database, then acknowledges it.
//!
//! Messages are ingested in batches, one transaction each. Nothing is acknowledged before its
//! transaction is committed: after a crash the broker delivers the same messages again, and the
//! database recognizes them.

use super::{
    super::{context::Lead, outage_log::OutageLog},
    ingest,
};
use crate::observe::events::broker_failed;
use async_nats::jetstream::{
    Message,
    consumer::{StreamError, pull},
    stream::State,
};
use futures::{FutureExt as _, StreamExt as _};
use halfheard_shared::{
    broker::{Broker, BrokerError, GATHER, topology::Installation},
    error::chain,
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Maximum number of messages per transaction.
const BATCH: usize = 500;
/// Maximum number of bytes per transaction, except that one message of any size is taken.
const BATCH_BYTES: usize = 16 << 20;
/// How long the current batch may take after `stop`. If it takes longer, it is redelivered.
const LAST_BATCH: Duration = Duration::from_secs(3);

/// Why collecting stopped.
#[derive(Debug, thiserror::Error)]
enum CollectError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("cannot read the stream of results: {0}")]
    Open(#[from] StreamError),
    #[error("cannot read the stream of results: {0}")]
    Read(#[from] pull::MessagesError),
    #[error("the stream of results ended")]
    Ended,
    #[error("shutting down")]
    Stopped,
}

/// Collects results until `stop`. Wakes the dispatcher after each batch: jobs may have become ready.
pub(in crate::orchestrator) async fn collect(
    lead: &Lead,
    installation: &Installation,
    stop: &CancellationToken,
) {
    let mut outage = OutageLog::new("collecting results failed; retrying");
    loop {
        let error = tokio::select! {
            error = follow(lead, &mut outage, stop) => error,
            () = async {
                stop.cancelled().await;
                tokio::time::sleep(LAST_BATCH).await;
            } => return,
        };
        if stop.is_cancelled() {
            return;
        }
        if let CollectError::Broker(error) = &error {
            broker_failed(error);
        }
        let delay = outage.failed(&chain(&error), 0);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
        // The stream or the consumer may have been deleted.
        if let Err(error) = lead.broker.ensure(installation).await {
            tracing::warn!(error = chain(&error), "cannot create the stream");
        }
    }
}

/// Returns whether all results on the broker have been ingested. A sweep whose jobs are all done may
/// still have epoch records in the stream.
///
/// # Errors
///
/// The broker cannot be queried.
pub async fn drained(broker: &Broker) -> Result<bool, BrokerError> {
    // A work queue: acknowledged messages are removed from it.
    Ok(reports(broker).await?.messages == 0)
}

/// The sequence number of the last report on the broker.
pub(in crate::orchestrator) async fn last_report(broker: &Broker) -> Result<u64, BrokerError> {
    Ok(reports(broker).await?.last_sequence)
}

/// The state of the stream of reports.
async fn reports(broker: &Broker) -> Result<State, BrokerError> {
    let name = broker.names().results_stream();
    match broker.jetstream().get_stream(&name).await {
        Ok(stream) => Ok(stream.cached_info().state.clone()),
        Err(error) => Err(BrokerError::Layout {
            what: format!("stream {name}"),
            action: "opened",
            reason: chain(&error),
        }),
    }
}

/// How far the reports on the broker have been ingested.
#[derive(Clone, Copy, Debug)]
pub(in crate::orchestrator) struct Ingested {
    /// Whether all have been. Those that a deposed leader took and did not acknowledge have not.
    all: bool,
    /// All up to this one have been.
    floor: u64,
    /// The last report, read before the others.
    last: u64,
}

impl Ingested {
    /// Whether every report up to `sequence` has been ingested. A stream that ends before `sequence` was
    /// made anew after the broker lost its storage, and what was lost is not waited for.
    pub(in crate::orchestrator) fn is_up_to(self, sequence: u64) -> bool {
        self.all || self.floor >= sequence || self.last < sequence
    }

    /// Whether every report that was on the broker has been ingested.
    pub(in crate::orchestrator) fn is_complete(self) -> bool {
        self.is_up_to(self.last)
    }
}

/// Asks the broker how far its reports have been ingested.
pub(in crate::orchestrator) async fn ingested(broker: &Broker) -> Result<Ingested, BrokerError> {
    let last = last_report(broker).await?;
    let mut consumer = broker.results().await?;
    let info = consumer.info().await.map_err(|error| BrokerError::Layout {
        what: format!("consumer {GATHER}"),
        action: "opened",
        reason: chain(&error),
    })?;
    Ok(Ingested {
        all: info.num_pending == 0 && info.num_ack_pending == 0,
        floor: info.ack_floor.stream_sequence,
        last,
    })
}

/// Ingests batches until the stream breaks or, between two batches, until `stop`; returns why.
async fn follow(lead: &Lead, outage: &mut OutageLog, stop: &CancellationToken) -> CollectError {
    let mut messages = match open(&lead.broker).await {
        Ok(messages) => messages,
        Err(error) => return error,
    };
    loop {
        let first = tokio::select! {
            biased;
            () = stop.cancelled() => return CollectError::Stopped,
            first = messages.next() => first,
        };
        let first = match first {
            Some(Ok(message)) => message,
            Some(Err(error)) => return error.into(),
            None => return CollectError::Ended,
        };
        let (batch, broken) = fill(first, &mut messages);
        if !ingest::ingest(lead, &batch).await {
            // Whatever is read from now on is for the coordinator that leads.
            drop(messages);
            stop.cancelled().await;
            return CollectError::Stopped;
        }
        lead.wake.notify_one();
        outage.recovered();
        if let Some(error) = broken {
            return error;
        }
    }
}

/// Adds the messages that have already arrived to `first`; stops early if the stream breaks.
fn fill(first: Message, messages: &mut pull::Stream) -> (Vec<Message>, Option<CollectError>) {
    let mut bytes = first.payload.len();
    let mut batch = vec![first];
    while batch.len() < BATCH && bytes < BATCH_BYTES {
        match messages.next().now_or_never() {
            Some(Some(Ok(message))) => {
                bytes += message.payload.len();
                batch.push(message);
            }
            Some(Some(Err(error))) => return (batch, Some(error.into())),
            Some(None) | None => break,
        }
    }
    (batch, None)
}

async fn open(broker: &Broker) -> Result<pull::Stream, CollectError> {
    let consumer = broker.results().await?;
    let messages = consumer
        .stream()
        .max_messages_per_batch(BATCH)
        .max_bytes_per_batch(BATCH_BYTES)
        .expires(Duration::from_secs(10))
        .heartbeat(Duration::from_secs(3))
        .messages();
    Ok(messages.await?)
}
