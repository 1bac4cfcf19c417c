//! Text encoders on this machine: whether a folder can be used, and its identity.

use halfheard_shared::{
    encoder::{self, Encoder, EncoderError, EncoderFacts, WeightFiles},
    error::Hint,
    hash::Hash,
    hash_cache::HashCache,
};
use std::path::{Path, PathBuf};

/// An encoder that can be used.
#[derive(Clone, Debug)]
pub(crate) struct Examined {
    /// The hash by which the encoder is identified.
    pub(crate) identity: Hash,
    /// What texts must match.
    pub(crate) facts: EncoderFacts,
    /// A description: `BERT of width 384, 6 layers, 30522 tokens`.
    pub(crate) summary: String,
}

/// A file of an encoder.
#[derive(Clone, Debug)]
pub(crate) struct EncoderFile {
    /// The name in the folder.
    pub(crate) name: String,
    /// The path, links resolved.
    pub(crate) path: PathBuf,
    /// The hash of the content.
    pub(crate) hash: Hash,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExamineError {
    /// Its content is unsuitable.
    #[error(transparent)]
    Unsuitable(#[from] Box<EncoderError>),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl Hint for ExamineError {
    fn hint(&self) -> Option<String> {
        match self {
            // Its message contains the remedy.
            Self::Unsuitable(_) => None,
            Self::Unreadable { .. } => Some("check the file and its permissions".to_owned()),
        }
    }
}

/// Returns the weight files in `folder` with their hashes, in the order of [`encoder::identity`].
///
/// # Errors
///
/// There are none, or one cannot be read.
pub(crate) fn files(
    folder: &Path,
    hashes: &mut HashCache,
) -> Result<Vec<EncoderFile>, ExamineError> {
    let found = WeightFiles::find(folder)?;
    let mut files = Vec::new();
    for (name, path) in found.names().iter().zip(found.paths()) {
        let unreadable = |source| ExamineError::Unreadable {
            path: path.clone(),
            source,
        };
        let path = path.canonicalize().map_err(unreadable)?;
        let hash = hashes.get(&path).map_err(unreadable)?;
        files.push(EncoderFile {
            name: name.clone(),
            hash,
            path,
        });
    }
    Ok(files)
}

/// Returns names and hashes of `files`.
pub(crate) fn named(files: &[EncoderFile]) -> Vec<(String, Hash)> {
    let named = files
        .iter()
        .map(|file| (file.name.clone(), file.hash.clone()));
    named.collect()
}

/// Checks the encoder in `folder` in every respect that does not depend on the texts. Its weights are
/// read if they were not checked before.
///
/// # Errors
///
/// The encoder cannot be used.
pub(crate) fn examine(folder: &Path, hashes: &mut HashCache) -> Result<Examined, ExamineError> {
    let encoder = Encoder::open(folder)?;
    let tokens = encoder.token_ids()?;
    let files = files(folder, hashes)?;
    if !files.iter().all(|file| hashes.is_finite(&file.path)) {
        encoder.check_finite()?;
        for file in &files {
            hashes.set_finite(&file.path);
        }
    }
    Ok(Examined {
        identity: encoder::identity(&named(&files)),
        facts: EncoderFacts::of(&encoder, tokens),
        summary: encoder.to_string(),
    })
}
