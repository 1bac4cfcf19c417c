//! What lies in a store: every artifact with its size and time, and what broken uploads left behind.

use super::{ArtifactError, ArtifactKind, ArtifactStore, Backend, Key};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Deletions at once.
const AT_ONCE: usize = 8;

/// Maximum size of the store's id in bytes.
const MAX_ID: u64 = 256;

/// An artifact as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Key,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was written last, by the store's clock.
    pub modified: SystemTime,
}

/// What an upload that broke off left behind, or a deletion that the store only noted. Nobody reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// For people: a path or a name in the broker's bucket.
    pub what: String,
    /// Its size in bytes, about.
    pub bytes: u64,
    /// When it was written last, by the store's clock.
    pub modified: SystemTime,
    pub(super) place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A temporary file.
    File(PathBuf),
    /// Messages of the bucket's stream on this subject, up to this sequence number.
    Messages { subject: String, last: u64 },
}

/// Everything in a store.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// The artifacts.
    pub entries: Vec<Entry>,
    /// What broken uploads left behind.
    pub leftovers: Vec<Leftover>,
    /// Number of things in the store's folders that are no artifacts. They are never touched.
    pub foreign: u64,
}

/// A number of artifacts and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    /// Adds one of this size.
    pub fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

impl Inventory {
    /// The artifacts by kind.
    pub fn by_kind(&self) -> BTreeMap<ArtifactKind, Amount> {
        let mut kinds = BTreeMap::new();
        for entry in &self.entries {
            let amount: &mut Amount = kinds.entry(entry.key.kind()).or_default();
            amount.add(entry.bytes);
        }
        kinds
    }

    /// The temporary files and the like.
    pub fn leftover(&self) -> Amount {
        let mut amount = Amount::default();
        for leftover in &self.leftovers {
            amount.add(leftover.bytes);
        }
        amount
    }
}

/// How full the place is where a store lies, as far as it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Quota {
    /// Bytes in use, whoever uses them.
    pub used: u64,
    /// Bytes that it may have.
    pub limit: u64,
}

impl Quota {
    /// The share that is in use, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.used as f64 / (self.limit.max(1)) as f64
    }
}

impl ArtifactStore {
    /// Lists everything in the store.
    ///
    /// # Errors
    ///
    /// The store cannot be listed: it is away, or the login may not.
    pub async fn inventory(&self) -> Result<Inventory, ArtifactError> {
        match &self.backend {
            Backend::Folder(folder) => folder.inventory().await,
            Backend::Remote(remote) => remote.inventory().await,
            Backend::Bucket(bucket) => bucket.inventory().await,
        }
    }

    /// The time by the store's own clock, in which [`Entry::modified`] is; found by writing something.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    pub async fn now(&self) -> Result<SystemTime, ArtifactError> {
        let key = Key::Probe(format!("now-{}", uuid::Uuid::new_v4().simple()));
        self.put(&key, Bytes::from_static(b"now")).await?;
        let now = match &self.backend {
            Backend::Folder(folder) => folder.modified(&key).await,
            Backend::Remote(remote) => remote.modified(&key).await,
            Backend::Bucket(bucket) => bucket.modified(&key).await,
        };
        self.delete(&key).await?;
        now
    }

    /// Whether an artifact was not written again since it was listed. A bucket on the broker does not say
    /// so for a single one: there a new one gets parts of its own, and is missed by its readers if it
    /// goes with the old one.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub async fn is_unchanged(&self, entry: &Entry) -> Result<bool, ArtifactError> {
        let modified = match &self.backend {
            Backend::Folder(folder) => folder.modified(&entry.key).await,
            Backend::Remote(remote) => remote.modified(&entry.key).await,
            Backend::Bucket(_) => return Ok(true),
        };
        match modified {
            Ok(modified) => Ok(modified == entry.modified),
            Err(ArtifactError::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes artifacts. Returns the errors of those that could not be.
    pub async fn delete_all(&self, keys: impl IntoIterator<Item = Key>) -> Vec<ArtifactError> {
        futures::stream::iter(keys)
            .map(|key| async move { self.delete(&key).await.err() })
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await
    }

    /// Removes a leftover, unless it was written to since it was listed.
    ///
    /// # Errors
    ///
    /// What the store did not do.
    pub async fn remove(&self, leftover: &Leftover) -> Result<(), ArtifactError> {
        match (&self.backend, &leftover.place) {
            (Backend::Bucket(bucket), Place::Messages { subject, last }) => {
                bucket.purge(&leftover.what, subject, *last).await
            }
            (Backend::Folder(_), Place::File(path)) => {
                remove_leftover(path, leftover.modified).await
            }
            // A leftover of another store.
            _ => Ok(()),
        }
    }

    /// How full the store is; `None` if it does not say, as an object store does not.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub async fn quota(&self) -> Result<Option<Quota>, ArtifactError> {
        match &self.backend {
            Backend::Bucket(bucket) => bucket.quota().await,
            Backend::Folder(_) | Backend::Remote(_) => Ok(None),
        }
    }

    /// The folder of a `file://` store.
    pub fn folder(&self) -> Option<&std::path::Path> {
        match &self.backend {
            Backend::Folder(folder) => Some(folder.root()),
            Backend::Remote(_) | Backend::Bucket(_) => None,
        }
    }

    /// The id that the store has now; `None` if it has none (any more): another folder may be mounted in
    /// its place, or it was emptied.
    ///
    /// # Errors
    ///
    /// The store is away, or holds something else under that name.
    pub async fn current_id(&self) -> Result<Option<String>, ArtifactError> {
        if let Backend::Bucket(bucket) = &self.backend
            && let Some(id) = bucket.id()
        {
            return Ok(Some(id));
        }
        match self.get(&Key::StoreId, MAX_ID).await? {
            Some(id) => read_id(&id).map(Some),
            None => Ok(None),
        }
    }

    /// The id of the store, by which workers that do not share one are told apart. The first who asks
    /// writes it; a `nats://` store has that of its installation, so that it is the same store after
    /// the broker lost its storage. From then on a folder without it counts as away.
    ///
    /// # Errors
    ///
    /// The store is away, or holds something else under that name.
    pub async fn id(&self) -> Result<String, ArtifactError> {
        if let Backend::Bucket(bucket) = &self.backend
            && let Some(id) = bucket.id()
        {
            return Ok(id);
        }
        let fresh = uuid::Uuid::new_v4().to_string();
        let id = read_id(&self.put_first(&Key::StoreId, fresh.into()).await?)?;
        if let Backend::Folder(folder) = &self.backend {
            folder.expect_id(&id);
        }
        Ok(id)
    }
}

fn read_id(content: &[u8]) -> Result<String, ArtifactError> {
    let text = String::from_utf8_lossy(content);
    match text.trim().parse::<uuid::Uuid>() {
        Ok(id) => Ok(id.to_string()),
        Err(error) => Err(ArtifactError::store(&Key::StoreId, "read", false, error)),
    }
}

/// Since when something has not been written to; zero if it was written after `now`.
pub fn age(now: SystemTime, modified: SystemTime) -> Duration {
    now.duration_since(modified).unwrap_or_default()
}

/// Removes a temporary file unless it was written to after `seen`.
async fn remove_leftover(path: &Path, seen: SystemTime) -> Result<(), ArtifactError> {
    let file = path.to_owned();
    let remove = move || match std::fs::metadata(&file) {
        Ok(metadata) if metadata.modified()? == seen => std::fs::remove_file(&file),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    };
    tokio::task::spawn_blocking(remove)
        .await
        .unwrap_or_else(|panicked| Err(std::io::Error::other(panicked)))
        .map_err(|source| ArtifactError::Store {
            key: path.display().to_string(),
            action: "deleted",
            retryable: true,
            source: source.into(),
        })
}
