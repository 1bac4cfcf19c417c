//! Checks methods, variants and hyper-parameters.

use super::{
    Spec, VariantSpec,
    external::Methods,
    names::{NAME, duplicates, plain_name, safe_name},
    place::{Checker, Step},
};
use crate::{
    benchmark::Benchmark,
    methods::{HyperError, MethodInfo, nearest},
};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// All valid ids for `methods`.
pub(super) fn known_methods(spec: &Spec, methods: &Methods) -> BTreeSet<String> {
    methods
        .all()
        .flat_map(|method| {
            let variants = method.variants.keys();
            std::iter::once(method.id.clone())
                .chain(variants.map(|variant| format!("{}/{variant}", method.id)))
        })
        .chain(spec.variants.iter().map(|variant| variant.id.clone()))
        .collect()
}

pub(super) fn check_methods(spec: &Spec, methods: &Methods, checker: &mut Checker<'_>) {
    use Step::{Index, Key};
    if spec.methods.is_empty() {
        checker.problem(&[Key("methods")], "no methods", "empty", None);
    }
    duplicates(&spec.methods, "methods", "method", checker);
    let known = known_methods(spec, methods);
    for (i, id) in spec.methods.iter().enumerate() {
        if !known.contains(id) {
            let help = match nearest(id, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let ids: Vec<&str> = methods.all().map(|m| m.id.as_str()).collect();
                    format!("known: {}", ids.join(", "))
                }
            };
            checker.problem(
                &[Key("methods"), Index(i)],
                format!("unknown method `{id}`"),
                "unknown",
                Some(help),
            );
        }
    }
}

fn hyper_problem(
    checker: &mut Checker<'_>,
    path: &[Step<'_>],
    info: &MethodInfo,
    error: &HyperError,
) {
    let (label, help) = match error {
        HyperError::Unknown {
            nearest: Some(near),
            ..
        } => ("unknown", Some(format!("did you mean `{near}`?"))),
        HyperError::Unknown { .. } => {
            let keys: Vec<&str> = info.hyper.keys().map(String::as_str).collect();
            ("unknown", Some(format!("known: {}", keys.join(", "))))
        }
        HyperError::Type { .. } => ("another type", None),
        HyperError::Range { .. } => ("out of range", None),
    };
    match error {
        // The key is wrong, not its value.
        HyperError::Unknown { .. } => checker.problem_key(path, error, label, help),
        _ => checker.problem(path, error, label, help),
    }
}

pub(super) fn check_variants(spec: &Spec, methods: &Methods, checker: &mut Checker<'_>) {
    use Step::{Index, Key};
    let mut seen = BTreeSet::new();
    for (i, variant) in spec.variants.iter().enumerate() {
        let at = [Key("variant"), Index(i), Key("id")];
        let Some((method, name)) = variant.id.split_once('/') else {
            checker.problem(
                &at,
                format!("`{}` is not a variant id", variant.id),
                "no slash",
                Some("write method and name: `lnln/wide`".to_owned()),
            );
            continue;
        };
        let Some(info) = methods.find(method) else {
            let near = methods.nearest(method);
            checker.problem(
                &at,
                format!("unknown method `{method}`"),
                "unknown",
                near.map(|near| format!("did you mean `{near}/{name}`?")),
            );
            continue;
        };
        if !plain_name(name) {
            checker.problem(
                &at,
                format!("a variant's name has {NAME}"),
                "not a name",
                Some(format!(
                    "for example `{method}/{}`",
                    safe_name(name, "variant")
                )),
            );
        }
        if info.variants.contains_key(name) || !seen.insert(&variant.id) {
            checker.problem(
                &at,
                format!("variant `{}` already exists", variant.id),
                "taken",
                Some("give it another name".to_owned()),
            );
        }
        check_base(spec, i, info, checker);
        for (key, value) in &variant.hyper {
            if let Err(error) = info.check(key, value) {
                let at = [Key("variant"), Index(i), Key("hyper"), Key(key)];
                hyper_problem(checker, &at, info, &error);
            }
        }
    }
}

/// All that a variant of `info` changes: what it starts from, then its own. Nothing for the method
/// itself.
pub(super) fn variant_changes(spec: &Spec, info: &MethodInfo, variant: &str) -> Map<String, Value> {
    let id = format!("{}/{variant}", info.id);
    // Each one starts from one above it ([`check_base`]), so this ends.
    let mut above: &[VariantSpec] = &spec.variants;
    let (mut id, mut layers) = (id.as_str(), Vec::new());
    while let Some(at) = above.iter().position(|own| own.id == id) {
        let own = &above[at];
        layers.push(&own.hyper);
        above = &above[..at];
        id = own.base.as_deref().unwrap_or_default();
    }
    let known = id
        .split_once('/')
        .and_then(|(_, name)| info.variants.get(name));
    let mut changes = known.map(|known| known.hyper.clone()).unwrap_or_default();
    for layer in layers.into_iter().rev() {
        changes.extend(layer.clone());
    }
    changes
}

/// A base must be defined above its variant, so there are no cycles.
fn check_base(spec: &Spec, i: usize, info: &MethodInfo, checker: &mut Checker<'_>) {
    let Some(base) = &spec.variants[i].base else {
        return;
    };
    let built_in = info.variants.keys().map(|v| format!("{}/{v}", info.id));
    let above = spec.variants[..i].iter().map(|v| v.id.clone());
    let own = format!("{}/", info.id);
    let known: BTreeSet<String> = std::iter::once(info.id.clone())
        .chain(built_in)
        .chain(above.filter(|id| id.starts_with(&own)))
        .collect();
    if known.contains(base) {
        return;
    }
    let near = nearest(base, known.iter().map(String::as_str));
    checker.problem(
        &[Step::Key("variant"), Step::Index(i), Step::Key("base")],
        format!("unknown variant `{base}` of {} as base", info.id),
        "unknown",
        Some(match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known: {}", Vec::from_iter(known).join(", ")),
        }),
    );
}

pub(super) fn check_hyper(spec: &Spec, methods: &Methods, checker: &mut Checker<'_>) {
    use Step::Key;
    let known = known_methods(spec, methods);
    for (id, changes) in &spec.hyper {
        let method = id.split_once('/').map_or(id.as_str(), |(method, _)| method);
        let Some(info) = methods.find(method).filter(|_| known.contains(id)) else {
            let near = nearest(id, known.iter().map(String::as_str));
            checker.problem_key(
                &[Key("hyper"), Key(id)],
                format!("unknown method `{id}`"),
                "unknown",
                near.map(|near| format!("did you mean `{near}`?")),
            );
            continue;
        };
        for (key, value) in changes {
            match value {
                Value::Object(own) if !info.hyper.contains_key(key) => {
                    if !spec.datasets.contains_key(key) && key.parse::<Benchmark>().is_err() {
                        let near = nearest(key, spec.datasets.keys().map(String::as_str));
                        checker.problem_key(
                            &[Key("hyper"), Key(id), Key(key)],
                            format!("unknown dataset `{key}`"),
                            "unknown",
                            near.map(|near| format!("did you mean `{near}`?")),
                        );
                    }
                    for (inner, value) in own {
                        if let Err(error) = info.check(inner, value) {
                            let at = [Key("hyper"), Key(id), Key(key), Key(inner)];
                            hyper_problem(checker, &at, info, &error);
                        }
                    }
                }
                _ => {
                    if let Err(error) = info.check(key, value) {
                        hyper_problem(checker, &[Key("hyper"), Key(id), Key(key)], info, &error);
                    }
                }
            }
        }
    }
}
