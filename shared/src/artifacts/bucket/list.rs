//! What lies in the bucket.

use super::Bucket;
use crate::artifacts::{
    ArtifactError, Cause, Entry, Inventory, Key, Leftover, Quota, inventory::Place,
};
use async_nats::jetstream::{
    consumer::{DeliverPolicy, pull},
    object_store::ObjectInfo,
};
use futures::{StreamExt as _, TryStreamExt as _};
use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

/// A message of the bucket's stream comes within this.
const ANSWER: Duration = Duration::from_secs(20);

impl Bucket {
    /// When the key was written, by the broker's clock.
    pub(in crate::artifacts) async fn modified(
        &self,
        key: &Key,
    ) -> Result<SystemTime, ArtifactError> {
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
    pub(in crate::artifacts) async fn quota(&self) -> Result<Option<Quota>, ArtifactError> {
        let info = self.stream.get_info().await;
        let info = info.map_err(|e| ArtifactError::unlisted(&self.name, e))?;
        let limit = u64::try_from(info.config.max_bytes).unwrap_or(0);
        Ok((limit > 0).then_some(Quota {
            used: info.state.bytes,
            limit,
        }))
    }

    pub(in crate::artifacts) async fn inventory(&self) -> Result<Inventory, ArtifactError> {
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
                bytes: (count.saturating_sub(1) * self.piece + last.payload.len()) as u64,
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
    pub(in crate::artifacts) async fn purge(
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
