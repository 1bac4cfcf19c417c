//! Requirements on every method: it learns, resumes bit-exactly from a saved state, and rejects
//! invalid inputs with a clear error. A new method adds an entry to [`SMALL`].

#![allow(clippy::unwrap_used, reason = "a test fails where something is wrong")]

mod almt;
mod bfloat16;
mod emt_dlfr;
mod faults;
mod fits;
mod initial;
mod initial_laws;
mod initial_lnln;
mod lf_dnn;
mod lnln;
mod numerics;
mod on_device;
mod support;
mod text_only;
mod tfr_net;

use halfheard_models::{
    context::{EncoderCache, Optimizations},
    methods::{Method, MethodState, REGISTRY, builder},
    precision::Precision,
};
use halfheard_shared::methods::faults::Faults;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use support::{
    alone, batches, build, build_with, encoder, hyper, overlay, samples, step, validation_loss,
};
use tch::{Device, Kind};

/// A method's configuration for tests.
struct Small {
    id: &'static str,
    /// Small sizes.
    sizes: fn() -> Value,
    /// High learning rates, and no dropout.
    fast: fn() -> Value,
}

const SMALL: &[Small] = &[
    Small {
        id: "almt",
        sizes: || {
            json!({
                "batch_size": 16, "width": 32, "tokens": 4, "embedding_heads": [2, 2, 2],
                "embedding_hidden": 32, "language_heads": 2, "hyper_heads": 2, "fusion_heads": 2,
                "fusion_hidden": 32
            })
        },
        fast: || json!({"learning_rate": 1e-3}),
    },
    Small {
        id: "cenet",
        sizes: || json!({"batch_size": 16}),
        fast: || json!({"learning_rate": 2e-3}),
    },
    Small {
        id: "lf-dnn",
        sizes: lf_dnn::small,
        // One batch, as for TFR-Net: evaluation uses the batch norm's running means.
        fast: || {
            json!({
                "batch_size": 32, "learning_rate": 1e-2, "weight_decay": 0.0, "text_dropout": 0.0,
                "audio_dropout": 0.0, "vision_dropout": 0.0, "post_fusion_dropout": 0.0
            })
        },
    },
    Small {
        id: "lnln",
        sizes: lnln::small,
        fast: || json!({"learning_rate": 1e-3}),
    },
    Small {
        id: "misa",
        sizes: || {
            json!({
                "batch_size": 8, "update_epochs": 2, "hidden_size": 16,
                "transformer_feedforward": 32
            })
        },
        fast: || json!({"learning_rate": 3e-3, "dropout": 0.0, "transformer_dropout": 0.0}),
    },
    Small {
        id: "mmim",
        sizes: || {
            json!({
                "batch_size": 8, "d_vh": 8, "d_ah": 8, "d_vout": 8, "d_aout": 8, "d_prjh": 32
            })
        },
        fast: || {
            json!({
                "lr_main": 3e-3, "lr_bert": 1e-3, "dropout_a": 0.0, "dropout_v": 0.0,
                "dropout_prj": 0.0
            })
        },
    },
    Small {
        id: "self-mm",
        sizes: || {
            json!({
                "batch_size": 8, "update_epochs": 2, "a_lstm_hidden_size": 8,
                "v_lstm_hidden_size": 8, "post_fusion_dim": 32, "post_text_dim": 16,
                "post_audio_dim": 8, "post_video_dim": 8, "audio_out": 8, "video_out": 8
            })
        },
        fast: || {
            json!({
                "learning_rate_bert": 1e-3, "learning_rate_other": 3e-3, "post_text_dropout": 0.0,
                "post_audio_dropout": 0.0
            })
        },
    },
    Small {
        id: "tetfn",
        sizes: || {
            json!({
                "batch_size": 8, "update_epochs": 2, "a_lstm_hidden_size": 8,
                "v_lstm_hidden_size": 8, "post_fusion_dim": 32, "post_text_dim": 16,
                "post_audio_dim": 8, "post_video_dim": 8, "dst_feature_dims": 20, "nheads": 2
            })
        },
        fast: || {
            json!({
                "learning_rate_bert": 1e-3, "learning_rate_audio": 2e-3,
                "learning_rate_video": 2e-3, "learning_rate_other": 2e-3, "attn_dropout": 0.0,
                "attn_dropout_v": 0.0, "res_dropout": 0.0
            })
        },
    },
    Small {
        id: "tfr-net",
        sizes: || {
            json!({
                "batch_size": 8, "update_epochs": 2, "num_temporal_head": 1, "dst_feature_dims": 12,
                "nheads": 2, "nlevels": 2, "fusion_t_hid": 12, "fusion_a_hid": 12,
                "fusion_v_hid": 12, "fusion_gru_layers": 1, "cls_hidden_dim": 24
            })
        },
        // One batch of all samples, because evaluation uses the batch norm's running means.
        fast: || {
            json!({
                "batch_size": 32, "update_epochs": 1, "learning_rate_bert": 1e-3,
                "learning_rate_other": 3e-3, "patience": 1000, "text_dropout": 0.0,
                "attn_dropout": 0.0, "attn_dropout_a": 0.0, "relu_dropout": 0.0,
                "embed_dropout": 0.0, "res_dropout": 0.0, "fusion_drop": 0.0
            })
        },
    },
    Small {
        id: "text-only",
        sizes: || json!({"batch_size": 8}),
        fast: || json!({"learning_rate_bert": 1e-3, "learning_rate_other": 3e-3, "dropout": 0.0}),
    },
    Small {
        id: "emt-dlfr",
        sizes: emt_dlfr::small,
        fast: || {
            json!({
                "learning_rate_bert": 1e-3, "learning_rate_audio": 3e-3,
                "learning_rate_video": 3e-3, "learning_rate_other": 3e-3, "attn_dropout": 0.0,
                "ff_dropout": 0.0, "post_fusion_dropout": 0.0
            })
        },
    },
];

fn entry(method: &str) -> &'static Small {
    let found = SMALL.iter().find(|small| small.id == method);
    found.unwrap_or_else(|| panic!("add `{method}` to SMALL"))
}

/// The hyper-parameters of a small model, with the method's default rates and dropouts.
fn small(id: &str) -> Value {
    hyper(id, "mosi", None, &(entry(id).sizes)())
}

/// The hyper-parameters of a small model that learns fast.
fn fast(id: &str) -> Value {
    let mut hyper = small(id);
    if let Some(hyper) = hyper.as_object_mut() {
        overlay(hyper, &(entry(id).fast)());
    }
    hyper
}

fn methods() -> impl Iterator<Item = &'static str> {
    REGISTRY.iter().map(|(id, _)| *id)
}

#[test]
fn registry_matches_the_method_files() {
    let files = halfheard_shared::methods::all()
        .iter()
        .map(|info| info.id.as_str());
    assert!(methods().eq(files), "the same methods in the same order");
}

#[test]
fn every_method_overfits_a_few_samples() {
    let _alone = alone();
    let (folder, all) = (encoder(0.0), samples(1));
    for id in methods() {
        let hyper = fast(id);
        let epochs = 160;
        let mut method = build(id, &hyper, folder.path(), epochs, Faults::REFERENCE, 1);
        let batches = batches(&all, method.batch_size());
        for batch in &batches {
            method.prepare(batch).unwrap();
        }
        let before = validation_loss(method.as_ref(), &all);
        let steps = epochs as usize * method.passes() * batches.len();
        let mut after = before;
        for n in 0..steps {
            step(method.as_mut(), &batches, n);
            if (n + 1) % (method.passes() * batches.len()) == 0 {
                after = validation_loss(method.as_ref(), &all);
                if after < before / 10.0 {
                    break;
                }
            }
        }
        assert!(
            after < before / 10.0,
            "{id}: the loss fell only from {before} to {after}"
        );
    }
}

/// A state as written to disk, where scalars are text.
fn stored(state: MethodState) -> MethodState {
    let text = serde_json::to_string(&state.scalars).unwrap();
    MethodState {
        scalars: serde_json::from_str(&text).unwrap(),
        ..state
    }
}

fn equal(id: &str, a: &dyn Method, b: &dyn Method) {
    let (a, b) = (a.state().unwrap(), b.state().unwrap());
    assert_eq!(a.scalars, b.scalars, "{id}");
    assert!(a.tensors.keys().eq(b.tensors.keys()), "{id}");
    for (name, tensor) in &a.tensors {
        assert!(tensor.equal(&b.tensors[name]), "{id}: `{name}` differs");
    }
}

/// The parameters that have a gradient, even if zero.
fn with_gradient(method: &dyn Method) -> BTreeSet<String> {
    let variables = method.vars().variables().into_iter();
    variables
        .filter(|(_, tensor)| tensor.grad().defined())
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn every_method_resumes_bit_exactly_from_a_saved_state() {
    let _alone = alone();
    // Dropout makes the generator matter.
    let (folder, all) = (encoder(0.1), samples(2));
    for id in methods() {
        let hyper = small(id);
        let fresh = |seed| build(id, &hyper, folder.path(), 20, Faults::REFERENCE, seed);
        let mut whole = fresh(1);
        let batches = batches(&all, whole.batch_size());
        for batch in &batches {
            whole.prepare(batch).unwrap();
        }
        // Several epochs, since the first may have a learning rate of 0.
        let steps = 3 * whole.passes() * batches.len() + 1;
        let mut saved: Vec<(usize, MethodState, BTreeSet<String>)> = Vec::new();
        for n in 0..steps {
            step(whole.as_mut(), &batches, n);
            if whole.can_save() {
                let gradients = with_gradient(whole.as_ref());
                saved.push((n + 1, whole.state().unwrap(), gradients));
            }
        }
        assert!(!saved.is_empty(), "{id} could never save");
        // The first state, one in the second epoch, and the last but one.
        for pick in [0, saved.len() / 2, saved.len().saturating_sub(2)] {
            let (done, state, gradients) = &saved[pick];
            let copy = MethodState {
                tensors: state
                    .tensors
                    .iter()
                    .map(|(name, tensor)| (name.clone(), tensor.copy()))
                    .collect(),
                scalars: state.scalars.clone(),
            };
            let mut resumed = fresh(99);
            resumed.restore(&stored(copy)).unwrap();
            // A zero gradient and no gradient differ, though a few steps may not show it.
            assert_eq!(&with_gradient(resumed.as_ref()), gradients, "{id}");
            for n in *done..steps {
                step(resumed.as_mut(), &batches, n);
            }
            equal(id, whole.as_ref(), resumed.as_ref());
        }
    }
}

#[test]
fn saved_state_of_another_model_is_rejected() {
    let _alone = alone();
    let folder = encoder(0.0);
    for id in methods() {
        let hyper = small(id);
        let mut method = build(id, &hyper, folder.path(), 20, Faults::REFERENCE, 1);
        let mut state = method.state().unwrap();
        let name = state.tensors.keys().next().unwrap().clone();
        let one = tch::Tensor::zeros([1, 2, 3], (tch::Kind::Float, Device::Cpu));
        state.tensors.insert(name.clone(), one);
        assert!(method.restore(&state).is_err(), "{id}: another shape");
        state.tensors.remove(&name);
        assert!(method.restore(&state).is_err(), "{id}: `{name}` is missing");
    }
}

#[test]
fn corrected_methods_learn() {
    let _alone = alone();
    let (folder, all) = (encoder(0.0), samples(3));
    for id in methods() {
        let hyper = fast(id);
        let mut method = build(id, &hyper, folder.path(), 20, Faults::CORRECTED, 1);
        let batches = batches(&all, method.batch_size());
        for batch in &batches {
            method.prepare(batch).unwrap();
        }
        let before = validation_loss(method.as_ref(), &all);
        for n in 0..10 * method.passes() * batches.len() {
            step(method.as_mut(), &batches, n);
        }
        let after = validation_loss(method.as_ref(), &all);
        assert!(
            after < before,
            "{id}: the loss went from {before} to {after}"
        );
    }
}

#[test]
fn optimizations_preserve_results() {
    let _alone = alone();
    let (folder, all) = (encoder(0.0), samples(1));
    // Four consecutive samples shorter than the maximum, so there is padding to trim.
    let tokens = all.present.text.sum_dim_intlist(1i64, false, Kind::Int64);
    let short = |from: &i64| tokens.narrow(0, *from, 4).max().int64_value(&[]) < 8;
    let batch = support::slice(&all, (0..29).find(short).unwrap(), 4);
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-5 * b.abs().max(1.0);
    for id in methods() {
        let run = |optimizations: Optimizations| {
            let mut method = build_with(
                id,
                &fast(id),
                folder.path(),
                (optimizations, Precision::Float32),
            );
            method.prepare(&batch).unwrap();
            let prediction = method.predict(&batch, None).unwrap();
            let batches = [support::slice(&batch, 0, 4)];
            let losses = step(method.as_mut(), &batches, 0);
            (prediction, losses)
        };
        let (full, losses) = run(Optimizations::NONE);
        for optimizations in [
            Optimizations::ALL,
            Optimizations {
                trim_padding: false,
                ..Optimizations::ALL
            },
        ] {
            let (prediction, own) = run(optimizations);
            assert!(prediction.allclose(&full, 1e-5, 1e-5, false), "{id}");
            assert!(own.keys().eq(losses.keys()), "{id}");
            for (name, loss) in &own {
                assert!(close(*loss, losses[name]), "{id}: {name} {loss} {losses:?}");
            }
        }
    }
}

/// Cases that differ only in audio and vision share their text.
#[test]
fn cached_encoder_outputs_give_identical_predictions() {
    let _alone = alone();
    let (folder, all) = (encoder(0.0), samples(1));
    let mut silent = support::slice(&all, 0, all.len());
    silent.input.audio = silent.input.audio.zeros_like();
    let mut reordered = support::slice(&all, 0, all.len());
    reordered.input.text = reordered.input.text.flip([0]);
    for id in methods() {
        let method = build(id, &small(id), folder.path(), 20, Faults::REFERENCE, 1);
        let predict = |cache: Option<&EncoderCache>| {
            [&all, &silent, &reordered, &all].map(|batch| method.predict(batch, cache).unwrap())
        };
        let fresh = predict(None);
        let ignores_audio = fresh[0].equal(&fresh[1]);
        assert_eq!(ignores_audio, id == "text-only", "{id}");
        assert!(!fresh[0].equal(&fresh[2]), "{id} ignores text");
        let cache = EncoderCache::default();
        for (fresh, cached) in fresh.iter().zip(predict(Some(&cache))) {
            assert!(fresh.equal(&cached), "{id}");
        }
    }
}

#[test]
fn only_lnln_returns_features() {
    let _alone = alone();
    let (folder, all) = (encoder(0.0), samples(1));
    for id in methods() {
        let method = build(id, &small(id), folder.path(), 1, Faults::REFERENCE, 1);
        let (_, features) = method.predict_with_features(&all, None).unwrap();
        assert_eq!(features.is_some(), id == "lnln", "{id}");
    }
}

#[test]
fn unknown_hyper_parameter_is_rejected() {
    let _alone = alone();
    let folder = encoder(0.0);
    for id in methods() {
        let mut hyper = small(id);
        hyper["color"] = json!("blue");
        let built = builder(id).unwrap()(&halfheard_models::methods::Build {
            hyper: &hyper,
            dataset: "mosi",
            data: support::SHAPE,
            encoder: folder.path(),
            device: Device::Cpu,
            faults: Faults::REFERENCE,
            max_epochs: 1,
            optimizations: Optimizations::ALL,
            precision: Precision::Float32,
        });
        let error = built.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("color"), "{id}: {error}");
    }
}
