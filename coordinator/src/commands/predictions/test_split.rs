//! The test split that predictions are for.

use crate::config::Settings;
use halfheard_shared::{
    dataset::{DataFolder, Dataset, Split},
    ids::SweepId,
};
use halfheard_store::{Store, imported::ImportError};
use std::path::PathBuf;

/// The test split of a sweep's dataset.
pub(super) struct TestSplit {
    pub(super) samples: usize,
    /// The dataset file, where this machine has it.
    file: Option<Dataset>,
}

impl TestSplit {
    pub(super) async fn load(
        store: &Store,
        sweep: SweepId,
        dataset: &str,
        settings: &Settings,
    ) -> Result<Self, ImportError> {
        let used = store.test_split(sweep, dataset).await?;
        let folder = DataFolder::new(&settings.data_dir);
        let places = [
            folder.blob(&used.blake3),
            folder.data_file(dataset),
            PathBuf::from(&used.path),
        ];
        let is_it = |file: &Dataset| file.blake3().to_hex().as_str() == used.blake3;
        let mut files = places.iter().filter_map(|path| Dataset::open(path).ok());
        Ok(Self {
            samples: used.samples,
            file: files.find(is_it),
        })
    }

    /// The ids of the samples in order, if they are known.
    pub(super) fn ids(&self) -> Option<Vec<&str>> {
        let split = self.file.as_ref()?.split(Split::Test);
        Some((0..split.len()).map(|sample| split.id(sample)).collect())
    }
}
