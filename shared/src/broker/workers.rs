//! Which workers are alive: those with a heartbeat on the broker.

use super::{Broker, BrokerError, HEARTBEAT_TTL, opened, reflected};
use crate::wire::Heartbeat;
use async_nats::{
    Message,
    jetstream::{
        consumer::{DeliverPolicy, push::OrderedConfig},
        stream::Stream,
    },
};
use futures::StreamExt as _;
use std::{collections::HashMap, time::Duration};

/// How long the broker may take to send all heartbeats that it has.
const PATIENCE: Duration = Duration::from_secs(10);
/// When it is asked whether there are more.
const LULL: Duration = Duration::from_millis(500);

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
        let read = tokio::time::timeout(PATIENCE, self.last_heartbeats(&bucket.stream)).await;
        let messages = read
            .map_err(|error| failed(&error))?
            .map_err(|error| failed(error.as_ref()))?;
        // The broker deletes old entries with some delay. Its clock wrote all of these, so it alone decides.
        let fresh = (2 * HEARTBEAT_TTL).as_nanos().cast_signed();
        let newest = messages.values().map(|(published, _)| *published).max();
        let mut beats: Vec<Heartbeat> = messages
            .into_values()
            .filter(|(published, _)| newest.is_some_and(|newest| newest - *published < fresh))
            .filter(|(_, message)| !reflected(message.headers.as_ref()))
            .filter_map(|(_, message)| {
                let beat = Heartbeat::read(&message.payload).ok()?;
                // Nobody speaks for another.
                let from = self.names.worker_of(&message.subject);
                (from == Some(beat.worker.name.as_str())).then_some(beat)
            })
            .collect();
        beats.sort_by(|a: &Heartbeat, b| a.worker.name.cmp(&b.worker.name));
        Ok(beats)
    }

    /// What each worker said last, by its subject, and when the broker wrote that, in nanoseconds. All of it is one
    /// answer, however many workers there are. Not direct gets: those come with headers of the broker's own, by which a
    /// reflected heartbeat would look like any other.
    async fn last_heartbeats(
        &self,
        stream: &Stream,
    ) -> Result<HashMap<String, (i128, Message)>, async_nats::Error> {
        let config = OrderedConfig {
            deliver_subject: self.client().new_inbox(),
            filter_subject: self.names.heartbeats(),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ..OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let name = consumer.cached_info().name.clone();
        let mut left = consumer.cached_info().num_pending;
        // What comes meanwhile is sent too, in the place of its worker's last one or after it: who reads more slowly
        // than it comes would read for ever.
        let most = 2 * left + 64;
        let mut sent = consumer.messages().await?;
        let mut messages = HashMap::new();
        for _ in 0..most {
            if left == 0 {
                break;
            }
            match tokio::time::timeout(LULL, sent.next()).await {
                Ok(Some(message)) => {
                    let message = message?;
                    let info = message.info()?;
                    left = info.pending;
                    let published = info.published.unix_timestamp_nanos();
                    messages.insert(message.subject.to_string(), (published, message.message));
                }
                Ok(None) => break,
                // One that was waited for may have run out.
                Err(_) => left = stream.consumer_info(&name).await?.num_pending,
            }
        }
        Ok(messages)
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
