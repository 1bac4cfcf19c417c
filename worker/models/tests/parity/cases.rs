//! The recorded methods and their hyper-parameters.

use crate::check;
use serde_json::{Map, Value, json};

/// A method's recording, translated to this project's names.
pub(crate) struct Case {
    /// The recording's name.
    pub(crate) recording: &'static str,
    /// The method's id.
    pub(crate) method: &'static str,
    /// Whether the recorded trainer used erased inputs.
    pub(crate) erased: bool,
    /// Whether the test split was evaluated after every epoch rather than once at the end.
    pub(crate) test_each_epoch: bool,
    /// The recorded hyper-parameters under this project's names.
    pub(crate) hyper: fn(&Value) -> Value,
}

/// This project's name of a recorded weight: EMT-DLFR's modules are recorded under every name that
/// they have, and stored under the first. Constants are not stored.
pub(crate) fn stored_as(name: &str) -> Option<String> {
    if name.ends_with("position_ids") || name.ends_with("pos_embed.pe") {
        return None;
    }
    let mut parts: Vec<&str> = name.split('.').collect();
    for (module, indices) in [("mpus", 3), ("attn_pools", 1)] {
        if let Some(at) = parts.iter().position(|part| *part == module) {
            parts[at + 1..=at + indices].fill("0");
        }
    }
    Some(parts.join("."))
}

/// Copies the recorded hyper-parameters `names` and adds the reserved ones.
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

/// Copies the recorded hyper-parameters `names`, and `others` from other names.
fn renamed(recorded: &Value, names: &[&str], others: &[(&str, &str)]) -> Value {
    let mut hyper = take(recorded, names);
    for (ours, theirs) in others {
        let value = recorded.pointer(theirs).unwrap();
        hyper.insert((*ours).to_owned(), value.clone());
    }
    hyper.into()
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
            // Configured, and not used.
            hyper.insert("weight_decay".to_owned(), json!(0.0));
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
            // Configured, and not used.
            hyper.insert("max_grad_norm".to_owned(), json!(-1.0));
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
            hyper.insert("frames".to_owned(), json!(0));
            hyper.insert("max_grad_norm".to_owned(), json!(-1.0));
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

/// Hyper-parameters shared by Self-MM and TETFN.
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

#[test]
fn emt_dlfr() {
    check(&Case {
        recording: "emt_dlfr",
        method: "emt-dlfr",
        erased: true,
        test_each_epoch: false,
        hyper: |recorded| {
            let own = [
                "a_lstm_dropout",
                "v_lstm_dropout",
                "audio_out",
                "video_out",
                "a_lstm_hidden_size",
                "v_lstm_hidden_size",
                "d_model",
                "fusion_layers",
                "heads",
                "emb_dropout",
                "attn_dropout",
                "ff_dropout",
                "ff_expansion",
                "gmc_tokens_pred_dim",
                "text_pred_dim",
                "audio_pred_dim",
                "video_pred_dim",
                "loss_attra_weight",
                "loss_recon_weight",
                "post_fusion_dim",
                "post_fusion_dropout",
            ];
            let rates = &MULTI_TASK[..9];
            renamed(
                recorded,
                &[rates, &own].concat(),
                &[("standardize", "/use_normalized_data")],
            )
        },
    });
}
