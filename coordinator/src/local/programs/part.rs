//! What is looked for, and why it cannot be used.

use super::check::{NATS_MIN, POSTGRES_MIN, TORCH};
use halfheard_shared::error::Hint;
use std::{fmt, path::PathBuf};

/// Something that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The broker.
    Nats,
    /// The database: a folder of programs.
    Postgres,
    /// The folder of libtorch.
    Libtorch,
    /// The folder of the English text encoder.
    EncoderEn,
    /// The folder of the Chinese text encoder.
    EncoderZh,
    /// The worker.
    Worker,
}

impl Part {
    pub(super) const ALL: [Self; 6] = [
        Self::Nats,
        Self::Postgres,
        Self::Libtorch,
        Self::EncoderEn,
        Self::EncoderZh,
        Self::Worker,
    ];

    /// Returns the environment variable that names it.
    pub(super) fn variable(self) -> &'static str {
        match self {
            Self::Nats => "HALFHEARD_NATS_SERVER",
            Self::Postgres => "HALFHEARD_POSTGRES_BIN",
            Self::Libtorch => "LIBTORCH",
            Self::EncoderEn => "HALFHEARD_ENCODER_EN",
            Self::EncoderZh => "HALFHEARD_ENCODER_ZH",
            Self::Worker => "HALFHEARD_WORKER",
        }
    }

    /// Says how to get it.
    pub(super) fn remedy(self) -> String {
        let variable = self.variable();
        match self {
            Self::Nats => format!(
                "run `make setup`, install nats-server {} or newer, or name one in {variable}",
                *NATS_MIN
            ),
            Self::Postgres => format!(
                "run `make setup`, install PostgreSQL {} or newer, or name the folder of its \
                 programs in {variable}",
                *POSTGRES_MIN
            ),
            Self::Libtorch => format!(
                "run `make setup`, or name the folder of a libtorch {} in {variable}",
                *TORCH
            ),
            Self::EncoderEn => format!(
                "name the folder of a BERT or RoBERTa in {variable} (docs/reference/encoders.md), or install a \
                 small one with `make setup`"
            ),
            Self::EncoderZh => format!(
                "name the folder of a Chinese BERT in {variable} (docs/reference/encoders.md); only SIMS \
                 needs it"
            ),
            Self::Worker => format!(
                "build it with `cargo build --release -p halfheard-worker`, or name it in {variable}"
            ),
        }
    }

    /// Returns its path below `.deps/`.
    pub(super) fn path_in_deps(self) -> &'static str {
        match self {
            Self::Nats => "nats/nats-server",
            Self::Postgres => "postgres/bin",
            Self::Libtorch => "libtorch",
            Self::EncoderEn => "encoder",
            Self::EncoderZh => "encoder-zh",
            Self::Worker => "worker",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nats => "nats-server",
            Self::Postgres => "PostgreSQL",
            Self::Libtorch => "libtorch",
            Self::EncoderEn => "the English text encoder",
            Self::EncoderZh => "the Chinese text encoder",
            Self::Worker => "the worker",
        })
    }
}

/// Why a part cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It was not found.
    #[error("{part} not found")]
    Missing {
        /// The part.
        part: Part,
    },
    /// It was found and cannot be used.
    #[error("cannot use {part} at {path}: {reason}")]
    Unusable {
        /// The part.
        part: Part,
        /// Its path.
        path: PathBuf,
        /// The reason.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
}

impl ProgramError {
    /// Describes what was found.
    pub(crate) fn found(&self) -> String {
        match self {
            Self::Missing { .. } => "not found".to_owned(),
            Self::Unusable { path, reason, .. } => {
                format!("cannot use {}: {reason}", path.display())
            }
        }
    }

    /// Says what to do about it.
    pub(crate) fn remedy(&self) -> String {
        match self {
            Self::Missing { part } => part.remedy(),
            Self::Unusable { remedy, .. } => remedy.clone(),
        }
    }
}

impl Hint for ProgramError {
    fn hint(&self) -> Option<String> {
        Some(self.remedy())
    }
}

/// A part that was found and can be used.
#[derive(Clone, Debug)]
pub struct Found {
    /// The path of the program or folder.
    pub path: PathBuf,
    /// The version it reports; for an encoder, its architecture.
    pub version: String,
}
