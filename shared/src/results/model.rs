//! What results are about: a method or one of its variants.

use serde::Serialize;
use std::{fmt, str::FromStr};

/// A method or one of its variants, by their ids. Written `lnln` or `lnln/no-dmc`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Model {
    /// The method's id.
    pub method: String,
    /// The variant's id; empty for the method itself.
    pub variant: String,
}

/// A model without a method.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("missing method in `{0}`")]
pub struct ModelError(String);

impl Model {
    /// A variant of a method.
    ///
    /// ```
    /// use halfheard_shared::results::Model;
    ///
    /// let model: Model = "lnln/no-dmc".parse()?;
    /// assert_eq!(model, Model::new("lnln", "no-dmc"));
    /// assert_eq!(Model::new("lnln", "").to_string(), "lnln");
    /// # Ok::<(), halfheard_shared::results::ModelError>(())
    /// ```
    pub fn new(method: impl Into<String>, variant: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            variant: variant.into(),
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.method)?;
        match self.variant.as_str() {
            "" => Ok(()),
            variant => write!(f, "/{variant}"),
        }
    }
}

impl FromStr for Model {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let (method, variant) = text.split_once('/').unwrap_or((text, ""));
        if method.is_empty() {
            return Err(ModelError(text.to_owned()));
        }
        Ok(Self::new(method, variant))
    }
}
