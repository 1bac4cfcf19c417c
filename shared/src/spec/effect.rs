//! Settings without effect: the spec is used as it is, with a warning.

use super::{
    Problem, ResolvedMethod, Spec,
    place::{Checker, Step},
    training_effect,
};
use crate::{benchmark::Kind, methods::nearest, wire::Protocol};
use serde_json::Value;
use std::collections::BTreeSet;

/// All settings of `spec`, whose text is `text`, that no training depends on.
pub(super) fn idle(
    text: &str,
    spec: &Spec,
    sweep: &Protocol,
    methods: &[ResolvedMethod],
) -> Vec<Problem> {
    let mut checker = Checker::new(text);
    let used = used(spec);
    variants(spec, &used, &mut checker);
    hyper(spec, &used, &mut checker);
    encoders(spec, sweep, &mut checker);
    training_effect::check(spec, &used, (sweep, methods), &mut checker);
    masks(spec, &mut checker);
    confusions(spec, &mut checker);
    checker.into_problems()
}

/// The ids whose settings count: methods and variants that are run, and the methods of the latter.
fn used(spec: &Spec) -> BTreeSet<&str> {
    let method = |id: &'_ str| {
        id.split_once('/')
            .map_or(id.len(), |(method, _)| method.len())
    };
    spec.methods
        .iter()
        .flat_map(|id| [id.as_str(), &id[..method(id)]])
        .collect()
}

fn variants(spec: &Spec, used: &BTreeSet<&str>, checker: &mut Checker<'_>) {
    // One that is only built upon counts through those that are run.
    let mut counts: BTreeSet<&str> = used.clone();
    for variant in spec.variants.iter().rev() {
        if counts.contains(variant.id.as_str()) {
            counts.extend(variant.base.as_deref());
        }
    }
    for (i, variant) in spec.variants.iter().enumerate() {
        if !counts.contains(variant.id.as_str()) {
            checker.problem(
                &[Step::Key("variant"), Step::Index(i), Step::Key("id")],
                format!("the variant `{}` is not run", variant.id),
                "without effect",
                Some(format!(
                    "name it in `methods` to run it: `\"{}\"`",
                    variant.id
                )),
            );
        }
    }
}

fn hyper(spec: &Spec, used: &BTreeSet<&str>, checker: &mut Checker<'_>) {
    use Step::Key;
    for (id, changes) in &spec.hyper {
        if !used.contains(id.as_str()) {
            let near = nearest(id, used.iter().copied());
            checker.problem_key(
                &[Key("hyper"), Key(id)],
                format!("`{id}` is not in `methods`: its settings have no effect"),
                "without effect",
                near.map(|near| format!("did you mean `{near}`?")),
            );
            continue;
        }
        // What is said of a protocol counts for every dataset that follows it.
        let counts = |key: &str| {
            let mut datasets = spec.datasets.iter();
            datasets.any(|(name, dataset)| {
                name == key || dataset.kind(name).is_some_and(|kind| kind.as_str() == key)
            })
        };
        let datasets = changes.iter().filter(|(key, value)| {
            value.is_object() && key.parse::<Kind>().is_ok() && !counts(key)
        });
        for (key, _) in datasets {
            checker.problem_key(
                &[Key("hyper"), Key(id), Key(key)],
                format!("no dataset is called `{key}`: its settings have no effect"),
                "without effect",
                None,
            );
        }
    }
    if let Some(epochs) = spec.epochs {
        // Who sets each method's own number has set this one for nothing.
        let own = |id: &String| {
            let method = id.split_once('/').map_or(id.as_str(), |(method, _)| method);
            let said = |id: &str| {
                spec.hyper
                    .get(id)
                    .is_some_and(|all| all.contains_key("max_epochs"))
            };
            let variant = spec.variants.iter().find(|variant| variant.id == *id);
            said(id) || said(method) || variant.is_some_and(|v| v.hyper.contains_key("max_epochs"))
        };
        if spec.methods.iter().all(own) {
            checker.problem(
                &[Key("epochs")],
                format!("`epochs = {epochs}` has no effect: every method has its own `max_epochs`"),
                "without effect",
                None,
            );
        }
    }
}

fn masks(spec: &Spec, checker: &mut Checker<'_>) {
    if !spec.erasure_seeds.is_empty() && spec.drawn().next().is_none() {
        checker.problem(
            &[Step::Key("erasure_seeds")],
            "`erasure_seeds` has no effect: no case of the spec is drawn at random",
            "without effect",
            Some("a rate between 0 and 1 is drawn; a set of missing modalities is not".to_owned()),
        );
    }
}

fn confusions(spec: &Spec, checker: &mut Checker<'_>) {
    for language in spec.confusions.keys() {
        let needed = spec.first_asr().is_some();
        if needed && spec.encoders.contains_key(language) {
            continue;
        }
        let why = match needed {
            true => format!("no text is in `{language}`"),
            false => "no case has errors of speech recognition".to_owned(),
        };
        checker.problem_key(
            &[Step::Key("confusions"), Step::Key(language)],
            format!("{why}: its confusions are not used"),
            "without effect",
            (!needed).then(|| "add `cases = [\"asr=0.3\"]`".to_owned()),
        );
    }
}

fn encoders(spec: &Spec, sweep: &Protocol, checker: &mut Checker<'_>) {
    let languages = training_effect::languages_of(spec);
    for language in spec.encoders.keys() {
        let by_fault = || training_effect::reads_by_english_encoder(spec, sweep);
        let read = languages.contains(language.as_str()) || language == "en" && by_fault();
        if !read {
            checker.problem_key(
                &[Step::Key("encoders"), Step::Key(language)],
                format!("no dataset has texts in `{language}`: its encoder is not used"),
                "without effect",
                None,
            );
        }
    }
}

/// Where `key` of `id` on `dataset` is set, the nearest first; nothing, where the method's own value
/// stands.
pub(super) fn place_of<'s>(
    spec: &'s Spec,
    id: &'s str,
    dataset: &'s str,
    key: &'s str,
) -> Option<Vec<Step<'s>>> {
    let in_hyper = |id: &'s str| {
        let all = spec.hyper.get(id)?;
        let kind = spec.datasets.get(dataset).and_then(|own| own.kind(dataset));
        let names = [Some(dataset), kind.map(Kind::as_str)];
        for name in names.into_iter().flatten() {
            let own = all.get(name).and_then(Value::as_object);
            if own.is_some_and(|own| own.contains_key(key)) {
                return Some(vec![
                    Step::Key("hyper"),
                    Step::Key(id),
                    Step::Key(name),
                    Step::Key(key),
                ]);
            }
        }
        all.contains_key(key)
            .then(|| vec![Step::Key("hyper"), Step::Key(id), Step::Key(key)])
    };
    let method = id.split_once('/').map_or(id, |(method, _)| method);
    let in_variants = || {
        // Each starts from one above it, so this ends.
        let (mut id, mut above) = (id, spec.variants.as_slice());
        while let Some(at) = above.iter().position(|variant| variant.id == id) {
            if above[at].hyper.contains_key(key) {
                return Some(vec![
                    Step::Key("variant"),
                    Step::Index(at),
                    Step::Key("hyper"),
                    Step::Key(key),
                ]);
            }
            id = above[at].base.as_deref().unwrap_or_default();
            above = &above[..at];
        }
        None
    };
    in_hyper(id)
        .or_else(in_variants)
        .or_else(|| (method != id).then(|| in_hyper(method)).flatten())
}
