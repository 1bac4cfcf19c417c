//! Removes what has been replaced or deleted, for logins that may purge.

use super::{Bucket, object::Object};
use crate::{
    artifacts::Cause,
    broker::{Broker, BrokerError},
};
use async_nats::jetstream::{object_store::ObjectInfo, stream::DirectGetErrorKind};
use futures::TryStreamExt as _;

/// The most objects that one call looks at, so that it ends.
const MAX_OBJECTS: usize = 10_000;

/// What [`Broker::tidy_artifacts`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Versions that were replaced or deleted.
    pub versions: usize,
    /// Their size in bytes.
    pub bytes: u64,
}

impl Broker {
    /// Removes the versions of artifacts that were replaced or deleted; nothing without a bucket.
    /// What is being written is left alone: it has no description yet. Whoever reads a version that
    /// is removed meanwhile gets an error and reads the new one.
    ///
    /// # Errors
    ///
    /// The broker does not answer; this login may not purge.
    pub async fn tidy_artifacts(&self) -> Result<Tidied, BrokerError> {
        let name = self.names().artifacts_bucket();
        let Ok(stream) = self.jetstream().get_stream(format!("OBJ_{name}")).await else {
            return Ok(Tidied::default());
        };
        let bucket = Bucket::of(self, stream);
        bucket.tidy().await.map_err(|error| BrokerError::Layout {
            what: format!("bucket {name}"),
            action: "tidied",
            reason: error.to_string(),
        })
    }
}

impl Bucket {
    async fn tidy(&self) -> Result<Tidied, Cause> {
        let mut tidied = Tidied::default();
        let filter = format!("$O.{}.M.>", self.name);
        let mut subjects = self.stream.info_with_subjects(filter).await?;
        let mut objects = Vec::new();
        while let Some((subject, versions)) = subjects.try_next().await? {
            if versions > 1 {
                objects.push(subject);
            }
            if objects.len() == MAX_OBJECTS {
                break;
            }
        }
        for subject in objects {
            self.tidy_object(&subject, &mut tidied).await?;
        }
        Ok(tidied)
    }

    async fn tidy_object(&self, subject: &str, tidied: &mut Tidied) -> Result<(), Cause> {
        let Some(object) = Object::at(&self.name, subject) else {
            return Ok(());
        };
        let mut versions = Vec::new();
        let mut from = None;
        loop {
            let next = self.stream.direct_get_next_for_subject(subject, from).await;
            match next {
                Ok(message) => {
                    from = Some(message.sequence + 1);
                    // What cannot be read describes nothing.
                    let info: Option<ObjectInfo> = serde_json::from_slice(&message.payload).ok();
                    versions.push((message.sequence, info));
                }
                Err(e) if e.kind() == DirectGetErrorKind::NotFound => break,
                Err(e) => return Err(e.into()),
            }
        }
        let Some((last, current)) = versions.pop() else {
            return Ok(());
        };
        let current = current.filter(|info| !info.deleted);
        let kept = current.as_ref().map(|info| info.nuid.as_str());
        for (_, info) in &versions {
            let Some(info) = info else { continue };
            if kept != Some(info.nuid.as_str()) && !info.deleted && object.owns(&info.nuid) {
                let chunks = object.chunks(&info.nuid);
                self.stream.purge().filter(chunks).await?;
                tidied.versions += 1;
                tidied.bytes += info.size as u64;
            }
        }
        // Up to, and not with, this number: a version that was added meanwhile stays.
        let until = if current.is_some() { last } else { last + 1 };
        self.stream.purge().filter(subject).sequence(until).await?;
        Ok(())
    }
}
