//! What a spec names on a machine.

use super::{DatasetSpec, ExternalSpec};
use crate::{
    benchmark::Kind,
    encoder::{EncoderFacts, TextFacts},
    hash::Hash,
    methods::{DataFacts, EncoderShape},
    wire::BlobRef,
};
use std::collections::BTreeMap;

/// A dataset file that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDataset {
    /// The file and its hash.
    pub blob: BlobRef,
    /// Whose protocol it was imported for.
    pub kind: Kind,
    /// Requirements of its texts on an encoder; `None` for a synthetic dataset that does not exist yet.
    pub texts: Option<TextFacts>,
    /// Sizes that methods must fit, if known.
    pub facts: Option<DataFacts>,
    /// Names the labels of all splits in their order; `None` where the file does not exist yet.
    pub labels: Option<Hash>,
}

/// An encoder folder that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundEncoder {
    /// Its folder, and the hash of its weights.
    pub blob: BlobRef,
    /// What texts must match.
    pub facts: EncoderFacts,
    /// Its sizes, where known.
    pub shape: Option<EncoderShape>,
}

/// The files of an external program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundProgram {
    /// The hash of each by its path, which is relative to the spec's folder.
    pub files: BTreeMap<String, Hash>,
    /// The hash of their [`crate::bundle::Bundle`].
    pub bundle: Hash,
}

/// Finds the files that a spec names. An error is a message for people: what is missing and what to do.
pub trait Files {
    /// The dataset file of `spec`; one that can be made may be made now.
    ///
    /// # Errors
    ///
    /// It does not exist or is invalid.
    fn dataset(&mut self, name: &str, spec: &DatasetSpec) -> Result<FoundDataset, String>;

    /// The encoder folder at `path`.
    ///
    /// # Errors
    ///
    /// It does not exist or is invalid.
    fn encoder(&mut self, language: &str, path: &str) -> Result<FoundEncoder, String>;

    /// The files of an external program.
    ///
    /// # Errors
    ///
    /// A glob matches nothing, or what it matches cannot be taken.
    fn program(&mut self, external: &ExternalSpec) -> Result<FoundProgram, String>;

    /// The hash of the table of what words of `language` are heard as, `builtin` or a file, in the tokens of
    /// the encoder at `path`.
    ///
    /// # Errors
    ///
    /// The table or the encoder's vocabulary does not exist or is invalid, or they have no words in common.
    fn confusions(&mut self, language: &str, table: &str, path: &str) -> Result<Hash, String>;
}
