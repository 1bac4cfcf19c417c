//! Loading, rejecting and trimming.

use super::{Bert, BertConfig, Injection};
use crate::{
    context::{EncoderCache, ForwardContext, Optimizations},
    precision::Precision,
};
use serde_json::{Value, json};
use std::{fs, path::Path};
use tch::{Device, Kind, Tensor, nn};

const EVALUATION: ForwardContext<'static> = ForwardContext {
    train: false,
    cache: None,
    padding: None,
};

fn load(path: &nn::Path<'_>, folder: &Path) -> Bert {
    Bert::load(path, folder, Optimizations::ALL, Precision::Float32).unwrap()
}

/// A folder written by the published tools (`shared/tests/data/encoders/make.py`).
fn published(name: &str) -> std::path::PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/tests/data/encoders");
    data.join(name)
}

/// The states `[B, L, H]` that `transformers` computed, and their text `[B, 3, L]`.
fn computed(name: &str) -> (Tensor, Tensor) {
    let text = fs::read_to_string(published(name).join("states.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let integers = |key: &str| -> Tensor {
        let rows: Vec<Vec<i64>> = serde_json::from_value(all[key].clone()).unwrap();
        Tensor::from_slice2(&rows)
    };
    let (ids, mask) = (integers("ids"), integers("mask"));
    let states: Vec<Vec<Vec<f64>>> = serde_json::from_value(all["states"].clone()).unwrap();
    let samples: Vec<Tensor> = states
        .iter()
        .map(|rows| Tensor::from_slice2(rows))
        .collect();
    let states = Tensor::stack(&samples, 0).to_kind(Kind::Float);
    (states, Tensor::stack(&[&ids, &mask, &ids.zeros_like()], 1))
}

#[test]
fn outputs_match_transformers_for_bert_and_roberta() {
    for (name, padding) in [("bert", 0), ("roberta", 1)] {
        let (expected, text) = computed(name);
        let vs = nn::VarStore::new(Device::Cpu);
        let bert = load(&vs.root(), &published(name));
        let mask = text.select(1, 1).unsqueeze(2).to_kind(Kind::Float);
        let close = |states: &Tensor, expected: &Tensor, what: &str| {
            let apart = (states - expected).abs().max().double_value(&[]);
            assert!(apart < 1e-5, "{name}, {what}: {apart}");
        };
        // Some methods read the outputs at padded positions.
        close(
            &bert.forward_untrimmed(&text, EVALUATION),
            &expected,
            "whole",
        );
        close(
            &bert.forward(&text, EVALUATION),
            &(&expected * &mask),
            "packed",
        );
        // Feature files store 0 for padding in every vocabulary; only the mask marks it.
        let ids = text.select(1, 0);
        let padded = text.select(1, 1).eq(0);
        assert!(
            ids.masked_select(&padded)
                .eq(padding)
                .all()
                .int64_value(&[])
                == 1
        );
        let zeros = ids.masked_fill(&padded, 0);
        // RoBERTa ignores segments.
        let segments = if padding == 1 {
            zeros.ones_like()
        } else {
            zeros.zeros_like()
        };
        let filed = Tensor::stack(&[&zeros, &text.select(1, 1), &segments], 1);
        close(
            &bert.forward_untrimmed(&filed, EVALUATION),
            &expected,
            "as in a feature file",
        );
    }
}

#[test]
fn padding_rows_get_no_gradient() {
    let (_, text) = computed("roberta");
    let vs = nn::VarStore::new(Device::Cpu);
    let bert = load(&vs.root(), &published("roberta"));
    bert.forward_untrimmed(&text, EVALUATION)
        .pow_tensor_scalar(3)
        .sum(Kind::Float)
        .backward();
    for table in [&bert.embeddings.words.ws, &bert.embeddings.positions.ws] {
        let gradient = table
            .grad()
            .abs()
            .sum_dim_intlist(1_i64, false, Kind::Float);
        assert_eq!(gradient.double_value(&[1]), 0.0);
        assert!(gradient.double_value(&[2]) > 0.0);
    }
}

#[test]
fn all_published_formats_load_bit_identically() {
    let (_, text) = computed("bert");
    let states = |name: &str| {
        let vs = nn::VarStore::new(Device::Cpu);
        let bert = load(&vs.root(), &published(name));
        bert.forward(&text, EVALUATION)
    };
    let expected = states("bert");
    for form in [
        "bert-published",
        "bert-zip",
        "bert-legacy",
        "bert-shards",
        "bert-bin-shards",
        "bert-double",
    ] {
        assert!(states(form).equal(&expected), "{form}");
    }
    // Half precision is a different, close model.
    let half = states("bert-half");
    assert!(!half.equal(&expected) && half.allclose(&expected, 1e-2, 1e-2, false));
}

#[test]
fn encoder_with_infinite_weights_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(published("bert").join(file), folder.path().join(file)).unwrap();
    }
    let path = folder.path().join("model.safetensors");
    let mut content = fs::read(&path).unwrap();
    let end = content.len();
    content[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(&path, content).unwrap();
    let error = rejection(folder.path());
    assert!(
        error.contains("the text encoder") && error.contains("not finite (inf"),
        "{error}"
    );
}

fn config() -> Value {
    json!({
        "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 24, "max_position_embeddings": 12
    })
}

/// A folder with `config` and an encoder's initial weights, their names under `prefix`.
fn folder(config: &Value, prefix: &str) -> (tempfile::TempDir, Bert, nn::VarStore) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let vs = nn::VarStore::new(Device::Cpu);
    let bert = Bert::fresh(&vs.root(), BertConfig::read(folder.path()).unwrap());
    let weights: Vec<(String, Tensor)> = bert
        .named()
        .into_iter()
        .map(|(name, tensor)| (format!("{prefix}{name}"), tensor.detach()))
        .collect();
    Tensor::write_safetensors(&weights, folder.path().join("model.safetensors")).unwrap();
    (folder, bert, vs)
}

fn rejection(folder: &Path) -> String {
    let vs = nn::VarStore::new(Device::Cpu);
    Bert::load(&vs.root(), folder, Optimizations::ALL, Precision::Float32)
        .unwrap_err()
        .to_string()
}

fn text() -> Tensor {
    let ids = Tensor::from_slice(&[2i64, 7, 9, 3, 0, 0, 2, 5, 3, 0, 0, 0]).view([2, 6]);
    let mask = ids.ne(0).to_kind(Kind::Int64);
    Tensor::stack(&[&ids, &mask, &ids.zeros_like()], 1)
}

#[test]
fn trimming_padding_preserves_outputs_and_gradients() {
    tch::manual_seed(1);
    let (_folder, bert, _vs) = folder(&config(), "");
    let weights: Vec<&Tensor> = bert.named().into_iter().map(|(_, w)| w).collect();
    let same = |text: &Tensor| {
        let mask = text.select(1, 1).unsqueeze(2).to_kind(Kind::Float);
        let full = bert.forward_untrimmed(text, EVALUATION) * &mask;
        let packed = bert.forward(text, EVALUATION);
        // Zeros at padded positions.
        assert!(packed.allclose(&full, 1e-5, 1e-6, false));
        let gradients = |states: &Tensor| {
            let loss = states.pow_tensor_scalar(3).sum(Kind::Float);
            Tensor::run_backward(&[loss], &weights, false, false)
        };
        for (a, b) in gradients(&full).iter().zip(gradients(&packed)) {
            assert!(a.allclose(&b, 1e-4, 1e-5, false));
        }
    };
    let text = text();
    same(&text);
    // A hole in the mask must not shorten the text.
    let _ = text.get(0).get(1).narrow(0, 1, 2).fill_(0);
    same(&text);
    // A text that is all padding, in a batch with another.
    let _ = text.get(1).get(1).fill_(0);
    same(&text);
}

#[test]
fn injection_sees_texts_with_padding() {
    tch::manual_seed(1);
    let (_folder, mut bert, _vs) = folder(&config(), "");
    let text = text();
    let mask = text.select(1, 1).unsqueeze(2).to_kind(Kind::Float);
    let flip = |x: Tensor| {
        assert_eq!(x.size(), [2, 6, 16]);
        x.flip([2]) * &mask
    };
    let mut encoded = |optimizations: Optimizations, injection: Option<Injection<'_>>| {
        bert.optimizations = optimizations;
        let states = bert.encode(bert.embed(&text, false), &text, EVALUATION, injection);
        states * &mask
    };
    let full = encoded(Optimizations::NONE, Some((1, &flip)));
    let packed = encoded(Optimizations::ALL, Some((1, &flip)));
    assert!(packed.allclose(&full, 1e-5, 1e-6, false));
    assert!(!packed.allclose(&encoded(Optimizations::ALL, None), 1e-2, 1e-2, false));
}

#[test]
fn outputs_are_reused_only_with_a_cache_and_only_in_evaluation() {
    let (_folder, bert, _vs) = folder(&config(), "");
    let text = text();
    let reused = |context: ForwardContext<'_>| {
        tch::no_grad(|| {
            let [first, second] = [(); 2].map(|()| bert.forward_untrimmed(&text, context));
            first.data_ptr() == second.data_ptr()
        })
    };
    let cache = EncoderCache::default();
    assert!(reused(ForwardContext::evaluation(Some(&cache))));
    assert!(!reused(ForwardContext::evaluation(None)));
    assert!(!reused(ForwardContext::TRAIN));
    let train = ForwardContext {
        cache: Some(&cache),
        ..ForwardContext::TRAIN
    };
    assert!(!reused(train));
}

#[test]
fn invalid_encoder_folder_is_rejected_with_a_reason() {
    let (folder, ..) = folder(&config(), "");
    let change = |key: &str, value: Value| {
        let mut config = config();
        config[key] = value;
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        rejection(folder.path())
    };
    assert!(change("hidden_act", json!("silu")).contains("`silu`"));
    assert!(change("num_hidden_layers", json!(3)).contains("no tensor `encoder.layer.2."));
    fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(rejection(folder.path()).contains("has no config.json"));
}
