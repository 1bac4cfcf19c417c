//! The artifact store: where checkpoints, saved training states and data files lie, for
//! all machines of a sweep to reach.
//!
//! | address | where | for |
//! |---|---|---|
//! | `file:///path` | a folder, shared by all machines | one machine, a cluster with a shared disk |
//! | `s3://bucket/prefix` | an object store; credentials and endpoint from `AWS_*` variables | the cloud |
//! | `nats://` | the broker's object bucket `P_ARTIFACTS` | small sweeps without either |
//!
//! Writing is atomic: a reader sees the whole of the old or the whole of the new. What is named by
//! its content is checked against its hash when it is read, and written once: writing it again only
//! makes it young again, so that housekeeping, which leaves alone what is young, does not take it
//! away from a job that is about to report it.

mod bucket;
mod disk;
mod folder;
mod inventory;
mod key;
mod probe;
mod remote;
mod resume;

pub use bucket::Tidied;
pub use disk::Disk;
pub use inventory::{Amount, Entry, Inventory, Leftover, Quota, age};
pub use key::{ArtifactKind, GRACE, InvalidKey, Key};
pub use resume::PARTIAL;

use crate::{
    address::{holds_secret, redacted},
    broker::Broker,
    error::Hint,
    hash::{Hash, InvalidHash},
};
use bytes::Bytes;
use std::{
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

/// Maximum size of a checkpoint or saved state that are read: more is damage or a mistake in bytes.
pub const MAX_BYTES: u64 = 16 << 30;

/// Bytes read from or written to a file at once.
const CHUNK: usize = 1 << 20;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An error of the artifact store.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// An address of an unknown kind.
    #[error("invalid artifact store address `{url}`: {reason}")]
    Address {
        /// The address, without a login.
        url: String,
        /// The reason.
        reason: String,
    },
    /// The store does not exist or denies access.
    #[error("the artifact store at {url} cannot be opened")]
    Unopened {
        /// The address, which holds no secret.
        url: String,
        /// The reason.
        #[source]
        source: Cause,
    },
    /// Not 64 hexadecimal digits.
    #[error(transparent)]
    Hash(#[from] InvalidHash),
    /// The artifact does not exist.
    #[error("the artifact {key} is not in the store")]
    Missing {
        /// The name.
        key: String,
    },
    /// The artifact is too large.
    #[error("the artifact {key} has {bytes} bytes, over the limit of {limit}")]
    TooLarge {
        /// The name.
        key: String,
        /// The size in bytes.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The content is not what the name says.
    #[error("the artifact {key} is damaged: its content has the hash {found}")]
    Damaged {
        /// The name.
        key: String,
        /// The hash found.
        found: Hash,
    },
    /// There is no room for it.
    #[error("the artifact {key} cannot be written: the store is full")]
    Full {
        /// The name.
        key: String,
        /// How full.
        #[source]
        source: Cause,
    },
    /// The store cannot be listed.
    #[error("the artifact store's {folder} cannot be listed")]
    Unlisted {
        /// The part of the store.
        folder: String,
        /// The reason.
        #[source]
        source: Cause,
    },
    /// The store did not do it.
    #[error("the artifact {key} cannot be {action}")]
    Store {
        /// The name.
        key: String,
        /// `read`, `written`, `deleted`.
        action: &'static str,
        /// Whether trying again may help.
        retryable: bool,
        /// The reason.
        #[source]
        source: Cause,
    },
}

impl Hint for ArtifactError {
    fn hint(&self) -> Option<String> {
        match self {
            ArtifactError::Address { .. } => {
                Some("use file:///folder, s3://bucket/prefix or nats://".to_owned())
            }
            ArtifactError::Hash(invalid) => invalid.hint(),
            ArtifactError::Full { .. } => Some(
                "free some with `coord gc`, or give the store more room: it goes on by itself"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

impl ArtifactError {
    /// Whether the same call may succeed later: the store is away, a file is not there yet.
    pub fn is_retryable(&self) -> bool {
        match self {
            ArtifactError::Address { .. } | ArtifactError::Hash(_) => false,
            // Written by another machine a moment ago, or read while it was replaced.
            ArtifactError::Missing { .. } | ArtifactError::Damaged { .. } => true,
            // The bucket is made by the coordinator, a disk is mounted, a right is given.
            ArtifactError::Unopened { .. } => true,
            ArtifactError::TooLarge { .. } => false,
            ArtifactError::Full { .. } | ArtifactError::Unlisted { .. } => true,
            ArtifactError::Store { retryable, .. } => *retryable,
        }
    }

    /// Whether the store has no room: nobody's fault but the store's, and it passes when room is made.
    pub fn is_full(&self) -> bool {
        matches!(self, ArtifactError::Full { .. })
    }

    fn full(key: &Key, source: impl Into<Cause>) -> Self {
        ArtifactError::Full {
            key: key.to_string(),
            source: source.into(),
        }
    }

    fn unlisted(folder: &str, source: impl Into<Cause>) -> Self {
        ArtifactError::Unlisted {
            folder: folder.to_owned(),
            source: source.into(),
        }
    }

    fn store(key: &Key, action: &'static str, retryable: bool, source: impl Into<Cause>) -> Self {
        ArtifactError::Store {
            key: key.to_string(),
            action,
            retryable,
            source: source.into(),
        }
    }

    /// An error of the disk that an artifact is written to, which is not the store's.
    fn local(key: &Key, source: std::io::Error) -> Self {
        Self::store(key, "written to a file", true, source)
    }

    fn io(key: &Key, action: &'static str, source: std::io::Error) -> Self {
        use std::io::ErrorKind::{
            FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
        };
        if matches!(source.kind(), StorageFull | QuotaExceeded) {
            return Self::full(key, source);
        }
        let retryable = !matches!(
            source.kind(),
            PermissionDenied | ReadOnlyFilesystem | FileTooLarge
        );
        Self::store(key, action, retryable, source)
    }
}

/// A read that stalls this long has lost its object: it was replaced or deleted meanwhile, which the
/// broker's bucket does not report.
const STALLED: Duration = Duration::from_secs(60);

type Reader = Pin<Box<dyn AsyncRead + Send>>;

/// Content that is being read or written.
struct Opened {
    bytes: u64,
    reader: Reader,
}

impl Opened {
    /// The next piece behind what `buffer` has; 0 bytes at the end.
    async fn read_into(&mut self, key: &Key, buffer: &mut Vec<u8>) -> Result<usize, ArtifactError> {
        buffer.reserve(CHUNK);
        tokio::time::timeout(STALLED, self.reader.read_buf(buffer))
            .await
            .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut)))
            .map_err(|e| ArtifactError::io(key, "read", e))
    }

    /// Checks that exactly the announced bytes arrived.
    fn complete(&self, key: &Key, read: u64) -> Result<(), ArtifactError> {
        if read == self.bytes {
            return Ok(());
        }
        let torn = std::io::Error::other(format!("{read} of {} bytes came", self.bytes));
        Err(ArtifactError::io(key, "read", torn))
    }
}

#[derive(Clone, Debug)]
enum Backend {
    Folder(folder::Folder),
    Remote(remote::Remote),
    Bucket(Box<bucket::Bucket>),
}

/// Called for each piece of an artifact that is read.
pub type Progress = Arc<dyn Fn() + Send + Sync>;

/// A store of artifacts. Cheap to clone.
#[derive(Clone)]
pub struct ArtifactStore {
    backend: Backend,
    progress: Option<Progress>,
}

impl std::fmt::Debug for ArtifactStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.backend.fmt(f)
    }
}

impl ArtifactStore {
    /// Opens the store at `url`; see the module for the kinds. `nats://` needs the broker.
    pub async fn open(url: &str, broker: Option<&Broker>) -> Result<Self, ArtifactError> {
        let wrong = |reason: &str| ArtifactError::Address {
            url: redacted(url),
            reason: reason.to_owned(),
        };
        if holds_secret(url, true) {
            // Nor may what it is refused for repeat it.
            return Err(wrong(
                "it holds a login: keys come from AWS_* variables, the broker's login from its own address",
            ));
        }
        fn unopened_at(url: &str, source: impl Into<Cause>) -> ArtifactError {
            ArtifactError::Unopened {
                url: url.to_owned(),
                source: source.into(),
            }
        }
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| wrong("it has no scheme"))?;
        let backend = match scheme {
            "file" => {
                let path = PathBuf::from(rest);
                if !path.is_absolute() {
                    return Err(wrong("the path must begin at the root: file:///folder"));
                }
                Backend::Folder(folder::Folder::open(path).map_err(|e| unopened_at(url, e))?)
            }
            "s3" => Backend::Remote(remote::Remote::open(url).map_err(|e| wrong(&e.to_string()))?),
            "nats" => {
                let broker = broker.ok_or_else(|| wrong("no connection to a broker"))?;
                let bucket = bucket::Bucket::open(broker).await;
                Backend::Bucket(Box::new(bucket.map_err(|e| unopened_at(url, e))?))
            }
            _ => return Err(wrong("its scheme is unknown")),
        };
        Ok(Self {
            backend,
            progress: None,
        })
    }

    /// The same store, which calls `progress` for each piece of an artifact that it reads.
    #[must_use]
    pub fn with_progress(self, progress: Progress) -> Self {
        Self {
            progress: Some(progress),
            ..self
        }
    }

    fn advanced(&self) {
        if let Some(progress) = &self.progress {
            progress();
        }
    }

    /// The address of a folder: its path as it is, nothing is escaped.
    pub fn url_of(folder: &Path) -> String {
        format!("file://{}", folder.display())
    }

    async fn open_key(&self, key: &Key) -> Result<Option<Opened>, ArtifactError> {
        match &self.backend {
            Backend::Folder(folder) => folder.open_key(key).await,
            Backend::Remote(remote) => remote.open_key(key).await,
            Backend::Bucket(bucket) => bucket.open_key(key).await,
        }
    }

    async fn write(&self, key: &Key, content: Opened) -> Result<(), ArtifactError> {
        match &self.backend {
            Backend::Folder(folder) => folder.write(key, content).await,
            Backend::Remote(remote) => remote.write(key, content).await,
            Backend::Bucket(bucket) => bucket.write(key, content).await,
        }
    }

    /// The size of an artifact in bytes; `None` if it does not exist.
    pub async fn size(&self, key: &Key) -> Result<Option<u64>, ArtifactError> {
        match &self.backend {
            Backend::Folder(folder) => folder.size(key).await,
            Backend::Remote(remote) => remote.size(key).await,
            Backend::Bucket(bucket) => bucket.size(key).await,
        }
    }

    /// Whether what is named by its content is there in this size, and young: made so if it was not.
    async fn keep_young(&self, key: &Key, bytes: u64) -> Result<bool, ArtifactError> {
        if key.content_hash().is_none() {
            return Ok(false);
        }
        match &self.backend {
            Backend::Folder(folder) => folder.touch(key, bytes).await,
            Backend::Remote(remote) => remote.is_young(key, bytes).await,
            Backend::Bucket(bucket) => bucket.is_young(key, bytes).await,
        }
    }

    /// Deletes an artifact; a missing one is not an error.
    pub async fn delete(&self, key: &Key) -> Result<(), ArtifactError> {
        match &self.backend {
            Backend::Folder(folder) => folder.delete(key).await,
            Backend::Remote(remote) => remote.delete(key).await,
            Backend::Bucket(bucket) => bucket.delete(key).await,
        }
    }

    /// Writes `content`, replacing what exists. An artifact named by its content is written only if it
    /// does not exist in that size.
    pub async fn put(&self, key: &Key, content: Bytes) -> Result<(), ArtifactError> {
        let bytes = content.len() as u64;
        if self.keep_young(key, bytes).await? {
            return Ok(());
        }
        let reader: Reader = Box::pin(std::io::Cursor::new(content));
        self.write(key, Opened { bytes, reader }).await
    }

    /// Writes `content` unless the key exists; returns the content that counts, which is the first.
    /// Where the store cannot refuse a second writer (`nats://`), the last of two at the same
    /// moment wins, so both must be acceptable.
    pub async fn put_first(&self, key: &Key, content: Bytes) -> Result<Bytes, ArtifactError> {
        let limit = crate::wire::MAX_BYTES as u64;
        if let Some(there) = self.get(key, limit).await? {
            return Ok(there);
        }
        let written = match &self.backend {
            Backend::Folder(folder) => folder.write_new(key, content.clone()).await?,
            Backend::Remote(remote) => remote.write_new(key, content.clone()).await?,
            Backend::Bucket(_) => {
                self.put(key, content.clone()).await?;
                true
            }
        };
        if written {
            return Ok(content);
        }
        self.get(key, limit).await?.ok_or(ArtifactError::Missing {
            key: key.to_string(),
        })
    }

    /// The content of an artifact of at most `limit` bytes, checked against its hash if it is named
    /// by it; `None` if it does not exist.
    pub async fn get(&self, key: &Key, limit: u64) -> Result<Option<Bytes>, ArtifactError> {
        let Some(mut opened) = self.open_key(key).await? else {
            return Ok(None);
        };
        check_size(key, opened.bytes, limit)?;
        let mut content = Vec::with_capacity(opened.bytes as usize + CHUNK);
        while opened.read_into(key, &mut content).await? > 0 {
            self.advanced();
            check_size(key, content.len() as u64, limit)?;
        }
        opened.complete(key, content.len() as u64)?;
        if let Some(expected) = key.content_hash() {
            let (content, found) = tokio::task::spawn_blocking(move || {
                let found = Hash::of(&content);
                (content, found)
            })
            .await
            .map_err(|e| ArtifactError::store(key, "read", true, e))?;
            if found != *expected {
                return Err(ArtifactError::Damaged {
                    key: key.to_string(),
                    found,
                });
            }
            return Ok(Some(content.into()));
        }
        Ok(Some(content.into()))
    }

    /// Puts a file into the store under `key`. The caller has checked the hash of one that is named
    /// by its content.
    pub async fn put_file(&self, key: &Key, path: &Path) -> Result<(), ArtifactError> {
        let failed = |e| ArtifactError::io(key, "written", e);
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let bytes = file.metadata().await.map_err(failed)?.len();
        if self.keep_young(key, bytes).await? {
            return Ok(());
        }
        let reader: Reader = Box::pin(tokio::io::BufReader::with_capacity(CHUNK, file));
        self.write(key, Opened { bytes, reader }).await
    }

    /// Puts a file that is named by its content into the store, after checking its hash.
    ///
    /// # Errors
    ///
    /// Its content is not what the name says; as [`Self::put_file`].
    pub async fn put_checked(&self, key: &Key, path: &Path) -> Result<(), ArtifactError> {
        if let Some(expected) = key.content_hash() {
            let file = path.to_owned();
            let found = folder::blocking(move || crate::hash::hash_file(&file)).await;
            let found = found.map_err(|e| ArtifactError::io(key, "read", e))?;
            if found != *expected {
                return Err(ArtifactError::Damaged {
                    key: key.to_string(),
                    found,
                });
            }
        }
        self.put_file(key, path).await
    }

    /// Writes an artifact of at most `limit` bytes to the file `path`, atomically and checked
    /// against its hash if it is named by it; `false` if it does not exist.
    pub async fn fetch_to(
        &self,
        key: &Key,
        path: &Path,
        limit: u64,
    ) -> Result<bool, ArtifactError> {
        let Some(mut opened) = self.open_key(key).await? else {
            return Ok(false);
        };
        check_size(key, opened.bytes, limit)?;
        let failed = |e| ArtifactError::local(key, e);
        let file = folder::create(path).map_err(failed)?;
        let mut writer = folder::writer(&file).map_err(failed)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = Vec::with_capacity(CHUNK);
        let mut total = 0;
        while opened.read_into(key, &mut buffer).await? > 0 {
            self.advanced();
            total += buffer.len() as u64;
            check_size(key, total, limit)?;
            hasher.update(&buffer);
            writer.write_all(&buffer).await.map_err(failed)?;
            buffer.clear();
        }
        opened.complete(key, total)?;
        let found = Hash::from(hasher.finalize());
        if key
            .content_hash()
            .is_some_and(|expected| *expected != found)
        {
            return Err(ArtifactError::Damaged {
                key: key.to_string(),
                found,
            });
        }
        writer.flush().await.map_err(failed)?;
        folder::blocking(move || file.persist())
            .await
            .map_err(failed)?;
        Ok(true)
    }
}

/// Whether what was written at `modified` needs not be written again to survive `grace` from now. The
/// clocks of this machine and of the store may be apart by half of it.
fn is_young(modified: SystemTime, grace: Duration) -> bool {
    let now = SystemTime::now();
    let apart = now
        .duration_since(modified)
        .unwrap_or_else(|error| error.duration());
    apart < grace / 2
}

fn check_size(key: &Key, bytes: u64, limit: u64) -> Result<(), ArtifactError> {
    if bytes > limit {
        return Err(ArtifactError::TooLarge {
            key: key.to_string(),
            bytes,
            limit,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
