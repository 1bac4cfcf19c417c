//! The memory estimate of `coord plan` against the peak of a process: training steps with an update
//! of every method, each in its own process.

#![allow(clippy::unwrap_used, reason = "a test fails where something is wrong")]

use halfheard_models::{
    context::Optimizations,
    environment,
    layers::bert::{Bert, BertConfig},
    memory,
    methods::{Batch, Build, DataShape, Inputs, PerModality, Position, builder, ids},
    precision::Precision,
};
use halfheard_shared::{
    dataset::Shapes,
    methods::faults::Faults,
    methods::{self, DataFacts, EncoderShape, Setup, memory::needed},
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, env, error::Error, fs, path::Path, process::Command};
use tch::{Device, Kind, Tensor, nn};

/// In the child: the method to train.
const CHILD: &str = "HALFHEARD_TEST_STEP_OF";
/// In the child: the encoder's folder.
const ENCODER: &str = "HALFHEARD_TEST_ENCODER";
/// Whether it is to correct the faults of the reference.
const CORRECTED: &str = "HALFHEARD_TEST_CORRECTED";

/// Longer than wide, as in published datasets.
const SHAPE: DataShape = DataShape {
    text_length: 40,
    audio_length: 200,
    audio_dim: 24,
    vision_length: 160,
    vision_dim: 32,
    train_samples: 32,
    unimodal_labels: false,
};

/// Allowed ratios of the estimate to the measured peak.
const ALLOWED: std::ops::RangeInclusive<f64> = 0.75..=1.35;

/// Pages of libtorch's files that a process needs. How many are resident differs by more than 100 MB: the kernel maps
/// more than were asked for if they lie together in its cache, and takes back what it needs.
const FILES: u64 = 100_000_000;

fn hyper(id: &str) -> Map<String, Value> {
    let info = methods::find(id).unwrap();
    let mut changes = Map::from_iter([("batch_size".to_owned(), json!(16))]);
    if info.hyper.contains_key("num_temporal_head") {
        changes.insert("num_temporal_head".to_owned(), json!(8));
    }
    info.resolve("mosei", &[&changes]).unwrap()
}

fn encoder(folder: &Path) {
    let config = json!({
        "vocab_size": 2000, "hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4,
        "intermediate_size": 768, "max_position_embeddings": 64, "type_vocab_size": 2,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let vs = nn::VarStore::new(Device::Cpu);
    let _bert = Bert::fresh(&vs.root(), BertConfig::read(folder).unwrap());
    let weights: Vec<(String, Tensor)> = vs.variables().into_iter().collect();
    Tensor::write_safetensors(&weights, folder.join("model.safetensors")).unwrap();
}

fn batch(samples: i64) -> Batch {
    let float = (Kind::Float, Device::Cpu);
    let int = (Kind::Int64, Device::Cpu);
    let inputs = || Inputs {
        text: Tensor::stack(
            &[
                Tensor::randint_low(5, 2000, [samples, SHAPE.text_length], int),
                Tensor::ones([samples, SHAPE.text_length], int),
                Tensor::zeros([samples, SHAPE.text_length], int),
            ],
            1,
        ),
        audio: Tensor::randn([samples, SHAPE.audio_length, SHAPE.audio_dim], float),
        vision: Tensor::randn([samples, SHAPE.vision_length, SHAPE.vision_dim], float),
        audio_lengths: Tensor::full([samples], SHAPE.audio_length, int),
        vision_lengths: Tensor::full([samples], SHAPE.vision_length, int),
        host_lengths: None,
    };
    let masks = |share: f64| PerModality {
        text: Tensor::rand([samples, SHAPE.text_length], float)
            .le(share)
            .to_kind(Kind::Float),
        audio: Tensor::rand([samples, SHAPE.audio_length], float)
            .le(share)
            .to_kind(Kind::Float),
        vision: Tensor::rand([samples, SHAPE.vision_length], float)
            .le(share)
            .to_kind(Kind::Float),
    };
    Batch {
        index: Tensor::arange(samples, int),
        input: inputs(),
        complete: Some(inputs()),
        kept: masks(0.5),
        present: masks(1.0),
        missing_rate: PerModality {
            text: Tensor::full([samples], 0.5, float),
            audio: Tensor::full([samples], 0.5, float),
            vision: Tensor::full([samples], 0.5, float),
        },
        labels: Tensor::randn([samples], float),
        unimodal_labels: None,
        host_labels: None,
    }
}

/// Runs two steps with updates. Returns the peak memory.
fn steps(id: &str, faults: Faults, encoder: &Path) -> Result<u64, Box<dyn Error>> {
    tch::manual_seed(1);
    tch::set_num_threads(1);
    let mut hyper = hyper(id);
    if hyper.contains_key("update_epochs") {
        hyper.insert("update_epochs".to_owned(), json!(1));
    }
    let hyper = Value::Object(hyper);
    let mut method = builder(id).unwrap()(&Build {
        hyper: &hyper,
        dataset: "mosei",
        data: SHAPE,
        encoder,
        device: Device::Cpu,
        faults,
        max_epochs: 10,
        optimizations: Optimizations::ALL,
        precision: Precision::Float32,
    })?;
    let batch = batch(16);
    method.prepare(&batch)?;
    // The second epoch, which has all parts of every loss, and the last pass, which trains everything
    // except MMIM's bounds.
    let pass = method.passes() - 1;
    for step in 0..2 {
        let at = Position {
            epoch: 2,
            pass,
            step,
            steps: 2,
        };
        if step == 0 {
            method.begin_pass(at)?;
        }
        method.train_step(at, &batch)?;
    }
    let peak = memory::peak_bytes().ok_or("the kernel reports no peak")?;
    let files = memory::file_bytes().ok_or("the kernel reports no pages of files")?;
    Ok(peak - files + FILES)
}

fn measure(id: &str, faults: Faults, encoder: &Path) -> Result<u64, Box<dyn Error>> {
    let child = Command::new(env::current_exe()?)
        .args([
            "--exact",
            "planned_memory_is_close_to_the_measured_peak",
            "--nocapture",
        ])
        .env(CHILD, id)
        .env(ENCODER, encoder)
        .env(CORRECTED, (faults == Faults::CORRECTED).to_string())
        .env(environment::TUNABLES, environment::KEEP_HEAP)
        .output()?;
    let out = String::from_utf8(child.stdout)?;
    let line = out.lines().find_map(|line| line.split_once("peak: "));
    let (_, peak) = line.ok_or_else(|| format!("no peak in {out}"))?;
    Ok(peak.trim().parse()?)
}

#[test]
fn planned_memory_is_close_to_the_measured_peak() {
    if let (Ok(id), Ok(encoder)) = (env::var(CHILD), env::var(ENCODER)) {
        let faults = match env::var(CORRECTED).as_deref() {
            Ok("true") => Faults::CORRECTED,
            _ => Faults::REFERENCE,
        };
        println!("peak: {}", steps(&id, faults, Path::new(&encoder)).unwrap());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    encoder(folder.path());
    let shape = EncoderShape::of(&BertConfig::read(folder.path()).unwrap());
    let data = DataFacts {
        shapes: Shapes {
            text_len: SHAPE.text_length as usize,
            audio_len: SHAPE.audio_length as usize,
            audio_dim: SHAPE.audio_dim as usize,
            vision_len: SHAPE.vision_length as usize,
            vision_dim: SHAPE.vision_dim as usize,
        },
        samples: [SHAPE.train_samples as usize, 1, 1],
        tokens: None,
    };
    let mut wrong = BTreeMap::new();
    let reference = ids().map(|id| (id, Faults::REFERENCE));
    // Corrected, this one keeps what it rebuilds.
    for (id, faults) in reference.chain([("lnln", Faults::CORRECTED)]) {
        let hyper = hyper(id);
        let needed = needed(
            methods::find(id).unwrap(),
            Setup {
                hyper: &hyper,
                faults,
                data: Some(&data),
                encoder: Some(&shape),
            },
        )
        .unwrap();
        // No checkpoint or state is kept here.
        let planned = needed.total() - needed.kept;
        let measured = measure(id, faults, folder.path()).unwrap();
        let share = planned as f64 / measured as f64;
        let mega = |bytes: u64| bytes / 1_000_000;
        println!(
            "{id}: planned {} MB (step {}, weights {}), measured {} MB, {share:.2}",
            mega(planned),
            mega(needed.step),
            mega(needed.weights),
            mega(measured)
        );
        if !ALLOWED.contains(&share) {
            wrong.insert(id, share);
        }
    }
    assert!(
        wrong.is_empty(),
        "ratio of planned to measured memory: {wrong:?}"
    );
}
