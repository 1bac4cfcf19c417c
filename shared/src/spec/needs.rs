//! What a spec asks of the workers that are to do its jobs.

use super::{
    Spec,
    place::{Checker, Step},
};
use crate::text::parse_bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The longest label.
const MAX_LABEL: usize = 64;

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
    fn change(&mut self, memory: Option<&str>, label: Option<&str>) {
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
fn amount(text: &str) -> Option<u64> {
    text.ends_with(['B', 'b']).then(|| parse_bytes(text))?
}

/// Whether this may be a worker's label.
pub fn valid_label(label: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(allowed)
}

/// The needs of a method or variant: what the spec says of all, of the method, in the variant (and in
/// those it starts from), and of the variant by its id. The nearer says more.
pub(super) fn resolve(spec: &Spec, method: &str, variant: &str) -> ResolvedNeeds {
    let mut needs = ResolvedNeeds::default();
    needs.change(
        spec.needs.gpu_memory.as_deref(),
        spec.needs.label.as_deref(),
    );
    let named = |id: &str| spec.needs.methods.get(id);
    let id = format!("{method}/{variant}");
    let mut layers = Vec::from_iter(named(method).filter(|_| !variant.is_empty()));
    // As the variant's hyper-parameters: each starts from one above it.
    let (mut above, mut from, mut own) = (&spec.variants[..], id.as_str(), Vec::new());
    while let Some(at) = above.iter().position(|variant| variant.id == from) {
        own.extend(&above[at].needs);
        from = above[at].base.as_deref().unwrap_or_default();
        above = &above[..at];
    }
    layers.extend(own.into_iter().rev());
    layers.extend(named(if variant.is_empty() { method } else { &id }));
    for layer in layers {
        needs.change(layer.gpu_memory.as_deref(), layer.label.as_deref());
    }
    needs
}

pub(super) fn check(spec: &Spec, checker: &mut Checker<'_>) {
    use Step::{Index, Key};
    let NeedsSpec {
        gpu_memory,
        label,
        methods,
    } = &spec.needs;
    let mut one = |at: &[Step<'_>], memory: Option<&String>, label: Option<&String>| {
        if let Some(text) = memory
            && amount(text).is_none()
        {
            checker.problem(
                &[at, &[Key("gpu_memory")]].concat(),
                format!("`{text}` is not an amount of memory"),
                "not bytes",
                Some("write it as `16GB` or `15GiB`".to_owned()),
            );
        }
        if label.is_some_and(|label| !valid_label(label)) {
            checker.problem(
                &[at, &[Key("label")]].concat(),
                format!("a label has 1 to {MAX_LABEL} letters, digits, `-`, `_` and `.`"),
                "not a label",
                Some("for example `a100`".to_owned()),
            );
        }
    };
    one(&[Key("needs")], gpu_memory.as_ref(), label.as_ref());
    for (id, need) in methods {
        let at = [Key("needs"), Key("methods"), Key(id)];
        one(&at, need.gpu_memory.as_ref(), need.label.as_ref());
    }
    for (i, variant) in spec.variants.iter().enumerate() {
        if let Some(need) = &variant.needs {
            let at = [Key("variant"), Index(i), Key("needs")];
            one(&at, need.gpu_memory.as_ref(), need.label.as_ref());
        }
    }
    for id in methods.keys() {
        // As with hyper-parameters, a method's needs hold for its variants.
        let runs = |run: &String| run == id || run.split('/').next() == Some(id);
        if !spec.methods.iter().any(runs) {
            let near = crate::methods::nearest(id, spec.methods.iter().map(String::as_str));
            checker.problem_key(
                &[Key("needs"), Key("methods"), Key(id)],
                format!("the method `{id}` is not run"),
                "unknown",
                near.map(|near| format!("did you mean `{near}`?")),
            );
        }
    }
}

#[cfg(test)]
mod tests;
