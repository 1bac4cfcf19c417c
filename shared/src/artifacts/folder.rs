//! Artifacts in a folder.
//!
//! Not `object_store`'s `LocalFileSystem`: it reports every error of the disk as `Generic`, so a folder that is read-only
//! could not be distinguished from a disk that is busy, and a crash leaves its staged `name#1` behind, where nothing may be.

use super::{ArtifactError, CHUNK, Key, Opened};
use crate::atomic_file::{AtomicFile, DEFAULT_MODE};
use bytes::Bytes;
use std::{
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
};
use tokio::io::AsyncWriteExt as _;

#[derive(Clone, Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(super) fn open(root: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&root)?;
        Ok(Self { root })
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.to_string())
    }

    pub(super) async fn open_key(&self, key: &Key) -> Result<Option<Opened>, ArtifactError> {
        let failed = |e| ArtifactError::io(key, "read", e);
        let file = match tokio::fs::File::open(self.path(key)).await {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let bytes = file.metadata().await.map_err(failed)?.len();
        let reader = Box::pin(tokio::io::BufReader::with_capacity(CHUNK, file));
        Ok(Some(Opened { bytes, reader }))
    }

    pub(super) async fn write(&self, key: &Key, mut content: Opened) -> Result<(), ArtifactError> {
        let failed = |e| ArtifactError::io(key, "written", e);
        let file = create(&self.path(key)).map_err(failed)?;
        let mut writer = writer(&file).map_err(failed)?;
        tokio::io::copy(&mut content.reader, &mut writer)
            .await
            .map_err(failed)?;
        writer.flush().await.map_err(failed)?;
        blocking(move || file.persist()).await.map_err(failed)
    }

    /// Writes only if the key is new; returns whether it was.
    pub(super) async fn write_new(&self, key: &Key, content: Bytes) -> Result<bool, ArtifactError> {
        let path = self.path(key);
        let write = move || {
            let mut file = create(&path)?;
            file.write_all(&content)?;
            file.persist_new()
        };
        blocking(write)
            .await
            .map_err(|e| ArtifactError::io(key, "written", e))
    }

    pub(super) async fn size(&self, key: &Key) -> Result<Option<u64>, ArtifactError> {
        match tokio::fs::metadata(self.path(key)).await {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(ArtifactError::io(key, "read", e)),
        }
    }

    pub(super) async fn delete(&self, key: &Key) -> Result<(), ArtifactError> {
        match tokio::fs::remove_file(self.path(key)).await {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(ArtifactError::io(key, "deleted", e)),
            _ => Ok(()),
        }
    }
}

/// Starts the file `path` in a folder that need not exist.
pub(super) fn create(path: &Path) -> io::Result<AtomicFile> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    AtomicFile::create(path, DEFAULT_MODE)
}

/// Writes into `file` without blocking the thread.
pub(super) fn writer(file: &AtomicFile) -> io::Result<tokio::fs::File> {
    Ok(tokio::fs::File::from_std(file.as_file().try_clone()?))
}

/// Does `work`, which waits for the disk, on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
