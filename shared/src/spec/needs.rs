//! What a spec asks of the workers that are to do its jobs.

use crate::text::parse_bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The longest label.
pub(super) const MAX_LABEL: usize = 64;

/// Needs of jobs: of all, and of some methods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NeedsSpec {
    /// The least memory of a worker's device: `"16GB"`, `"15GiB"`. Left out: what the same method was
    /// measured to take on the same dataset, and a fifth more.
    #[serde(default)]
    #[schemars(regex(pattern = "^[0-9]+(\\.[0-9]+)? ?([kKmMgGtT]i?)?[bB]$"))]
    pub gpu_memory: Option<String>,
    /// A label that a worker must have (`worker --label a100`).
    #[serde(default)]
    #[schemars(regex(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub label: Option<String>,
    /// Needs of methods and variants, by id, where they are others.
    #[serde(default)]
    pub methods: BTreeMap<String, NeedSpec>,
}

/// Needs of the jobs of a method or variant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NeedSpec {
    /// The least memory of a worker's device: `"16GB"`, `"15GiB"`.
    #[serde(default)]
    #[schemars(regex(pattern = "^[0-9]+(\\.[0-9]+)? ?([kKmMgGtT]i?)?[bB]$"))]
    pub gpu_memory: Option<String>,
    /// A label that a worker must have (`worker --label a100`).
    #[serde(default)]
    #[schemars(regex(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub label: Option<String>,
}

/// What jobs need of a worker. No result depends on it, and no id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedNeeds {
    /// The least memory of its device in bytes; 0 if it is not said.
    #[serde(default)]
    pub memory: u64,
    /// A label that it must have.
    #[serde(default)]
    pub label: Option<String>,
}

impl ResolvedNeeds {
    /// Whether nothing is needed.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a worker with this memory and these labels meets them. Unknown memory (0) is enough
    /// only for jobs that do not ask for any.
    pub fn met_by(&self, memory: u64, labels: &[String]) -> bool {
        memory >= self.memory
            && self
                .label
                .as_ref()
                .is_none_or(|label| labels.contains(label))
    }

    /// Takes what a nearer setting says.
    pub(super) fn change(&mut self, memory: Option<&str>, label: Option<&str>) {
        // `read` has refused what does not parse.
        if let Some(memory) = memory.and_then(amount) {
            self.memory = memory;
        }
        if let Some(label) = label {
            self.label = Some(label.to_owned());
        }
    }
}

/// An amount of memory in bytes. It has a unit: a bare number would be bytes, which nobody means.
pub(super) fn amount(text: &str) -> Option<u64> {
    text.ends_with(['B', 'b']).then(|| parse_bytes(text))?
}

/// Whether this may be a worker's label.
pub fn valid_label(label: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(allowed)
}

#[cfg(test)]
mod tests;
