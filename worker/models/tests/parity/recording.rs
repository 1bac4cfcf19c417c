//! Recordings of the reference implementations.

use halfheard_models::methods::{Batch, DataShape, Inputs, PerModality};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor};

pub(crate) fn shared() -> PathBuf {
    std::env::var_os("HALFHEARD_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    )
}

/// A recording: its metadata, and its tensors by name.
pub(crate) struct Recording {
    pub(crate) meta: Value,
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

impl Recording {
    /// Opens a recording; prints a line and returns `None` if it does not exist.
    pub(crate) fn open(name: &str) -> Option<Self> {
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

    pub(crate) fn get(&self, name: &str) -> &Tensor {
        self.tensors
            .get(name)
            .unwrap_or_else(|| panic!("the recording has no `{name}`"))
    }

    pub(crate) fn try_get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Writes an encoder folder with the recorded configuration and weights.
    pub(crate) fn write_encoder(&self, folder: &Path) {
        let mut config = self.meta["bert"].clone();
        config["hidden_dropout_prob"] = json!(0.0);
        config["attention_probs_dropout_prob"] = json!(0.0);
        config["hidden_act"] = json!("gelu");
        fs::write(folder.join("config.json"), config.to_string()).unwrap();
        // The names of the encoder's weights end in Hugging Face's names.
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

    pub(crate) fn shape(&self) -> DataShape {
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
            host_lengths: None,
        };
        let text_mask = rows("text").select(1, 1);
        let rate = self
            .try_get(&format!("{split}.missing_rate_l"))
            .map_or_else(
                || Tensor::zeros([count], (Kind::Float, Device::Cpu)),
                |rate| rate.narrow(0, from, count).reshape([count]),
            );
        let batch = Batch {
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
            host_labels: None,
        };
        batch.known_on_host().unwrap()
    }

    pub(crate) fn batches(&self, split: &str, erased: bool, size: i64) -> Vec<Batch> {
        let samples = self.get(&format!("{split}.y")).size()[0];
        (0..samples)
            .step_by(size as usize)
            .map(|from| self.batch(split, erased, from, size.min(samples - from)))
            .collect()
    }
}
