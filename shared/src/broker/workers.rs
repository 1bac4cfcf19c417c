//! Which workers are alive: those with a heartbeat on the broker.

use super::{Broker, BrokerError, HEARTBEAT_TTL, opened, reflected};
use crate::wire::Heartbeat;
use futures::{StreamExt as _, TryStreamExt as _};

impl Broker {
    /// The last heartbeat of each live worker, by name. One that cannot be read, or that is not
    /// from the worker that it names, is left out.
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
        let subjects = keys.into_iter().map(|key| self.names.heartbeat(&key));
        let messages: Vec<_> = futures::stream::iter(subjects)
            .map(|subject| {
                let stream = &bucket.stream;
                // Not a direct get: that answers with headers of its own, by which a reflected
                // heartbeat would look like any other.
                async move { stream.get_last_raw_message_by_subject(&subject).await.ok() }
            })
            .buffer_unordered(16)
            .filter_map(std::future::ready)
            .collect()
            .await;
        // The broker deletes old entries with some delay. Its clock wrote all of these, so it alone decides.
        let newest = messages.iter().map(|message| message.time).max();
        let mut beats: Vec<Heartbeat> = messages
            .iter()
            .filter(|message| {
                newest.is_some_and(|newest| newest - message.time < 2 * HEARTBEAT_TTL)
            })
            .filter(|message| !reflected(Some(&message.headers)))
            .filter_map(|message| {
                let beat = Heartbeat::read(&message.payload).ok()?;
                // Nobody speaks for another.
                let from = self.names.worker_of(&message.subject);
                (from == Some(beat.worker.name.as_str())).then_some(beat)
            })
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
