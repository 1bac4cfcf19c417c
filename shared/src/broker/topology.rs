//! Making the streams, consumers and buckets.
//!
//! Everything here is idempotent: what is right already is left alone, what
//! is missing is made. The coordinator that leads calls it at its start and every so often after, so
//! that it is made again where the broker lost its storage; a worker never has to.

use super::{
    ACK_WAIT, ARTIFACTS, Broker, BrokerError, GATHER, GATHER_ACK_WAIT, HEARTBEAT_TTL, JOBS, Queue,
    RESULTS, SWEEPS, WORKERS, chain,
};
use async_nats::jetstream::{
    consumer::{AckPolicy, pull},
    kv, object_store, stream,
};
use std::time::Duration;

/// How long the broker remembers the ids of published jobs.
const JOB_WINDOW: Duration = Duration::from_secs(600);
/// How long the broker remembers the ids of published results.
const RESULT_WINDOW: Duration = Duration::from_secs(120);

impl Broker {
    /// Makes every stream, consumer and bucket that is missing.
    pub async fn ensure(&self) -> Result<(), BrokerError> {
        self.ensure_stream(JOBS, "job.>", "jobs for workers", JOB_WINDOW)
            .await?;
        self.ensure_stream(RESULTS, "result.>", "what workers report", RESULT_WINDOW)
            .await?;
        for queue in Queue::ALL {
            self.ensure_consumer(JOBS, queue.consumer(), queue.filter(), ACK_WAIT)
                .await?;
        }
        self.ensure_consumer(RESULTS, GATHER, "result.>", GATHER_ACK_WAIT)
            .await?;
        self.ensure_bucket(kv::Config {
            bucket: WORKERS.to_owned(),
            description: "heartbeats of workers".to_owned(),
            history: 1,
            max_age: HEARTBEAT_TTL,
            // A heartbeat older than a restart of the broker is worth nothing.
            storage: stream::StorageType::Memory,
            num_replicas: self.replicas,
            ..kv::Config::default()
        })
        .await?;
        self.ensure_bucket(kv::Config {
            bucket: SWEEPS.to_owned(),
            description: "sweep control".to_owned(),
            history: 1,
            storage: stream::StorageType::File,
            num_replicas: self.replicas,
            ..kv::Config::default()
        })
        .await?;
        self.ensure_artifacts().await.map(drop)
    }

    /// Opens the bucket of artifacts, and makes it where it is missing. One that is there is taken
    /// as it is: its limits and its placement are the operator's.
    ///
    /// # Errors
    ///
    /// It is not there and this login may not make it, as a worker's may not.
    pub async fn ensure_artifacts(&self) -> Result<object_store::ObjectStore, BrokerError> {
        if let Ok(store) = self.jetstream.get_object_store(ARTIFACTS).await {
            return Ok(store);
        }
        self.jetstream
            .create_object_store(object_store::Config {
                bucket: ARTIFACTS.to_owned(),
                description: Some("checkpoints, saved states, outcomes, data".to_owned()),
                storage: stream::StorageType::File,
                num_replicas: self.replicas,
                ..object_store::Config::default()
            })
            .await
            .map_err(|error| created(format!("bucket {ARTIFACTS}"), &error))
    }

    async fn ensure_stream(
        &self,
        name: &str,
        subjects: &str,
        description: &str,
        duplicate_window: Duration,
    ) -> Result<(), BrokerError> {
        self.jetstream
            .create_or_update_stream(stream::Config {
                name: name.to_owned(),
                description: Some(description.to_owned()),
                subjects: vec![subjects.to_owned()],
                retention: stream::RetentionPolicy::WorkQueue,
                storage: stream::StorageType::File,
                num_replicas: self.replicas,
                duplicate_window,
                // Refuse rather than forget: a queue that drops its oldest job loses work.
                discard: stream::DiscardPolicy::New,
                allow_direct: true,
                ..stream::Config::default()
            })
            .await
            .map(drop)
            .map_err(|error| created(format!("stream {name}"), &error))
    }

    async fn ensure_consumer(
        &self,
        stream: &str,
        name: &str,
        filter: &str,
        ack_wait: Duration,
    ) -> Result<(), BrokerError> {
        self.jetstream
            .create_consumer_on_stream(
                pull::Config {
                    durable_name: Some(name.to_owned()),
                    ack_policy: AckPolicy::Explicit,
                    ack_wait,
                    max_deliver: -1,
                    filter_subject: filter.to_owned(),
                    max_ack_pending: 65_536,
                    max_waiting: 4096,
                    ..pull::Config::default()
                },
                stream,
            )
            .await
            .map(drop)
            .map_err(|error| created(format!("consumer {name} of stream {stream}"), &error))
    }

    async fn ensure_bucket(&self, config: kv::Config) -> Result<(), BrokerError> {
        let name = config.bucket.clone();
        self.jetstream
            .create_or_update_key_value(config)
            .await
            .map(drop)
            .map_err(|error| created(format!("bucket {name}"), &error))
    }
}

fn created(what: String, error: &dyn std::error::Error) -> BrokerError {
    BrokerError::Layout {
        what,
        action: "created",
        reason: chain(error),
    }
}
