//! Why a file of predictions cannot be used.

use halfheard_shared::{
    case::{Case, CaseError},
    error::Hint,
};
use std::{io, path::PathBuf};

/// Why a file of predictions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PredictionsError {
    /// It cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its extension says nothing.
    #[error("cannot tell the format of {0} by its extension")]
    Extension(PathBuf),
    /// It is no CSV file.
    #[error("not valid CSV")]
    Csv(#[from] csv::Error),
    /// It is no Parquet file.
    #[error("not valid Parquet: {0}")]
    Parquet(String),
    /// It is no `.npz` file.
    #[error("not a valid .npz file")]
    Npz(#[source] io::Error),
    /// An array of an `.npz` file.
    #[error("array `{name}`: {what}")]
    Array {
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A column is missing.
    #[error("missing column `{name}`: the file has {have}")]
    Column {
        /// Which.
        name: String,
        /// All there are.
        have: String,
    },
    /// Nothing is in it.
    #[error("the file has no predictions")]
    Empty,
    /// More than anybody has.
    #[error("more than {0} rows")]
    TooMany(usize),
    /// No case.
    #[error("row {row}: `{text}` is not a case")]
    Case {
        /// The row.
        row: usize,
        /// What it says.
        text: String,
        /// Why.
        source: CaseError,
    },
    /// No number, or not a finite one.
    #[error("row {row}: the prediction `{text}` is not a finite number")]
    Value {
        /// The row.
        row: usize,
        /// What it says.
        text: String,
    },
    /// A sample that the test split lacks.
    #[error("case {case}: unknown sample `{sample}`")]
    Sample {
        /// The case.
        case: Case,
        /// The sample.
        sample: String,
    },
    /// The ids of the samples are not known here.
    #[error("samples are named by ids, such as `{sample}`, and the dataset file is not here")]
    Ids {
        /// The first.
        sample: String,
    },
    /// The dataset has an id twice.
    #[error("the test split has several samples with the id `{0}`")]
    Ambiguous(String),
    /// A sample twice.
    #[error("case {case}: sample `{sample}` occurs twice")]
    Twice {
        /// The case.
        case: Case,
        /// The sample.
        sample: String,
    },
    /// Samples are missing.
    #[error("case {case}: {missing} of {samples} samples are missing, the first is `{first}`")]
    Missing {
        /// The case.
        case: Case,
        /// How many.
        missing: usize,
        /// Samples of the split.
        samples: usize,
        /// The first missing one.
        first: String,
    },
}

impl Hint for PredictionsError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Extension(_) => {
                "name it .csv, .parquet or .npz; `coord predictions import --help` has the layouts"
            }
            Self::Column { .. } => "the columns are sample, case and prediction",
            Self::Case { .. } => {
                "write missing rates as r=0, r=0.1, … and missing modalities as missing=l, \
                 missing=la, …"
            }
            Self::Ids { .. } | Self::Ambiguous(_) => {
                "name samples by their places in the test split, from 0"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
