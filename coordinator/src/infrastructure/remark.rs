//! What is to be said about a server.

use halfheard_shared::error::Hint;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Some sweeps or commands suffer.
    Warning,
    /// Nothing works until it is changed.
    Fatal,
}

/// Something that must be changed, on one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found}")]
pub(crate) struct Remark {
    pub(crate) weight: Weight,
    /// What was found.
    pub(crate) found: String,
    /// What to do.
    pub(crate) remedy: String,
}

impl Remark {
    pub(super) fn warning(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            weight: Weight::Warning,
            found: found.into(),
            remedy: remedy.into(),
        }
    }

    pub(super) fn fatal(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            weight: Weight::Fatal,
            found: found.into(),
            remedy: remedy.into(),
        }
    }
}

impl Hint for Remark {
    fn hint(&self) -> Option<String> {
        Some(self.remedy.clone())
    }
}
