//! Artifacts in the broker's object bucket.

use super::{ArtifactError, Key, Opened};
use crate::broker::Broker;
use async_nats::jetstream::object_store::{
    DeleteErrorKind, GetErrorKind, InfoErrorKind, ObjectMetadata, ObjectStore, PutErrorKind,
};

/// Bytes of a message: under the broker's default limit of 1 MiB, and few round trips.
const MESSAGE: usize = 512 << 10;

#[derive(Clone)]
pub(super) struct Bucket {
    store: ObjectStore,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket").finish_non_exhaustive()
    }
}

impl Bucket {
    pub(super) async fn open(broker: &Broker) -> Result<Self, String> {
        // A worker's login may not make it: then the coordinator has to be first.
        let opened = broker.ensure_artifacts().await;
        opened.map(|store| Self { store }).map_err(|error| {
            format!("{error}; the coordinator makes it: is `coord serve` running on this broker?")
        })
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
            Err(e) => Err(ArtifactError::store(key, "written", true, e)),
        }
    }

    pub(super) async fn size(&self, key: &Key) -> Result<Option<u64>, ArtifactError> {
        match self.store.info(key.to_string()).await {
            Ok(info) if info.deleted => Ok(None),
            Ok(info) => Ok(Some(info.size as u64)),
            Err(e) if e.kind() == InfoErrorKind::NotFound => Ok(None),
            Err(e) => Err(ArtifactError::store(key, "read", true, e)),
        }
    }

    pub(super) async fn delete(&self, key: &Key) -> Result<(), ArtifactError> {
        match self.store.delete(key.to_string()).await {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == DeleteErrorKind::NotFound => Ok(()),
            Err(e) => Err(ArtifactError::store(key, "deleted", true, e)),
        }
    }
}
