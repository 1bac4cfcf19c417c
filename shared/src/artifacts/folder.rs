//! Artifacts in a folder.

use super::{ArtifactError, CHUNK, Key, Opened};
use bytes::Bytes;
use std::{
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
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
        let path = self.path(key);
        let temporary = Temporary::beside(&path).map_err(failed)?;
        let mut file = tokio::fs::File::create(temporary.path())
            .await
            .map_err(failed)?;
        tokio::io::copy(&mut content.reader, &mut file)
            .await
            .map_err(failed)?;
        file.flush().await.map_err(failed)?;
        file.sync_all().await.map_err(failed)?;
        drop(file);
        temporary.rename_to(&path).map_err(failed)
    }

    /// Writes only if nothing is there; returns whether it did.
    pub(super) async fn write_new(&self, key: &Key, content: Bytes) -> Result<bool, ArtifactError> {
        let path = self.path(key);
        let write = move || -> io::Result<bool> {
            let temporary = Temporary::beside(&path)?;
            let mut file = std::fs::File::create(temporary.path())?;
            file.write_all(&content)?;
            file.sync_all()?;
            // A link fails where a file is: the one way to create with content, atomically.
            match std::fs::hard_link(temporary.path(), &path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
                Err(e) => Err(e),
                Ok(()) => sync_parent(&path).map(|()| true),
            }
        };
        tokio::task::spawn_blocking(write)
            .await
            .map_err(|e| ArtifactError::store(key, "written", true, e))?
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

/// A file in the making, beside the place it is for; deleted unless it gets there.
pub(super) struct Temporary {
    path: PathBuf,
}

impl Temporary {
    pub(super) fn beside(path: &Path) -> io::Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from(ErrorKind::InvalidInput));
        };
        std::fs::create_dir_all(parent)?;
        // Process ids repeat across the machines that share a folder: the time sets them apart.
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos());
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!(
            ".{}.{}-{now}-{number}.tmp",
            name.to_string_lossy(),
            std::process::id()
        );
        Ok(Self {
            path: parent.join(name),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn rename_to(self, path: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, path)?;
        sync_parent(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already where it was renamed.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A new name is on disk only once its folder is.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
