//! The dataset files that sweeps use, with the labels that predictions are measured against.

use crate::{Store, StoreError};
use halfheard_shared::dataset::{Dataset, Split};

impl Store {
    /// Registers a dataset file with the hash `blake3` (64 hexadecimal digits): its sizes and the labels
    /// of its test split. An existing one is left unchanged.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn add_dataset(&self, blake3: &str, dataset: &Dataset) -> Result<(), StoreError> {
        let samples = |split| i32::try_from(dataset.split(split).len()).unwrap_or(i32::MAX);
        let labels: Vec<u8> = dataset
            .split(Split::Test)
            .labels()
            .iter()
            .flat_map(|label| label.to_le_bytes())
            .collect();
        sqlx::query!(
            "INSERT INTO dataset (blake3, name, train_samples, valid_samples, test_samples,
                                  test_labels)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (blake3) DO NOTHING",
            blake3,
            dataset.kind().as_str(),
            samples(Split::Train),
            samples(Split::Valid),
            samples(Split::Test),
            labels
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }
}
