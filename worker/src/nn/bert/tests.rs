//! Loading, refusing, and leaving padding out.

use super::*;
use serde_json::{Value, json};
use tch::Device;

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
fn weights_load_with_and_without_prefix() {
    tch::manual_seed(1);
    for prefix in ["", "bert."] {
        let (folder, bert, _vs) = folder(&config(), prefix);
        let vs = nn::VarStore::new(Device::Cpu);
        let loaded = Bert::load(&vs.root(), folder.path()).unwrap();
        let (a, b) = (bert.forward(&text(), false), loaded.forward(&text(), false));
        assert!(a.equal(&b));
    }
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
    assert!(change("position_embedding_type", json!("relative_key")).contains("absolute"));
    assert!(change("num_attention_heads", json!(3)).contains("multiple"));
    assert!(change("num_hidden_layers", json!(3)).contains("no tensor `encoder.layer.2."));
    assert!(change("intermediate_size", json!(25)).contains("shape [24, 16]"));
    assert!(change("vocab_size", json!("many")).contains("no BERT configuration"));
    fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(refusal(folder.path()).contains("Hugging Face layout"));
}

#[test]
fn texts_beyond_the_tables_are_refused() {
    let (folder, bert, _vs) = folder(&config(), "");
    let check = |id, length| bert.config.check_texts(folder.path(), id, length);
    assert!(check(39, 12).is_ok());
    assert!(check(40, 12).unwrap_err().to_string().contains("40 tokens"));
    assert!(
        check(39, 13)
            .unwrap_err()
            .to_string()
            .contains("at most 12")
    );
}
