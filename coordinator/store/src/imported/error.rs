//! Why predictions cannot be imported.

use crate::StoreError;
use halfheard_shared::{case::Case, error::Hint, metrics::MetricsError};

/// Why predictions cannot be imported. Then nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The database's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sweep does not use the dataset.
    #[error("the sweep has no jobs on a dataset `{name}`; it has {have}")]
    Dataset {
        /// What was asked for.
        name: String,
        /// What there is.
        have: String,
    },
    /// The sweep does not evaluate the case.
    #[error("the sweep does not evaluate {unknown} on {dataset}; its cases are {have}")]
    Cases {
        /// The dataset.
        dataset: String,
        /// The unknown ones.
        unknown: String,
        /// What there is.
        have: String,
    },
    /// The sweep has a program of this name.
    #[error("the sweep trains `{0}` itself")]
    Trained(String),
    /// No metrics can be computed.
    #[error("the predictions for case {case} cannot be measured")]
    Metrics {
        /// The case.
        case: Case,
        /// Why.
        source: MetricsError,
    },
    /// Other predictions of a model of this name are stored.
    #[error("other predictions of {model} are stored for {cases}")]
    Conflict {
        /// Method, variant, seed and dataset.
        model: String,
        /// The cases.
        cases: String,
    },
}

impl From<sqlx::Error> for ImportError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Hint for ImportError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Store(_) | Self::Metrics { .. } => return None,
            Self::Dataset { .. } => "name the sweep with --sweep and the dataset with --dataset",
            Self::Cases { .. } => {
                "import into a sweep whose spec has these cases, or leave them out of the file"
            }
            Self::Trained(_) => "give the imported model another --method",
            Self::Conflict { .. } => {
                "results are never overwritten: give the new model another --method or --variant, \
                 or delete the old one with `coord predictions delete`"
            }
        };
        Some(hint.to_owned())
    }
}
