//! The disk of an artifact store that is a folder.

use nix::sys::statvfs::statvfs;
use std::{path::Path, time::Duration};
use tokio::time::timeout;

/// How the address of a folder begins.
const FOLDER: &str = "file://";
/// How often it is measured.
const EVERY: Duration = Duration::from_secs(30);
/// How often it is looked for while there is no folder: its first user makes it.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a file system may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The disk of an artifact store, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What this process may still write.
    pub free: u64,
    /// All of it.
    pub size: u64,
}

impl Disk {
    /// The disk of the store at `url`; `None` if that is no folder or cannot be read.
    pub fn of_store(url: &str) -> Option<Self> {
        let stat = statvfs(Path::new(url.strip_prefix(FOLDER)?)).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
        Some(Self {
            free: bytes(stat.blocks_available()),
            size: bytes(stat.blocks()),
        })
    }

    /// Measures the disk of the store at `url` now and then, for as long as it runs. A network file
    /// system may hang: then nothing is known until it answers.
    pub async fn keep_measuring(url: &str, mut known: impl FnMut(Option<Self>)) {
        if !url.starts_with(FOLDER) {
            return std::future::pending().await;
        }
        loop {
            let url = url.to_owned();
            let mut measured = tokio::task::spawn_blocking(move || Self::of_store(&url));
            let disk = match timeout(TIMEOUT, &mut measured).await {
                Ok(disk) => disk,
                Err(_) => {
                    known(None);
                    measured.await
                }
            };
            let disk = disk.ok().flatten();
            known(disk);
            tokio::time::sleep(disk.map_or(LOOK_EVERY, |_| EVERY)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_of_a_folder_is_measured_and_others_have_none() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::of_store(&format!("file://{}", folder.path().display())).unwrap();
        assert!(disk.size > 0 && disk.free <= disk.size);
        for url in ["s3://bucket/prefix", "nats://", "file:///missing/folder"] {
            assert_eq!(Disk::of_store(url), None, "{url}");
        }
    }
}
