//! Files that appear under their names whole or not at all.
//!
//! They are written beside their place under another name and moved there at the end. What is given
//! up before goes away.

use std::{
    fs::Permissions,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};
use tempfile::NamedTempFile;

/// Begins a file that [`finish`] puts at `path`.
///
/// # Errors
///
/// The folder of `path` is not there or cannot be written to.
pub fn begin(path: &Path) -> io::Result<NamedTempFile> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    tempfile::Builder::new()
        .prefix(".coord-")
        // The user's umask has the last word, as for any other file of theirs.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
}

/// Puts a file at its place, in the stead of what is there. It is on the disk by then.
///
/// # Errors
///
/// The disk's. What was at `path` is still there then.
pub fn finish(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Writes a file.
///
/// # Errors
///
/// As [`begin`] and [`finish`].
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = begin(path)?;
    file.write_all(bytes)?;
    finish(file, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("figure.svg");
        write(&path, b"old").unwrap();
        let mut given_up = begin(&path).unwrap();
        given_up.write_all(b"half").unwrap();
        drop(given_up);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        write(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        let nowhere = folder.path().join("no/such/figure.svg");
        let error = write(&nowhere, b"").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
