//! Artifacts in a folder.
//!
//! Not `object_store`'s `LocalFileSystem`: it reports every error of the disk as `Generic`, so a folder that is read-only
//! could not be distinguished from a disk that is busy, and a crash leaves its staged `name#1` behind, where nothing may be.

use super::{
    ArtifactError, CHUNK, Entry, Inventory, Key, Leftover, Opened, inventory::Place, key::FOLDERS,
};
use crate::atomic_file::{AtomicFile, DEFAULT_MODE, is_temporary};
use bytes::Bytes;
use std::{
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, Weak},
    time::SystemTime,
};
use tokio::io::AsyncWriteExt as _;

#[derive(Clone, Debug)]
pub(super) struct Folder {
    root: PathBuf,
    /// The store's id, once it is known: a folder in which the mount is missing does not have it.
    id: Arc<OnceLock<String>>,
}

impl Folder {
    pub(super) fn open(root: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&root)?;
        let id = Arc::default();
        Ok(Self { root, id })
    }

    /// From now on the folder counts as the store only while it has this id.
    pub(super) fn expect_id(&self, id: &str) {
        // Another id is another store, which stays refused.
        let _ = self.id.set(id.to_owned());
    }

    /// Checks that the folder is the store. A worker whose file system is not mounted would otherwise write
    /// into the empty folder in its place, and say that what the store has is missing.
    async fn verify(&self, key: &Key, action: &'static str) -> Result<(), ArtifactError> {
        let Some(id) = self.id.get().filter(|_| *key != Key::StoreId) else {
            return Ok(());
        };
        let wrong = |what: &str| Err(ArtifactError::store(key, action, true, what));
        match tokio::fs::read_to_string(self.path(&Key::StoreId)).await {
            Ok(found) if found.trim() == id => Ok(()),
            Ok(_) => wrong("another store is mounted in its place"),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                wrong("the folder has no store-id: its file system is not mounted")
            }
            Err(e) => Err(ArtifactError::io(key, action, e)),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.to_string())
    }

    pub(super) async fn open_key(&self, key: &Key) -> Result<Option<Opened>, ArtifactError> {
        let failed = |e| ArtifactError::io(key, "read", e);
        let file = match tokio::fs::File::open(self.path(key)).await {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.verify(key, "read").await?;
                return Ok(None);
            }
            opened => opened.map_err(failed)?,
        };
        let bytes = file.metadata().await.map_err(failed)?.len();
        let reader = Box::pin(tokio::io::BufReader::with_capacity(CHUNK, file));
        Ok(Some(Opened { bytes, reader }))
    }

    pub(super) async fn write(&self, key: &Key, mut content: Opened) -> Result<(), ArtifactError> {
        let failed = |e| ArtifactError::io(key, "written", e);
        self.verify(key, "written").await?;
        let file = create(&self.path(key)).map_err(failed)?;
        let mut writer = writer(&file).map_err(failed)?;
        tokio::io::copy(&mut content.reader, &mut writer)
            .await
            .map_err(failed)?;
        writer.flush().await.map_err(failed)?;
        blocking(move || file.persist()).await.map_err(failed)?;
        // It may have been unmounted meanwhile.
        self.verify(key, "written").await
    }

    /// Writes only if the key is new; returns whether it was.
    pub(super) async fn write_new(&self, key: &Key, content: Bytes) -> Result<bool, ArtifactError> {
        let path = self.path(key);
        let write = move || {
            let mut file = create(&path)?;
            file.write_all(&content)?;
            file.persist_new()
        };
        self.verify(key, "written").await?;
        let new = blocking(write)
            .await
            .map_err(|e| ArtifactError::io(key, "written", e))?;
        self.verify(key, "written").await?;
        Ok(new)
    }

    pub(super) async fn size(&self, key: &Key) -> Result<Option<u64>, ArtifactError> {
        self.verify(key, "read").await?;
        match tokio::fs::metadata(self.path(key)).await {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(ArtifactError::io(key, "read", e)),
        }
    }

    pub(super) async fn delete(&self, key: &Key) -> Result<(), ArtifactError> {
        self.verify(key, "deleted").await?;
        match tokio::fs::remove_file(self.path(key)).await {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(ArtifactError::io(key, "deleted", e)),
            _ => Ok(()),
        }
    }
}

impl Folder {
    /// Whether the key is there in this size; if so, it was written just now as far as its time says.
    pub(super) async fn touch(&self, key: &Key, bytes: u64) -> Result<bool, ArtifactError> {
        let path = self.path(key);
        let touch = move || {
            let file = match std::fs::OpenOptions::new().write(true).open(&path) {
                Ok(file) => file,
                // Another user's: it is written anew, which only needs the folder to be writable.
                Err(e) if e.kind() == ErrorKind::PermissionDenied => return Ok(false),
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
                Err(e) => return Err(e),
            };
            if file.metadata()?.len() != bytes {
                return Ok(false);
            }
            // Unlike a time that is given, this is by the file server's clock.
            file.set_len(bytes).map(|()| true)
        };
        self.verify(key, "written").await?;
        blocking(touch)
            .await
            .map_err(|e| ArtifactError::io(key, "written", e))
    }

    pub(super) async fn modified(&self, key: &Key) -> Result<SystemTime, ArtifactError> {
        let metadata = tokio::fs::metadata(self.path(key)).await;
        match metadata.and_then(|metadata| metadata.modified()) {
            Err(e) if e.kind() == ErrorKind::NotFound => Err(ArtifactError::Missing {
                key: key.to_string(),
            }),
            modified => modified.map_err(|e| ArtifactError::io(key, "read", e)),
        }
    }

    pub(super) async fn inventory(&self) -> Result<Inventory, ArtifactError> {
        // An empty list would mean that everything is missing.
        let any = Key::Probe(String::new());
        self.verify(&any, "listed").await?;
        let root = self.root.clone();
        // Whoever waits no longer should not keep the process until the last file is counted.
        let wanted = Arc::new(());
        let asked = Arc::downgrade(&wanted);
        let list = move || {
            let mut listing = Listing {
                asked,
                found: Inventory::default(),
            };
            for name in FOLDERS {
                let listed = listing.folder(&root.join(name), &format!("{name}/"));
                if let Err(error) = listed {
                    return Ok(Err(ArtifactError::unlisted(name, error)));
                }
            }
            // Temporary files of the store's id lie at the root, which may be shared with anything.
            listing.temporary(&root)?;
            Ok(Ok(listing.found))
        };
        let inventory = blocking(list)
            .await
            .unwrap_or_else(|error| Err(ArtifactError::unlisted("folder", error)));
        drop(wanted);
        self.verify(&any, "listed").await?;
        inventory
    }
}

/// Listing a store's folder.
struct Listing {
    /// Gone when nobody waits for it any more.
    asked: Weak<()>,
    found: Inventory,
}

impl Listing {
    fn folder(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        let files = match std::fs::read_dir(folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            files => files?,
        };
        for file in files {
            let file = file?;
            if self.asked.strong_count() == 0 {
                return Err(ErrorKind::Interrupted.into());
            }
            let metadata = match file.metadata() {
                // Deleted meanwhile.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            let name = file.file_name();
            let name = name.to_string_lossy();
            let (bytes, modified) = (metadata.len(), metadata.modified()?);
            if !metadata.is_file() {
                self.found.foreign += 1;
            } else if is_temporary(&name) {
                let leftover = leftover(file.path(), bytes, modified);
                self.found.leftovers.push(leftover);
            } else if let Ok(key) = format!("{prefix}{name}").parse() {
                self.found.entries.push(Entry {
                    key,
                    bytes,
                    modified,
                });
            } else {
                self.found.foreign += 1;
            }
        }
        Ok(())
    }

    fn temporary(&mut self, folder: &Path) -> io::Result<()> {
        for file in std::fs::read_dir(folder)? {
            let file = file?;
            if is_temporary(&file.file_name().to_string_lossy())
                && let Ok(metadata) = file.metadata()
                && metadata.is_file()
            {
                let modified = metadata.modified()?;
                let leftover = leftover(file.path(), metadata.len(), modified);
                self.found.leftovers.push(leftover);
            }
        }
        Ok(())
    }
}

fn leftover(path: PathBuf, bytes: u64, modified: SystemTime) -> Leftover {
    Leftover {
        what: path.display().to_string(),
        bytes,
        modified,
        place: Place::File(path),
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
