//! What can go wrong when results are read.

use crate::{StoreError, benchmarks::Benchmarks};
use halfheard_shared::{benchmark::Benchmark, case::CaseError, error::Hint};

/// Why results cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The database.
    #[error("cannot read the results of the sweep")]
    Store(#[from] StoreError),
    /// A dataset that this program does not know.
    #[error("unknown dataset `{0}` in the sweep")]
    Dataset(String),
    /// A case that this program does not know.
    #[error("unknown case in the sweep")]
    Case(#[from] CaseError),
    /// A protocol that this program does not know.
    #[error("unknown `{0}` in the protocol of the sweep")]
    Protocol(&'static str),
    /// The labels are not stored.
    #[error("the database lacks the test labels of {dataset} (file {blake3})")]
    NoLabels {
        /// The dataset.
        dataset: Benchmark,
        /// The BLAKE3 hash of its file.
        blake3: String,
    },
    /// Stored bytes are not a list of finite numbers of the split's size.
    #[error("{what} is not {samples} finite numbers: changed after it was stored")]
    Damaged {
        /// What the bytes are of.
        what: String,
        /// How many numbers there should be.
        samples: usize,
    },
}

impl ResultsError {
    /// Whether stored predictions are at fault: everything else of the sweep can still be used.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            ResultsError::NoLabels { .. } | ResultsError::Damaged { .. }
        )
    }
}

impl Hint for ResultsError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            ResultsError::Dataset(_) | ResultsError::Case(_) | ResultsError::Protocol(_) => {
                "use a newer coord"
            }
            ResultsError::NoLabels { .. } => {
                "submit the sweep again where its data is; nothing is computed again"
            }
            ResultsError::Store(_) | ResultsError::Damaged { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

impl From<sqlx::Error> for ResultsError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Benchmarks {
    /// The dataset called `name`.
    ///
    /// # Errors
    ///
    /// An unknown name.
    pub fn named(&self, name: &str) -> Result<Benchmark, ResultsError> {
        self.get(name)
            .ok_or_else(|| ResultsError::Dataset(name.to_owned()))
    }
}
