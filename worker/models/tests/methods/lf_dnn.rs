//! LF-DNN: padding, the fixed encoder and batches of one sample.

use crate::support::{alone, batches, build, encoder, hyper, samples, slice, step};
use halfheard_models::methods::{Batch, builder};
use halfheard_shared::methods::faults::Faults;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

pub(crate) fn small() -> Value {
    json!({
        "batch_size": 8, "text_hidden": 16, "text_out": 16, "audio_hidden": 8,
        "vision_hidden": 16, "post_fusion_dim": 16
    })
}

/// A padded sample, and the same with one padding step less in each modality.
fn with_and_without_padding() -> (Batch, Batch) {
    let all = samples(1);
    let tokens = |i: i64| all.present.text.get(i).sum(Kind::Int64).int64_value(&[]);
    let audio = |i: i64| all.input.audio_lengths.int64_value(&[i]);
    let vision = |i: i64| all.input.vision_lengths.int64_value(&[i]);
    let padded = (0..32)
        .find(|&i| tokens(i) < 8 && audio(i) < 6 && vision(i) < 7)
        .unwrap();
    let (long, mut short) = (slice(&all, padded, 1), slice(&all, padded, 1));
    let cut = |t: &Tensor, dim: i64| t.narrow(dim, 0, t.size()[dim as usize] - 1);
    short.input.text = cut(&short.input.text, 2);
    short.input.audio = cut(&short.input.audio, 1);
    short.input.vision = cut(&short.input.vision, 1);
    (long, short)
}

#[test]
fn padding_affects_predictions_only_in_the_reference_variant() {
    let _alone = alone();
    let (folder, hyper) = (encoder(0.0), hyper("lf-dnn", "mosi", None, &small()));
    let (long, short) = with_and_without_padding();
    for (faults, counts) in [(Faults::REFERENCE, true), (Faults::CORRECTED, false)] {
        let method = build("lf-dnn", &hyper, folder.path(), 1, faults, 1);
        let prediction = |batch| method.predict(batch, None).unwrap();
        let same = prediction(&long).allclose(&prediction(&short), 0.0, 1e-6, false);
        assert_eq!(same, !counts, "{faults:?}");
    }
}

#[test]
fn encoder_is_not_trained() {
    let _alone = alone();
    let (folder, all) = (encoder(0.1), samples(1));
    let hyper = hyper("lf-dnn", "mosi", None, &small());
    let mut method = build("lf-dnn", &hyper, folder.path(), 9, Faults::REFERENCE, 1);
    let copies = |method: &dyn halfheard_models::methods::Method| method.state().unwrap().tensors;
    let before = copies(method.as_ref());
    let batches = batches(&all, method.batch_size());
    for n in 0..2 * batches.len() {
        step(method.as_mut(), &batches, n);
    }
    let after = copies(method.as_ref());
    for (name, tensor) in &before {
        let still = tensor.equal(&after[name]);
        assert_eq!(still, name.starts_with("weights.bertmodel."), "{name}");
    }
    let moments = |name: &String| name.starts_with("adam.") && name.contains("bertmodel");
    assert!(!after.keys().any(moments));
}

#[test]
fn batch_of_one_sample_can_be_trained_on() {
    let _alone = alone();
    let (folder, all) = (encoder(0.0), samples(1));
    let hyper = hyper("lf-dnn", "mosi", None, &small());
    let mut method = build("lf-dnn", &hyper, folder.path(), 9, Faults::REFERENCE, 1);
    let one = [slice(&all, 0, 1)];
    for n in 0..3 {
        step(method.as_mut(), &one, n);
    }
    let prediction = method.predict(&all, None).unwrap();
    assert!(prediction.isfinite().all().int64_value(&[]) == 1);
}

#[test]
fn layer_of_width_zero_is_rejected() {
    let _alone = alone();
    let folder = encoder(0.0);
    let hyper = hyper("lf-dnn", "mosi", None, &json!({"vision_hidden": 0}));
    let built = builder("lf-dnn").unwrap()(&halfheard_models::methods::Build {
        hyper: &hyper,
        dataset: "mosi",
        data: crate::support::SHAPE,
        encoder: folder.path(),
        device: tch::Device::Cpu,
        faults: Faults::REFERENCE,
        max_epochs: 1,
        optimizations: halfheard_models::context::Optimizations::ALL,
        precision: halfheard_models::precision::Precision::Float32,
    });
    let error = built.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(
        error.contains("`vision_hidden` of lf-dnn cannot be 0"),
        "{error}"
    );
}
