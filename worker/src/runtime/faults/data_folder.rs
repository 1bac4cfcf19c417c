//! Probing the data folder.

use halfheard_shared::wire::{Fault, FaultKind};
use std::{io, path::Path, time::Duration};
use tokio::time::timeout;

/// A folder that takes longer does not work: a network file system whose server is away.
const PATIENCE: Duration = Duration::from_secs(20);

/// The fault of a data folder that cannot be used.
pub(in crate::runtime) fn data_folder_fault(folder: &Path, error: &io::Error) -> Fault {
    let reason = format!("{}: {error}", folder.display());
    Fault::new(FaultKind::DataFolder, "its data folder", vec![reason])
}

/// Checks whether a data folder can be used. Returns a warning if it is read-only.
pub(in crate::runtime) async fn probe_data_folder(
    folder: &Path,
    worker: &str,
) -> io::Result<Option<String>> {
    let (folder, worker) = (folder.to_owned(), worker.to_owned());
    let probing = tokio::task::spawn_blocking(move || probe(&folder, &worker));
    let late = || io::Error::other(format!("no answer in {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, probing)
        .await
        .map_err(|_| late())?
        .map_err(io::Error::other)?
}

fn probe(folder: &Path, worker: &str) -> io::Result<Option<String>> {
    std::fs::create_dir_all(folder)?;
    if let Some(first) = std::fs::read_dir(folder)?.next() {
        first?;
    }
    let path = folder.join(format!(".probe-{worker}"));
    let written = std::fs::write(&path, worker)
        .and_then(|()| std::fs::read(&path))
        .and_then(|_| std::fs::remove_file(&path));
    Ok(written.err().map(|error| {
        format!(
            "the data folder {} cannot be written ({error}): files are hashed again at every start, and nothing can be fetched into it",
            folder.display()
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_folder_probe_detects_read_only_and_unusable_folders() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a/b");
        assert_eq!(probe(&data, "w").unwrap(), None);
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
        // A folder at the probe's path makes the write fail.
        std::fs::create_dir(data.join(".probe-w")).unwrap();
        let warning = probe(&data, "w").unwrap().unwrap();
        assert!(warning.contains("cannot be written"), "{warning}");
        let file = folder.path().join("file");
        std::fs::write(&file, "not a folder").unwrap();
        assert!(probe(&file, "w").is_err());
    }
}
