//! Making the streams, consumers and buckets.
//!
//! Everything here is idempotent: what is right already is left alone, what
//! is missing is made. The coordinator that leads calls it at its start and every so often after, so
//! that it is made again where the broker lost its storage; a worker never has to.

use super::{Broker, BrokerError, GATHER, GATHER_ACK_WAIT, HEARTBEAT_TTL, chain, opened};
use async_nats::jetstream::{
    ErrorCode,
    account::Limits,
    consumer::{AckPolicy, pull},
    context::{CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind},
    stream,
};
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

/// How long the broker remembers the ids of published results.
const RESULT_WINDOW: Duration = Duration::from_secs(120);
/// The key of the installation's id in the metadata of the stream.
const INSTALLATION: &str = "halfheard.installation";
/// The key of its name.
const NAME: &str = "halfheard.name";

/// The key of the artifact store's id in the metadata of its bucket.
const STORE: &str = "halfheard.store";
/// The share of what the broker's account may store that artifacts may take: reports come first.
const ARTIFACTS_SHARE: f64 = 0.8;
/// The share of its account's storage that reports may take where streams must have a limit.
const RESULTS_SHARE: f64 = 0.15;
/// What they may take where streams must have a limit and the account has none.
const MIN_RESULTS: i64 = 1 << 30;
/// What heartbeats may take where streams must have a limit: a few KiB of each worker.
const WORKERS_BYTES: i64 = 16 << 20;
/// The smallest limit of the bucket of artifacts that is tried.
const MIN_ARTIFACTS: u64 = 8 << 20;

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

impl Installation {
    /// The id of the artifact store that lies on the broker: the same after the broker lost its storage
    /// and the bucket was made anew.
    pub fn bucket_id(&self) -> Uuid {
        let hash = blake3::keyed_hash(
            blake3::hash(b"halfheard artifacts on the broker").as_bytes(),
            self.id.as_bytes(),
        );
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_bytes()[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

/// The id of the artifact store in the metadata of its bucket.
pub(crate) fn store_id_of(metadata: &HashMap<String, String>) -> Option<String> {
    let id: Uuid = metadata.get(STORE)?.parse().ok()?;
    Some(id.to_string())
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
        self.ensure_workers().await?;
        self.ensure_artifacts(installation).await
    }

    /// Makes the bucket of artifacts where it is missing. One that is there is taken as it is: its
    /// limits and its placement are the operator's.
    ///
    /// Reports and artifacts lie on the same disk, and reports must never wait for artifacts: the
    /// bucket gets the limit that is set, or else four fifths of what the broker still has to give.
    async fn ensure_artifacts(&self, installation: &Installation) -> Result<(), BrokerError> {
        let bucket = self.names.artifacts_bucket();
        let what = format!("bucket {bucket}");
        let name = format!("OBJ_{bucket}");
        match self.jetstream.get_stream(&name).await {
            Ok(_) => return Ok(()),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(created(what, &error)),
        }
        let mut config = stream::Config {
            name,
            description: Some("checkpoints, saved states, data".to_owned()),
            subjects: vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
            storage: stream::StorageType::File,
            num_replicas: self.replicas,
            discard: stream::DiscardPolicy::New,
            // A rollup can empty the bucket whole, and every login that writes can ask for one.
            allow_rollup: false,
            allow_direct: true,
            metadata: [(STORE.to_owned(), installation.bucket_id().to_string())].into(),
            ..stream::Config::default()
        };
        let limit = match self.artifacts_max_bytes {
            Some(limit) => limit,
            None => match self.room(&config).await {
                Ok(room) => (room as f64 * ARTIFACTS_SHARE) as u64,
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(
                        error,
                        "the broker does not say how much it can store: the bucket of artifacts gets no limit (set HALFHEARD_ARTIFACTS_MAX_BYTES)"
                    );
                    0
                }
            },
        };
        config.max_bytes = i64::try_from(limit).unwrap_or(i64::MAX);
        tracing::info!(bucket, limit, "making the bucket of artifacts");
        let made = self.jetstream.create_stream(config).await;
        made.map(drop).map_err(|error| created(what, &error))
    }

    /// How many bytes a stream may reserve: what its account allows or, if that has no limit, what the
    /// server has, which it only tells by refusing more.
    async fn room(&self, config: &stream::Config) -> Result<u64, BrokerError> {
        let account = self.jetstream.query_account().await;
        let account = account.map_err(|error| opened("JetStream".to_owned(), &error))?;
        let replicas = config.num_replicas.max(1) as u64;
        let positive =
            |limit: Option<i64>| limit.and_then(|n| u64::try_from(n).ok()).filter(|&n| n > 0);
        if let Some(limit) = positive(account.limits.max_storage) {
            let taken = account.storage.max(account.reserved_storage);
            let room = limit.saturating_sub(taken) / replicas;
            let stream = positive(account.limits.storage_max_stream_bytes).unwrap_or(u64::MAX);
            return Ok(room.min(stream).max(MIN_ARTIFACTS));
        }
        let mut trial = config.clone();
        // Not the bucket's own name: a worker must not take a trial for it.
        trial.name = format!("{}_TRIAL", self.names);
        trial.subjects = vec![format!("{}.trial", self.names)];
        let room = self.largest(&mut trial).await;
        // Whatever came out of it, none stays behind.
        let _ = self.jetstream.delete_stream(&trial.name).await;
        room
    }

    /// The largest `max_bytes` with which the broker makes `trial`, to within a sixteenth.
    async fn largest(&self, trial: &mut stream::Config) -> Result<u64, BrokerError> {
        let (mut good, mut bad) = (0, 1_u64 << 47);
        while good == 0 || bad - good > good / 16 {
            let size = match good {
                0 if bad <= MIN_ARTIFACTS => return Ok(MIN_ARTIFACTS),
                0 => bad / 2,
                good => good + (bad - good) / 2,
            };
            trial.max_bytes = size.cast_signed();
            match self.jetstream.create_stream(&*trial).await {
                Ok(_) => {
                    good = size;
                    let deleted = self.jetstream.delete_stream(&trial.name).await;
                    deleted.map_err(|error| created("a trial stream".to_owned(), &error))?;
                }
                Err(error) if lacks_room(&error) => bad = size,
                Err(error) => return Err(created("a trial stream".to_owned(), &error)),
            }
        }
        Ok(good)
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
            Err(error) if is_missing(&error) => {
                let limits = self.limits().await?;
                self.jetstream
                    .create_stream(stream::Config {
                        name,
                        // Without a limit of its own unless the account asks for one.
                        max_bytes: match limits.max_bytes_required {
                            true => share(limits.max_storage, RESULTS_SHARE, MIN_RESULTS),
                            false => 0,
                        },
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

    /// Makes the bucket of heartbeats where it is missing: a key-value bucket, but without rollups.
    async fn ensure_workers(&self) -> Result<(), BrokerError> {
        let bucket = self.names.workers_bucket();
        let what = format!("bucket {bucket}");
        let name = format!("KV_{bucket}");
        match self.jetstream.get_stream(&name).await {
            Ok(_) => return Ok(()),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(created(what, &error)),
        }
        let limits = self.limits().await?;
        let mut config = stream::Config {
            name,
            max_bytes: match limits.max_bytes_required {
                true => WORKERS_BYTES,
                false => 0,
            },
            description: Some("heartbeats of workers".to_owned()),
            subjects: vec![self.names.heartbeats()],
            max_messages_per_subject: 1,
            max_age: HEARTBEAT_TTL,
            // A heartbeat older than a restart of the broker is worth nothing.
            storage: stream::StorageType::Memory,
            num_replicas: self.replicas,
            discard: stream::DiscardPolicy::New,
            // As for artifacts: with one, a worker could remove the others' heartbeats.
            allow_rollup: false,
            deny_delete: true,
            allow_direct: true,
            ..stream::Config::default()
        };
        let mut made = self.jetstream.create_stream(&config).await;
        // An account may have no share of the memory; on disk they do as well.
        if made.as_ref().is_err_and(lacks_memory) {
            config.storage = stream::StorageType::File;
            made = self.jetstream.create_stream(&config).await;
        }
        made.map(drop).map_err(|error| created(what, &error))
    }

    /// What the account allows.
    async fn limits(&self) -> Result<Limits, BrokerError> {
        let account = self.jetstream.query_account().await;
        account
            .map(|account| account.limits)
            .map_err(|error| opened("JetStream".to_owned(), &error))
    }
}

/// A share of a limit in bytes; `least` without one.
fn share(limit: Option<i64>, share: f64, least: i64) -> i64 {
    match limit {
        Some(limit) if limit > 0 => ((limit as f64 * share) as i64).max(1),
        _ => least,
    }
}

fn lacks_memory(error: &CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(ref error)
    if matches!(
        error.error_code(),
        ErrorCode::MEMORY_RESOURCES_EXCEEDED | ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED
    ))
}

fn is_missing(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(ref error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Whether the broker or the account cannot reserve as much as a stream asks for.
fn lacks_room(error: &CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(ref error) if matches!(
        error.error_code(),
        ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED
            | ErrorCode::CLUSTER_NO_PEERS
    ))
}

fn created(what: String, error: &dyn std::error::Error) -> BrokerError {
    BrokerError::Layout {
        what,
        action: "created",
        reason: chain(error),
    }
}
