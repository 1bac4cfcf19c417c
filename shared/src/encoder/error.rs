//! Why a folder cannot be used as a text encoder.

use std::path::{Path, PathBuf};

/// A folder that cannot be used: what was found, what was expected, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text encoder {} cannot be used: {found}; {remedy}", folder.display())]
pub struct EncoderError {
    /// The folder.
    pub folder: PathBuf,
    /// What was found, and what was expected in its place.
    pub found: String,
    /// What to do about it.
    pub remedy: String,
}

impl EncoderError {
    pub(super) fn new(
        folder: &Path,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Box<Self> {
        Box::new(Self {
            folder: folder.to_owned(),
            found: found.into(),
            remedy: remedy.into(),
        })
    }
}

/// The result of reading an encoder.
pub(super) type Result<T> = std::result::Result<T, Box<EncoderError>>;

/// How to install another encoder.
pub(super) const ANOTHER: &str =
    "name the folder of a BERT or RoBERTa in the Hugging Face layout (docs/reference/encoders.md)";

/// How to get a complete file.
pub(super) const AGAIN: &str = "download the file again (`hf download MODEL --local-dir FOLDER`)";

/// Python that writes an encoder as safetensors, whatever it is now.
pub(super) fn convert(folder: &Path, how: &str) -> String {
    format!(
        "convert it where PyTorch and transformers are installed: `from transformers import \
         AutoModel; AutoModel.from_pretrained({:?}{how}).save_pretrained(\"converted\")`, copy the \
         tokenizer's files beside it and name that folder",
        folder.display().to_string()
    )
}
