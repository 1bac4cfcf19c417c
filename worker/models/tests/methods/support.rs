//! Small encoders and synthetic batches for all methods.

use halfheard_models::{
    context::Optimizations,
    layers::bert::{Bert, BertConfig},
    methods::{
        Batch, Build, DataShape, Inputs, Method, MethodError, PerModality, Position, builder,
    },
    numerics::{Numerics, initialize},
    precision::Precision,
};
use halfheard_shared::methods::faults::Faults;
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tch::{Device, Kind, Tensor, nn};

pub(crate) const SAMPLES: i64 = 32;

/// A lock for one test at a time, since libtorch has one generator per process. Small tensors do not
/// benefit from threads.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let requested = std::env::var(crate::numerics::NUMERICS);
    let numerics = requested.map_or(Numerics::Machine, |text| text.parse().unwrap());
    initialize(numerics).unwrap();
    tch::set_num_threads(1);
    // A failed test leaves no state behind.
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) const SHAPE: DataShape = DataShape {
    text_length: 8,
    audio_length: 6,
    audio_dim: 5,
    vision_length: 7,
    vision_dim: 4,
    train_samples: SAMPLES,
    unimodal_labels: false,
};

/// The id of erased tokens.
const UNKNOWN: i64 = 10;

/// An encoder folder with initial weights.
pub(crate) fn encoder(dropout: f64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 16, "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout
    });
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    tch::manual_seed(5);
    let vs = nn::VarStore::new(Device::Cpu);
    let _bert = Bert::fresh(&vs.root(), BertConfig::read(folder.path()).unwrap());
    let weights: Vec<(String, Tensor)> = vs.variables().into_iter().collect();
    Tensor::write_safetensors(&weights, folder.path().join("model.safetensors")).unwrap();
    folder
}

/// `shared/methods/<id>.toml`.
pub(crate) fn method_file(method: &str) -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/methods")
        .join(format!("{method}.toml"));
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}: every method has its file", path.display()));
    text.parse().unwrap()
}

pub(crate) fn overlay(hyper: &mut Map<String, Value>, changes: &Value) {
    for (name, value) in changes.as_object().unwrap() {
        assert!(hyper.contains_key(name), "no hyper-parameter `{name}`");
        hyper.insert(name.clone(), value.clone());
    }
}

/// The hyper-parameters of a method's file for `dataset` and `variant`, with `changes`.
pub(crate) fn hyper(method: &str, dataset: &str, variant: Option<&str>, changes: &Value) -> Value {
    let file = method_file(method);
    let json = |table: &toml::Value| serde_json::to_value(table).unwrap();
    let mut hyper = json(&file["hyper"]).as_object().unwrap().clone();
    if let Some(own) = file
        .get("hyper_by_dataset")
        .and_then(|all| all.get(dataset))
    {
        overlay(&mut hyper, &json(own));
    }
    if let Some(variant) = variant {
        overlay(&mut hyper, &json(&file["variants"][variant]["hyper"]));
    }
    overlay(&mut hyper, changes);
    hyper.into()
}

pub(crate) fn build(
    method: &str,
    hyper: &Value,
    encoder: &Path,
    max_epochs: u32,
    faults: Faults,
    seed: i64,
) -> Box<dyn Method> {
    tch::manual_seed(seed);
    try_build(method, hyper, SHAPE, encoder, max_epochs, faults)
        .unwrap_or_else(|e| panic!("{method}: {e}"))
}

/// As [`build`], with any optimizations and precision.
pub(crate) fn build_with(
    method: &str,
    hyper: &Value,
    encoder: &Path,
    (optimizations, precision): (Optimizations, Precision),
) -> Box<dyn Method> {
    tch::manual_seed(1);
    let build = Build {
        hyper,
        dataset: "mosi",
        data: SHAPE,
        encoder,
        device: Device::Cpu,
        faults: Faults::REFERENCE,
        max_epochs: 20,
        optimizations,
        precision,
    };
    builder(method).unwrap()(&build).unwrap_or_else(|e| panic!("{method}: {e}"))
}

/// As [`build`], for a dataset of any shape; returns errors.
pub(crate) fn try_build(
    method: &str,
    hyper: &Value,
    data: DataShape,
    encoder: &Path,
    max_epochs: u32,
    faults: Faults,
) -> Result<Box<dyn Method>, MethodError> {
    builder(method).unwrap()(&Build {
        hyper,
        dataset: "mosi",
        data,
        encoder,
        device: Device::Cpu,
        faults,
        max_epochs,
        optimizations: Optimizations::ALL,
        precision: Precision::Float32,
    })
}

fn random(dims: &[i64]) -> Tensor {
    Tensor::rand(dims, (Kind::Float, Device::Cpu))
}

/// 1 before each sample's length, 0 from there: `[N, steps]`.
fn present(lengths: &Tensor, steps: i64) -> Tensor {
    Tensor::arange(steps, (Kind::Int64, Device::Cpu))
        .unsqueeze(0)
        .lt_tensor(&lengths.unsqueeze(1))
        .to_kind(Kind::Float)
}

fn lengths(samples: i64, min: i64, max: i64) -> Tensor {
    Tensor::randint_low(min.min(max), max + 1, [samples], (Kind::Int64, Device::Cpu))
}

/// 32 random samples with lengths, erasure and labels, determined by the seed.
pub(crate) fn samples(seed: i64) -> Batch {
    samples_of(seed, SHAPE)
}

/// As [`samples`], with all training samples of a dataset of any shape.
pub(crate) fn samples_of(seed: i64, shape: DataShape) -> Batch {
    tch::manual_seed(seed);
    let n = shape.train_samples;
    let text_lengths = lengths(n, 4, shape.text_length);
    let audio_lengths = lengths(n, 2, shape.audio_length);
    let vision_lengths = lengths(n, 2, shape.vision_length);
    let present = PerModality {
        text: present(&text_lengths, shape.text_length),
        audio: present(&audio_lengths, shape.audio_length),
        vision: present(&vision_lengths, shape.vision_length),
    };
    let rate = PerModality {
        text: random(&[n]) * 0.6,
        audio: random(&[n]) * 0.6,
        vision: random(&[n]) * 0.6,
    };
    let kept = |present: &Tensor, rate: &Tensor| {
        random(&present.size())
            .gt_tensor(&rate.unsqueeze(1))
            .to_kind(Kind::Float)
            * present
    };
    let kept = PerModality {
        text: kept(&present.text, &rate.text),
        audio: kept(&present.audio, &rate.audio),
        vision: kept(&present.vision, &rate.vision),
    };
    // The first and the last token of a text are never erased.
    let _ = kept.text.select(1, 0).fill_(1);
    let last = (text_lengths - 1).unsqueeze(1);
    let ones = Tensor::ones_like(&last).to_kind(Kind::Float);
    let kept = PerModality {
        text: kept.text.scatter(1, &last, &ones),
        ..kept
    };

    let whole = present.text.to_kind(Kind::Int64);
    let ids = Tensor::randint_low(11, 40, whole.size(), (Kind::Int64, Device::Cpu)) * &whole;
    let kept_ids = kept.text.to_kind(Kind::Int64);
    let erased_ids = &ids * &kept_ids + (&whole - &kept_ids) * UNKNOWN;
    let text = |ids: &Tensor| Tensor::stack(&[ids, &whole, &whole.zeros_like()], 1);
    let audio =
        (random(&[n, shape.audio_length, shape.audio_dim]) - 0.5) * present.audio.unsqueeze(2);
    let vision =
        (random(&[n, shape.vision_length, shape.vision_dim]) - 0.5) * present.vision.unsqueeze(2);
    Batch {
        index: Tensor::arange(n, (Kind::Int64, Device::Cpu)),
        input: Inputs {
            text: text(&erased_ids),
            audio: &audio * kept.audio.unsqueeze(2),
            vision: &vision * kept.vision.unsqueeze(2),
            audio_lengths: audio_lengths.shallow_clone(),
            vision_lengths: vision_lengths.shallow_clone(),
            host_lengths: None,
        },
        complete: Some(Inputs {
            text: text(&ids),
            audio,
            vision,
            audio_lengths,
            vision_lengths,
            host_lengths: None,
        }),
        kept,
        present,
        missing_rate: rate,
        labels: random(&[n]) * 6.0 - 3.0,
        unimodal_labels: None,
        host_labels: None,
    }
}

/// The samples `from..from + count`.
pub(crate) fn slice(batch: &Batch, from: i64, count: i64) -> Batch {
    let rows = |t: &Tensor| t.narrow(0, from, count);
    let each = |p: &PerModality<Tensor>| PerModality {
        text: rows(&p.text),
        audio: rows(&p.audio),
        vision: rows(&p.vision),
    };
    let inputs = |i: &Inputs| Inputs {
        text: rows(&i.text),
        audio: rows(&i.audio),
        vision: rows(&i.vision),
        audio_lengths: rows(&i.audio_lengths),
        vision_lengths: rows(&i.vision_lengths),
        host_lengths: None,
    };
    Batch {
        index: rows(&batch.index),
        input: inputs(&batch.input),
        complete: batch.complete.as_ref().map(inputs),
        kept: each(&batch.kept),
        present: each(&batch.present),
        missing_rate: each(&batch.missing_rate),
        labels: rows(&batch.labels),
        unimodal_labels: batch.unimodal_labels.as_ref().map(each),
        host_labels: None,
    }
}

/// Copies with another alignment than the 64 bytes of libtorch.
pub(crate) trait Shifted {
    /// A copy that starts `by` numbers after an aligned address.
    fn shifted(&self, by: i64) -> Self;
}

impl Shifted for Tensor {
    fn shifted(&self, by: i64) -> Self {
        let count = self.numel() as i64;
        let buffer = Tensor::zeros([count + by], (self.kind(), self.device()));
        let mut copy = buffer.narrow(0, by, count).view(&self.size()[..]);
        copy.copy_(self);
        copy
    }
}

impl Shifted for Inputs {
    fn shifted(&self, by: i64) -> Self {
        Self {
            text: self.text.shifted(by),
            audio: self.audio.shifted(by),
            vision: self.vision.shifted(by),
            audio_lengths: self.audio_lengths.shifted(by),
            vision_lengths: self.vision_lengths.shifted(by),
            host_lengths: self.host_lengths.clone(),
        }
    }
}

impl Shifted for PerModality<Tensor> {
    fn shifted(&self, by: i64) -> Self {
        Self {
            text: self.text.shifted(by),
            audio: self.audio.shifted(by),
            vision: self.vision.shifted(by),
        }
    }
}

impl Shifted for Batch {
    fn shifted(&self, by: i64) -> Self {
        Self {
            index: self.index.shifted(by),
            input: self.input.shifted(by),
            complete: self.complete.as_ref().map(|inputs| inputs.shifted(by)),
            kept: self.kept.shifted(by),
            present: self.present.shifted(by),
            missing_rate: self.missing_rate.shifted(by),
            labels: self.labels.shifted(by),
            unimodal_labels: self.unimodal_labels.as_ref().map(|all| all.shifted(by)),
            host_labels: self.host_labels.clone(),
        }
    }
}

pub(crate) fn batches(all: &Batch, size: usize) -> Vec<Batch> {
    let samples = all.len();
    (0..samples)
        .step_by(size)
        .map(|from| slice(all, from, (size as i64).min(samples - from)))
        .collect()
}

/// The position of the `n`th step overall.
pub(crate) fn position(n: usize, passes: usize, steps: usize) -> Position {
    Position {
        epoch: (n / (passes * steps)) as u32 + 1,
        pass: n / steps % passes,
        step: n % steps,
        steps,
    }
}

/// Runs step `n` as the trainer does: seeds the generator, and begins and ends passes and epochs. Returns
/// its losses.
pub(crate) fn step(
    method: &mut dyn Method,
    batches: &[Batch],
    n: usize,
) -> BTreeMap<&'static str, f64> {
    let (passes, steps) = (method.passes(), batches.len());
    let at = position(n, passes, steps);
    tch::manual_seed(1000 + n as i64);
    if at.step == 0 {
        method.begin_pass(at).unwrap();
    }
    let outcome = method.train_step(at, &batches[at.step]).unwrap();
    let losses = outcome.losses.read(at).unwrap();
    if at.step + 1 == steps {
        method.end_pass(at).unwrap();
        if at.pass + 1 == passes {
            let loss = validation_loss(method, &batches[0]);
            method.end_epoch(at.epoch, loss).unwrap();
        }
    }
    losses
}

pub(crate) fn validation_loss(method: &dyn Method, batch: &Batch) -> f64 {
    let prediction = method.predict(batch, None).unwrap();
    assert_eq!(prediction.size(), batch.labels.size());
    method.validation_loss(&prediction, &batch.labels)
}
