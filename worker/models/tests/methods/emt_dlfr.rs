//! EMT-DLFR: shared modules, padding, standardized features, and what compares the two views.

use crate::support::{alone, batches, build, encoder, hyper, samples, slice, step};
use halfheard_models::methods::{Batch, Inputs, Method, PerModality};
use halfheard_shared::methods::faults::Faults;
use serde_json::{Value, json};
use tch::Tensor;

pub(crate) fn small() -> Value {
    json!({
        "batch_size": 8, "update_epochs": 2, "a_lstm_hidden_size": 8, "v_lstm_hidden_size": 8,
        "audio_out": 8, "video_out": 12, "d_model": 16, "heads": 2, "fusion_layers": 2,
        "ff_expansion": 2, "gmc_tokens_pred_dim": 16, "text_pred_dim": 16, "post_fusion_dim": 32
    })
}

fn built(changes: &Value) -> (tempfile::TempDir, Box<dyn Method>) {
    let folder = encoder(0.0);
    let mut hyper = hyper("emt-dlfr", "mosi", None, &small());
    for (key, value) in changes.as_object().unwrap() {
        hyper[key] = value.clone();
    }
    let method = build("emt-dlfr", &hyper, folder.path(), 9, Faults::REFERENCE, 1);
    (folder, method)
}

/// Without dropout.
fn plain() -> Value {
    json!({"attn_dropout": 0.0, "ff_dropout": 0.0, "post_fusion_dropout": 0.0})
}

fn copy(inputs: &Inputs) -> Inputs {
    Inputs {
        text: inputs.text.copy(),
        audio: inputs.audio.copy(),
        vision: inputs.vision.copy(),
        audio_lengths: inputs.audio_lengths.copy(),
        vision_lengths: inputs.vision_lengths.copy(),
        host_lengths: None,
    }
}

#[test]
fn shared_modules_are_stored_once() {
    let _alone = alone();
    let names = |layers: i64| {
        let (_folder, method) = built(&json!({"fusion_layers": layers}));
        let names = method.vars().variables().into_keys();
        let mut names: Vec<String> = names.filter(|n| n.contains(".fusion.")).collect();
        names.sort();
        names
    };
    let one = names(1);
    let unit = |name: &&String| name.contains(".mpus.0.0.0.layers.0.");
    // Two attentions and a feed-forward layer with four weights each, and the norm of the context.
    let expected = 2 * (4 + 2) + 2 + (4 + 2);
    assert_eq!(one.iter().filter(unit).count(), expected, "{one:?}");
    assert_eq!(one.len(), expected + 4, "{one:?}");
    assert_eq!(one, names(4));
}

#[test]
fn padding_does_not_affect_predictions() {
    let _alone = alone();
    let all = samples(1);
    let (_folder, method) = built(&json!({}));
    let short = slice(&all, 0, 6);
    let mut long = slice(&all, 0, 6);
    let pad = |t: &Tensor, pads: &[i64]| t.constant_pad_nd(pads);
    // Two more frames of audio and vision: the lengths stay.
    for inputs in [&mut long.input, long.complete.as_mut().unwrap()] {
        inputs.text = pad(&inputs.text, &[0, 1]);
        inputs.audio = pad(&inputs.audio, &[0, 0, 0, 2]);
        inputs.vision = pad(&inputs.vision, &[0, 0, 0, 2]);
    }
    let prediction = |batch: &Batch| method.predict(batch, None).unwrap();
    assert!(prediction(&long).allclose(&prediction(&short), 0.0, 1e-6, false));
    // Other samples of the batch have no influence either.
    for i in 0..6 {
        let alone = prediction(&slice(&short, i, 1));
        let together = prediction(&short).narrow(0, i, 1);
        assert!(alone.allclose(&together, 0.0, 1e-5, false), "sample {i}");
    }
}

#[test]
fn text_without_words_is_predicted() {
    let _alone = alone();
    let (_folder, method) = built(&json!({}));
    let mut batch = slice(&samples(1), 0, 3);
    // [CLS] and [SEP]; then [CLS] alone; then nothing at all.
    for tokens in [2, 1, 0] {
        let length = batch.input.text.size()[2];
        let _ = batch.input.text.narrow(2, tokens, length - tokens).fill_(0);
        let prediction = method.predict(&batch, None).unwrap();
        assert!(
            prediction.isfinite().all().int64_value(&[]) == 1,
            "{tokens} tokens"
        );
    }
    batch.input.audio_lengths = batch.input.audio_lengths.zeros_like();
    let prediction = method.predict(&batch, None).unwrap();
    assert!(
        prediction.isfinite().all().int64_value(&[]) == 1,
        "no audio"
    );
}

#[test]
fn views_without_erasure_are_the_same() {
    let _alone = alone();
    let (_folder, mut method) = built(&plain());
    let mut all = samples(1);
    let erased = step(method.as_mut(), &[slice(&all, 0, 8)], 0);
    assert!(erased["reconstruction"] > 0.01, "{erased:?}");

    let (_folder, mut method) = built(&plain());
    all.input = copy(all.complete.as_ref().unwrap());
    all.kept = PerModality {
        text: all.present.text.copy(),
        audio: all.present.audio.copy(),
        vision: all.present.vision.copy(),
    };
    let batch = slice(&all, 0, 8);
    let same = step(method.as_mut(), &[batch], 0);
    assert_eq!(same["reconstruction"], 0.0);
    // Four negative cosines, each at least -1, and the loss of the complete view's prediction.
    let cosines = same["attraction"] - same["task"];
    assert!((-4.0..=4.0).contains(&cosines), "{same:?}");
    assert!((same["attraction"] - erased["attraction"]).abs() > 1e-4);
}

/// Features in other units, erased frames as they are.
fn rescaled(batch: &Batch) -> Batch {
    let mut batch = slice(batch, 0, batch.len());
    let change = |x: &Tensor, mask: &Tensor| (x * 50.0 + 7.0) * mask.unsqueeze(2);
    let complete = batch.complete.as_mut().unwrap();
    complete.audio = change(&complete.audio, &batch.present.audio);
    complete.vision = change(&complete.vision, &batch.present.vision);
    batch.input.audio = change(&batch.input.audio, &batch.kept.audio);
    batch.input.vision = change(&batch.input.vision, &batch.kept.vision);
    batch
}

#[test]
fn units_of_features_count_only_where_they_are_not_standardized() {
    let _alone = alone();
    let all = samples(1);
    for standardize in [true, false] {
        let predictions = [false, true].map(|other_units| {
            let mut changes = plain();
            changes["standardize"] = json!(standardize);
            let (_folder, mut method) = built(&changes);
            let all = if other_units {
                rescaled(&all)
            } else {
                slice(&all, 0, all.len())
            };
            let batches = batches(&all, method.batch_size());
            for batch in &batches {
                method.prepare(batch).unwrap();
            }
            for n in 0..batches.len() {
                step(method.as_mut(), &batches, n);
            }
            method.predict(&all, None).unwrap()
        });
        let [ours, other] = predictions;
        let same = ours.allclose(&other, 0.0, 1e-4, false);
        assert_eq!(same, standardize, "{:?}", (ours - other).abs().max());
    }
}

#[test]
fn moments_are_part_of_checkpoints() {
    let _alone = alone();
    let moments = |standardize: bool| {
        let (_folder, method) = built(&json!({"standardize": standardize}));
        let names = method.vars().variables().into_keys();
        names.filter(|name| name.contains(".standardize.")).count()
    };
    assert_eq!((moments(false), moments(true)), (0, 4));
}
