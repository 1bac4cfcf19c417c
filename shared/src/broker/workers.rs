//! Which workers are alive: those with a heartbeat on the broker.

use super::{Broker, BrokerError, HEARTBEAT_TTL, opened};
use crate::wire::Heartbeat;
use futures::{StreamExt as _, TryStreamExt as _};

impl Broker {
    /// The last heartbeat of each live worker, by name. One that cannot be read is left out.
    ///
    /// # Errors
    ///
    /// The broker does not answer.
    pub async fn live_workers(&self) -> Result<Vec<Heartbeat>, BrokerError> {
        let failed = |error: &dyn std::error::Error| {
            opened(format!("bucket {}", self.names.workers_bucket()), error)
        };
        let bucket = self.workers().await?;
        let keys = bucket.keys().await.map_err(|error| failed(&error))?;
        let keys: Vec<String> = keys.try_collect().await.map_err(|error| failed(&error))?;
        let entries: Vec<_> = futures::stream::iter(keys)
            .map(|key| bucket.entry(key))
            .buffer_unordered(16)
            .try_collect()
            .await
            .map_err(|error| failed(&error))?;
        let entries: Vec<_> = entries.into_iter().flatten().collect();
        // The broker deletes old entries with some delay. Its clock wrote all of these, so it alone decides.
        let newest = entries.iter().map(|entry| entry.created).max();
        let mut beats: Vec<Heartbeat> = entries
            .into_iter()
            .filter(|entry| newest.is_some_and(|newest| newest - entry.created < 2 * HEARTBEAT_TTL))
            .filter_map(|entry| serde_json::from_slice(&entry.value).ok())
            .collect();
        beats.sort_by(|a: &Heartbeat, b| a.worker.name.cmp(&b.worker.name));
        Ok(beats)
    }

    /// How many workers are alive, without reading their heartbeats. Counts one that left in the last seconds, too.
    ///
    /// # Errors
    ///
    /// The broker does not answer.
    pub async fn count_workers(&self) -> Result<u64, BrokerError> {
        let bucket = self.names.workers_bucket();
        let stream = self.jetstream().get_stream(format!("KV_{bucket}")).await;
        // One message per key: the bucket keeps no history.
        stream
            .map(|stream| stream.cached_info().state.messages)
            .map_err(|error| opened(format!("bucket {bucket}"), &error))
    }
}
