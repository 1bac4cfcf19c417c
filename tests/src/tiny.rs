//! A dataset and a text encoder so small that real workers train on them in seconds.

use anyhow::{Context as _, Result};
use halfheard_shared::{
    benchmark::Benchmark,
    case::Case,
    dataset::{
        Kind, Shapes, TensorFile,
        layout::{self, SplitSizes},
    },
    encoder::TokenIds,
    hash::hash_file,
    ids::JobId,
    matrix::{PlannedJob, PlannedWork},
    numpy_rng::RandomState,
    wire::{BlobRef, Fidelity, Protocol, Selection, TrainSpec},
};
use halfheard_store::submit::NewSweep;
use safetensors::{Dtype, tensor::TensorView};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

const SHAPES: Shapes = Shapes {
    text_len: 12,
    audio_len: 10,
    audio_dim: 4,
    vision_len: 8,
    vision_dim: 5,
};
const VOCABULARY: usize = 200;
const WIDTH: usize = 32;
const LAYERS: usize = 2;

/// A dataset file and an encoder's folder.
#[derive(Clone, Debug)]
pub struct Tiny {
    data: PathBuf,
    encoder: PathBuf,
}

impl Tiny {
    /// Creates both under `folder`, with `train` training samples.
    pub fn make(folder: &Path, train: usize) -> Result<Self> {
        let tiny = Self {
            data: folder.join("tiny.safetensors"),
            encoder: folder.join("tiny-encoder"),
        };
        dataset(&tiny.data, train)?;
        encoder(&tiny.encoder)?;
        Ok(tiny)
    }

    /// The dataset by its hash.
    pub fn data(&self) -> Result<BlobRef> {
        blob(&self.data, &self.data)
    }

    /// The encoder by its weights' hash.
    pub fn encoder(&self) -> Result<BlobRef> {
        blob(&self.encoder.join("model.safetensors"), &self.encoder)
    }

    /// A training job of a small `method` (`lnln` or `almt`).
    pub fn spec(&self, method: &str, seed: u64, max_epochs: u32) -> Result<TrainSpec> {
        let hyper = match method {
            "lnln" => serde_json::json!({
                "batch_size": 16, "max_epochs": max_epochs, "early_stop": 0,
                "learning_rate": 1e-3, "weight_decay": 1e-4,
                "alpha": 0.9, "beta": 0.8, "gamma": 0.1, "sigma": 1.0,
                "width": 16, "tokens": 4, "heads": 4,
                "embedding_depth": 1, "proxy_depth": 1, "discriminator_hidden": 8,
                "completeness_depth": 1, "reconstructor_depth": 1, "language_depth": 1,
                "hyper_depth": 1, "fusion_depth": 1,
                "dmc": true, "reconstructor": true, "dmml": true, "train_missing": true,
                "language": true, "audio": true, "vision": true,
            }),
            "almt" => serde_json::json!({
                "batch_size": 16, "max_epochs": max_epochs, "early_stop": 0,
                "learning_rate": 1e-3, "weight_decay": 1e-4, "width": 16, "tokens": 4,
                "embedding_depth": [1, 1, 1], "embedding_heads": [2, 2, 2],
                "embedding_hidden": 16, "language_heads": 2, "hyper_depth": 1,
                "hyper_heads": 2, "fusion_depth": 1, "fusion_heads": 2, "fusion_hidden": 16,
            }),
            other => anyhow::bail!("no small `{other}`"),
        };
        Ok(TrainSpec {
            method: method.to_owned(),
            variant: String::new(),
            dataset: Benchmark::Mosi,
            data: self.data()?,
            encoder: self.encoder()?,
            tokens: TokenIds::BERT,
            seed,
            max_epochs,
            hyper: hyper.to_string(),
            protocol: Protocol {
                selection: Selection::Validation,
                train_missing: true,
                erasure_seed: 1111,
                selection_rate: 500,
                fidelity: Fidelity::Reference,
            },
            numerics: halfheard_shared::numerics::Numerics::Machine,
        })
    }
}

/// A training and its evaluations.
pub fn jobs(sweep: &NewSweep, spec: &TrainSpec, cases: &[&str]) -> Result<Vec<PlannedJob>> {
    let what = format!("{} {}", spec.method, spec.seed);
    let train = JobId::derive(&[sweep.id.as_bytes(), b"train", what.as_bytes()]);
    let spec = Arc::new(spec.clone());
    let mut jobs = vec![PlannedJob {
        id: train,
        work: PlannedWork::Train(spec.clone()),
    }];
    for case in cases {
        let parsed: Case = case.parse()?;
        jobs.push(PlannedJob {
            id: JobId::derive(&[
                sweep.id.as_bytes(),
                b"eval",
                what.as_bytes(),
                case.as_bytes(),
            ]),
            work: PlannedWork::Eval {
                train,
                spec: spec.clone(),
                case: parsed,
            },
        });
    }
    Ok(jobs)
}

fn blob(file: &Path, path: &Path) -> Result<BlobRef> {
    Ok(BlobRef {
        blake3: hash_file(file)?.as_str().to_owned(),
        path: path.display().to_string(),
    })
}

/// MOSI's protocol: a word says the mood, and audio and vision follow it with noise.
fn dataset(path: &Path, train: usize) -> Result<()> {
    let sizes = [train, 32, 40].map(|samples| SplitSizes {
        samples,
        id_bytes: 0,
        raw_text_bytes: 0,
    });
    let specs = layout::tensors(Kind::Mosi, SHAPES, sizes);
    let mut rng = RandomState::new(11);
    let moods: BTreeMap<&str, Vec<f32>> = ["train", "valid", "test"]
        .into_iter()
        .zip(sizes)
        .map(|(split, sizes)| {
            let mood = |_| ((rng.uniform() * 6.0 - 3.0) as f32 * 5.0).round() / 5.0;
            (split, (0..sizes.samples).map(mood).collect())
        })
        .collect();
    let mut file = TensorFile::create(path, Kind::Mosi, specs.clone())?;
    for spec in &specs {
        let (split, field) = spec.name.split_once('.').context("a split's tensor")?;
        let moods = moods.get(split).context("a split")?;
        match field {
            "audio_lengths" => file.write_i64(&spec.name, &vec![9; moods.len()])?,
            "vision_lengths" => file.write_i64(&spec.name, &vec![8; moods.len()])?,
            "ids_offsets" | "raw_text_offsets" => {
                file.write_i64(&spec.name, &vec![0; moods.len() + 1])?;
            }
            "text" => {
                for mood in moods {
                    let mut sample = vec![0; 3 * SHAPES.text_len];
                    let words = 4 + rng.below(6);
                    for (i, id) in sample.iter_mut().take(words + 2).enumerate() {
                        *id = match i {
                            0 => 101,
                            _ if i == words + 1 => 102,
                            _ if i % 2 == 1 => 120 + (mood * 5.0) as i32,
                            _ => 150 + rng.below(50) as i32,
                        };
                    }
                    sample[SHAPES.text_len..SHAPES.text_len + words + 2].fill(1);
                    file.write_i32(&spec.name, &sample)?;
                }
            }
            "ids" | "raw_text" => {}
            "labels" => file.write_f32(&spec.name, moods)?,
            _ => {
                let size: usize = spec.shape[1..].iter().product();
                for mood in moods {
                    let mut noisy = |_| mood * 0.3 + rng.uniform() as f32 - 0.5;
                    let sample: Vec<f32> = (0..size).map(&mut noisy).collect();
                    file.write_f32(&spec.name, &sample)?;
                }
            }
        }
    }
    file.finish()?;
    Ok(())
}

/// A BERT with random weights under the usual names.
fn encoder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let config = serde_json::json!({
        "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": 32, "type_vocab_size": 2,
    });
    std::fs::write(folder.join("config.json"), config.to_string())?;
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        (
            "embeddings.word_embeddings.weight".to_owned(),
            vec![VOCABULARY, WIDTH],
        ),
        (
            "embeddings.position_embeddings.weight".to_owned(),
            vec![32, WIDTH],
        ),
        (
            "embeddings.token_type_embeddings.weight".to_owned(),
            vec![2, WIDTH],
        ),
        ("pooler.dense.weight".to_owned(), vec![WIDTH, WIDTH]),
        ("pooler.dense.bias".to_owned(), vec![WIDTH]),
    ];
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    for layer in 0..LAYERS {
        let layer = format!("encoder.layer.{layer}");
        for (name, rows, columns) in [
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", 2 * WIDTH, WIDTH),
            ("output.dense", WIDTH, 2 * WIDTH),
        ] {
            shapes.push((format!("{layer}.{name}.weight"), vec![rows, columns]));
            shapes.push((format!("{layer}.{name}.bias"), vec![rows]));
        }
        norms.push(format!("{layer}.attention.output.LayerNorm"));
        norms.push(format!("{layer}.output.LayerNorm"));
    }
    for norm in &norms {
        shapes.push((format!("{norm}.weight"), vec![WIDTH]));
        shapes.push((format!("{norm}.bias"), vec![WIDTH]));
    }
    let mut rng = RandomState::new(7);
    let weights: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let scale = name.ends_with("LayerNorm.weight");
            let count: usize = shape.iter().product();
            let bytes = (0..count)
                .flat_map(|_| {
                    let noise = (rng.uniform() as f32 - 0.5) * 0.1;
                    (if scale { 1.0 } else { noise }).to_le_bytes()
                })
                .collect();
            (name, shape, bytes)
        })
        .collect();
    let mut views = Vec::new();
    for (name, shape, bytes) in &weights {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes)?;
        views.push((name.as_str(), view));
    }
    let path = folder.join("model.safetensors");
    safetensors::serialize_to_file(views, None, &path)?;
    Ok(())
}
