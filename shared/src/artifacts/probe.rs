//! Whether a store works: something small is written, read back and deleted.

use super::{ArtifactError, ArtifactStore, Key};
use bytes::Bytes;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A store that takes longer for a few bytes does not work.
const PATIENCE: Duration = Duration::from_secs(20);

impl ArtifactStore {
    /// Writes, reads back and deletes a small object. `name` sets apart who does so at the same
    /// time; of other characters than letters, digits, `-` and `_` nothing is used.
    ///
    /// # Errors
    ///
    /// What the store did not do.
    pub async fn probe(&self, name: &str) -> Result<(), ArtifactError> {
        let name: String = name
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            .take(100)
            .collect();
        let key = Key::Probe(name);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos());
        let content = Bytes::from(format!("probe {now} of process {}", std::process::id()));
        let probe = async {
            self.put(&key, content.clone()).await?;
            let found = self.get(&key, 1024).await?;
            self.delete(&key).await?;
            match found {
                Some(found) if found == content => Ok(()),
                Some(_) => Err(ArtifactError::store(
                    &key,
                    "read back",
                    true,
                    "other bytes came than were written",
                )),
                None => Err(ArtifactError::Missing {
                    key: key.to_string(),
                }),
            }
        };
        tokio::time::timeout(PATIENCE, probe)
            .await
            .unwrap_or_else(|_| {
                let late = format!("no answer in {} s", PATIENCE.as_secs());
                Err(ArtifactError::store(&key, "written", true, late))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn probe_leaves_working_store_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let url = ArtifactStore::url_of(folder.path());
        let store = ArtifactStore::open(&url, None).await.unwrap();
        store.probe("../node 1-0").await.unwrap();
        let left = std::fs::read_dir(folder.path().join("probes")).unwrap();
        assert_eq!(left.count(), 0);
        let only: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(only.len(), 1, "nothing lies outside");
    }

    #[tokio::test]
    async fn probe_reports_unwritable_store() {
        let folder = tempfile::tempdir().unwrap();
        let url = ArtifactStore::url_of(folder.path());
        let store = ArtifactStore::open(&url, None).await.unwrap();
        std::fs::write(folder.path().join("probes"), "in the way").unwrap();
        let error = store.probe("w").await.unwrap_err();
        assert!(matches!(error, ArtifactError::Store { .. }), "{error}");
        let file = folder.path().join("file");
        std::fs::write(&file, "no folder").unwrap();
        let error = ArtifactStore::open(&ArtifactStore::url_of(&file), None)
            .await
            .unwrap_err();
        assert!(matches!(error, ArtifactError::Unopened { .. }), "{error}");
    }
}
