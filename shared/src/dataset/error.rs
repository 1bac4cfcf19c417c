//! What can be wrong with an imported dataset.

use std::{io, path::PathBuf};

/// Why a dataset file or its manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// No dataset of that name in the data folder.
    #[error("no dataset `{name}` in {}: there is {}; `coord data import` or `coord data synthesize` makes one", folder.display(), list(have))]
    Missing {
        /// The name asked for.
        name: String,
        /// The data folder.
        folder: PathBuf,
        /// Names that are there.
        have: Vec<String>,
    },
    /// A name that cannot be a folder's.
    #[error(
        "`{0}` cannot name a dataset: use letters, digits, `-`, `_` and `.`, not starting with `.`, at most 64"
    )]
    Name(String),
    /// The name is taken by other content.
    #[error(
        "there is already a dataset `{name}` with other content ({existing}): choose another name, or replace it with --replace"
    )]
    Taken {
        /// The name.
        name: String,
        /// BLAKE3 of what is there.
        existing: String,
    },
    /// The file is not a safetensors file, or one of something else.
    #[error("{} is not a Halfheard dataset: {what}; `coord data import` makes one from a feature pickle", path.display())]
    NotADataset {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A tensor is missing, of another type or shape, or lies beyond the file.
    #[error("{}: tensor `{tensor}`: {what}; the file is damaged or was not written by this program, import it again", path.display())]
    Tensor {
        /// Which file.
        path: PathBuf,
        /// Which tensor.
        tensor: String,
        /// What is wrong.
        what: String,
    },
    /// A value that the protocol does not allow.
    #[error("{}: `{tensor}`, sample {sample}: {what}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which tensor.
        tensor: String,
        /// The sample's index in its split, from 0.
        sample: usize,
        /// What is wrong.
        what: String,
    },
    /// The content is not what the manifest says.
    #[error("{}: the content has BLAKE3 {found}, its manifest says {expected}: the file changed after its import, import it again", path.display())]
    Hash {
        /// Which file.
        path: PathBuf,
        /// BLAKE3 of the content.
        found: String,
        /// BLAKE3 in the manifest.
        expected: String,
    },
    /// The manifest cannot be read.
    #[error("{}: {what}", path.display())]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

fn list(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

impl DatasetError {
    /// Wraps an I/O error with the path it happened at.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
