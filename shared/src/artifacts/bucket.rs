//! Artifacts in the broker's object bucket.

use super::{
    ArtifactError, Cause, Entry, Inventory, Key, Leftover, Opened, Quota, inventory::Place,
    is_young,
};
use crate::broker::{Broker, topology::store_id_of};
use async_nats::jetstream::{
    consumer::{DeliverPolicy, pull},
    object_store::{
        DeleteErrorKind, GetErrorKind, InfoErrorKind, ObjectInfo, ObjectMetadata, ObjectStore,
        PutErrorKind,
    },
    stream::Stream,
};
use futures::{StreamExt as _, TryStreamExt as _};
use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

/// Bytes of a message: under the broker's default limit of 1 MiB, and few round trips.
const MESSAGE: usize = 512 << 10;
/// What the broker keeps beside each message of a file: subject, headers, checksum.
const OVERHEAD: u64 = 256;
/// A message of the bucket's stream comes within this.
const ANSWER: Duration = Duration::from_secs(20);

#[derive(Clone)]
pub(super) struct Bucket {
    store: ObjectStore,
    /// Its stream.
    stream: Stream,
    name: String,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket").finish_non_exhaustive()
    }
}

impl Bucket {
    pub(super) async fn open(broker: &Broker) -> Result<Self, String> {
        let name = broker.names().artifacts_bucket();
        let missing = |error: &dyn std::fmt::Display| {
            format!(
                "bucket {name} cannot be opened: {error}; the coordinator makes it: is `coord serve` running on this broker?"
            )
        };
        let jetstream = broker.jetstream();
        let store = jetstream.get_object_store(&name).await;
        let stream = jetstream.get_stream(format!("OBJ_{name}")).await;
        Ok(Self {
            store: store.map_err(|error| missing(&error))?,
            stream: stream.map_err(|error| missing(&error))?,
            name,
        })
    }

    /// The id that the coordinator gave the bucket.
    pub(super) fn id(&self) -> Option<String> {
        store_id_of(&self.stream.cached_info().config.metadata)
    }

    pub(super) async fn open_key(&self, key: &Key) -> Result<Option<Opened>, ArtifactError> {
        match self.store.get(key.to_string()).await {
            Ok(object) => {
                let bytes = object.info().size as u64;
                let reader = Box::pin(object);
                Ok(Some(Opened { bytes, reader }))
            }
            Err(e) if e.kind() == GetErrorKind::NotFound => Ok(None),
            Err(e) => Err(ArtifactError::store(key, "read", true, e)),
        }
    }

    pub(super) async fn write(&self, key: &Key, mut content: Opened) -> Result<(), ArtifactError> {
        self.check_room(key, content.bytes).await?;
        let metadata = ObjectMetadata {
            name: key.to_string(),
            chunk_size: Some(MESSAGE),
            ..ObjectMetadata::default()
        };
        match self.store.put(metadata, &mut content.reader).await {
            Ok(_) => Ok(()),
            // The new content is there; the old one's chunks only take up room.
            Err(e) if e.kind() == PutErrorKind::PurgeOldChunks => {
                tracing::warn!(%key, error = %e, "the old content stays in the bucket");
                Ok(())
            }
            Err(e) if says_full(&e) => Err(ArtifactError::full(key, e)),
            Err(e) => Err(ArtifactError::store(key, "written", true, e)),
        }
    }

    /// Refuses what cannot fit, before its first part takes the room that is left.
    async fn check_room(&self, key: &Key, bytes: u64) -> Result<(), ArtifactError> {
        let Some(quota) = self.quota().await? else {
            return Ok(());
        };
        let messages = bytes.div_ceil(MESSAGE as u64) + 2;
        let needed = bytes + messages * OVERHEAD;
        let free = quota.limit.saturating_sub(quota.used);
        if needed > free {
            let short = format!(
                "{needed} bytes are needed, and {free} of the bucket's {} are free",
                quota.limit
            );
            return Err(ArtifactError::full(key, short));
        }
        Ok(())
    }

    pub(super) async fn size(&self, key: &Key) -> Result<Option<u64>, ArtifactError> {
        Ok(self.info(key).await?.map(|info| info.size as u64))
    }

    async fn info(&self, key: &Key) -> Result<Option<ObjectInfo>, ArtifactError> {
        match self.store.info(key.to_string()).await {
            Ok(info) if info.deleted => Ok(None),
            Ok(info) => Ok(Some(info)),
            Err(e) if e.kind() == InfoErrorKind::NotFound => Ok(None),
            Err(e) => Err(ArtifactError::store(key, "read", true, e)),
        }
    }

    /// Whether the key is there in this size and needs not be written again.
    pub(super) async fn is_young(&self, key: &Key, bytes: u64) -> Result<bool, ArtifactError> {
        let Some(info) = self.info(key).await? else {
            return Ok(false);
        };
        let young = info.modified.is_some_and(|at| is_young(at.into(), key.kind().grace()));
        Ok(info.size as u64 == bytes && young)
    }

    pub(super) async fn delete(&self, key: &Key) -> Result<(), ArtifactError> {
        match self.store.delete(key.to_string()).await {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == DeleteErrorKind::NotFound => Ok(()),
            Err(e) => Err(ArtifactError::store(key, "deleted", true, e)),
        }
    }

    /// When the key was written, by the broker's clock.
    pub(super) async fn modified(&self, key: &Key) -> Result<SystemTime, ArtifactError> {
        let records = self.records().await;
        let records = records.map_err(|e| ArtifactError::unlisted(&self.name, e))?;
        let name = key.to_string();
        records
            .into_iter()
            .find(|record| record.info.name == name)
            .map(|record| record.modified)
            .ok_or(ArtifactError::Missing { key: name })
    }

    /// How full it is, if it has a limit.
    pub(super) async fn quota(&self) -> Result<Option<Quota>, ArtifactError> {
        let info = self.stream.get_info().await;
        let info = info.map_err(|e| ArtifactError::unlisted(&self.name, e))?;
        let limit = u64::try_from(info.config.max_bytes).unwrap_or(0);
        Ok((limit > 0).then_some(Quota {
            used: info.state.bytes,
            limit,
        }))
    }

    pub(super) async fn inventory(&self) -> Result<Inventory, ArtifactError> {
        self.list()
            .await
            .map_err(|e| ArtifactError::unlisted(&self.name, e))
    }

    async fn list(&self) -> Result<Inventory, Cause> {
        // Parts before records: what is written meanwhile is then known to have one.
        let parts = format!("$O.{}.C.", self.name);
        let subjects = self.stream.info_with_subjects(format!("{parts}>")).await?;
        let subjects: Vec<(String, usize)> = subjects.try_collect().await?;
        let records = self.records().await?;
        let mut inventory = Inventory::default();
        let mut known = HashSet::new();
        for record in records {
            if record.info.deleted {
                inventory.leftovers.push(Leftover {
                    what: format!("note of the deletion of {}", record.info.name),
                    bytes: record.bytes,
                    modified: record.modified,
                    place: Place::Messages {
                        subject: record.subject,
                        last: record.sequence,
                    },
                });
                continue;
            }
            known.insert(record.info.nuid);
            match record.info.name.parse() {
                Ok(key) => inventory.entries.push(Entry {
                    key,
                    bytes: record.info.size as u64,
                    modified: record.modified,
                }),
                Err(_) => inventory.foreign += 1,
            }
        }
        for (subject, count) in subjects {
            let nuid = subject.strip_prefix(&parts).unwrap_or_default();
            if known.contains(nuid) {
                continue;
            }
            // Gone meanwhile: its writer replaced it.
            let Ok(last) = self.stream.get_last_raw_message_by_subject(&subject).await else {
                continue;
            };
            inventory.leftovers.push(Leftover {
                what: format!("parts of a broken upload ({nuid})"),
                bytes: (count.saturating_sub(1) * MESSAGE + last.payload.len()) as u64,
                modified: last.time.into(),
                place: Place::Messages {
                    subject,
                    last: last.sequence,
                },
            });
        }
        Ok(inventory)
    }

    /// The last record of each object, deleted ones included.
    async fn records(&self) -> Result<Vec<Record>, Cause> {
        let consumer = self.stream.create_consumer(pull::OrderedConfig {
            description: Some("listing of artifacts".to_owned()),
            filter_subject: format!("$O.{}.M.>", self.name),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ..pull::OrderedConfig::default()
        });
        let consumer = consumer.await?;
        let mut records = Vec::new();
        if consumer.cached_info().num_pending == 0 {
            return Ok(records);
        }
        let mut messages = consumer.messages().await?;
        loop {
            let message = tokio::time::timeout(ANSWER, messages.next()).await?;
            let Some(message) = message.transpose()? else {
                return Ok(records);
            };
            let about = message.info()?;
            let (pending, sequence) = (about.pending, about.stream_sequence);
            let modified = about.published.into();
            // What is no record is none of ours.
            if let Ok(info) = serde_json::from_slice::<ObjectInfo>(&message.payload) {
                records.push(Record {
                    info,
                    bytes: message.payload.len() as u64,
                    subject: message.subject.to_string(),
                    sequence,
                    modified,
                });
            }
            if pending == 0 {
                return Ok(records);
            }
        }
    }

    /// Removes the messages of `subject` up to `last`.
    pub(super) async fn purge(
        &self,
        what: &str,
        subject: &str,
        last: u64,
    ) -> Result<(), ArtifactError> {
        let purge = self.stream.purge().filter(subject).sequence(last + 1);
        purge
            .await
            .map(drop)
            .map_err(|source| ArtifactError::Store {
                key: what.to_owned(),
                action: "deleted",
                retryable: true,
                source: source.into(),
            })
    }
}

struct Record {
    info: ObjectInfo,
    /// Of the record itself.
    bytes: u64,
    subject: String,
    sequence: u64,
    modified: SystemTime,
}

/// Whether the broker refused a message for want of room, in the bucket, the account or on its disk.
fn says_full(error: &dyn std::error::Error) -> bool {
    let text = crate::error::chain(error);
    [
        "maximum bytes exceeded",
        "resource limits exceeded",
        "resources exceeded",
        "insufficient resources",
        "insufficient storage",
        "no space left",
    ]
    .iter()
    .any(|words| text.contains(words))
}
