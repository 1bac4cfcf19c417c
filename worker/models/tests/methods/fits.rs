//! `coord plan` and the worker accept the same setups and reject others with the same message: both
//! use `MethodInfo::check` and `MethodInfo::fit`.

use crate::{
    methods, small,
    support::{SHAPE, alone, batches, encoder, samples_of, step, try_build},
};
use halfheard_models::{
    layers::bert::BertConfig,
    methods::{DataShape, MethodError},
};
use halfheard_shared::{
    dataset::Shapes,
    methods::faults::Faults,
    methods::{DataFacts, EncoderShape, MethodInfo, Setup, find},
    numpy_rng::RandomState,
};
use serde_json::{Map, Value, json};
use std::{fs, path::Path};

fn facts(shape: DataShape) -> DataFacts {
    DataFacts {
        shapes: Shapes {
            text_len: shape.text_length as usize,
            audio_len: shape.audio_length as usize,
            audio_dim: shape.audio_dim as usize,
            vision_len: shape.vision_length as usize,
            vision_dim: shape.vision_dim as usize,
        },
        samples: [shape.train_samples as usize, 4, 4],
        tokens: None,
    }
}

/// The error of `coord plan`, if any.
fn plan(
    info: &'static MethodInfo,
    hyper: &Map<String, Value>,
    shape: DataShape,
    encoder: &EncoderShape,
    faults: Faults,
) -> Result<(), String> {
    for (key, value) in hyper {
        info.check(key, value).map_err(|e| e.to_string())?;
    }
    let data = facts(shape);
    let fit = info.fit(Setup {
        hyper,
        faults,
        data: Some(&data),
        encoder: Some(encoder),
    });
    fit.misfits()
        .first()
        .map_or(Ok(()), |misfit| Err(misfit.to_string()))
}

/// Draws a value, mostly within the range of `key`, and small to keep models small.
fn draw(rng: &mut RandomState, info: &MethodInfo, key: &str, like: &Value) -> Value {
    let pick = |rng: &mut RandomState, from: &[f64]| from[rng.below(from.len())];
    match like {
        Value::Bool(_) => Value::Bool(rng.below(4) != 0),
        Value::Array(values) => values.iter().map(|v| draw(rng, info, key, v)).collect(),
        Value::Number(number) if number.is_f64() => {
            let range = &info.ranges[key];
            // Such as a dropout near 1, a high rate, a loss of weight 0.
            let tried = [0.0, 1e-4, 0.1, 0.5, 0.9, 1.0, -1.0, 1.5, -0.1];
            let within: Vec<f64> = tried
                .iter()
                .copied()
                .filter(|x| range.has(&json!(x)))
                .collect();
            // Rates at which a loss overflows are not a matter of sizes.
            let tame: Vec<f64> = match key {
                _ if key.contains("rate") || key.starts_with("lr_") => vec![1e-4, 1e-3],
                "weight_gen_loss" | "weight_sim_loss" => vec![0.0, 0.1, 1.0],
                _ => within,
            };
            if rng.below(30) == 0 {
                json!(pick(rng, &tried))
            } else {
                json!(pick(rng, &tame))
            }
        }
        _ => {
            let range = &info.ranges[key];
            let min = range.least.unwrap_or(0.0);
            let max = range.most.unwrap_or(8.0).min(min + 6.0);
            let drawn = min + rng.below((max - min) as usize + 1) as f64;
            if rng.below(30) == 0 {
                json!(-(drawn as i64))
            } else {
                json!(drawn as i64)
            }
        }
    }
}

/// Adjusts values that rarely fit by chance.
fn adjust(rng: &mut RandomState, hyper: &mut Map<String, Value>) {
    for (heads, width) in [
        ("nheads", "dst_feature_dims"),
        ("heads", "width"),
        ("hyper_heads", "width"),
        ("heads", "d_model"),
    ] {
        if hyper.contains_key(heads) && hyper.contains_key(width) {
            let count = 1 + rng.below(3) as i64;
            hyper[heads] = json!(count);
            hyper[width] = json!(4 * count);
        }
    }
    for key in ["l", "a", "v"].map(|modality| format!("conv1d_kernel_size_{modality}")) {
        if hyper.contains_key(&key) {
            hyper[&key] = json!([1, 1, 3][rng.below(3)]);
        }
    }
    if hyper.contains_key("num_temporal_head") {
        hyper["num_temporal_head"] = json!(1);
    }
}

fn shape(rng: &mut RandomState) -> DataShape {
    let mut size = |max| 1 + rng.below(max) as i64;
    DataShape {
        text_length: size(9),
        audio_length: size(9),
        audio_dim: size(6),
        vision_length: size(9),
        vision_dim: size(6),
        train_samples: size(11),
        unimodal_labels: false,
    }
}

fn encoder_shape(folder: &Path) -> EncoderShape {
    EncoderShape::of(&BertConfig::read(folder).unwrap())
}

/// A setup that plan accepts can be built, trained for an epoch and evaluated; one that it rejects is
/// rejected by the worker with the same message. Nothing panics.
#[test]
fn planned_setups_can_be_trained() {
    let _alone = alone();
    let folder = encoder(0.1);
    let encoder = encoder_shape(folder.path());
    let mut rng = RandomState::new(20);
    let mut failed = Vec::new();
    for id in methods() {
        let info = find(id).unwrap();
        let (mut trained, mut rejected) = (0, 0);
        for round in 0..400 {
            if trained >= 16 && rejected >= 2 {
                break;
            }
            let shape = shape(&mut rng);
            let faults = [Faults::REFERENCE, Faults::CORRECTED][rng.below(2)];
            let mut hyper: Map<String, Value> = info
                .hyper
                .iter()
                .map(|(key, value)| (key.clone(), draw(&mut rng, info, key, value)))
                .collect();
            if round % 4 != 0 {
                adjust(&mut rng, &mut hyper);
            }
            let plan = plan(info, &hyper, shape, &encoder, faults);
            let context = format!(
                "{id}, round {round}: {shape:?}, {faults:?}, {}",
                json!(hyper)
            );
            let built = try_build(id, &hyper.clone().into(), shape, folder.path(), 3, faults);
            let mut method = match (plan, built) {
                (Ok(()), Ok(method)) => method,
                (Err(plan), Err(worker)) => {
                    assert!(
                        worker.to_string().contains(&plan),
                        "{context}: {plan}, {worker}"
                    );
                    rejected += 1;
                    continue;
                }
                (plan, built) => panic!("{context}: {plan:?}, {:?}", built.err()),
            };
            let mut all = samples_of(round, shape);
            // Labels of alternating signs, since any real batch has both.
            let sign = all.index.remainder(2) * 2 - 1;
            all.labels = (all.labels.abs() + 0.1) * sign;
            let batches = batches(&all, method.batch_size());
            let outcome = halfheard_models::train::catch_panics(None, || {
                for batch in &batches {
                    method.prepare(batch)?;
                }
                for n in 0..2 * method.passes() * batches.len() {
                    step(method.as_mut(), &batches, n);
                }
                let prediction = method.predict(&all, None)?;
                assert_eq!(prediction.size(), [shape.train_samples]);
                assert!(
                    prediction.isfinite().all().int64_value(&[]) == 1,
                    "a prediction is not finite"
                );
                Ok(())
            });
            if let Err(error) = outcome {
                failed.push(format!("{context}: {error:?}"));
            }
            trained += 1;
        }
        assert!(
            trained >= 16 && rejected >= 2,
            "{id}: {trained} trained, {rejected} rejected"
        );
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// A setup that does not fit: the method, changed hyper-parameters and dataset, and the message.
struct Misfit {
    id: &'static str,
    changes: Value,
    shape: fn(DataShape) -> DataShape,
    faults: Faults,
    message: &'static str,
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn misfits() -> Vec<Misfit> {
    let plain = |id, changes, message| Misfit {
        id,
        changes,
        shape: |shape| shape,
        faults: Faults::REFERENCE,
        message,
    };
    let one: fn(DataShape) -> DataShape = |shape| DataShape {
        train_samples: 1,
        ..shape
    };
    let shaped = |id, shape, message| Misfit {
        shape,
        ..plain(id, json!({}), message)
    };
    vec![
        plain("misa", json!({"hidden_size": 15}), "hidden_size 15 is odd"),
        shaped("self-mm", one, "one training sample"),
        shaped("tetfn", one, "one training sample"),
        shaped("tfr-net", one, "one training sample"),
        shaped("lf-dnn", one, "one training sample"),
        shaped("emt-dlfr", one, "one training sample"),
        shaped(
            "emt-dlfr",
            |shape| DataShape {
                text_length: 1,
                ..shape
            },
            "texts of this dataset have one token",
        ),
        plain(
            "emt-dlfr",
            json!({"heads": 7}),
            "d_model 16 is not a multiple of heads 7",
        ),
        plain(
            "mmim",
            json!({"batch_size": 2, "d_vout": 64}),
            "the entropy of 16 features needs at least 34",
        ),
        plain(
            "tetfn",
            json!({"nheads": 7}),
            "dst_feature_dims 20 is not a multiple of nheads 7",
        ),
        plain(
            "tetfn",
            json!({"conv1d_kernel_size_l": 9}),
            "texts of this dataset have 8 tokens",
        ),
        plain(
            "tetfn",
            json!({"conv1d_kernel_size_a": 9}),
            "conv1d_kernel_size_a 9",
        ),
        Misfit {
            faults: Faults::CORRECTED,
            ..plain(
                "tetfn",
                json!({"conv1d_kernel_size_v": 9}),
                "conv1d_kernel_size_v 9",
            )
        },
        plain(
            "tfr-net",
            json!({"nheads": 5}),
            "dst_feature_dims 12 is not a multiple of nheads 5",
        ),
        plain(
            "tfr-net",
            json!({"conv1d_kernel_size_l": 2}),
            "conv1d_kernel_size_l 2 is even",
        ),
        plain(
            "tfr-net",
            json!({"conv1d_kernel_size_a": 2}),
            "conv1d_kernel_size_a 2 is even",
        ),
        plain(
            "tfr-net",
            json!({"conv1d_kernel_size_v": 2}),
            "conv1d_kernel_size_v 2 is even",
        ),
        plain(
            "tfr-net",
            json!({"num_temporal_head": 2}),
            "num_temporal_head 2 must divide the lengths of all modalities, and this dataset has \
             text 8, audio 6, vision 7: set `num_temporal_head` to 1",
        ),
        plain(
            "almt",
            json!({"hyper_heads": 7}),
            "width 32 is not a multiple of hyper_heads 7",
        ),
        plain("lnln", json!({"heads": 7}), "is not a multiple of heads 7"),
        plain(
            "lnln",
            json!({"hyper_depth": 9}),
            "hyper_depth 9 is more than one above language_depth",
        ),
        plain(
            "lnln",
            json!({"language": false, "audio": false, "vision": false}),
            "no modality is left",
        ),
    ]
}

#[test]
fn misfits_are_rejected_by_plan_and_worker_with_the_same_message() {
    let _alone = alone();
    let folder = encoder(0.0);
    let encoder = encoder_shape(folder.path());
    for misfit in misfits() {
        let mut hyper = small(misfit.id);
        for (key, value) in misfit.changes.as_object().unwrap() {
            hyper[key] = value.clone();
        }
        let shape = (misfit.shape)(SHAPE);
        let info = find(misfit.id).unwrap();
        let fields = hyper.as_object().unwrap();
        let plan = plan(info, fields, shape, &encoder, misfit.faults).unwrap_err();
        assert!(plan.contains(misfit.message), "{}: {plan}", misfit.id);
        let built = try_build(misfit.id, &hyper, shape, folder.path(), 1, misfit.faults);
        let worker = built.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(worker.contains(&plan), "{}: {plan}, {worker}", misfit.id);
    }
}

/// CENET adds audio and vision before the encoder's second layer.
#[test]
fn single_layer_encoder_is_rejected_by_cenet() {
    let _alone = alone();
    let folder = encoder(0.0);
    let path = folder.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        text.replace("\"num_hidden_layers\":2", "\"num_hidden_layers\":1"),
    )
    .unwrap();
    let error = try_build(
        "cenet",
        &small("cenet"),
        SHAPE,
        folder.path(),
        1,
        Faults::REFERENCE,
    );
    match error.err() {
        Some(MethodError::Encoder(error)) => assert!(error.found.contains("one layer"), "{error}"),
        other => panic!("{other:?}"),
    }
}

/// Plan and worker reject every numeric hyper-parameter outside its range.
#[test]
fn hyper_parameters_outside_their_range_are_rejected() {
    let _alone = alone();
    let folder = encoder(0.0);
    for id in methods() {
        let info = find(id).unwrap();
        let good = small(id);
        for (key, range) in &info.ranges {
            let outside = [-2.0, 0.0, 1.0, 2.5, 1e12]
                .into_iter()
                .filter(|x| !range.has(&json!(x)));
            let mut tried = 0;
            for x in outside {
                let default = &info.hyper[key];
                let number = |x: f64| {
                    if default.is_f64() {
                        json!(x)
                    } else {
                        json!(x as i64)
                    }
                };
                let value = match default {
                    Value::Array(all) if all[0].is_f64() => json!(vec![x; all.len()]),
                    Value::Array(all) => json!(vec![x as i64; all.len()]),
                    _ => number(x),
                };
                if range.has(&value) {
                    continue; // only the fraction was outside
                }
                tried += 1;
                let plan = info.check(key, &value).unwrap_err().to_string();
                assert!(plan.contains(&range.to_string()), "{plan}");
                let mut hyper = good.clone();
                hyper[key] = value;
                let built = try_build(id, &hyper, SHAPE, folder.path(), 1, Faults::REFERENCE);
                let worker = built.err().map(|e| e.to_string()).unwrap_or_default();
                assert!(worker.contains(&plan), "{id}: {plan}, {worker}");
            }
            assert!(tried >= 2, "{id}: the range of {key} is too wide");
        }
    }
}

/// Methods leave all checks to shared/src/methods/needs.rs, where `coord plan` makes them too.
#[test]
fn methods_have_no_checks_of_their_own() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/methods")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if ["mod.rs", "common.rs"].contains(&name) {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for kind in [
                "MethodError::Hyper",
                "MethodError::Dataset",
                "panic!(",
                "assert!(",
            ] {
                assert!(
                    !text.contains(kind) || text.find(kind) > text.find("#[cfg(test)]"),
                    "{name} has a `{kind}`: move it to shared/src/methods/needs.rs, which plan uses"
                );
            }
        }
    }
}
