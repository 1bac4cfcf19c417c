//! Datasets and encoders by their hash: in the data folder, at the path in the job, or in the
//! artifact store, from which they are copied into the data folder.
//!
//! A large file is hashed once; see [`HashCache`]. Workers of one machine share the data folder: one
//! fetches, the others wait for it.

use super::watch::Watch;

use halfheard_shared::{
    artifacts::{ArtifactError, ArtifactStore, Key},
    dataset::DataFolder,
    encoder::{self, WeightFiles},
    env,
    error::Hint,
    hash::Hash,
    hash_cache::HashCache,
    wire::BlobRef,
};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::File,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Mutex;

/// How often to look whether another worker has fetched a file.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// The maximum size of a fetched dataset or encoder.
const MAX_BYTES: u64 = 1 << 40;
/// The maximum size of an encoder's configuration or file list.
const MAX_CONFIG: u64 = 1 << 20;

const WEIGHTS: &str = "model.safetensors";
const CONFIG: &str = "config.json";

/// Why a file is unavailable.
#[derive(Debug, thiserror::Error)]
pub(super) enum BlobError {
    #[error("no {what} with BLAKE3 {blake3} in {} or the artifact store", looked.join(", "))]
    Missing {
        /// `dataset`, `text encoder`.
        what: &'static str,
        blake3: Hash,
        /// Where it was looked for, and what was there instead.
        looked: Vec<String>,
    },
    #[error("the artifact store's file list of text encoder {blake3} is invalid: {reason}")]
    List { blake3: Hash, reason: String },
    #[error(transparent)]
    Store(#[from] ArtifactError),
}

impl Hint for BlobError {
    fn hint(&self) -> Option<String> {
        match self {
            BlobError::Missing { what, .. } => Some(format!(
                "put the {what} there, or pass the folder that has it as --data-dir"
            )),
            BlobError::List { .. } => Some("submit the sweep again with --push".to_owned()),
            BlobError::Store(_) => None,
        }
    }
}

/// Held by the only worker that fetches a file.
struct FetchLock {
    lock: Flock<File>,
    path: PathBuf,
}

impl FetchLock {
    /// Whether it locks the file that has the name.
    fn is_current(&self) -> bool {
        let locked = self.lock.metadata();
        let named = std::fs::metadata(&self.path);
        matches!((locked, named), (Ok(locked), Ok(named)) if locked.ino() == named.ino())
    }
}

impl Drop for FetchLock {
    fn drop(&mut self) {
        // Before the lock ends: nobody else removes a file that it does not hold.
        if self.is_current() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Finds files by their hash.
pub(super) struct Blobs {
    folder: DataFolder,
    store: ArtifactStore,
    hashes: Arc<Mutex<HashCache>>,
    watch: Watch,
}

impl Blobs {
    pub(super) fn new(folder: impl Into<PathBuf>, store: ArtifactStore, watch: Watch) -> Self {
        let folder = DataFolder::new(folder);
        Self {
            watch,
            hashes: Arc::new(Mutex::new(HashCache::open(folder.root()))),
            folder,
            store,
        }
    }

    /// The dataset file.
    pub(super) async fn dataset(&self, blob: &BlobRef) -> Result<PathBuf, BlobError> {
        let hash: Hash = blob.blake3.parse().map_err(ArtifactError::from)?;
        let own = self.folder.blob(hash.as_str());
        let mut looked = Vec::new();
        for candidate in [own.clone(), PathBuf::from(&blob.path)] {
            match self.look(&candidate, &hash).await {
                None => return Ok(candidate),
                Some(found) => looked.push(found),
            }
        }
        let lock = self.lock(&hash).await;
        if own.exists() && self.look(&own, &hash).await.is_none() {
            return Ok(own);
        }
        tracing::info!(%hash, "fetching a dataset from the artifact store");
        let key = Key::Blob(hash.clone());
        if self.fetch(lock.as_ref(), &key, &own).await? {
            return Ok(own);
        }
        Err(BlobError::Missing {
            what: "dataset",
            blake3: hash,
            looked,
        })
    }

    /// The bundle of an external program's files.
    pub(super) async fn program(&self, hash: &Hash) -> Result<PathBuf, BlobError> {
        self.small("program", hash).await
    }

    /// A small file that came with a sweep; `what` it is.
    pub(super) async fn small(
        &self,
        what: &'static str,
        hash: &Hash,
    ) -> Result<PathBuf, BlobError> {
        let own = self.folder.blob(hash.as_str());
        let lock = match own.exists() {
            true => None,
            false => self.lock(hash).await,
        };
        let mut looked = Vec::new();
        match self.look(&own, hash).await {
            None => return Ok(own),
            Some(found) => looked.push(found),
        }
        tracing::info!(%hash, "fetching a {what} from the artifact store");
        if self
            .fetch(lock.as_ref(), &Key::Blob(hash.clone()), &own)
            .await?
        {
            return Ok(own);
        }
        Err(BlobError::Missing {
            what,
            blake3: hash.clone(),
            looked,
        })
    }

    /// The encoder's folder, by the hash of its weights.
    pub(super) async fn encoder(&self, blob: &BlobRef) -> Result<PathBuf, BlobError> {
        let hash: Hash = blob.blake3.parse().map_err(ArtifactError::from)?;
        let own = self.folder.root().join("encoders").join(hash.as_str());
        let installed = [env::ENCODER_EN, env::ENCODER_ZH];
        let installed = installed
            .iter()
            .filter_map(std::env::var_os)
            .map(PathBuf::from);
        let mut looked = Vec::new();
        for candidate in [own.clone(), PathBuf::from(&blob.path)]
            .into_iter()
            .chain(installed)
        {
            match self.look_at_encoder(&candidate, &hash).await {
                None => return Ok(candidate),
                Some(found) => looked.push(found),
            }
        }
        let lock = self.lock(&hash).await;
        if own.exists() && self.look_at_encoder(&own, &hash).await.is_none() {
            return Ok(own);
        }
        tracing::info!(%hash, "fetching a text encoder from the artifact store");
        if self.fetch_encoder(lock.as_ref(), &hash, &own).await? {
            return Ok(own);
        }
        Err(BlobError::Missing {
            what: "text encoder",
            blake3: hash,
            looked,
        })
    }

    /// Waits until no other worker fetches this. Without a lock (a folder that is read-only or on a
    /// file system without any), two may fetch the same, which is only more work.
    async fn lock(&self, hash: &Hash) -> Option<FetchLock> {
        let path = self.folder.root().join(format!(".fetch-{hash}"));
        let _waiting = self.watch.wait();
        loop {
            let file = File::create(&path).ok()?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    let lock = FetchLock { lock, path };
                    if lock.is_current() {
                        return Some(lock);
                    }
                    // Its last holder has removed the file meanwhile.
                    return Box::pin(self.lock(hash)).await;
                }
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => {}
                Err(_) => return None,
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
    }

    /// `None` if the folder holds the encoder with this hash; otherwise describes what it holds.
    async fn look_at_encoder(&self, folder: &Path, hash: &Hash) -> Option<String> {
        let other = |what: String| Some(format!("{} ({what})", folder.display()));
        if !folder.join(CONFIG).is_file() {
            return other(format!("no {CONFIG}"));
        }
        let files = match WeightFiles::find(folder) {
            Ok(files) => files,
            Err(error) => return other(error.found),
        };
        let mut hashes = Vec::new();
        for (name, path) in files.names().iter().zip(files.paths()) {
            match self.hash_of(&path).await {
                Ok(hash) => hashes.push((name.clone(), hash)),
                Err(error) => return other(format!("{name}: {error}")),
            }
        }
        let found = encoder::identity(&hashes);
        if found == *hash {
            return None;
        }
        tracing::warn!(folder = %folder.display(), %found, wanted = %hash, "folder holds another encoder");
        other(format!("its weights have BLAKE3 {found}"))
    }

    /// Fetches an encoder into the folder `own`; false if the store has none.
    async fn fetch_encoder(
        &self,
        lock: Option<&FetchLock>,
        hash: &Hash,
        own: &Path,
    ) -> Result<bool, BlobError> {
        let listed = Key::EncoderFiles(hash.clone());
        let files = match self.store.get(&listed, MAX_CONFIG).await? {
            None => vec![(WEIGHTS.to_owned(), hash.clone())],
            Some(list) => encoder::read_list(&list, hash).map_err(|reason| BlobError::List {
                blake3: hash.clone(),
                reason,
            })?,
        };
        // The weights last: a folder that has them is complete.
        let config = Key::EncoderConfig(hash.clone());
        let mut there = self
            .store
            .fetch_to(&config, &own.join(CONFIG), MAX_CONFIG)
            .await?;
        for (name, hash) in files {
            let key = Key::Blob(hash);
            there = there && self.fetch(lock, &key, &own.join(name)).await?;
        }
        Ok(there)
    }

    /// Fetches a file. With the lock, what an interrupted fetch left is continued.
    async fn fetch(
        &self,
        lock: Option<&FetchLock>,
        key: &Key,
        path: &Path,
    ) -> Result<bool, ArtifactError> {
        match lock {
            Some(_) => self.store.fetch_resumable(key, path, MAX_BYTES).await,
            None => self.store.fetch_to(key, path, MAX_BYTES).await,
        }
    }

    /// `None` if the file has this hash; otherwise describes what is there.
    async fn look(&self, path: &Path, hash: &Hash) -> Option<String> {
        match self.hash_of(path).await {
            Ok(found) if found == *hash => None,
            Ok(found) => {
                tracing::warn!(path = %path.display(), %found, wanted = %hash, "file has another hash");
                Some(format!("{} (it has BLAKE3 {found})", path.display()))
            }
            Err(error) => Some(format!("{} ({error})", path.display())),
        }
    }

    async fn hash_of(&self, path: &Path) -> std::io::Result<Hash> {
        let path = std::path::absolute(path)?;
        if !path.metadata()?.is_file() {
            return Err(std::io::Error::other("not a file"));
        }
        // Locked while hashing: two jobs that need the same file hash it once.
        let mut hashes = self.hashes.clone().lock_owned().await;
        let hashing = tokio::task::spawn_blocking(move || {
            let hash = hashes.get(&path)?;
            hashes.save();
            Ok(hash)
        });
        hashing.await.map_err(std::io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn blobs(root: &Path) -> Blobs {
        let url = ArtifactStore::url_of(&root.join("store"));
        let store = ArtifactStore::open(&url, None).await.unwrap();
        Blobs::new(root.join("data"), store, Watch::default())
    }

    fn blob(content: &[u8], path: &Path) -> BlobRef {
        BlobRef {
            blake3: Hash::of(content).as_str().to_owned(),
            path: path.display().to_string(),
        }
    }

    #[tokio::test]
    async fn file_at_the_jobs_path_is_used_only_with_the_right_hash() {
        let root = tempfile::tempdir().unwrap();
        let blobs = blobs(root.path()).await;
        let hint = root.path().join("hint");
        std::fs::write(&hint, b"right").unwrap();
        let wanted = blob(b"right", &hint);
        assert_eq!(blobs.dataset(&wanted).await.unwrap(), hint);
        std::fs::write(&hint, b"wrong").unwrap();
        let error = blobs.dataset(&wanted).await.unwrap_err();
        let found = Hash::of(b"wrong").to_string();
        assert!(error.to_string().contains(&found), "{error}");
        assert!(matches!(error, BlobError::Missing { .. }), "{error}");
    }

    #[tokio::test]
    async fn fetched_file_is_kept_in_the_data_folder() {
        let root = tempfile::tempdir().unwrap();
        let blobs = blobs(root.path()).await;
        let wanted = blob(b"data", Path::new("/nowhere"));
        let key = Key::Blob(Hash::of(b"data"));
        blobs
            .store
            .put(&key, bytes::Bytes::from_static(b"data"))
            .await
            .unwrap();
        let path = blobs.dataset(&wanted).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
        blobs.store.delete(&key).await.unwrap();
        assert_eq!(blobs.dataset(&wanted).await.unwrap(), path);
    }

    #[tokio::test]
    async fn one_worker_fetches_and_the_others_wait() {
        let root = tempfile::tempdir().unwrap();
        let (one, two) = (blobs(root.path()).await, blobs(root.path()).await);
        let wanted = blob(b"data", Path::new("/nowhere"));
        let hash = Hash::of(b"data");
        std::fs::create_dir_all(one.folder.root()).unwrap();
        let lock = one.lock(&hash).await.unwrap();
        let waiting = tokio::spawn(async move { two.dataset(&wanted).await });
        tokio::time::sleep(LOCK_POLL * 3).await;
        assert!(!waiting.is_finished());
        let key = Key::Blob(hash.clone());
        let content = bytes::Bytes::from_static(b"data");
        one.store.put(&key, content).await.unwrap();
        drop(lock);
        let path = waiting.await.unwrap().unwrap();
        assert_eq!(std::fs::read(path).unwrap(), b"data");
        let left = std::fs::read_dir(one.folder.root()).unwrap();
        let left = left.filter(|e| {
            e.as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with(".fetch")
        });
        assert_eq!(left.count(), 0);
    }

    #[tokio::test]
    async fn encoder_is_fetched_with_its_configuration() {
        let root = tempfile::tempdir().unwrap();
        let blobs = blobs(root.path()).await;
        let wanted = blob(b"weights", Path::new("/nowhere"));
        let put = |key: Key, content: &'static [u8]| {
            let store = blobs.store.clone();
            async move {
                store
                    .put(&key, bytes::Bytes::from_static(content))
                    .await
                    .unwrap()
            }
        };
        put(Key::Blob(Hash::of(b"weights")), b"weights").await;
        assert!(
            blobs.encoder(&wanted).await.is_err(),
            "no configuration yet"
        );
        put(Key::EncoderConfig(Hash::of(b"weights")), b"{}").await;
        let folder = blobs.encoder(&wanted).await.unwrap();
        assert!(folder.join(CONFIG).is_file() && folder.join(WEIGHTS).is_file());
    }
}
