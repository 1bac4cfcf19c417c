//! Remembered hashes of large files: a spec names encoders and datasets of gigabytes, which should not be read each time.
//!
//! Kept in the data folder as `file-hashes.json`. A hash is trusted while the file has the same size, inode and times. No
//! program can set back the time of the last status change, so replaced content is noticed. Losing the cache loses nothing.

use crate::atomic_file;
use crate::hash::{Hash, hash_file};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// A file that changed this recently may change again without its time showing it.
const SETTLED: Duration = Duration::from_secs(2);
const MAX_BYTES: u64 = 1 << 20;
const MAX_FILES: usize = 1_000;

/// Tells whether a file is still the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            bytes: metadata.len(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the last change is long enough ago.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let limit = now.unwrap_or_default().saturating_sub(SETTLED).as_secs();
        let last = self.modified.0.max(self.changed.0);
        u64::try_from(last).is_ok_and(|last| last < limit)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    stamp: Stamp,
    blake3: Hash,
    /// Whether every number in the file is known to be finite.
    #[serde(default)]
    finite: bool,
}

type Entries = BTreeMap<PathBuf, Entry>;

/// The hash cache of a data folder.
///
/// ```
/// use halfheard_shared::hash_cache::HashCache;
///
/// # let folder = tempfile::tempdir()?;
/// # let file = folder.path().join("weights");
/// # std::fs::write(&file, "x")?;
/// let mut hashes = HashCache::open(folder.path());
/// let hash = hashes.get(&file)?;
/// hashes.save();
/// # assert_eq!(hash, halfheard_shared::hash::Hash::of(b"x"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct HashCache {
    path: PathBuf,
    entries: Entries,
    changed: bool,
}

impl HashCache {
    /// Opens the cache of `data_dir`; empty if it does not exist or is damaged.
    pub fn open(data_dir: &Path) -> Self {
        let path = data_dir.join("file-hashes.json");
        Self {
            entries: load(&path),
            path,
            changed: false,
        }
    }

    /// The BLAKE3 hash of the file at `path`, which should be canonical. Blocks while it hashes.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn get(&mut self, path: &Path) -> io::Result<Hash> {
        let before = Stamp::of(&fs::metadata(path)?);
        if let Some(entry) = self.entries.get(path)
            && entry.stamp == before
        {
            return Ok(entry.blake3.clone());
        }
        self.entries.remove(path);
        let blake3 = hash_file(path)?;
        // A file that changed while it was read is not remembered.
        let stamp = Stamp::of(&fs::metadata(path)?);
        if before == stamp && stamp.is_settled() && self.entries.len() < MAX_FILES {
            let entry = Entry {
                stamp,
                blake3: blake3.clone(),
                finite: false,
            };
            self.entries.insert(path.to_owned(), entry);
            self.changed = true;
        }
        Ok(blake3)
    }

    /// Whether every number in the file, whose hash was requested last, is known to be finite.
    pub fn is_finite(&self, path: &Path) -> bool {
        self.entries.get(path).is_some_and(|entry| entry.finite)
    }

    /// Remembers that every number in the file is finite, if its hash is remembered.
    pub fn set_finite(&mut self, path: &Path) {
        if let Some(entry) = self.entries.get_mut(path) {
            entry.finite = true;
            self.changed = true;
        }
    }

    /// Saves what is new, if the data folder exists. A failure costs only the time to hash again.
    pub fn save(&mut self) {
        if !self.path.parent().is_some_and(Path::is_dir) || !std::mem::take(&mut self.changed) {
            return;
        }
        // Other processes on the same data folder save as well.
        let mut entries = load(&self.path);
        entries.extend(self.entries.clone());
        let saved = serde_json::to_vec(&entries)
            .map_err(io::Error::other)
            .and_then(|text| atomic_file::write(&self.path, atomic_file::PRIVATE_MODE, &text));
        if let Err(error) = saved {
            tracing::debug!(%error, "cannot save the hash cache");
        }
    }
}

fn load(path: &Path) -> Entries {
    let small = fs::metadata(path).is_ok_and(|metadata| metadata.len() <= MAX_BYTES);
    let text = small.then(|| fs::read(path).ok()).flatten();
    text.and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inserts an entry as if the file had not changed for long.
    fn insert(hashes: &mut HashCache, path: &Path, content: &[u8]) {
        let entry = Entry {
            stamp: Stamp::of(&fs::metadata(path).unwrap()),
            blake3: Hash::of(content),
            finite: true,
        };
        hashes.entries.insert(path.to_owned(), entry);
        hashes.changed = true;
    }

    #[test]
    fn hash_is_trusted_until_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights");
        fs::write(&file, "one").unwrap();
        let mut hashes = HashCache::open(folder.path());
        insert(&mut hashes, &file, b"remembered");
        hashes.save();
        let mut hashes = HashCache::open(folder.path());
        assert_eq!(hashes.get(&file).unwrap(), Hash::of(b"remembered"));
        assert!(hashes.is_finite(&file));
        // The same size at the same path, and the modification time set back.
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(&file, "two").unwrap();
        fs::File::options()
            .write(true)
            .open(&file)
            .and_then(|file| file.set_modified(time))
            .unwrap();
        assert_eq!(hashes.get(&file).unwrap(), Hash::of(b"two"));
        assert!(!hashes.is_finite(&file), "the content is different");
    }

    #[test]
    fn recently_changed_file_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights");
        fs::write(&file, "one").unwrap();
        let mut hashes = HashCache::open(folder.path());
        hashes.get(&file).unwrap();
        assert!(hashes.entries.is_empty());
    }

    #[test]
    fn damaged_cache_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file-hashes.json"), "{\"a\":").unwrap();
        assert!(HashCache::open(folder.path()).entries.is_empty());
    }

    #[test]
    fn nothing_is_saved_without_a_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights");
        fs::write(&file, "one").unwrap();
        let missing = folder.path().join("data");
        let mut hashes = HashCache::open(&missing);
        insert(&mut hashes, &file, b"x");
        hashes.save();
        assert!(!missing.exists());
    }

    #[test]
    fn processes_keep_each_others_hashes() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["a", "b"].map(|name| folder.path().join(name));
        let mut caches = [(); 2].map(|()| HashCache::open(folder.path()));
        for (file, hashes) in files.iter().zip(&mut caches) {
            fs::write(file, "x").unwrap();
            insert(hashes, file, b"x");
            hashes.save();
        }
        assert_eq!(HashCache::open(folder.path()).entries.len(), 2);
    }
}
