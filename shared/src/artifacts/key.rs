//! The names of artifacts.

use crate::{
    case::Case,
    hash::Hash,
    ids::{AttemptId, JobId},
};
use serde::Serialize;
use std::{fmt, str::FromStr, time::Duration};

/// For how long after its last use a checkpoint is never deleted by housekeeping.
pub const GRACE: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

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
    /// All that an external program wrote to standard error in an attempt.
    Output(AttemptId),
}

/// What an artifact is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactKind {
    /// Weights of trained models.
    Checkpoints,
    /// What they make of test samples.
    Features,
    /// Saved states of training runs, with their best checkpoints so far.
    States,
    /// Datasets, encoders and external programs.
    Data,
    /// What external programs wrote to standard error.
    Output,
    /// The store's own.
    Store,
}

impl ArtifactKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Checkpoints,
        Self::Features,
        Self::States,
        Self::Data,
        Self::Output,
        Self::Store,
    ];

    /// For how long after it was written last an artifact is never deleted by housekeeping. A checkpoint
    /// may belong to a job that has yet to report it; data are uploaded before a spec is submitted, and
    /// are not uploaded anew each time.
    pub fn grace(self) -> Duration {
        match self {
            Self::Checkpoints | Self::Features | Self::States | Self::Output => GRACE,
            Self::Data => 7 * DAY,
            Self::Store => DAY,
        }
    }

    /// As in JSON.
    pub fn id(self) -> &'static str {
        match self {
            Self::Checkpoints => "checkpoints",
            Self::Features => "features",
            Self::States => "states",
            Self::Data => "data",
            Self::Output => "output",
            Self::Store => "store",
        }
    }
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

/// The folders in which artifacts lie. Nothing else of a folder or bucket is ours.
pub(super) const FOLDERS: [&str; 6] = [
    "checkpoints",
    "features",
    "resume",
    "blobs",
    "output",
    "probes",
];

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
            | Key::Output(_)
            | Key::Features(..) => None,
        }
    }

    /// What it is for.
    pub fn kind(&self) -> ArtifactKind {
        match self {
            Key::Checkpoint(_) => ArtifactKind::Checkpoints,
            Key::Features(..) => ArtifactKind::Features,
            Key::Resume(_) | Key::ResumeCheckpoint(..) => ArtifactKind::States,
            Key::Blob(_) | Key::EncoderConfig(_) | Key::EncoderFiles(_) => ArtifactKind::Data,
            Key::Output(_) => ArtifactKind::Output,
            Key::StoreId | Key::Probe(_) => ArtifactKind::Store,
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
            Key::Output(attempt) => write!(f, "output/{attempt}.txt"),
            Key::Features(checkpoint, case) => {
                write!(f, "features/{checkpoint}-{case}.safetensors")
            }
        }
    }
}

/// Not the name of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of an artifact")]
pub struct InvalidKey(String);

impl FromStr for Key {
    type Err = InvalidKey;

    /// Reads what `Display` writes, and nothing else.
    fn from_str(name: &str) -> Result<Self, InvalidKey> {
        parse(name)
            .filter(|key| key.to_string() == name)
            .ok_or_else(|| InvalidKey(name.chars().take(120).collect()))
    }
}

fn parse(name: &str) -> Option<Key> {
    if name == "store-id" {
        return Some(Key::StoreId);
    }
    let (folder, file) = name.split_once('/')?;
    Some(match folder {
        "checkpoints" => Key::Checkpoint(file.strip_suffix(".safetensors")?.parse().ok()?),
        "features" => {
            let (checkpoint, case) = file.strip_suffix(".safetensors")?.split_once('-')?;
            Key::Features(checkpoint.parse().ok()?, case.parse().ok()?)
        }
        "resume" => match file.split_once('.') {
            Some((job, hash)) => Key::ResumeCheckpoint(job.parse().ok()?, hash.parse().ok()?),
            None => Key::Resume(file.parse().ok()?),
        },
        "blobs" => match file.split_once('.') {
            Some((hash, "config.json")) => Key::EncoderConfig(hash.parse().ok()?),
            Some((hash, "files")) => Key::EncoderFiles(hash.parse().ok()?),
            Some(_) => return None,
            None => Key::Blob(file.parse().ok()?),
        },
        "output" => Key::Output(file.strip_suffix(".txt")?.parse().ok()?),
        "probes" => Key::Probe(file.to_owned()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_read_back_from_its_name() {
        let (hash, job) = (Hash::of(b"x"), JobId::derive(&[b"j"]));
        let keys = [
            Key::Checkpoint(hash.clone()),
            Key::Blob(hash.clone()),
            Key::EncoderConfig(hash.clone()),
            Key::EncoderFiles(hash.clone()),
            Key::Resume(job),
            Key::ResumeCheckpoint(job, hash.clone()),
            Key::StoreId,
            Key::Probe("gpu7-0".to_owned()),
            Key::Output(AttemptId::derive(&[b"a"])),
            Key::Features(hash.clone(), "r=0.3".parse().unwrap()),
            Key::Features(hash.clone(), "missing=la".parse().unwrap()),
        ];
        for key in keys {
            assert_eq!(key.to_string().parse::<Key>().unwrap(), key);
        }
        for foreign in [
            "notes.txt".to_owned(),
            "checkpoints/model.safetensors".to_owned(),
            format!("checkpoints/{hash}"),
            format!("blobs/{hash}.bak"),
            format!("blobs/{hash}/x"),
            format!("resume/{}", job.to_string().to_uppercase()),
            "../store-id".to_owned(),
        ] {
            assert!(foreign.parse::<Key>().is_err(), "{foreign}");
        }
    }
}
