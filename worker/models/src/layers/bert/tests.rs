//! Loading, refusing, and leaving padding out.

use super::*;
use serde_json::{Value, json};
use std::fs;
use tch::Device;

/// A folder that the field's own programs wrote (`shared/tests/data/encoders/make.py`).
fn published(name: &str) -> std::path::PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/tests/data/encoders");
    data.join(name)
}

/// The states `[B, L, H]` that transformers computed, and the text `[B, 3, L]` they are of.
fn computed(name: &str) -> (Tensor, Tensor) {
    let text = fs::read_to_string(published(name).join("states.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let whole = |key: &str| -> Tensor {
        let rows: Vec<Vec<i64>> = serde_json::from_value(all[key].clone()).unwrap();
        Tensor::from_slice2(&rows)
    };
    let (ids, mask) = (whole("ids"), whole("mask"));
    let states: Vec<Vec<Vec<f64>>> = serde_json::from_value(all["states"].clone()).unwrap();
    let samples: Vec<Tensor> = states
        .iter()
        .map(|rows| Tensor::from_slice2(rows))
        .collect();
    let states = Tensor::stack(&samples, 0).to_kind(Kind::Float);
    (states, Tensor::stack(&[&ids, &mask, &ids.zeros_like()], 1))
}

#[test]
fn bert_and_roberta_compute_what_transformers_computes() {
    for (name, padding) in [("bert", 0), ("roberta", 1)] {
        let (expected, text) = computed(name);
        let vs = nn::VarStore::new(Device::Cpu);
        let bert = Bert::load(&vs.root(), &published(name)).unwrap();
        let mask = text.select(1, 1).unsqueeze(2).to_kind(Kind::Float);
        let close = |states: &Tensor, expected: &Tensor, what: &str| {
            let apart = (states - expected).abs().max().double_value(&[]);
            assert!(apart < 1e-5, "{name}, {what}: {apart}");
        };
        // Padding's outputs are part of what some methods read.
        close(&bert.forward_untrimmed(&text, false), &expected, "whole");
        close(&bert.forward(&text, false), &(&expected * &mask), "packed");
        // Feature files have 0 at padding, whatever the vocabulary: the mask says what is padding.
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
        // Nor are kinds of segment looked at where there are none.
        let segments = if padding == 1 {
            zeros.ones_like()
        } else {
            zeros.zeros_like()
        };
        let filed = Tensor::stack(&[&zeros, &text.select(1, 1), &segments], 1);
        close(
            &bert.forward_untrimmed(&filed, false),
            &expected,
            "as in a feature file",
        );
    }
}

#[test]
fn rows_that_padding_has_take_no_gradient() {
    let (_, text) = computed("roberta");
    let vs = nn::VarStore::new(Device::Cpu);
    let bert = Bert::load(&vs.root(), &published("roberta")).unwrap();
    bert.forward_untrimmed(&text, false)
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
fn every_published_form_loads_to_the_same_bits() {
    let (_, text) = computed("bert");
    let states = |name: &str| {
        let vs = nn::VarStore::new(Device::Cpu);
        let bert = Bert::load(&vs.root(), &published(name)).unwrap();
        bert.forward(&text, false)
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
    // Halves are another model, near it.
    let half = states("bert-half");
    assert!(!half.equal(&expected) && half.allclose(&expected, 1e-2, 1e-2, false));
}

#[test]
fn an_encoder_that_broke_in_its_training_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(published("bert").join(file), folder.path().join(file)).unwrap();
    }
    let path = folder.path().join("model.safetensors");
    let mut content = fs::read(&path).unwrap();
    let end = content.len();
    content[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(&path, content).unwrap();
    let said = refusal(folder.path());
    assert!(
        said.contains("the text encoder") && said.contains("not finite (inf"),
        "{said}"
    );
}

fn config() -> Value {
    json!({
        "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 24, "max_position_embeddings": 12
    })
}

/// A folder with `config` and the fresh weights of an encoder, under `prefix`.
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

fn refusal(folder: &Path) -> String {
    let vs = nn::VarStore::new(Device::Cpu);
    Bert::load(&vs.root(), folder).unwrap_err().to_string()
}

fn text() -> Tensor {
    let ids = Tensor::from_slice(&[2i64, 7, 9, 3, 0, 0, 2, 5, 3, 0, 0, 0]).view([2, 6]);
    let mask = ids.ne(0).to_kind(Kind::Int64);
    Tensor::stack(&[&ids, &mask, &ids.zeros_like()], 1)
}

#[test]
fn what_is_left_out_changes_nothing_where_there_is_text() {
    tch::manual_seed(1);
    let (_folder, bert, _vs) = folder(&config(), "");
    let weights: Vec<&Tensor> = bert.named().into_iter().map(|(_, w)| w).collect();
    let same = |text: &Tensor| {
        let mask = text.select(1, 1).unsqueeze(2).to_kind(Kind::Float);
        let whole = bert.forward_untrimmed(text, false) * &mask;
        let packed = bert.forward(text, false);
        // Nothing but zeros where there is none.
        assert!(packed.allclose(&whole, 1e-5, 1e-6, false));
        let slopes = |states: &Tensor| {
            let loss = states.pow_tensor_scalar(3).sum(Kind::Float);
            Tensor::run_backward(&[loss], &weights, false, false)
        };
        for (a, b) in slopes(&whole).iter().zip(slopes(&packed)) {
            assert!(a.allclose(&b, 1e-4, 1e-5, false));
        }
    };
    let text = text();
    same(&text);
    // A hole in the mask must not shorten the text.
    let _ = text.get(0).get(1).narrow(0, 1, 2).fill_(0);
    same(&text);
    // A text of nothing but padding beside another.
    let _ = text.get(1).get(1).fill_(0);
    same(&text);
}

#[test]
fn what_is_done_between_layers_sees_whole_texts() {
    tch::manual_seed(1);
    let (_folder, bert, _vs) = folder(&config(), "");
    let text = text();
    let mask = text.select(1, 1).unsqueeze(2).to_kind(Kind::Float);
    let turn = |x: Tensor| {
        assert_eq!(x.size(), [2, 6, 16]);
        x.flip([2]) * &mask
    };
    let encoded = |savings: Savings, injection: Option<Injection<'_>>| {
        savings.apply();
        let states = bert.encode(bert.embed(&text, false), &text, false, injection);
        Savings::ALL.apply();
        states * &mask
    };
    let whole = encoded(Savings::NONE, Some((1, &turn)));
    let packed = encoded(Savings::ALL, Some((1, &turn)));
    assert!(packed.allclose(&whole, 1e-5, 1e-6, false));
    assert!(!packed.allclose(&encoded(Savings::ALL, None), 1e-2, 1e-2, false));
}

#[test]
fn what_cannot_be_loaded_is_refused_with_a_reason() {
    let (folder, ..) = folder(&config(), "");
    let change = |key: &str, value: Value| {
        let mut config = config();
        config[key] = value;
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        refusal(folder.path())
    };
    assert!(change("hidden_act", json!("silu")).contains("`silu`"));
    assert!(change("num_hidden_layers", json!(3)).contains("no tensor `encoder.layer.2."));
    fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(refusal(folder.path()).contains("has no config.json"));
}
