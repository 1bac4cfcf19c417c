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

/// The rights of a file that the user asked for: the umask has the last word, as for any other.
pub const USUAL: u32 = 0o666;
/// The rights of a file that only its owner reads.
pub const PRIVATE: u32 = 0o600;

/// Begins a file with the rights `mode` that [`finish`] puts at `path`.
///
/// # Errors
///
/// The folder of `path` is not there or cannot be written to.
pub fn begin(path: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    tempfile::Builder::new()
        .prefix(".coord-")
        .permissions(Permissions::from_mode(mode))
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

/// Writes a file with the rights `mode`.
///
/// # Errors
///
/// As [`begin`] and [`finish`].
pub fn write(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = begin(path, mode)?;
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
        write(&path, USUAL, b"old").unwrap();
        let mut given_up = begin(&path, USUAL).unwrap();
        given_up.write_all(b"half").unwrap();
        drop(given_up);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        write(&path, PRIVATE, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        let rights = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(rights & 0o777, PRIVATE);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        let nowhere = folder.path().join("no/such/figure.svg");
        let error = write(&nowhere, USUAL, b"").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
