//! Atomic file writes: a file appears under its name complete or not at all.
//!
//! The content is written to a temporary file in the same folder, synced and renamed. A file that is dropped before it is
//! [persisted](AtomicFile::persist) leaves nothing behind.

use std::{
    fs::{File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// The mode of a file that the user asked for; the umask narrows it as for any other.
pub const DEFAULT_MODE: u32 = 0o666;
/// The mode of a file that only its owner reads.
pub const PRIVATE_MODE: u32 = 0o600;

/// How the names of temporary files begin.
const PREFIX: &str = ".halfheard-";

/// Whether a file of this name is one that is being written, or that a process which was killed left behind.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// A file that is being written.
///
/// ```
/// use halfheard_shared::atomic_file::{AtomicFile, DEFAULT_MODE};
/// use std::io::Write as _;
///
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("table.csv");
/// let mut file = AtomicFile::create(&path, DEFAULT_MODE)?;
/// file.write_all(b"a,b\n")?;
/// assert!(!path.exists());
/// file.persist()?;
/// assert_eq!(std::fs::read(&path)?, b"a,b\n");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct AtomicFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl AtomicFile {
    /// Starts a file with `mode` for `path`.
    ///
    /// # Errors
    ///
    /// The folder does not exist or is not writable.
    pub fn create(path: &Path, mode: u32) -> io::Result<Self> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder)?;
        let path = path.to_owned();
        Ok(Self { file, path })
    }

    /// The temporary file.
    pub fn as_file(&self) -> &File {
        self.file.as_file()
    }

    /// Where the temporary file is.
    pub fn temporary_path(&self) -> &Path {
        self.file.path()
    }

    /// Syncs the content and moves it to its path, replacing any existing file. Both are on disk afterwards.
    ///
    /// # Errors
    ///
    /// The disk's. An existing file is then unchanged.
    pub fn persist(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist(&self.path).map_err(|error| error.error)?;
        sync_folder(&self.path)
    }

    /// Like [`Self::persist`], but never replaces a file. Returns whether it was the first.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn persist_new(self) -> io::Result<bool> {
        self.file.as_file().sync_all()?;
        // A hard link fails if the name is taken: the atomic way to create a file with its content.
        match std::fs::hard_link(self.file.path(), &self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
            Ok(()) => sync_folder(&self.path).map(|()| true),
        }
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a file with `mode`.
///
/// # Errors
///
/// As [`AtomicFile::create`] and [`AtomicFile::persist`].
pub fn write(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = AtomicFile::create(path, mode)?;
    file.write_all(bytes)?;
    file.persist()
}

/// A new name is on disk only once its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_replaced_completely_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("figure.svg");
        write(&path, DEFAULT_MODE, b"old").unwrap();
        let mut abandoned = AtomicFile::create(&path, DEFAULT_MODE).unwrap();
        abandoned.write_all(b"half").unwrap();
        drop(abandoned);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        write(&path, PRIVATE_MODE, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, PRIVATE_MODE);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        let nowhere = folder.path().join("no/such/figure.svg");
        let error = write(&nowhere, DEFAULT_MODE, b"").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn first_new_file_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outcome");
        for (content, first) in [(&b"one"[..], true), (b"two", false)] {
            let mut file = AtomicFile::create(&path, DEFAULT_MODE).unwrap();
            file.write_all(content).unwrap();
            assert_eq!(file.persist_new().unwrap(), first);
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    }
}
