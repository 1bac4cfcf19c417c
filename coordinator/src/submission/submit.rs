//! Submits a loaded spec.

use super::load::Loaded;
use halfheard_shared::{
    dataset::{Dataset, DatasetError},
    error::Hint,
    ids::SweepId,
    matrix,
};
use halfheard_store::{
    Store, StoreError,
    submit::{NewSweep, Submitted},
};
use std::path::{Path, PathBuf};

/// Why a sweep could not be submitted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    /// A dataset has changed since the spec was loaded.
    #[error("cannot read dataset {path}")]
    Dataset { path: PathBuf, source: DatasetError },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Hint for SubmitError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Dataset { .. } => None,
            Self::Store(error) => error.hint(),
        }
    }
}

/// Submits a loaded spec: the labels of its datasets, then the sweep and its jobs in one transaction.
///
/// # Errors
///
/// The database fails, or a dataset cannot be read.
pub(crate) async fn submit(
    store: &Store,
    loaded: &Loaded,
    nonce: Option<&str>,
) -> Result<(SweepId, Submitted), SubmitError> {
    for dataset in &loaded.resolved.datasets {
        let path = Path::new(&dataset.data.path);
        let opened = Dataset::open(path).map_err(|source| SubmitError::Dataset {
            path: path.to_owned(),
            source,
        })?;
        store.add_dataset(&dataset.data.blake3, &opened).await?;
    }
    let id = loaded.resolved.sweep_id(nonce);
    let sweep = NewSweep {
        id,
        name: loaded.resolved.name.clone(),
        nonce: nonce.map(str::to_owned),
        spec: loaded.text.clone(),
        // A resolved spec holds strings, numbers and lists only, so it always serializes.
        resolved: serde_json::to_value(&*loaded.resolved).unwrap_or_default(),
        priority: loaded.spec.priority,
    };
    let jobs = matrix::expand(loaded.resolved.clone(), id);
    let submitted = store.submit(&sweep, jobs).await?;
    Ok((id, submitted))
}
