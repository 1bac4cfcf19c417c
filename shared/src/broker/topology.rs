//! Making the streams, consumers and buckets.
//!
//! Everything here is idempotent: what is right already is left alone, what
//! is missing is made. The coordinator that leads calls it at its start and every so often after, so
//! that it is made again where the broker lost its storage; a worker never has to.

use super::{Broker, BrokerError, GATHER, GATHER_ACK_WAIT, HEARTBEAT_TTL, chain};
use async_nats::jetstream::{
    consumer::{AckPolicy, pull},
    context::GetStreamErrorKind,
    kv, object_store, stream,
};
use std::time::Duration;
use uuid::Uuid;

/// How long the broker remembers the ids of published results.
const RESULT_WINDOW: Duration = Duration::from_secs(120);
/// The key of the installation's id in the metadata of the stream.
const INSTALLATION: &str = "halfheard.installation";
/// The key of its name.
const NAME: &str = "halfheard.name";

/// Which installation a database, a broker's objects and an artifact store belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Random, drawn with the database's tables.
    pub id: Uuid,
    /// For people.
    pub name: String,
}

impl std::fmt::Display for Installation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name, &self.id.simple().to_string()[..8])
    }
}

impl Broker {
    /// Makes the stream, the consumer and the buckets that are missing, for `installation`. What is
    /// there keeps the operator's limits and placement.
    ///
    /// # Errors
    ///
    /// The broker does not answer or refuses; the stream belongs to another installation.
    pub async fn ensure(&self, installation: &Installation) -> Result<(), BrokerError> {
        self.ensure_results(installation).await?;
        self.ensure_gather().await?;
        self.ensure_bucket(kv::Config {
            bucket: self.names.workers_bucket(),
            description: "heartbeats of workers".to_owned(),
            history: 1,
            max_age: HEARTBEAT_TTL,
            // A heartbeat older than a restart of the broker is worth nothing.
            storage: stream::StorageType::Memory,
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
        let name = self.names.artifacts_bucket();
        if let Ok(store) = self.jetstream.get_object_store(&name).await {
            return Ok(store);
        }
        self.jetstream
            .create_object_store(object_store::Config {
                bucket: name.clone(),
                description: Some("checkpoints, saved states, data".to_owned()),
                storage: stream::StorageType::File,
                num_replicas: self.replicas,
                ..object_store::Config::default()
            })
            .await
            .map_err(|error| created(format!("bucket {name}"), &error))
    }

    async fn ensure_results(&self, installation: &Installation) -> Result<(), BrokerError> {
        let name = self.names.results_stream();
        let what = format!("stream {name}");
        match self.jetstream.get_stream(&name).await {
            Ok(stream) => {
                let metadata = &stream.cached_info().config.metadata;
                match metadata.get(INSTALLATION) {
                    Some(id) if *id == installation.id.to_string() => Ok(()),
                    Some(id) => Err(BrokerError::Stranger {
                        what,
                        found: match metadata.get(NAME) {
                            Some(name) => format!("{name} ({})", &id[..id.len().min(8)]),
                            None => id.clone(),
                        },
                        own: installation.to_string(),
                    }),
                    None => Err(BrokerError::Stranger {
                        what,
                        found: "unknown".to_owned(),
                        own: installation.to_string(),
                    }),
                }
            }
            Err(error)
                if matches!(error.kind(), GetStreamErrorKind::JetStream(ref e)
                if e.error_code() == async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND) =>
            {
                self.jetstream
                    .create_stream(stream::Config {
                        name,
                        description: Some("what workers report".to_owned()),
                        subjects: vec![self.names.results()],
                        retention: stream::RetentionPolicy::WorkQueue,
                        storage: stream::StorageType::File,
                        num_replicas: self.replicas,
                        duplicate_window: RESULT_WINDOW,
                        // Refuse rather than forget.
                        discard: stream::DiscardPolicy::New,
                        allow_direct: true,
                        metadata: [
                            (INSTALLATION.to_owned(), installation.id.to_string()),
                            (NAME.to_owned(), installation.name.clone()),
                        ]
                        .into(),
                        ..stream::Config::default()
                    })
                    .await
                    .map(drop)
                    .map_err(|error| created(what, &error))
            }
            Err(error) => Err(created(what, &error)),
        }
    }

    async fn ensure_gather(&self) -> Result<(), BrokerError> {
        let stream = self.names.results_stream();
        self.jetstream
            .create_consumer_on_stream(
                pull::Config {
                    durable_name: Some(GATHER.to_owned()),
                    ack_policy: AckPolicy::Explicit,
                    ack_wait: GATHER_ACK_WAIT,
                    max_deliver: -1,
                    filter_subject: self.names.results(),
                    max_ack_pending: 65_536,
                    max_waiting: 4096,
                    ..pull::Config::default()
                },
                &stream,
            )
            .await
            .map(drop)
            .map_err(|error| created(format!("consumer {GATHER} of stream {stream}"), &error))
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
