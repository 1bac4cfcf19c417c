//! Settings of `[protocol]`, `[method]` and `[[variant]]` about training that change nothing.

use super::{
    ResolvedMethod, Spec,
    place::{Checker, Step},
    resolved::trains_on_complete_inputs,
    training::{self, Layer},
};
use crate::{
    benchmark::Kind,
    methods::{
        faults::{Fault, Faults},
        nearest,
    },
    regime::Regime,
    wire::Protocol,
};
use std::collections::{BTreeMap, BTreeSet};

/// Notes what of them has no effect. `used` are the ids whose settings count.
pub(super) fn check(
    spec: &Spec,
    used: &BTreeSet<&str>,
    (sweep, methods): (&Protocol, &[ResolvedMethod]),
    checker: &mut Checker<'_>,
) {
    unused(spec, used, checker);
    languages(spec, used, checker);
    switches(spec, sweep, checker);
    regimes(spec, methods, checker);
}

fn note(at: &[Step<'_>], message: String, help: Option<String>, checker: &mut Checker<'_>) {
    checker.problem_key(at, message, "without effect", help);
}

/// `[method.X]` of a method that is not run.
fn unused(spec: &Spec, used: &BTreeSet<&str>, checker: &mut Checker<'_>) {
    for id in spec
        .training
        .keys()
        .filter(|id| !used.contains(id.as_str()))
    {
        let near = nearest(id, used.iter().copied());
        note(
            &[Step::Key("method"), Step::Key(id)],
            format!("`{id}` is not in `methods`: its settings have no effect"),
            near.map(|near| format!("did you mean `{near}`?")),
            checker,
        );
    }
}

/// Encoders of single methods for languages that no dataset has.
fn languages(spec: &Spec, used: &BTreeSet<&str>, checker: &mut Checker<'_>) {
    let languages = languages_of(spec);
    for (id, training) in &spec.training {
        let known = |language: &String| languages.contains(language.as_str());
        for language in training.encoders.keys().filter(|l| !known(l)) {
            if used.contains(id.as_str()) {
                note(
                    &["method", id, "encoders", language].map(Step::Key),
                    format!("no dataset has texts in `{language}`: its encoder is not used"),
                    None,
                    checker,
                );
            }
        }
    }
}

/// The languages of the datasets' texts.
pub(super) fn languages_of(spec: &Spec) -> BTreeSet<&str> {
    let datasets = spec.datasets.iter();
    datasets
        .filter_map(|(name, dataset)| {
            let own = dataset.language.as_deref();
            own.or(dataset.kind(name).map(Kind::language))
        })
        .collect()
}

/// Whether a method that is run reads texts of another language with the English encoder, as its
/// reference does.
pub(super) fn reads_by_english_encoder(spec: &Spec, sweep: &Protocol) -> bool {
    let others: Vec<&str> = languages_of(spec)
        .into_iter()
        .filter(|l| *l != "en")
        .collect();
    spec.methods.iter().any(|id| {
        let faults = training::protocol_of(spec, sweep, id).faults();
        let own = |language: &&&str| training::encoder_path(spec, id, language).is_none();
        training::keeps_english_encoder(id, faults) && others.iter().any(|l| own(&l))
    })
}

/// Switches of faults that are as they would be without them, or that concern nothing that is run.
fn switches(spec: &Spec, sweep: &Protocol, checker: &mut Checker<'_>) {
    let bundle = Faults::from(spec.protocol.fidelity);
    let mut noted: BTreeMap<String, ()> = BTreeMap::new();
    let sweep_layer = Layer {
        at: vec![Step::Key("protocol")],
        regime: None,
        faults: &spec.protocol.faults,
    };
    for id in &spec.methods {
        let mut faults = bundle;
        let method = training::method_of(id);
        let layers = [sweep_layer.clone()].into_iter();
        for layer in layers.chain(training::layers(spec, id)) {
            for (name, kept) in layer.faults {
                let Ok(fault) = name.parse::<Fault>() else {
                    continue; // refused
                };
                let mut at = layer.at.clone();
                at.extend([Step::Key("faults"), Step::Key(name)]);
                if fault.concerns(method)
                    && faults.keeps(fault) == *kept
                    && noted.insert(format!("{at:?}"), ()).is_none()
                {
                    let state = if *kept { "kept" } else { "corrected" };
                    let message = format!("`{name}` is {state} without this switch, too");
                    note(&at, message, None, checker);
                }
            }
            faults = training::with(faults, layer.faults);
        }
    }
    idle_switches(spec, sweep, checker);
}

/// Switches of the whole sweep that no method of it has, and of what no training does.
fn idle_switches(spec: &Spec, sweep: &Protocol, checker: &mut Checker<'_>) {
    let methods: BTreeSet<&str> = spec
        .methods
        .iter()
        .map(|id| training::method_of(id))
        .collect();
    for name in spec.protocol.faults.keys() {
        let Ok(fault) = name.parse::<Fault>() else {
            continue; // refused
        };
        if !methods.iter().any(|method| fault.concerns(method)) {
            let message = format!("no method of the sweep has the fault `{name}`");
            let of = format!("it is one of {}", fault.methods().join(", "));
            note(
                &["protocol", "faults", name].map(Step::Key),
                message,
                Some(of),
                checker,
            );
        }
    }
    let redraws = |method: &str| {
        let mut own = spec
            .methods
            .iter()
            .filter(|id| training::method_of(id) == method);
        own.any(|id| training::protocol_of(spec, sweep, id).train_missing == Regime::Redrawn)
    };
    let name = Fault::RepeatedNumbers.id();
    let mut idle = Vec::new();
    if spec.protocol.faults.contains_key(name) && !methods.iter().any(|method| redraws(method)) {
        idle.push(vec![Step::Key("protocol")]);
    }
    let switched = spec
        .training
        .iter()
        .filter(|(_, own)| own.faults.contains_key(name));
    for (id, _) in switched {
        let method = training::method_of(id);
        if methods.contains(method) && !redraws(method) {
            idle.push(vec![Step::Key("method"), Step::Key(id)]);
        }
    }
    for mut at in idle {
        at.extend([Step::Key("faults"), Step::Key(name)]);
        let message =
            format!("`{name}` has no effect: only `redrawn` draws new rates for all samples");
        note(&at, message, None, checker);
    }
}

/// Regimes of what trains on complete inputs by its hyper-parameters.
fn regimes(spec: &Spec, methods: &[ResolvedMethod], checker: &mut Checker<'_>) {
    for (id, method) in spec.methods.iter().zip(methods) {
        if method.hyper.is_empty() || !method.hyper.values().all(trains_on_complete_inputs) {
            continue;
        }
        let layers = training::layers(spec, id);
        let Some(layer) = layers.iter().rev().find(|layer| layer.regime.is_some()) else {
            continue;
        };
        // What is said of the method counts for others of its variants.
        let of_method = matches!(layer.at[..], [_, Step::Key(of)] if of != id);
        if layer.regime == Some(Regime::Complete) || of_method {
            continue;
        }
        let mut at = layer.at.clone();
        at.push(Step::Key("train_missing"));
        let message =
            format!("`train_missing` of {id} has no effect: it trains on complete inputs");
        let help = "its hyper-parameter `train_missing = false` says so";
        note(&at, message, Some(help.to_owned()), checker);
    }
}
