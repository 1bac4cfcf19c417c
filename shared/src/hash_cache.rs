//! Hashes of large files, remembered: a spec names encoders and datasets of gigabytes, and `coord
//! plan` should not read them whole each time.
//!
//! Kept in the data folder as `file-hashes.json`. A hash is believed while the file has the same
//! size, number (inode) and times; the time of its last change of state cannot be set back by a
//! program, so content that was put in its place is noticed. Losing the file loses nothing.

use crate::artifacts::hash_file;
use crate::atomic_file;
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
/// The most bytes of the memory that are read.
const MAX_BYTES: u64 = 1 << 20;
/// The most files that are remembered.
const MAX_FILES: usize = 1_000;

/// What tells that a file is still the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(about: &Metadata) -> Self {
        Self {
            bytes: about.len(),
            inode: about.ino(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        }
    }

    /// Whether the last change lies far enough back.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let limit = now.unwrap_or_default().saturating_sub(SETTLED).as_secs();
        let last = self.modified.0.max(self.changed.0);
        u64::try_from(last).is_ok_and(|last| last < limit)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    stamp: Stamp,
    blake3: String,
    /// Whether all numbers in it are known to be finite.
    #[serde(default)]
    sound: bool,
}

/// The hashes of a data folder's memory.
#[derive(Debug)]
pub struct FileHashes {
    path: PathBuf,
    known: BTreeMap<PathBuf, Known>,
    new: bool,
}

impl FileHashes {
    /// The memory of the data folder at `data_dir`; empty where there is none or it is damaged.
    pub fn open(data_dir: &Path) -> Self {
        let path = data_dir.join("file-hashes.json");
        let small = fs::metadata(&path).is_ok_and(|about| about.len() <= MAX_BYTES);
        let text = small.then(|| fs::read(&path).ok()).flatten();
        let known = text.and_then(|text| serde_json::from_slice(&text).ok());
        Self {
            path,
            known: known.unwrap_or_default(),
            new: false,
        }
    }

    /// BLAKE3 of the file at `path`, 64 hexadecimal digits. `path` should be canonical.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn get(&mut self, path: &Path) -> io::Result<String> {
        let before = Stamp::of(&fs::metadata(path)?);
        if let Some(known) = self.known.get(path)
            && known.stamp == before
        {
            return Ok(known.blake3.clone());
        }
        self.known.remove(path);
        let blake3 = hash_file(path)?.as_str().to_owned();
        // What changed while it was read is not remembered.
        let after = Stamp::of(&fs::metadata(path)?);
        if before == after && after.is_settled() && self.known.len() < MAX_FILES {
            let blake3 = blake3.clone();
            let stamp = after;
            let sound = false;
            self.known.insert(
                path.to_owned(),
                Known {
                    stamp,
                    blake3,
                    sound,
                },
            );
            self.new = true;
        }
        Ok(blake3)
    }

    /// Whether the file whose hash was asked for last is known to hold finite numbers alone.
    pub fn is_sound(&self, path: &Path) -> bool {
        self.known.get(path).is_some_and(|known| known.sound)
    }

    /// Remembers that the file whose hash was asked for last holds finite numbers alone, if its hash
    /// is remembered.
    pub fn sound(&mut self, path: &Path) {
        if let Some(known) = self.known.get_mut(path) {
            known.sound = true;
            self.new = true;
        }
    }

    /// Keeps what was learnt, where the data folder is there. What cannot be kept is learnt again.
    pub fn keep(&mut self) {
        if !self.path.parent().is_some_and(Path::is_dir) {
            return;
        }
        if !std::mem::take(&mut self.new) {
            return;
        }
        let written = serde_json::to_vec(&self.known)
            .map_err(io::Error::other)
            .and_then(|text| atomic_file::write(&self.path, atomic_file::PRIVATE, &text));
        if let Err(error) = written {
            tracing::debug!(%error, "hashes of files are not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts `path`'s last change into the past, as a file that has lain there for long.
    fn known(hashes: &mut FileHashes, path: &Path, blake3: &str) {
        let stamp = Stamp::of(&fs::metadata(path).unwrap());
        let blake3 = blake3.to_owned();
        let known = Known {
            stamp,
            blake3,
            sound: true,
        };
        hashes.known.insert(path.to_owned(), known);
        hashes.new = true;
    }

    #[test]
    fn a_hash_is_believed_until_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights");
        fs::write(&file, "one").unwrap();
        let mut hashes = FileHashes::open(folder.path());
        known(&mut hashes, &file, "remembered");
        hashes.keep();
        let mut hashes = FileHashes::open(folder.path());
        assert_eq!(hashes.get(&file).unwrap(), "remembered");
        assert!(hashes.is_sound(&file));
        // The same size at the same path, and a modification time that is put back.
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(&file, "two").unwrap();
        fs::File::options()
            .write(true)
            .open(&file)
            .and_then(|file| file.set_modified(time))
            .unwrap();
        let expected = blake3::hash(b"two").to_hex().to_string();
        assert_eq!(hashes.get(&file).unwrap(), expected);
        assert!(!hashes.is_sound(&file), "other content is another matter");
    }

    #[test]
    fn a_file_that_has_just_changed_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights");
        fs::write(&file, "one").unwrap();
        let mut hashes = FileHashes::open(folder.path());
        hashes.get(&file).unwrap();
        assert!(hashes.known.is_empty());
    }

    #[test]
    fn a_damaged_memory_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file-hashes.json"), "{\"a\":").unwrap();
        assert!(FileHashes::open(folder.path()).known.is_empty());
    }

    #[test]
    fn nothing_is_kept_where_there_is_no_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights");
        fs::write(&file, "one").unwrap();
        let gone = folder.path().join("data");
        let mut hashes = FileHashes::open(&gone);
        known(&mut hashes, &file, "x");
        hashes.keep();
        assert!(!gone.exists());
    }
}
