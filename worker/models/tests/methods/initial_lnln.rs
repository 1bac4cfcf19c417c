//! Untrained predictions of LNLN over many seeds, against the authors' code: 60 numbers recorded, each
//! the mean prediction of an untrained model for the same 64 complete samples of MOSI.

use crate::{
    initial::shared,
    support::{alone, hyper, try_build},
};
use flate2::read::GzDecoder;
use halfheard_models::{
    context::EncoderCache,
    layers::bert::{Bert, BertConfig},
    methods::{Batch, DataShape, Inputs, Method, PerModality},
};
use halfheard_shared::{
    env::ENCODER_EN,
    methods::faults::Faults,
    pickle::{ArrayView, Limits, Pickle},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor, nn};

const SAMPLES: usize = 64;

/// Seeds of ours. The recording's 60 limit what a comparison can see.
const SEEDS: i64 = 120;

/// Standard errors that a mean may differ by. All three tests together fail by chance less than once
/// in 10^4: with 60 numbers in the smaller group, a t statistic exceeds 4.5 once in 30,000.
const ERRORS: f64 = 4.5;

/// The same share for the Kolmogorov-Smirnov statistic: the root of -ln(p / 2) / 2.
const KOLMOGOROV: f64 = 2.36;

/// What the comparison needs; `None` with a line if it is not here.
struct Material {
    recorded: Vec<f64>,
    features: Vec<u8>,
    encoder: PathBuf,
}

impl Material {
    fn open() -> Option<Self> {
        let recording = shared().join("parity/initial_predictions.json");
        let features = shared().join("data/mosi_utterance_50.pkl.gz");
        let encoder = std::env::var_os(ENCODER_EN).map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.deps/encoder"),
            PathBuf::from,
        );
        let model = encoder.join("model.safetensors");
        for file in [&recording, &features, &model] {
            if !file.is_file() {
                println!("skipped: no {}", file.display());
                return None;
            }
        }
        let recording: Value =
            serde_json::from_str(&fs::read_to_string(recording).unwrap()).unwrap();
        let recorded = recording["predictions"].as_array().unwrap();
        let mut unpacked = Vec::new();
        GzDecoder::new(fs::File::open(features).unwrap())
            .read_to_end(&mut unpacked)
            .unwrap();
        Some(Self {
            recorded: recorded.iter().map(|x| x.as_f64().unwrap()).collect(),
            features: unpacked,
            encoder,
        })
    }

    /// The first training samples, complete.
    fn batch(&self) -> (Batch, DataShape) {
        let pickle = Pickle::read(&self.features, Limits::default()).unwrap();
        let train = pickle.get(pickle.root(), "train").unwrap();
        let rows = |name: &str| {
            let value = pickle.get(train, name).unwrap();
            tensor(&pickle.array(value).unwrap())
        };
        let (text, audio, vision) = (rows("text_bert"), rows("audio"), rows("vision"));
        let shape = DataShape {
            text_length: text.size()[2],
            audio_length: audio.size()[1],
            audio_dim: audio.size()[2],
            vision_length: vision.size()[1],
            vision_dim: vision.size()[2],
            train_samples: SAMPLES as i64,
            unimodal_labels: false,
        };
        (batch(text.to_kind(Kind::Int64), audio, vision), shape)
    }
}

/// The first rows of an array.
fn tensor(array: &ArrayView<'_>) -> Tensor {
    let (mut row, mut scratch, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    for sample in 0..SAMPLES {
        array.read_f32(sample, &mut row, &mut scratch).unwrap();
        numbers.extend_from_slice(&row);
    }
    assert!(numbers.iter().all(|x| x.is_finite()));
    let mut shape: Vec<i64> = array.shape().iter().map(|&n| n as i64).collect();
    shape[0] = SAMPLES as i64;
    Tensor::from_slice(&numbers).reshape(&shape[..])
}

fn batch(text: Tensor, audio: Tensor, vision: Tensor) -> Batch {
    let float = (Kind::Float, Device::Cpu);
    let lengths =
        |x: &Tensor| Tensor::full([SAMPLES as i64], x.size()[1], float).to_kind(Kind::Int64);
    let masks = PerModality {
        text: text.select(1, 1).to_kind(Kind::Float),
        audio: Tensor::ones(&audio.size()[..2], float),
        vision: Tensor::ones(&vision.size()[..2], float),
    };
    let none = || Tensor::zeros([SAMPLES as i64], float);
    Batch {
        index: Tensor::arange(SAMPLES as i64, (Kind::Int64, Device::Cpu)),
        kept: PerModality {
            text: masks.text.shallow_clone(),
            audio: masks.audio.shallow_clone(),
            vision: masks.vision.shallow_clone(),
        },
        present: masks,
        missing_rate: PerModality {
            text: none(),
            audio: none(),
            vision: none(),
        },
        labels: none(),
        unimodal_labels: None,
        host_labels: None,
        complete: None,
        input: Inputs {
            audio_lengths: lengths(&audio),
            vision_lengths: lengths(&vision),
            host_lengths: None,
            text,
            audio,
            vision,
        },
    }
}

/// LNLN around an encoder of the right width and little else, which is quickly loaded.
fn narrow_encoder(width: i64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "vocab_size": 8, "hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": 8, "max_position_embeddings": 512
    });
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let vs = nn::VarStore::new(Device::Cpu);
    let _bert = Bert::fresh(&vs.root(), BertConfig::read(folder.path()).unwrap());
    let weights: Vec<(String, Tensor)> = vs.variables().into_iter().collect();
    Tensor::write_safetensors(&weights, folder.path().join("model.safetensors")).unwrap();
    folder
}

fn lnln(shape: DataShape, encoder: &Path, seed: i64) -> Box<dyn Method> {
    let hyper = hyper("lnln", "mosi", None, &json!({}));
    tch::manual_seed(seed);
    try_build("lnln", &hyper, shape, encoder, 200, Faults::REFERENCE).unwrap()
}

/// The mean prediction of an untrained model for every seed, and the bias of its last layer.
fn predictions(material: &Material) -> Vec<(f64, f64)> {
    let (batch, shape) = material.batch();
    // The encoder's outputs are the same for all seeds. So one model predicts, with the other
    // weights of each model.
    let model = lnln(shape, &material.encoder, 0);
    let cache = EncoderCache::default();
    let width = BertConfig::read(&material.encoder).unwrap().hidden_size;
    let narrow = narrow_encoder(width);
    let predict = |seed: i64| {
        let drawn = lnln(shape, narrow.path(), seed).vars().variables();
        tch::no_grad(|| {
            for (name, mut variable) in model.vars().variables() {
                if !name.starts_with("bertmodel.") {
                    variable.copy_(&drawn[&name]);
                }
            }
        });
        let prediction = model.predict(&batch, Some(&cache)).unwrap();
        let bias = drawn["dmml.3.bias"].double_value(&[0]);
        (prediction.mean(Kind::Double).double_value(&[]), bias)
    };
    (1..=SEEDS).map(predict).collect()
}

/// Mean and variance of the mean.
fn mean(numbers: &[f64]) -> (f64, f64) {
    let n = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / n;
    let squares: f64 = numbers.iter().map(|x| (x - mean).powi(2)).sum();
    (mean, squares / (n - 1.0) / n)
}

/// Welch's t statistic.
fn welch(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_error), (b, b_error)) = (mean(a), mean(b));
    (a - b) / (a_error + b_error).sqrt()
}

/// Distances from the median, whose means Brown and Forsythe compare.
fn spreads(numbers: &[f64]) -> Vec<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    numbers.iter().map(|x| (x - median).abs()).collect()
}

/// The largest difference of two empirical distributions, by its asymptotic scale.
fn kolmogorov(a: &[f64], b: &[f64]) -> f64 {
    let below =
        |all: &[f64], x: f64| all.iter().filter(|&&y| y <= x).count() as f64 / all.len() as f64;
    let gaps = a
        .iter()
        .chain(b)
        .map(|&x| (below(a, x) - below(b, x)).abs());
    let (n, m) = (a.len() as f64, b.len() as f64);
    gaps.fold(0.0, f64::max) * (n * m / (n + m)).sqrt()
}

/// How our predictions differ from the recorded ones.
fn differences(ours: &[f64], recorded: &[f64]) -> Vec<String> {
    let statistics = [
        ("mean", welch(ours, recorded), ERRORS),
        ("spread", welch(&spreads(ours), &spreads(recorded)), ERRORS),
        ("distribution", kolmogorov(ours, recorded), KOLMOGOROV),
    ];
    for (what, value, _) in statistics {
        print!("{what} {value:.2}  ");
    }
    let (center, error) = mean(ours);
    let deviation = (error * ours.len() as f64).sqrt();
    println!(
        "{} seeds: mean {center:.4}, deviation {deviation:.4}",
        ours.len()
    );
    statistics
        .into_iter()
        .filter(|(_, value, limit)| value.abs() > *limit)
        .map(|(what, value, limit)| format!("{what}: {value:.2}, over {limit}"))
        .collect()
}

#[test]
fn untrained_lnln_predicts_as_the_authors_does() {
    let _alone = alone();
    let Some(material) = Material::open() else {
        return;
    };
    let recorded = &material.recorded;
    let drawn = predictions(&material);
    // The last layer is linear: the prediction is `bias` beside what its weights make of the feature.
    let with = |scale: f64, shift: f64| {
        let changed = drawn
            .iter()
            .map(|(p, bias)| (p - bias) * scale + bias + shift);
        differences(&changed.collect::<Vec<f64>>(), recorded)
    };
    assert_eq!(with(1.0, 0.0), [""; 0]);
    // Faults of its initial weights are seen: twice or a third of their scale, a bias around 0.4.
    assert_ne!(with(2.0, 0.0), [""; 0]);
    assert_ne!(with(1.0 / 3.0, 0.0), [""; 0]);
    assert_ne!(with(1.0, 0.4), [""; 0]);
}
