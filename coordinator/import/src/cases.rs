//! Erased splits as files, for models that are trained and run elsewhere.
//!
//! What a model must be given in a case is exactly what workers give theirs: the same steps are missing.
//! A file has the field's own pickle layout (as LNLN's and MMSA's loaders read it) or is safetensors;
//! both have the masks as well.

mod pickle;

use halfheard_shared::erased_split::ErasedSplit;
use std::{io, path::Path};

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A pickled dictionary of splits, each a dictionary of NumPy arrays.
    Pickle,
    /// One tensor a field.
    Safetensors,
}

impl Format {
    /// The extension of its files.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Pickle => "pkl",
            Self::Safetensors => "safetensors",
        }
    }
}

/// Writes a split's file, which appears complete or not at all.
///
/// # Errors
///
/// The folder cannot be written to, or the disk is full.
pub fn write(split: &ErasedSplit, path: &Path, format: Format) -> io::Result<()> {
    match format {
        Format::Pickle => pickle::write(split, path),
        Format::Safetensors => split.write_tensors(path, true),
    }
}
