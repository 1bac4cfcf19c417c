//! Submits a loaded spec.

use super::load::Loaded;
use halfheard_shared::{
    dataset::{Dataset, DatasetError},
    ids::SweepId,
    matrix::{self, PlannedJob, PlannedWork},
};
use halfheard_store::{
    Store, StoreError,
    submit::{NewJob, NewSweep, NewWork, Submitted},
};
use std::path::{Path, PathBuf};

/// Why a sweep could not be submitted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    /// A dataset has changed since the spec was loaded.
    #[error("cannot read dataset {path}")]
    Dataset {
        path: PathBuf,
        source: DatasetError,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
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
    let jobs = matrix::expand(loaded.resolved.clone(), id).map(new_job);
    let submitted = store.submit(&sweep, jobs).await?;
    Ok((id, submitted))
}

/// Converts a job of the matrix to the store's type.
pub fn new_job(job: PlannedJob) -> NewJob {
    NewJob {
        id: job.id,
        work: match job.work {
            PlannedWork::Train(spec) => NewWork::Train(spec),
            PlannedWork::Eval { train, spec, case } => NewWork::Eval { train, spec, case },
        },
    }
}
