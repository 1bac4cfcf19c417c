//! What reconciliation and sweep control share: their errors, and operations on the stream of jobs.

use async_nats::jetstream::stream::Stream;
use futures::TryStreamExt as _;
use halfheard_shared::{
    broker::{BrokerError, Queue},
    ids::SweepId,
};
use halfheard_store::StoreError;
use std::collections::HashMap;

/// Why rows and broker could not be synchronized.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// A database error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A broker error.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A request to JetStream failed.
    #[error("JetStream request failed")]
    JetStream(#[source] async_nats::Error),
}

/// Wraps an error of any JetStream request.
pub(super) fn jetstream(error: impl Into<async_nats::Error>) -> SyncError {
    SyncError::JetStream(error.into())
}

/// Counts the messages of each sweep in the stream of jobs.
pub(super) async fn queued_messages(jobs: &Stream) -> Result<HashMap<SweepId, usize>, SyncError> {
    let mut subjects = jobs.info_with_subjects("job.>").await.map_err(jetstream)?;
    let mut queued: HashMap<SweepId, usize> = HashMap::new();
    while let Some((subject, count)) = subjects.try_next().await.map_err(jetstream)? {
        if let Some(sweep) = subject.rsplit('.').next().and_then(|id| id.parse().ok()) {
            *queued.entry(sweep).or_default() += count;
        }
    }
    Ok(queued)
}

/// Removes all jobs of a sweep from the queues.
pub(super) async fn purge(jobs: &Stream, sweep: SweepId) -> Result<(), SyncError> {
    for queue in Queue::ALL {
        jobs.purge()
            .filter(queue.subject(sweep))
            .await
            .map_err(jetstream)?;
    }
    Ok(())
}
