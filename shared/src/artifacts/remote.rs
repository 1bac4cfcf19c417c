//! Artifacts in an object store that speaks S3.

use super::{ArtifactError, CHUNK, Entry, Inventory, Key, Opened, is_young, key::FOLDERS};
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;
use object_store::{
    Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    WriteMultipart, aws::AmazonS3Builder, path::Path,
};
use std::{sync::Arc, time::SystemTime};
use tokio::io::AsyncReadExt as _;

/// Larger contents go up in parts.
const ONE_PUT: u64 = 32 << 20;
/// Bytes of a part.
const PART: usize = 16 << 20;
/// Parts on their way at once.
const PARTS_AT_ONCE: usize = 8;

#[derive(Clone, Debug)]
pub(super) struct Remote {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl Remote {
    /// `s3://bucket/prefix`; credentials, region and endpoint from `AWS_*` variables.
    pub(super) fn open(url: &str) -> Result<Self, Error> {
        crate::cryptography::choose();
        let rest = url.strip_prefix("s3://").unwrap_or(url);
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .build()?;
        Ok(Self {
            store: Arc::new(store),
            prefix: Path::parse(prefix.trim_end_matches('/'))?,
        })
    }

    fn path(&self, key: &Key) -> Path {
        let mut path = self.prefix.clone();
        for part in key.to_string().split('/') {
            path = path.join(part);
        }
        path
    }

    pub(super) async fn open_key(&self, key: &Key) -> Result<Option<Opened>, ArtifactError> {
        let found = match self.store.get(&self.path(key)).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(|e| failed(key, "read", e))?,
        };
        let bytes = found.meta.size;
        let stream = found.into_stream().map_err(std::io::Error::from);
        let reader = Box::pin(tokio_util::io::StreamReader::new(stream));
        Ok(Some(Opened { bytes, reader }))
    }

    /// Opens an artifact behind its first `offset` bytes, which must not be all of them.
    pub(super) async fn open_key_at(
        &self,
        key: &Key,
        offset: u64,
    ) -> Result<Option<Opened>, ArtifactError> {
        let options = GetOptions {
            range: Some(GetRange::Offset(offset)),
            ..GetOptions::default()
        };
        let found = match self.store.get_opts(&self.path(key), options).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(|e| failed(key, "read", e))?,
        };
        let bytes = found.meta.size;
        let stream = found.into_stream().map_err(std::io::Error::from);
        let reader = Box::pin(tokio_util::io::StreamReader::new(stream));
        Ok(Some(Opened { bytes, reader }))
    }

    pub(super) async fn write(&self, key: &Key, mut content: Opened) -> Result<(), ArtifactError> {
        let unreadable = |e| ArtifactError::io(key, "written", e);
        let path = self.path(key);
        if content.bytes <= ONE_PUT {
            let mut all = Vec::with_capacity(content.bytes as usize);
            content
                .reader
                .read_to_end(&mut all)
                .await
                .map_err(unreadable)?;
            self.store
                .put(&path, PutPayload::from(all))
                .await
                .map_err(|e| failed(key, "written", e))?;
            return Ok(());
        }
        let upload = self
            .store
            .put_multipart(&path)
            .await
            .map_err(|e| failed(key, "written", e))?;
        let mut parts = WriteMultipart::new_with_chunk_size(upload, PART);
        let outcome = async {
            loop {
                let mut chunk = BytesMut::with_capacity(CHUNK);
                if content
                    .reader
                    .read_buf(&mut chunk)
                    .await
                    .map_err(unreadable)?
                    == 0
                {
                    return Ok(());
                }
                parts
                    .wait_for_capacity(PARTS_AT_ONCE)
                    .await
                    .map_err(|e| failed(key, "written", e))?;
                parts.put(chunk.freeze());
            }
        }
        .await;
        match outcome {
            Ok(()) => {
                let finished = parts.finish().await;
                finished.map(drop).map_err(|e| failed(key, "written", e))
            }
            Err(error) => {
                // The parts cost money until they are given up; the store's own rules clean up the rest.
                let _ = parts.abort().await;
                Err(error)
            }
        }
    }

    /// Writes only if nothing is there; returns whether it did.
    pub(super) async fn write_new(&self, key: &Key, content: Bytes) -> Result<bool, ArtifactError> {
        let options = PutOptions::from(PutMode::Create);
        let path = self.path(key);
        let payload = PutPayload::from(content);
        match self.store.put_opts(&path, payload, options).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(e) => Err(failed(key, "written", e)),
        }
    }

    pub(super) async fn size(&self, key: &Key) -> Result<Option<u64>, ArtifactError> {
        match self.store.head(&self.path(key)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(failed(key, "read", e)),
        }
    }

    pub(super) async fn delete(&self, key: &Key) -> Result<(), ArtifactError> {
        match self.store.delete(&self.path(key)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(failed(key, "deleted", e)),
        }
    }
}

impl Remote {
    /// Whether the key is there in this size and needs not be written again.
    pub(super) async fn is_young(&self, key: &Key, bytes: u64) -> Result<bool, ArtifactError> {
        match self.store.head(&self.path(key)).await {
            Ok(meta) => {
                Ok(meta.size == bytes && is_young(meta.last_modified.into(), key.kind().grace()))
            }
            Err(Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(failed(key, "read", e)),
        }
    }

    pub(super) async fn modified(&self, key: &Key) -> Result<SystemTime, ArtifactError> {
        match self.store.head(&self.path(key)).await {
            Ok(meta) => Ok(meta.last_modified.into()),
            Err(Error::NotFound { .. }) => Err(ArtifactError::Missing {
                key: key.to_string(),
            }),
            Err(e) => Err(failed(key, "read", e)),
        }
    }

    pub(super) async fn inventory(&self) -> Result<Inventory, ArtifactError> {
        let mut inventory = Inventory::default();
        for folder in FOLDERS {
            let unlisted = |e| ArtifactError::unlisted(folder, e);
            let mut found = self.store.list(Some(&self.prefix.clone().join(folder)));
            while let Some(meta) = found.try_next().await.map_err(unlisted)? {
                let file = meta.location.filename().unwrap_or_default();
                match format!("{folder}/{file}").parse() {
                    Ok(key) => inventory.entries.push(Entry {
                        key,
                        bytes: meta.size,
                        modified: meta.last_modified.into(),
                    }),
                    Err(_) => inventory.foreign += 1,
                }
            }
        }
        Ok(inventory)
    }
}

fn failed(key: &Key, action: &'static str, error: Error) -> ArtifactError {
    // Of the stores that have limits, each has a word of its own for it.
    let text = crate::error::chain(&error);
    if ["StorageFull", "QuotaExceeded", "InsufficientStorage"]
        .iter()
        .any(|word| text.contains(word))
    {
        return ArtifactError::full(key, error);
    }
    let permanent = matches!(
        error,
        Error::InvalidPath { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented { .. }
            | Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::UnknownConfigurationKey { .. }
    );
    ArtifactError::store(key, action, !permanent, error)
}
