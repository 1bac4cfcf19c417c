//! What a spec's needs come to for one method, and what is wrong with them.

use super::{
    NeedsSpec, Spec,
    needs::{MAX_LABEL, ResolvedNeeds, amount, valid_label},
    place::{Checker, Step},
};

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
