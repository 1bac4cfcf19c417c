//! Every method against what its reference implementation computed: the recordings under
//! `$HALFHEARD_SHARED/parity` hold weights, inputs, and the prediction of every forward call through
//! several epochs of the reference's own trainer. Shapes, sizes and hyper-parameters are read from
//! the recording; a method's own file only says how its hyper-parameters are called there.

#![expect(
    clippy::unwrap_used,
    reason = "a test: what is missing in a recording ends it"
)]

use halfheard_models::{
    context::Optimizations,
    methods::{Batch, Build, DataShape, Inputs, Method, PerModality, Position, builder},
};
use halfheard_shared::wire::Fidelity;
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor};

fn shared() -> PathBuf {
    std::env::var_os("HALFHEARD_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    )
}

/// A recording: its json, and its tensors by name.
struct Recording {
    meta: Value,
    tensors: BTreeMap<String, Tensor>,
}

impl Recording {
    /// `None`, and a line about it, where there is none.
    fn open(name: &str) -> Option<Self> {
        let folder = shared().join("parity");
        let file = folder.join(format!("{name}.safetensors"));
        if !file.exists() {
            println!(
                "skipped: no recording of {name}; set HALFHEARD_SHARED to the folder that holds \
                 parity/{name}.safetensors"
            );
            return None;
        }
        let meta = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        Some(Self {
            meta: serde_json::from_str(&meta).unwrap(),
            tensors: Tensor::read_safetensors(file)
                .unwrap()
                .into_iter()
                .collect(),
        })
    }

    fn get(&self, name: &str) -> &Tensor {
        self.tensors
            .get(name)
            .unwrap_or_else(|| panic!("the recording has no `{name}`"))
    }

    fn try_get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// An encoder's folder with the recorded configuration and weights.
    fn write_encoder(&self, folder: &Path) {
        let mut config = self.meta["bert"].clone();
        config["hidden_dropout_prob"] = json!(0.0);
        config["attention_probs_dropout_prob"] = json!(0.0);
        config["hidden_act"] = json!("gelu");
        fs::write(folder.join("config.json"), config.to_string()).unwrap();
        // The encoder's weights end in the names that Hugging Face gives them.
        let weights: Vec<(String, Tensor)> = self
            .tensors
            .iter()
            .filter(|(name, _)| name.starts_with("weights."))
            .filter_map(|(name, tensor)| {
                let at = ["embeddings.", "encoder.layer.", "pooler."]
                    .iter()
                    .filter_map(|part| name.find(part))
                    .min()?;
                Some((name[at..].to_owned(), tensor.shallow_clone()))
            })
            .collect();
        Tensor::write_safetensors(&weights, folder.join("model.safetensors")).unwrap();
    }

    fn shape(&self) -> DataShape {
        let text = self.get("train.text").size();
        let audio = self.get("train.audio").size();
        let vision = self.get("train.vision").size();
        DataShape {
            text_length: text[2],
            audio_length: audio[1],
            audio_dim: audio[2],
            vision_length: vision[1],
            vision_dim: vision[2],
            train_samples: text[0],
            unimodal_labels: false,
        }
    }

    /// The samples `from..from + count` of `split`.
    fn batch(&self, split: &str, erased: bool, from: i64, count: i64) -> Batch {
        let rows = |name: &str| self.get(&format!("{split}.{name}")).narrow(0, from, count);
        let inputs = |suffix: &str| Inputs {
            text: rows(&format!("text{suffix}")).to_kind(Kind::Int64),
            audio: rows(&format!("audio{suffix}")),
            vision: rows(&format!("vision{suffix}")),
            audio_lengths: rows("audio_lengths"),
            vision_lengths: rows("vision_lengths"),
        };
        let text_mask = rows("text").select(1, 1);
        let rate = self
            .try_get(&format!("{split}.missing_rate_l"))
            .map_or_else(
                || Tensor::zeros([count], (Kind::Float, Device::Cpu)),
                |rate| rate.narrow(0, from, count).reshape([count]),
            );
        Batch {
            index: Tensor::arange_start(from, from + count, (Kind::Int64, Device::Cpu)),
            input: inputs(if erased { "_m" } else { "" }),
            complete: Some(inputs("")),
            kept: PerModality {
                text: rows("text_missing_mask"),
                audio: rows("audio_missing_mask"),
                vision: rows("vision_missing_mask"),
            },
            present: PerModality {
                text: text_mask,
                audio: rows("audio_mask"),
                vision: rows("vision_mask"),
            },
            missing_rate: PerModality {
                text: rate.shallow_clone(),
                audio: rate.shallow_clone(),
                vision: rate,
            },
            labels: rows("y"),
            unimodal_labels: None,
        }
    }

    fn batches(&self, split: &str, erased: bool, size: i64) -> Vec<Batch> {
        let samples = self.get(&format!("{split}.y")).size()[0];
        (0..samples)
            .step_by(size as usize)
            .map(|from| self.batch(split, erased, from, size.min(samples - from)))
            .collect()
    }
}

/// How a method's recording stands to this project's names.
struct Case {
    /// The recording's name.
    recording: &'static str,
    /// The method's id.
    method: &'static str,
    /// Whether the recorded trainer fed erased inputs.
    erased: bool,
    /// Whether the test split follows the validation split in each epoch, rather than once at the
    /// end.
    test_each_epoch: bool,
    /// The recorded hyper-parameters under this project's names.
    hyper: fn(&Value) -> Value,
}

/// Takes `names` over as they are, and adds the reserved ones.
fn take(recorded: &Value, names: &[&str]) -> Map<String, Value> {
    let mut hyper = Map::new();
    for name in names {
        let value = recorded.get(*name);
        let value = value.unwrap_or_else(|| panic!("the recording has no hyper-parameter {name}"));
        hyper.insert((*name).to_owned(), value.clone());
    }
    hyper.insert("max_epochs".to_owned(), json!(1000));
    hyper.insert("early_stop".to_owned(), json!(0));
    hyper
}

/// The largest difference from the recorded prediction of one call.
fn difference(recording: &Recording, call: usize, prediction: &Tensor) -> f64 {
    let expected = recording.get(&format!("call.{call:03}"));
    assert_eq!(
        prediction.numel(),
        expected.numel(),
        "call {call} predicts another number of samples"
    );
    (prediction.reshape([-1]) - expected.reshape([-1]))
        .abs()
        .max()
        .double_value(&[])
}

/// The parts of the loss, where the recording has them, in the order that its json names.
fn compare_losses(
    meta: &Value,
    recorded: &Tensor,
    losses: &BTreeMap<&'static str, f64>,
    allowed: f64,
) {
    let names = meta["hyper"]["losses"].as_str().unwrap();
    for (i, name) in names.split(',').enumerate() {
        let expected = recorded.double_value(&[i as i64]);
        let gap = (losses[name] - expected).abs();
        assert!(
            gap <= allowed * expected.abs().max(1.0),
            "{name} is {}, recorded {expected}",
            losses[name]
        );
    }
}

fn load_weights(recording: &Recording, method: &dyn Method) {
    let mut variables: BTreeMap<String, Tensor> = method.vars().variables().into_iter().collect();
    let _guard = tch::no_grad_guard();
    for (name, tensor) in &recording.tensors {
        let Some(name) = name.strip_prefix("weights.") else {
            continue;
        };
        if name.ends_with("position_ids") {
            continue;
        }
        let mut variable = variables
            .remove(name)
            .unwrap_or_else(|| panic!("the method has no weight `{name}`"));
        assert_eq!(variable.size(), tensor.size(), "shape of `{name}`");
        variable.copy_(tensor);
    }
    assert!(
        variables.is_empty(),
        "weights that the reference does not have: {:?}",
        variables.keys().collect::<Vec<_>>()
    );
}

fn check(case: &Case) {
    let Some(recording) = Recording::open(case.recording) else {
        return;
    };
    let tolerances = fs::read_to_string(shared().join("parity/tolerances.json")).unwrap();
    let tolerances: Value = serde_json::from_str(&tolerances).unwrap();
    let limit = |name: &str| tolerances[case.recording][name].as_f64().unwrap();
    let encoder = tempfile::tempdir().unwrap();
    recording.write_encoder(encoder.path());
    let mut hyper = (case.hyper)(&recording.meta["hyper"]);
    hyper["batch_size"] = recording.meta["batch_size"].clone();
    let epochs = recording.meta["epochs"].as_u64().unwrap() as u32;
    let max_epochs = recording.meta["hyper"]["n_epochs"]
        .as_u64()
        .or_else(|| recording.meta["hyper"]["max_epochs"].as_u64())
        .unwrap_or(u64::from(epochs)) as u32;
    halfheard_models::numerics::initialize(halfheard_models::numerics::Numerics::Machine).unwrap();
    tch::set_num_threads(1);
    tch::manual_seed(1);
    // Whole tensors, one at a time, as the reference computes them, so that sums are rounded alike:
    // what is saved elsewhere changes no result by more, which tests/methods holds.
    let mut method = builder(case.method).unwrap()(&Build {
        hyper: &hyper,
        dataset: recording.meta["hyper"]["dataset_name"]
            .as_str()
            .unwrap_or("mosi"),
        data: recording.shape(),
        encoder: encoder.path(),
        device: Device::Cpu,
        fidelity: Fidelity::Reference,
        max_epochs,
        optimizations: Optimizations::NONE,
    })
    .unwrap();
    load_weights(&recording, method.as_ref());

    let size = recording.meta["batch_size"].as_i64().unwrap();
    let train = recording.batches("train", case.erased, size);
    let kinds: Vec<&str> = recording.meta["calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|k| k.as_str().unwrap())
        .collect();
    let mut call = 0;
    let mut worst = 0.0f64;
    let mut compare = |kind: &str, prediction: &Tensor| {
        assert_eq!(kinds[call], kind, "kind of call {call}");
        let gap = difference(&recording, call, prediction);
        let allowed = limit(if call == 0 {
            "first_call"
        } else {
            "every_call"
        });
        assert!(
            gap <= allowed,
            "{}: call {call} ({kind}) differs by {gap:e}, allowed {allowed:e}",
            case.method
        );
        worst = worst.max(gap);
        call += 1;
    };
    for batch in &train {
        method.prepare(batch).unwrap();
    }
    let steps = train.len();
    let validates = recording.meta["hyper"]["do_validation"]
        .as_bool()
        .unwrap_or(true);
    let mut training_step = 0;
    for epoch in 1..=epochs {
        for pass in 0..method.passes() {
            let at = |step| Position {
                epoch,
                pass,
                step,
                steps,
            };
            method.begin_pass(at(0)).unwrap();
            let taken = method.steps_of_pass(pass, steps);
            for (step, batch) in train.iter().take(taken).enumerate() {
                let outcome = method.train_step(at(step), batch).unwrap();
                if let Some(recorded) = recording.try_get("losses") {
                    compare_losses(
                        &recording.meta,
                        &recorded.get(training_step),
                        &outcome.losses,
                        limit("every_call").max(1e-4),
                    );
                    training_step += 1;
                }
                compare("train", &outcome.prediction);
            }
            method.end_pass(at(taken)).unwrap();
        }
        let validation = if validates {
            recording.batches("valid", case.erased, size)
        } else {
            Vec::new()
        };
        let mut loss = 0.0;
        for batch in &validation {
            let prediction = method.predict(batch, None).unwrap();
            compare("eval", &prediction);
            loss += method.validation_loss(&prediction, &batch.labels);
        }
        // The recorded schedules go by the mean over batches, however small the last, to four digits.
        let loss = (loss / validation.len().max(1) as f64 * 1e4).round() / 1e4;
        if case.test_each_epoch {
            for batch in &recording.batches("test", case.erased, size) {
                compare("eval", &method.predict(batch, None).unwrap());
            }
        }
        method.end_epoch(epoch, loss).unwrap();
    }
    if !case.test_each_epoch {
        for batch in &recording.batches("test", case.erased, size) {
            compare("eval", &method.predict(batch, None).unwrap());
        }
    }
    assert_eq!(call, kinds.len(), "calls compared");
    println!(
        "{}: {call} calls, largest difference {worst:.2e}, allowed {:.0e}",
        case.method,
        limit("every_call")
    );
}

#[test]
fn misa() {
    check(&Case {
        recording: "misa",
        method: "misa",
        erased: false,
        test_each_epoch: false,
        hyper: |recorded| {
            let mut hyper = take(
                recorded,
                &[
                    "update_epochs",
                    "learning_rate",
                    "hidden_size",
                    "dropout",
                    "diff_weight",
                    "sim_weight",
                    "recon_weight",
                    "grad_clip",
                ],
            );
            hyper.insert("transformer_dropout".to_owned(), json!(0.0));
            hyper.insert("transformer_feedforward".to_owned(), json!(2048));
            hyper.into()
        },
    });
}

#[test]
fn almt() {
    check(&Case {
        recording: "almt",
        method: "almt",
        erased: false,
        test_each_epoch: false,
        hyper: |recorded| {
            let mut hyper = take(recorded, &["learning_rate", "weight_decay"]);
            for (ours, theirs) in [
                ("width", "/dst_feature_dims"),
                ("embedding_hidden", "/dst_feature_hidden_dims"),
                ("tokens", "/dst_embedding_length"),
                ("embedding_depth", "/embedding_depth"),
                ("embedding_heads", "/embedding_heads"),
                ("language_heads", "/l_encoder_heads"),
                ("hyper_depth", "/AHL_depth"),
                ("hyper_heads", "/h_hyper_layer_heads"),
                ("fusion_depth", "/fusion_layer_depth"),
                ("fusion_heads", "/fusion_heads"),
                ("fusion_hidden", "/fusion_hidden_d"),
            ] {
                let value = recorded.pointer(theirs).unwrap();
                hyper.insert(ours.to_owned(), value.clone());
            }
            hyper.into()
        },
    });
}

#[test]
fn lnln() {
    check(&Case {
        recording: "lnln",
        method: "lnln",
        erased: true,
        test_each_epoch: true,
        hyper: |recorded| {
            let mut hyper = take(
                recorded,
                &["weight_decay", "alpha", "beta", "gamma", "sigma"],
            );
            for (ours, theirs) in [
                ("learning_rate", "/lr"),
                ("width", "/model/feature_extractor/hidden_dims/0"),
                ("tokens", "/model/feature_extractor/token_length/0"),
                ("heads", "/model/feature_extractor/heads"),
                ("embedding_depth", "/model/feature_extractor/depth"),
                (
                    "proxy_depth",
                    "/model/dmc/proxy_dominant_feature_generator/depth",
                ),
                (
                    "discriminator_hidden",
                    "/model/dmc/effectiveness_discriminator/hidden_dim",
                ),
                ("completeness_depth", "/model/dmc/completeness_check/depth"),
                ("reconstructor_depth", "/model/reconstructor/depth"),
                ("language_depth", "/model/dmml/language_encoder/depth"),
                ("hyper_depth", "/model/dmml/hyper_modality_learning/depth"),
                ("fusion_depth", "/model/dmml/fuison_transformer/depth"),
            ] {
                let value = recorded.pointer(theirs).unwrap();
                hyper.insert(ours.to_owned(), value.clone());
            }
            for switch in [
                "dmc",
                "reconstructor",
                "dmml",
                "train_missing",
                "language",
                "audio",
                "vision",
            ] {
                hyper.insert(switch.to_owned(), json!(true));
            }
            hyper.into()
        },
    });
}

/// Takes `names` over, and further ones under other names.
fn renamed(recorded: &Value, names: &[&str], others: &[(&str, &str)]) -> Value {
    let mut hyper = take(recorded, names);
    for (ours, theirs) in others {
        let value = recorded.pointer(theirs).unwrap();
        hyper.insert((*ours).to_owned(), value.clone());
    }
    hyper.into()
}

/// What Self-MM and TETFN share.
const MULTI_TASK: &[&str] = &[
    "update_epochs",
    "learning_rate_bert",
    "learning_rate_audio",
    "learning_rate_video",
    "learning_rate_other",
    "weight_decay_bert",
    "weight_decay_audio",
    "weight_decay_video",
    "weight_decay_other",
    "a_lstm_hidden_size",
    "v_lstm_hidden_size",
    "post_fusion_dim",
    "post_text_dim",
    "post_audio_dim",
    "post_video_dim",
    "post_fusion_dropout",
    "post_text_dropout",
    "post_audio_dropout",
    "post_video_dropout",
];

#[test]
fn self_mm() {
    check(&Case {
        recording: "self_mm",
        method: "self-mm",
        erased: false,
        test_each_epoch: false,
        hyper: |recorded| {
            let own = ["a_lstm_dropout", "v_lstm_dropout", "audio_out", "video_out"];
            renamed(
                recorded,
                &[MULTI_TASK, &own].concat(),
                &[("label_bound", "/H"), ("exclude_zero", "/excludeZero")],
            )
        },
    });
}

#[test]
fn tetfn() {
    check(&Case {
        recording: "tetfn",
        method: "tetfn",
        erased: false,
        test_each_epoch: false,
        hyper: |recorded| {
            let own = [
                "conv1d_kernel_size_l",
                "conv1d_kernel_size_a",
                "conv1d_kernel_size_v",
                "dst_feature_dims",
                "nheads",
                "attn_dropout",
                "attn_dropout_a",
                "attn_dropout_v",
                "relu_dropout",
                "embed_dropout",
                "res_dropout",
            ];
            renamed(
                recorded,
                &[MULTI_TASK, &own].concat(),
                &[("label_bound", "/H"), ("exclude_zero", "/excludeZero")],
            )
        },
    });
}

#[test]
fn cenet() {
    check(&Case {
        recording: "cenet",
        method: "cenet",
        erased: false,
        test_each_epoch: false,
        hyper: |recorded| {
            let names = [
                "learning_rate",
                "weight_decay",
                "adam_epsilon",
                "max_grad_norm",
            ];
            renamed(recorded, &names, &[])
        },
    });
}

#[test]
fn mmim() {
    check(&Case {
        recording: "mmim",
        method: "mmim",
        erased: false,
        test_each_epoch: false,
        hyper: |recorded| {
            let names = [
                "contrast",
                "add_va",
                "mem_size",
                "dropout_v",
                "dropout_a",
                "dropout_prj",
                "n_layer",
                "bidirectional",
                "d_vh",
                "d_ah",
                "d_vout",
                "d_aout",
                "d_prjh",
                "grad_clip",
                "lr_main",
                "weight_decay_main",
                "lr_bert",
                "weight_decay_bert",
                "lr_mmilb",
                "weight_decay_mmilb",
                "when",
                "alpha",
                "beta",
            ];
            let mut hyper = take(recorded, &names);
            let mosei = recorded["dataset_name"] == "mosei";
            let share = if mosei { 0.5 } else { 1.0 };
            hyper.insert("bound_share".to_owned(), json!(share));
            hyper.into()
        },
    });
}

#[test]
fn tfr_net() {
    check(&Case {
        recording: "tfr_net",
        method: "tfr-net",
        erased: true,
        test_each_epoch: false,
        hyper: |recorded| {
            let names = [
                "update_epochs",
                "learning_rate_bert",
                "learning_rate_other",
                "weight_decay_bert",
                "weight_decay_other",
                "grad_clip",
                "patience",
                "nlevels",
                "num_temporal_head",
                "conv1d_kernel_size_l",
                "conv1d_kernel_size_a",
                "conv1d_kernel_size_v",
                "text_dropout",
                "attn_dropout",
                "attn_dropout_a",
                "attn_dropout_v",
                "relu_dropout",
                "embed_dropout",
                "res_dropout",
                "fusion_t_hid",
                "fusion_a_hid",
                "fusion_v_hid",
                "fusion_gru_layers",
                "fusion_drop",
                "cls_hidden_dim",
                "cls_dropout",
                "weight_gen_loss",
                "weight_sim_loss",
            ];
            renamed(
                recorded,
                &names,
                &[
                    ("dst_feature_dims", "/dst_feature_dim_nheads/0"),
                    ("nheads", "/dst_feature_dim_nheads/1"),
                ],
            )
        },
    });
}
