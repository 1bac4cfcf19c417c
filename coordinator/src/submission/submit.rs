//! Submits a loaded spec.

use super::load::Loaded;
use halfheard_shared::{
    dataset::{Dataset, DatasetError},
    error::Hint,
    ids::SweepId,
    matrix, operations,
};
use halfheard_store::{
    Store, StoreError,
    submit::{NewSweep, Submitted},
    terms::Terms,
};
use nix::unistd::{User, geteuid};
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

/// Returns the name of the user: `USER`, or what the system calls this process' user.
pub(crate) fn user() -> String {
    let named = std::env::var("USER").ok().filter(|name| !name.is_empty());
    named
        .or_else(|| {
            User::from_uid(geteuid())
                .ok()
                .flatten()
                .map(|user| user.name)
        })
        .unwrap_or_default()
}

/// A limit that a spec sets; `read` keeps it within a million.
fn limit(number: Option<u32>) -> Option<Option<i32>> {
    number.map(|number| i32::try_from(number).ok())
}

/// Submits a loaded spec: the labels of its datasets, then the sweep and its jobs in one transaction.
/// What `terms` leave open, the spec may say: priority, weight, limits.
///
/// # Errors
///
/// The database fails, or a dataset cannot be read.
pub(crate) async fn submit(
    store: &Store,
    loaded: &Loaded,
    nonce: Option<&str>,
    terms: Terms,
) -> Result<(SweepId, Submitted), SubmitError> {
    for (data, _) in loaded.resolved.inputs() {
        let path = Path::new(&data.path);
        let opened = Dataset::open(path).map_err(|source| SubmitError::Dataset {
            path: path.to_owned(),
            source,
        })?;
        store.add_dataset(&data.blake3, &opened).await?;
    }
    let id = loaded.resolved.sweep_id(nonce);
    let sweep = NewSweep {
        id,
        name: loaded.resolved.name.clone(),
        nonce: nonce.map(str::to_owned),
        spec: loaded.text.clone(),
        // A resolved spec holds strings, numbers and lists only, so it always serializes.
        resolved: serde_json::to_value(&*loaded.resolved).unwrap_or_default(),
        owner: user(),
        terms: Terms {
            priority: terms.priority.or(Some(loaded.spec.priority)),
            weight: terms.weight.or(loaded.spec.weight),
            max_running: terms.max_running.or_else(|| limit(loaded.spec.max_running)),
            max_failures: terms
                .max_failures
                .or_else(|| limit(loaded.spec.max_failures)),
            ..terms
        },
        flop: operations::of_trainings(&loaded.resolved, |method, dataset| {
            loaded.sizes(method, dataset)
        }),
    };
    let jobs = matrix::expand(loaded.resolved.clone(), nonce);
    let submitted = store.submit(&sweep, jobs).await?;
    Ok((id, submitted))
}
