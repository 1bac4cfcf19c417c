//! The names of artifacts.

use crate::{case::Case, hash::Hash, ids::JobId};
use std::fmt;

/// The name of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A trained model's weights (safetensors), by BLAKE3.
    Checkpoint(Hash),
    /// A data file or an encoder's weights, by BLAKE3.
    Blob(Hash),
    /// The `config.json` beside an encoder's weights, by the weights' BLAKE3.
    EncoderConfig(Hash),
    /// The list of an encoder's files where they are other than one `model.safetensors`
    /// ([`crate::encoder::read_list`]), by what the encoder is known by.
    EncoderFiles(Hash),
    /// The saved state of a training run; replaced as it proceeds.
    Resume(JobId),
    /// A best checkpoint so far of an unfinished training run, by BLAKE3.
    ResumeCheckpoint(JobId, Hash),
    /// The id of the store itself, written once by whoever opens it first: workers that do not share
    /// one are told apart by it.
    StoreId,
    /// What a worker writes, reads back and deletes to see whether the store works, by its name.
    Probe(String),
    /// What a checkpoint makes of test samples in a case (an encoded
    /// [`crate::features::Features`]), by the checkpoint's BLAKE3; writing it again writes the same.
    Features(Hash, Case),
}

impl Key {
    /// The hash that the content must have, for what is named by its content.
    pub fn content_hash(&self) -> Option<&Hash> {
        match self {
            Key::Checkpoint(hash) | Key::Blob(hash) | Key::ResumeCheckpoint(_, hash) => Some(hash),
            Key::EncoderConfig(_)
            | Key::EncoderFiles(_)
            | Key::Resume(_)
            | Key::StoreId
            | Key::Probe(_)
            | Key::Features(..) => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Checkpoint(hash) => write!(f, "checkpoints/{hash}.safetensors"),
            Key::Blob(hash) => write!(f, "blobs/{hash}"),
            Key::EncoderConfig(hash) => write!(f, "blobs/{hash}.config.json"),
            Key::EncoderFiles(hash) => write!(f, "blobs/{hash}.files"),
            Key::Resume(job) => write!(f, "resume/{job}"),
            Key::ResumeCheckpoint(job, hash) => write!(f, "resume/{job}.{hash}"),
            Key::StoreId => f.write_str("store-id"),
            Key::Probe(name) => write!(f, "probes/{name}"),
            Key::Features(checkpoint, case) => {
                write!(f, "features/{checkpoint}-{case}.safetensors")
            }
        }
    }
}
