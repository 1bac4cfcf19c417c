//! Why a file was not imported.

use crate::{
    input::InputError,
    nonfinite::AllRefused,
    opaque::OpaqueFields,
    recognize::{self, Recognized},
};
use halfheard_shared::{
    dataset::{DatasetError, Split, WriteError},
    error::Hint,
    pickle::{PickleError, PickleErrorKind},
};
use std::path::{Path, PathBuf};

/// Why a file was not imported. Nothing has been written then.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The file is not a pickle of plain data.
    #[error("cannot read {} as a pickle", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: PickleError,
    },
    /// The file has another format.
    #[error("{} is not a pickle but {}", path.display(), what.format)]
    NotPickle {
        /// The file.
        path: PathBuf,
        /// Its format.
        what: Recognized,
    },
    /// The file ends too early.
    #[error("{} is truncated at byte {bytes}, inside {inside}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its size (expanded, if it is compressed).
        bytes: u64,
        /// The unfinished object.
        inside: &'static str,
    },
    /// The pickle is not a dict.
    #[error("the file holds {found}, expected a dict of `train`, `valid` and `test`")]
    Root {
        /// What it holds.
        found: String,
    },
    /// A split is missing.
    #[error("missing split `{split}`; the file has {}", have.join(", "))]
    MissingSplit {
        /// The split.
        split: Split,
        /// The existing keys.
        have: Vec<String>,
    },
    /// Several keys are names of the same split.
    #[error("missing split `{split}`; {} are both names of it", keys.join(" and "))]
    AmbiguousSplit {
        /// The split.
        split: Split,
        /// The keys.
        keys: Vec<String>,
    },
    /// Required fields hold objects of unsupported classes.
    #[error("{0}")]
    Opaque(Box<OpaqueFields>),
    /// Feature values that are not finite.
    #[error("{0}")]
    NonFinite(AllRefused),
    /// A field is missing.
    #[error("split {split}: missing field `{field}`; it has {}", have.join(", "))]
    MissingField {
        /// The split.
        split: Split,
        /// The field.
        field: &'static str,
        /// The existing keys.
        have: Vec<String>,
    },
    /// A field has a wrong type or shape.
    #[error("split {split}: `{field}` {what}")]
    Field {
        /// The split.
        split: Split,
        /// The field; empty for the split itself.
        field: String,
        /// What is wrong.
        what: String,
    },
    /// An invalid value.
    #[error("split {split}: `{field}`, sample {sample}: {what}")]
    Value {
        /// The split.
        split: Split,
        /// The field.
        field: String,
        /// The sample's index in its split, from 0.
        sample: usize,
        /// What is wrong.
        what: String,
    },
    /// The splits do not belong together.
    #[error(
        "split {split} has {found}, split train has {expected}: all splits must have the same sizes"
    )]
    Sizes {
        /// The split.
        split: Split,
        /// Its sizes.
        found: String,
        /// Those of the training split.
        expected: String,
    },
    /// The data folder.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The data file.
    #[error("cannot write the dataset")]
    Write(#[from] WriteError),
}

impl ImportError {
    /// The error for a file that could not be read as a pickle, with its actual format if recognized.
    pub(crate) fn pickle(path: &Path, bytes: &[u8], source: PickleError) -> Self {
        let path = path.to_owned();
        match source.kind {
            // What gets this far is a pickle.
            PickleErrorKind::Limit { .. } => Self::Pickle { path, source },
            PickleErrorKind::Truncated(inside) if recognize::guess(bytes).is_none() => {
                Self::Truncated {
                    path,
                    bytes: bytes.len() as u64,
                    inside,
                }
            }
            _ => match recognize::guess(bytes) {
                Some(what) => Self::NotPickle { path, what },
                None => Self::Pickle { path, source },
            },
        }
    }
}

impl Hint for ImportError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Input(error) => return error.hint(),
            Self::NotPickle { what, .. } => what.hint,
            Self::Truncated { .. } => "copy or download it again",
            Self::MissingSplit { have, .. }
                if have.iter().any(|key| key == "text_bert" || key == "audio") =>
            {
                "it looks like one split alone: put all three into one dict, {\"train\": ..., \"valid\": ..., \"test\": ...}"
            }
            Self::AmbiguousSplit { split, .. } => return Some(format!("rename one to `{split}`")),
            Self::Opaque(fields) => return Some(fields.hint()),
            Self::NonFinite(_) => {
                "set such values to 0 with --nonfinite zero (the manifest keeps the counts), repair the file, or remove the samples"
            }
            Self::MissingField { field, .. } => match *field {
                "text_bert" => {
                    "files with word vectors only (`text`) are not supported; use the file made for BERT"
                }
                "regression_labels_T" | "regression_labels_A" | "regression_labels_V" => {
                    "only SIMS has labels for each modality: is this a file of another dataset (--as)?"
                }
                _ => return None,
            },
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
