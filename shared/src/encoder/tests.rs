use super::{reader::canonical, *};
use crate::hash::Hash;
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

mod tokens;

/// Folders that the field's own programs wrote (`shared/tests/data/encoders/make.py`).
fn written(name: &str) -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/encoders");
    data.join(name)
}

/// A copy of such a folder, to be changed.
fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(written(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

/// The bits of all weights.
fn weights(folder: &Path) -> Vec<(String, Vec<u32>)> {
    let encoder = Encoder::open(folder).unwrap();
    let names: Vec<String> = encoder.config().tensors().map(|(name, _)| name).collect();
    let bits = |name: &str| {
        let values = encoder.tensor(name).unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    names
        .into_iter()
        .map(|name| (name.clone(), bits(&name)))
        .collect()
}

fn refusal(folder: &Path) -> String {
    Encoder::open(folder).unwrap_err().to_string()
}

fn config(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn all_weight_formats_give_equal_tensors() {
    let expected = weights(&written("bert"));
    assert_eq!(expected.len(), 3 + 2 + 2 * 16);
    for form in [
        "bert-published",
        "bert-zip",
        "bert-legacy",
        "bert-shards",
        "bert-bin-shards",
        "bert-double",
    ] {
        assert_eq!(weights(&written(form)), expected, "{form}");
    }
}

#[test]
fn low_precision_weights_convert_like_pytorch() {
    for form in ["bert-half", "bert-bfloat"] {
        let content = fs::read(written(form).join("expected.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&content).unwrap();
        for (name, bits) in weights(&written(form)) {
            let tensor = expected.tensor(&name).unwrap();
            let expected: Vec<u32> = tensor
                .data()
                .chunks_exact(4)
                .map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap()))
                .collect();
            assert_eq!(bits, expected, "{form}: {name}");
        }
    }
}

#[test]
fn hub_cache_links_are_followed_and_safetensors_preferred() {
    let cache = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshots/1"));
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    for (i, name) in ["config.json", "model.safetensors"].iter().enumerate() {
        fs::copy(written("bert").join(name), blobs.join(i.to_string())).unwrap();
        std::os::unix::fs::symlink(format!("../../blobs/{i}"), snapshot.join(name)).unwrap();
    }
    fs::write(snapshot.join("pytorch_model.bin"), "not looked at").unwrap();
    assert_eq!(weights(&snapshot), weights(&written("bert")));
    fs::remove_file(blobs.join("1")).unwrap();
    fs::remove_file(snapshot.join("pytorch_model.bin")).unwrap();
    assert!(refusal(&snapshot).contains("is a link to a file that is not there"));
}

#[test]
fn prefixes_are_stripped_and_collisions_rejected() {
    for (name, expected) in [
        (
            "roberta.embeddings.LayerNorm.gamma",
            Some("embeddings.LayerNorm.weight"),
        ),
        (
            "model.bert.encoder.layer.0.output.LayerNorm.beta",
            Some("encoder.layer.0.output.LayerNorm.bias"),
        ),
        (
            "model.encoder.layer.3.output.dense.bias",
            Some("encoder.layer.3.output.dense.bias"),
        ),
        ("cls.predictions.transform.LayerNorm.gamma", None),
        ("lm_head.dense.weight", None),
        ("bert.pooler.dense.weight", None),
        ("distilbert.embeddings.word_embeddings.weight", None),
    ] {
        assert_eq!(canonical(name).as_deref(), expected, "{name}");
    }
    let folder = copy("bert");
    let content = fs::read(folder.path().join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&content).unwrap();
    let mut twice: Vec<_> = tensors.tensors().into_iter().collect();
    let (name, view) = twice[0].clone();
    twice.push((format!("bert.{name}"), view));
    fs::write(
        folder.path().join("model.safetensors"),
        safetensors::serialize(twice, None).unwrap(),
    )
    .unwrap();
    assert!(refusal(folder.path()).contains("two tensors for `"));
}

#[test]
fn encoder_identity_covers_all_files() {
    let hash = |text: &str| Hash::of(text.as_bytes());
    let one = [("model.safetensors".to_owned(), hash("a"))];
    assert_eq!(identity(&one), hash("a"), "of one file its own");
    let two = vec![
        ("a.bin".to_owned(), hash("a")),
        ("b.bin".to_owned(), hash("b")),
    ];
    let known = identity(&two);
    assert_eq!(read_list(&write_list(&two), &known).unwrap(), two);
    let mut other = two.clone();
    other[1].1 = hash("c");
    assert_ne!(identity(&other), known);
    assert!(read_list(&write_list(&other), &known).is_err());
    // A name that leads out of the folder is refused, whatever the hash.
    let out = vec![
        ("../x".to_owned(), hash("a")),
        ("b.bin".to_owned(), hash("b")),
    ];
    let error = read_list(&write_list(&out), &identity(&out)).unwrap_err();
    assert!(error.contains("same folder"), "{error}");
    assert!(read_list(b"\xff", &known).is_err());
}

#[test]
fn weight_index_cannot_leave_its_folder() {
    let folder = copy("bert-shards");
    let path = folder.path().join("model.safetensors.index.json");
    let index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let name = "embeddings.word_embeddings.weight";
    let with = |file: Value| {
        let mut index = index.clone();
        index["weight_map"][name] = file;
        fs::write(&path, index.to_string()).unwrap();
        refusal(folder.path())
    };
    for out in [
        "../bert/model.safetensors",
        "/etc/x.safetensors",
        ".x.safetensors",
        "x.txt",
        "",
    ] {
        assert!(
            with(json!(out)).contains("in the same folder is expected"),
            "{out}"
        );
    }
    assert!(with(json!("gone.safetensors")).contains("gone.safetensors, which is not there"));
    assert!(with(json!(7)).contains("is not a weight index"));
    // In another file than the index says.
    let mut swapped = index.clone();
    let bias = "encoder.layer.0.output.dense.bias";
    assert_ne!(index["weight_map"][bias], index["weight_map"][name]);
    swapped["weight_map"][bias] = index["weight_map"][name].clone();
    fs::write(&path, swapped.to_string()).unwrap();
    assert!(refusal(folder.path()).contains("does not say that"));
    fs::write(&path, "{\"weight_map\": {}}").unwrap();
    assert!(refusal(folder.path()).contains("names 0 files"));
    fs::write(&path, vec![b' '; 17 << 20]).unwrap();
    assert!(refusal(folder.path()).contains("more than"));
}

#[test]
fn unsupported_configurations_are_rejected() {
    for (key, value, says) in [
        ("model_type", json!("electra"), "it is a `electra`"),
        (
            "hidden_act",
            json!("gelu_new"),
            "hidden_act is `gelu_new`; only `gelu`",
        ),
        (
            "position_embedding_type",
            json!("relative_key"),
            "only `absolute`",
        ),
        (
            "num_attention_heads",
            json!(3),
            "not a multiple of num_attention_heads 3",
        ),
        ("num_attention_heads", json!(0), "num_attention_heads is 0"),
        (
            "vocab_size",
            json!("many"),
            "is not an encoder configuration",
        ),
        ("vocab_size", json!(-1), "vocab_size is -1"),
        ("hidden_size", json!(i64::MAX), "hidden_size is"),
        (
            "intermediate_size",
            Value::Null,
            "says no intermediate_size",
        ),
        (
            "intermediate_size",
            json!(13),
            "has shape [12, 8], config.json asks for [13, 8]",
        ),
        (
            "num_hidden_layers",
            json!(3),
            "has no tensor `encoder.layer.2.",
        ),
        (
            "num_hidden_layers",
            json!(1),
            "more layers (`encoder.layer.1.",
        ),
        ("layer_norm_eps", json!(-1.0), "layer_norm_eps is -1"),
        (
            "hidden_dropout_prob",
            json!(1.5),
            "hidden_dropout_prob is 1.5",
        ),
        ("pad_token_id", json!(512), "pad_token_id is 512"),
        ("is_decoder", json!(true), "is_decoder is true"),
    ] {
        let folder = copy("bert");
        config(folder.path(), |config| config[key] = value);
        let error = refusal(folder.path());
        assert!(error.contains(says), "{key}: {error}");
        assert!(
            error.contains(&folder.path().display().to_string()),
            "{error}"
        );
    }
}

#[test]
fn roberta_is_not_mistaken_for_bert() {
    let folder = copy("roberta");
    assert_eq!(Config::read(folder.path()).unwrap().longest(), 16);
    assert!(Encoder::open(folder.path()).is_ok());
    // Its weights tell it even where the configuration says otherwise, or nothing.
    config(folder.path(), |config| {
        config["model_type"] = json!("bert");
        config["architectures"] = Value::Null;
    });
    let error = refusal(folder.path());
    assert!(error.contains("but its weights are a RoBERTa's"), "{error}");
    config(folder.path(), |config| config["model_type"] = Value::Null);
    let error = refusal(folder.path());
    assert!(
        error.contains("says no model_type, but its weights"),
        "{error}"
    );
    config(folder.path(), |config| {
        config["architectures"] = json!(["RobertaForMaskedLM"])
    });
    let encoder = Encoder::open(folder.path()).unwrap();
    assert_eq!(encoder.config().architecture, Architecture::Roberta);
    config(folder.path(), |config| config["model_type"] = json!("bert"));
    assert!(refusal(folder.path()).contains("contradicts itself"));
    // Without prefix and head only the configuration can tell it.
    let content = fs::read(folder.path().join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&content).unwrap();
    let bare = tensors
        .tensors()
        .into_iter()
        .filter_map(|(name, view)| Some((name.strip_prefix("roberta.")?.to_owned(), view)));
    let bare = safetensors::serialize(bare, None).unwrap();
    fs::write(folder.path().join("model.safetensors"), bare).unwrap();
    config(folder.path(), |config| {
        config["model_type"] = Value::Null;
        config["architectures"] = Value::Null;
    });
    let error = refusal(folder.path());
    assert!(error.contains("is a RoBERTa's (pad_token_id 1"), "{error}");
    config(folder.path(), |config| {
        config["model_type"] = json!("xlm-roberta")
    });
    assert!(Encoder::open(folder.path()).is_ok());
    // And the other way round.
    let folder = copy("bert-published");
    config(folder.path(), |config| {
        config["model_type"] = json!("roberta");
        config["architectures"] = Value::Null;
    });
    let error = refusal(folder.path());
    assert!(error.contains("but its weights are a BERT's"), "{error}");
}

/// A pickle of `{NAME: os.system("x")}`, as a `data.pkl`, in a zip as `torch.save` writes it.
fn hostile(pickle: &[u8]) -> Vec<u8> {
    let mut zip = Vec::new();
    let name = b"m/data.pkl";
    let size = (pickle.len() as u32).to_le_bytes();
    let length = (name.len() as u16).to_le_bytes();
    zip.extend(b"PK\x03\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    zip.extend([size, size].concat());
    zip.extend([length, [0, 0]].concat());
    zip.extend(name);
    zip.extend(pickle);
    let start = zip.len() as u32;
    zip.extend(b"PK\x01\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    zip.extend([size, size].concat());
    zip.extend([length, [0, 0], [0, 0], [0, 0], [0, 0], [0, 0], [0, 0]].concat());
    zip.extend(0_u32.to_le_bytes());
    zip.extend(name);
    let directory = zip.len() as u32 - start;
    zip.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    zip.extend([directory.to_le_bytes(), start.to_le_bytes()].concat());
    zip.extend([0, 0]);
    zip
}

#[test]
fn only_tensors_are_read_from_torch_pickle() {
    let folder = copy("bert");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let with = |content: &[u8]| {
        fs::write(folder.path().join("pytorch_model.bin"), content).unwrap();
        refusal(folder.path())
    };
    let run = b"}X\x01\0\0\0acos\nsystem\nX\x0a\0\0\0touch gone\x85Rs.";
    let error = with(&hostile(run));
    assert!(error.contains("an object of `os.system`"), "{error}");
    assert!(error.contains("nothing of it was executed"), "{error}");
    assert!(error.contains("save_pretrained"), "how to convert: {error}");
    let error = with(&hostile(b"cos\nsystem\nX\x01\0\0\0x\x85R."));
    assert!(error.contains("the weights alone are expected"), "{error}");
    let error = with(&hostile(b"}X\x0a\0\0\0state_dict}s."));
    assert!(error.contains("trainer's checkpoint"), "{error}");
    let error = with(&hostile(b"}X\x01\0\0\0acos\nsystem\ns."));
    assert!(error.contains("`os.system` among its weights"), "{error}");
    // A tensor of a storage that is not there, of a size beyond it, with numbers that are shared.
    let tensor = |size: &str, stride: &str| {
        let mut pickle = b"}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQK\0".to_vec();
        pickle.extend(format!("(I{size}\nt(I{stride}\nt").into_bytes());
        pickle.extend(b"\x89NtRs.");
        pickle
    };
    assert!(with(&hostile(&tensor("4", "1"))).contains("lacks the numbers of `a`"));
    for (size, stride) in [("-1", "1"), ("4", "-1"), ("4", "9999999999999999999999")] {
        assert!(
            with(&hostile(&tensor(size, stride))).contains("makes no sense"),
            "{size} {stride}"
        );
    }
    for (shape, strides) in [
        (vec![4], vec![0]),
        (vec![2], vec![4]),
        (vec![usize::MAX, 2], vec![2, 1]),
    ] {
        let beyond = torch::lies_beyond(&shape, &strides, 3 * 4);
        assert!(beyond, "{shape:?} {strides:?}");
    }
    assert!(!torch::lies_beyond(&[3], &[1], 3 * 4));
    // What is none of the files that it could be.
    assert!(with(b"\x80\x02}.").contains("none of the files that `torch.save` writes"));
    assert!(with(b"PK\x03\x04").contains("cut off"));
    assert!(with(&[&hostile(run)[..60], &[0; 30]].concat()).contains("cut off"));
    assert!(with(b"<!DOCTYPE html><html>").contains("a page of HTML"));
}

#[test]
fn hostile_safetensors_header_is_rejected() {
    let folder = copy("bert");
    let path = folder.path().join("model.safetensors");
    let with = |header: &str, data: usize| {
        let mut content = (header.len() as u64).to_le_bytes().to_vec();
        content.extend(header.as_bytes());
        content.extend(vec![0; data]);
        fs::write(&path, content).unwrap();
        refusal(folder.path())
    };
    let one = |shape: &str, offsets: &str| {
        format!(
            r#"{{"embeddings.word_embeddings.weight":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#
        )
    };
    let error = with(&one("[2,2]", "[0,16]"), 12);
    assert!(error.contains("is cut off: it has"), "{error}");
    assert!(with(&one("[2,2]", "[0,16]"), 20).contains("is too long"));
    assert!(with(&one("[2,2]", "[0,8]"), 8).contains("not a safetensors file"));
    assert!(with(&one("[2,2]", "[16,0]"), 16).contains("not a safetensors file"));
    assert!(
        with(&one("[18446744073709551615,2]", "[0,16]"), 16).contains("not a safetensors file")
    );
    let endless = one("[2,2]", "[0,18446744073709551615]");
    assert!(with(&endless, 16).contains("not a safetensors file"));
    assert!(with("{", 0).contains("not a safetensors file"));
    for size in [0, 1, u64::MAX, 1 << 40] {
        fs::write(&path, size.to_le_bytes()).unwrap();
        assert!(refusal(folder.path()).contains("does not begin with the size of a header"));
    }
    fs::write(&path, 1000_u64.to_le_bytes()).unwrap();
    assert!(refusal(folder.path()).contains("its header alone 1008"));
    fs::write(&path, "PK\x03\x04 and more").unwrap();
    assert!(refusal(folder.path()).contains("name it pytorch_model.bin"));
    fs::write(&path, "").unwrap();
    assert!(refusal(folder.path()).contains("is empty"));
}

#[test]
fn non_finite_weights_are_named() {
    let folder = copy("bert");
    let path = folder.path().join("model.safetensors");
    let mut content = fs::read(&path).unwrap();
    let end = content.len();
    content[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, content).unwrap();
    let encoder = Encoder::open(folder.path()).unwrap();
    let error = encoder.check_finite().unwrap_err().to_string();
    assert!(error.contains("not finite (NaN at position"), "{error}");
}
