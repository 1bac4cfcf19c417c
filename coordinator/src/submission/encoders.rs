//! Text encoders on this machine: whether a folder can be used, and what it is known by.

use halfheard_shared::hash_cache::HashCache;
use halfheard_shared::{
    artifacts::Hash,
    encoder::{self, Encoder, EncoderError, EncoderFacts, WeightFiles},
};
use std::path::{Path, PathBuf};

/// A folder that can be used.
#[derive(Clone, Debug)]
pub struct Examined {
    /// What the encoder is known by.
    pub identity: Hash,
    /// What texts must agree with.
    pub facts: EncoderFacts,
    /// What it is: `BERT of width 384, 6 layers, 30522 tokens`.
    pub summary: String,
}

/// A file of an encoder.
#[derive(Clone, Debug)]
pub struct EncoderFile {
    /// Its name in the folder.
    pub name: String,
    /// Where it lies, links followed.
    pub path: PathBuf,
    /// Its hash.
    pub hash: Hash,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// What is in it.
    #[error(transparent)]
    Unfit(#[from] Box<EncoderError>),
    /// A file cannot be read.
    #[error("{}: {source}; check the file and its permissions", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The files of the weights in `folder`, with their hashes, in the order that
/// [`encoder::identity`] takes them in.
///
/// # Errors
///
/// There are none, or one cannot be read.
pub fn files(folder: &Path, hashes: &mut HashCache) -> Result<Vec<EncoderFile>, ExamineError> {
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

/// Names and hashes of `files`.
pub fn named(files: &[EncoderFile]) -> Vec<(String, Hash)> {
    let named = files
        .iter()
        .map(|file| (file.name.clone(), file.hash.clone()));
    named.collect()
}

/// Whether the encoder in `folder` can be used, in every respect that does not depend on the texts.
/// Its weights are read when they were not before.
///
/// # Errors
///
/// It cannot: what is wrong, and what to do.
pub fn examine(folder: &Path, hashes: &mut HashCache) -> Result<Examined, ExamineError> {
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
