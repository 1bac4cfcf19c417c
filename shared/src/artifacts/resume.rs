//! Fetching a large artifact into a file, going on where an earlier fetch was interrupted.

use super::{
    ArtifactError, ArtifactStore, Backend, CHUNK, Key, Opened, Reader, check_size, folder,
};
use crate::{atomic_file::DEFAULT_MODE, hash::Hash};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What an interrupted fetch leaves behind begins with this.
pub const PARTIAL: &str = ".partial-";

/// Where the file `path` is while it is fetched.
fn partial_path(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(PARTIAL);
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

/// Opens what an earlier fetch left of a file of `total` bytes, or a new one. Returns the hash of
/// what is there, and its size.
fn open_partial(path: &Path, total: u64) -> io::Result<(File, blake3::Hasher, u64)> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(DEFAULT_MODE)
        .open(path)?;
    if file.metadata()?.len() > total {
        file.set_len(0)?;
    }
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; CHUNK];
    let mut there = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((file, hasher, there)),
            read => {
                hasher.update(&buffer[..read]);
                there += read as u64;
            }
        }
    }
}

impl ArtifactStore {
    /// Like [`ArtifactStore::fetch_to`], for an artifact that is named by its content: what an
    /// interrupted call has fetched is kept beside `path` for the next one. Only one call at a time
    /// may fetch to `path`.
    ///
    /// # Errors
    ///
    /// The store or the disk fails; the content has another hash, and nothing is kept.
    pub async fn fetch_resumable(
        &self,
        key: &Key,
        path: &Path,
        limit: u64,
    ) -> Result<bool, ArtifactError> {
        let Some(total) = self.size(key).await? else {
            return Ok(false);
        };
        check_size(key, total, limit)?;
        let failed = |e| ArtifactError::local(key, e);
        let partial = partial_path(path);
        let opening = partial.clone();
        let opened = folder::blocking(move || open_partial(&opening, total)).await;
        let (file, mut hasher, mut there) = opened.map_err(failed)?;
        if there < total {
            let Some(mut opened) = self.open_key_at(key, there).await? else {
                return Ok(false);
            };
            if there > 0 {
                tracing::info!(%key, there, total, "resuming the fetch");
            }
            let mut writer = tokio::fs::File::from_std(file.try_clone().map_err(failed)?);
            let mut buffer = Vec::with_capacity(CHUNK);
            while opened.read_into(key, &mut buffer).await? > 0 {
                self.advanced();
                there += buffer.len() as u64;
                check_size(key, there, total)?;
                hasher.update(&buffer);
                writer.write_all(&buffer).await.map_err(failed)?;
                // What was announced is on its way to the disk before more is read.
                writer.flush().await.map_err(failed)?;
                buffer.clear();
            }
            opened.complete(key, there)?;
        }
        let found = Hash::from(hasher.finalize());
        if key.content_hash() != Some(&found) {
            let _ = std::fs::remove_file(&partial);
            let key = key.to_string();
            return Err(ArtifactError::Damaged { key, found });
        }
        let path = path.to_owned();
        folder::blocking(move || {
            file.sync_all()?;
            std::fs::rename(&partial, &path)?;
            match path.parent() {
                Some(folder) => File::open(folder)?.sync_all(),
                None => Ok(()),
            }
        })
        .await
        .map_err(failed)?;
        Ok(true)
    }

    /// Opens an artifact behind its first `offset` bytes. [`Opened::bytes`] is its whole size.
    async fn open_key_at(&self, key: &Key, offset: u64) -> Result<Option<Opened>, ArtifactError> {
        match &self.backend {
            Backend::Remote(remote) if offset > 0 => remote.open_key_at(key, offset).await,
            _ => {
                let Some(opened) = self.open_key(key).await? else {
                    return Ok(None);
                };
                // A folder is quick, and the broker's bucket cannot be read from the middle.
                let Opened { bytes, mut reader } = opened;
                let mut rest = offset;
                let mut buffer = vec![0; CHUNK];
                while rest > 0 {
                    let want = buffer.len().min(rest as usize);
                    let read = reader.read(&mut buffer[..want]).await;
                    match read.map_err(|e| ArtifactError::io(key, "read", e))? {
                        0 => break,
                        read => rest -= read as u64,
                    }
                    self.advanced();
                }
                let reader: Reader = reader;
                Ok(Some(Opened { bytes, reader }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn interrupted_fetch_is_resumed_and_damage_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let url = ArtifactStore::url_of(&root.path().join("store"));
        let store = ArtifactStore::open(&url, None).await.unwrap();
        let content: Vec<u8> = (0..3 * CHUNK + 7).map(|i| (i % 251) as u8).collect();
        let key = Key::Blob(Hash::of(&content));
        let path = root.path().join("data/file");
        let fetch = async || store.fetch_resumable(&key, &path, 1 << 40).await;
        assert!(!fetch().await.unwrap(), "the store does not have it");
        store.put(&key, content.clone().into()).await.unwrap();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        for there in [0, 5, CHUNK + 1, content.len()] {
            let partial = partial_path(&path);
            std::fs::write(&partial, &content[..there]).unwrap();
            assert!(fetch().await.unwrap());
            assert_eq!(std::fs::read(&path).unwrap(), content, "from {there}");
            assert!(!partial.exists());
            std::fs::remove_file(&path).unwrap();
        }
        // Longer than it should be: begun anew.
        std::fs::write(partial_path(&path), [&content[..], b"more"].concat()).unwrap();
        assert!(fetch().await.unwrap());
        std::fs::remove_file(&path).unwrap();
        // Other bytes: nothing is kept, so that the next call begins anew.
        std::fs::write(partial_path(&path), b"other bytes").unwrap();
        let error = fetch().await.unwrap_err();
        assert!(matches!(error, ArtifactError::Damaged { .. }), "{error}");
        assert!(!path.exists());
        assert!(fetch().await.unwrap());
        assert!(
            store.fetch_resumable(&key, &path, 10).await.is_err(),
            "too large"
        );
    }
}
