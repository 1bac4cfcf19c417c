//! The ablations of LNLN: each changes what it names and nothing else.

use crate::support::{alone, build, encoder, hyper, method_file, samples, step};
use halfheard_models::methods::{Batch, Inputs, Method};
use halfheard_shared::methods::faults::{Fault, Faults};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tch::Tensor;

pub(crate) fn small() -> Value {
    json!({
        "batch_size": 16, "width": 32, "tokens": 4, "heads": 2,
        "discriminator_hidden": 16
    })
}

/// What a variant removes from the full model.
struct Expected {
    variant: &'static str,
    /// Prefixes of removed weights.
    without: &'static [&'static str],
    /// New weights.
    with: &'static [&'static str],
    /// Removed parts of the loss.
    lost: &'static [&'static str],
    /// Whether predictions with the same weights equal those of the full model.
    same_prediction: bool,
    /// Whether the remaining parts of the loss with the same weights have the same values.
    same_parts: bool,
}

const DMC: [&str; 4] = [
    "h_p",
    "completeness_check.",
    "proxy_dominate_modality_generator.",
    "effective_discriminator.",
];

const VARIANTS: &[Expected] = &[
    Expected {
        variant: "no-dmc",
        without: &DMC,
        with: &[],
        lost: &["l_cc", "l_adv"],
        same_prediction: false,
        same_parts: false,
    },
    Expected {
        variant: "no-reconstructor",
        without: &["reconstructor."],
        with: &[],
        lost: &["l_rec"],
        same_prediction: true,
        same_parts: true,
    },
    Expected {
        variant: "no-dmc-reconstructor",
        without: &[DMC[0], DMC[1], DMC[2], DMC[3], "reconstructor."],
        with: &[],
        lost: &["l_cc", "l_adv", "l_rec"],
        same_prediction: false,
        same_parts: false,
    },
    Expected {
        variant: "no-dmml",
        without: &["dmml.", "h_hyper"],
        with: &["concatenation.weight", "concatenation.bias"],
        lost: &[],
        same_prediction: false,
        same_parts: false,
    },
    Expected {
        variant: "no-train-missing",
        without: &[],
        with: &[],
        lost: &[],
        same_prediction: true,
        same_parts: false,
    },
    Expected {
        variant: "no-l-cc",
        without: &[],
        with: &[],
        lost: &["l_cc"],
        same_prediction: true,
        same_parts: true,
    },
    Expected {
        variant: "no-l-adv",
        without: &[],
        with: &[],
        lost: &["l_adv"],
        same_prediction: true,
        same_parts: true,
    },
    Expected {
        variant: "no-l-rec",
        without: &[],
        with: &[],
        lost: &["l_rec"],
        same_prediction: true,
        same_parts: true,
    },
    Expected {
        variant: "no-language",
        without: &[
            "bertmodel.",
            "proj_l.",
            "completeness_check.",
            "effective_discriminator.",
            "reconstructor.2.",
        ],
        with: &[],
        lost: &["l_cc", "l_adv"],
        same_prediction: false,
        same_parts: false,
    },
    Expected {
        variant: "no-audio",
        without: &["proj_a.", "reconstructor.0."],
        with: &[],
        lost: &[],
        same_prediction: false,
        same_parts: false,
    },
    Expected {
        variant: "no-vision",
        without: &["proj_v.", "reconstructor.1."],
        with: &[],
        lost: &[],
        same_prediction: false,
        same_parts: false,
    },
];

const PARTS: [&str; 4] = ["l_sp", "l_cc", "l_adv", "l_rec"];
/// The weights of [`PARTS`] in the full model on MOSI.
const WEIGHTS: [f64; 4] = [1.0, 0.9, 0.8, 0.1];

/// Table 7: the full model with one changed weight of the loss.
const REWEIGHTED: [(&str, [f64; 4]); 6] = [
    ("alpha-0.5", [1.0, 0.5, 0.8, 0.1]),
    ("alpha-1.0", [1.0, 1.0, 0.8, 0.1]),
    ("beta-0.3", [1.0, 0.9, 0.3, 0.1]),
    ("beta-0.5", [1.0, 0.9, 0.5, 0.1]),
    ("beta-1.0", [1.0, 0.9, 1.0, 0.1]),
    ("gamma-0.2", [1.0, 0.9, 0.8, 0.2]),
];

/// The weighted sum of the parts in `own`.
fn weighted(own: &BTreeMap<&'static str, f64>, weights: [f64; 4]) -> f64 {
    PARTS
        .iter()
        .zip(weights)
        .filter_map(|(part, weight)| Some(own.get(part)? * weight))
        .sum()
}

fn variant(name: Option<&str>, encoder: &tempfile::TempDir) -> Box<dyn Method> {
    let hyper = hyper("lnln", "mosi", name, &small());
    build("lnln", &hyper, encoder.path(), 20, Faults::REFERENCE, 1)
}

fn names(method: &dyn Method) -> BTreeSet<String> {
    method.vars().variables().into_keys().collect()
}

/// Copies the weights of `full` that `method` has, too.
fn same_weights(method: &dyn Method, full: &dyn Method) {
    let weights = full.vars().variables();
    tch::no_grad(|| {
        for (name, mut tensor) in method.vars().variables() {
            if let Some(weight) = weights.get(&name) {
                tensor.copy_(weight);
            }
        }
    });
}

fn losses(method: &mut dyn Method, batch: Batch) -> BTreeMap<&'static str, f64> {
    step(method, &[batch], 0)
}

#[track_caller]
fn close(a: f64, b: f64, what: &str) {
    assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{what}: {a}, {b}");
}

#[test]
fn every_ablation_is_tested() {
    let _alone = alone();
    let file = method_file("lnln");
    let listed: BTreeSet<&str> = file["variants"]
        .as_table()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let ablated = VARIANTS.iter().map(|v| v.variant);
    let reweighted = REWEIGHTED.iter().map(|(variant, _)| *variant);
    let tested: BTreeSet<&str> = ablated.chain(reweighted).collect();
    assert_eq!(listed, tested);
}

#[test]
fn each_ablation_changes_what_it_names_and_nothing_else() {
    let _alone = alone();
    let folder = encoder(0.0);
    let full = variant(None, &folder);
    let full_names = names(full.as_ref());
    let prediction = full.predict(&samples(1), None).unwrap();
    let full_losses = losses(variant(None, &folder).as_mut(), samples(1));
    for expected in VARIANTS {
        let id = expected.variant;
        let mut method = variant(Some(id), &folder);
        let mut expected_names: BTreeSet<String> = full_names
            .iter()
            .filter(|name| !expected.without.iter().any(|gone| name.starts_with(gone)))
            .cloned()
            .collect();
        for gone in expected.without {
            let hit = full_names.iter().any(|name| name.starts_with(gone));
            assert!(hit, "{id}: the full model has no `{gone}` either");
        }
        expected_names.extend(expected.with.iter().map(|name| (*name).to_owned()));
        assert_eq!(names(method.as_ref()), expected_names, "{id}: weights");

        same_weights(method.as_ref(), full.as_ref());
        let same = method
            .predict(&samples(1), None)
            .unwrap()
            .equal(&prediction);
        assert_eq!(same, expected.same_prediction, "{id}: predictions");

        let own = losses(method.as_mut(), samples(1));
        let parts: Vec<&str> = PARTS
            .into_iter()
            .filter(|part| !expected.lost.contains(part))
            .collect();
        let have: Vec<&str> = PARTS
            .into_iter()
            .filter(|part| own.contains_key(part))
            .collect();
        assert_eq!(have, parts, "{id}: parts of the loss");
        let sum = weighted(&own, WEIGHTS);
        close(own["loss"], sum, &format!("{id}: the loss is the sum"));
        for part in parts.iter().filter(|_| expected.same_parts) {
            close(own[part], full_losses[part], &format!("{id}: {part}"));
        }
    }
}

#[test]
fn reweighted_loss_has_the_same_parts_and_another_sum() {
    let _alone = alone();
    let folder = encoder(0.0);
    let full = variant(None, &folder);
    let full_losses = losses(variant(None, &folder).as_mut(), samples(1));
    for (id, weights) in REWEIGHTED {
        let mut method = variant(Some(id), &folder);
        assert_eq!(names(method.as_ref()), names(full.as_ref()), "{id}");
        let own = losses(method.as_mut(), samples(1));
        for part in PARTS {
            close(own[part], full_losses[part], &format!("{id}: {part}"));
        }
        let sum = weighted(&own, weights);
        close(own["loss"], sum, &format!("{id}: the loss is the sum"));
        assert!((sum - full_losses["loss"]).abs() > 1e-3, "{id}: {sum}");
    }
}

/// The batch with changed erased inputs of one modality.
fn disturbed(modality: &str) -> Batch {
    let mut batch = samples(1);
    let input = &mut batch.input;
    match modality {
        "language" => {
            let ids = input.text.select(1, 0);
            let other = (&ids * 7 + 1).remainder(29) + 11;
            input.text.select(1, 0).copy_(&(other * ids.ne(0)));
        }
        "audio" => input.audio = &input.audio + 1.0,
        _ => input.vision = &input.vision + 1.0,
    }
    batch
}

#[test]
fn model_without_a_modality_ignores_it() {
    let _alone = alone();
    let folder = encoder(0.0);
    for without in ["language", "audio", "vision"] {
        let method = variant(Some(&format!("no-{without}")), &folder);
        let prediction = method.predict(&samples(1), None).unwrap();
        for modality in ["language", "audio", "vision"] {
            let same = method
                .predict(&disturbed(modality), None)
                .unwrap()
                .equal(&prediction);
            assert_eq!(same, modality == without, "no-{without}, other {modality}");
        }
    }
}

#[test]
fn training_without_missing_data_uses_only_complete_inputs() {
    let _alone = alone();
    let folder = encoder(0.0);
    let take = |erased: bool| {
        let mut batch = samples(1);
        if !erased {
            batch.input = batch.complete.take().unwrap();
            let copy = |t: &Tensor| t.copy();
            batch.complete = Some(Inputs {
                text: copy(&batch.input.text),
                audio: copy(&batch.input.audio),
                vision: copy(&batch.input.vision),
                audio_lengths: copy(&batch.input.audio_lengths),
                vision_lengths: copy(&batch.input.vision_lengths),
                host_lengths: None,
            });
        }
        batch
    };
    let run = |name: Option<&str>, erased| losses(variant(name, &folder).as_mut(), take(erased));
    let ablated = run(Some("no-train-missing"), true);
    assert_eq!(ablated, run(Some("no-train-missing"), false));
    let full = run(None, true);
    assert_ne!(full["l_sp"], ablated["l_sp"]);
    // The sentiment loss equals the full model's on complete inputs.
    close(ablated["l_sp"], run(None, false)["l_sp"], "l_sp");
}

#[test]
fn complete_inputs_are_requested_only_if_used() {
    let _alone = alone();
    let folder = encoder(0.0);
    let needs = |changes: Value| {
        let mut all = small();
        for (name, value) in changes.as_object().unwrap() {
            all[name] = value.clone();
        }
        let hyper = hyper("lnln", "mosi", None, &all);
        build("lnln", &hyper, folder.path(), 20, Faults::REFERENCE, 1).needs()
    };
    assert!(needs(json!({})).complete_in_training);
    assert!(needs(json!({"beta": 0.0})).complete_in_training);
    assert!(!needs(json!({"beta": 0.0, "gamma": 0.0})).complete_in_training);
    assert!(!needs(json!({})).complete_in_evaluation);
}

#[test]
fn corrected_variant_reverses_only_the_discriminator_gradient() {
    let _alone = alone();
    // With the sentiment loss alone, the reference trains the proxy against the prediction.
    let folder = encoder(0.0);
    let mut alone = small();
    for weight in ["alpha", "beta", "gamma"] {
        alone[weight] = json!(0.0);
    }
    let hyper = hyper("lnln", "mosi", Some("no-dmml"), &alone);
    let gradient = |faults| {
        let mut method = build("lnln", &hyper, folder.path(), 20, faults, 1);
        step(method.as_mut(), &[samples(1)], 0);
        method.vars().variables()["h_p"].grad()
    };
    let reference = gradient(Faults::REFERENCE);
    let corrected = Faults::REFERENCE.with(Fault::GrlOnProxy, false);
    assert!(reference.abs().max().double_value(&[]) > 0.0);
    assert!(gradient(corrected).allclose(&-reference, 1e-4, 1e-9, false));
}

#[test]
fn features_come_from_the_forward_pass_of_the_prediction() {
    let _alone = alone();
    let (folder, all) = (encoder(0.0), samples(1));
    let shown = |variant: Option<&str>| {
        let hyper = hyper("lnln", "mosi", variant, &small());
        let method = build("lnln", &hyper, folder.path(), 1, Faults::REFERENCE, 1);
        let (prediction, features) = method.predict_with_features(&all, None).unwrap();
        assert!(prediction.equal(&method.predict(&all, None).unwrap()));
        features
    };
    let features = shown(None).unwrap();
    assert_eq!(features.language.size(), [32, 32]);
    assert_eq!(features.dominant.size(), [32, 32]);
    let apart = (&features.language - &features.dominant).abs().max();
    assert!(apart.double_value(&[]) > 1e-3, "the proxy contributes");
    assert!(!features.dominant.requires_grad());
    for variant in ["no-dmc", "no-language"] {
        assert!(shown(Some(variant)).is_none(), "{variant}");
    }
}
