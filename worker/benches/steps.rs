//! Seconds of a training step and of an evaluation, for each method: MOSI's shapes (text 50, audio
//! 375 x 5, vision 500 x 20), batches of 64, the small English encoder, random data.
//!
//! `cargo bench -p worker --bench steps -- lnln almt` measures the methods named, all without names.
//! `MISSBENCH_BENCH_STEPS` says how many steps are timed (5), `MISSBENCH_ENCODER_EN` where the
//! encoder is, `MISSBENCH_BENCH_DEVICE` where it runs (`cpu`, `cuda:0`).

use missbench_shared::wire::Fidelity;
use serde_json::{Map, Value};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};
use tch::{Cuda, Device, Kind, Tensor};
use worker::models::{Batch, Build, DataShape, Inputs, Method, PerModality, Position, REGISTRY};

const SHAPE: DataShape = DataShape {
    text_length: 50,
    audio_length: 375,
    audio_dim: 5,
    vision_length: 500,
    vision_dim: 20,
    train_samples: 1284,
    unimodal_labels: false,
};

/// Samples in a batch, and in an evaluation: MOSI's test split.
const BATCH: i64 = 64;
const EVALUATION: i64 = 686;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A method's hyper-parameters for MOSI, with batches of 64.
fn hyper(id: &str) -> Result<Value, Box<dyn Error>> {
    let file = root().join("shared/methods").join(format!("{id}.toml"));
    let file: Value = toml::from_str(&fs::read_to_string(file)?)?;
    let empty = Map::new();
    let table = |pointer: &str| file.pointer(pointer).and_then(Value::as_object);
    let mut hyper = table("/hyper").unwrap_or(&empty).clone();
    let own = table("/hyper_by_dataset/mosi").unwrap_or(&empty);
    hyper.extend(own.iter().map(|(k, v)| (k.clone(), v.clone())));
    hyper.insert("batch_size".to_owned(), BATCH.into());
    Ok(hyper.into())
}

/// Random samples of random lengths, three tenths erased.
fn samples(count: i64, device: Device) -> Batch {
    let random = |dims: &[i64]| Tensor::rand(dims, (Kind::Float, device));
    let lengths = |least: i64, most: i64| {
        Tensor::randint_low(least, most + 1, [count], (Kind::Int64, device))
    };
    let present = |lengths: &Tensor, steps: i64| {
        let steps = Tensor::arange(steps, (Kind::Int64, device)).unsqueeze(0);
        steps.lt_tensor(&lengths.unsqueeze(1)).to_kind(Kind::Float)
    };
    let (text, audio, vision) = (lengths(6, 40), lengths(40, 375), lengths(40, 500));
    let present = PerModality {
        text: present(&text, SHAPE.text_length),
        audio: present(&audio, SHAPE.audio_length),
        vision: present(&vision, SHAPE.vision_length),
    };
    let keep = |present: &Tensor| random(&present.size()).gt(0.3).to_kind(Kind::Float) * present;
    let kept = PerModality {
        text: keep(&present.text),
        audio: keep(&present.audio),
        vision: keep(&present.vision),
    };
    let mask = present.text.to_kind(Kind::Int64);
    let ids = Tensor::randint_low(1000, 20000, mask.size(), (Kind::Int64, device)) * &mask;
    let text = Tensor::stack(&[&ids, &mask, &mask.zeros_like()], 1);
    let complete = Inputs {
        text: text.shallow_clone(),
        audio: random(&[count, SHAPE.audio_length, SHAPE.audio_dim]) * present.audio.unsqueeze(2),
        vision: random(&[count, SHAPE.vision_length, SHAPE.vision_dim])
            * present.vision.unsqueeze(2),
        audio_lengths: audio.shallow_clone(),
        vision_lengths: vision.shallow_clone(),
    };
    let rate = || Tensor::full([count], 0.3, (Kind::Float, device));
    Batch {
        index: Tensor::arange(count, (Kind::Int64, device)),
        input: Inputs {
            text,
            audio: &complete.audio * kept.audio.unsqueeze(2),
            vision: &complete.vision * kept.vision.unsqueeze(2),
            audio_lengths: audio,
            vision_lengths: vision,
        },
        complete: Some(complete),
        kept,
        present,
        missing_rate: PerModality {
            text: rate(),
            audio: rate(),
            vision: rate(),
        },
        labels: random(&[count]) * 6.0 - 3.0,
        unimodal_labels: None,
    }
}

fn wait(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

fn measure(id: &str, encoder: &Path, device: Device, steps: usize) -> Result<(), Box<dyn Error>> {
    let build = worker::models::builder(id).ok_or(format!("no method `{id}`"))?;
    tch::manual_seed(1);
    let mut method: Box<dyn Method> = build(&Build {
        hyper: &hyper(id)?,
        dataset: "mosi",
        data: SHAPE,
        encoder,
        device,
        fidelity: Fidelity::Reference,
        max_epochs: 200,
    })?;
    let batch = samples(BATCH, device);
    method.prepare(&batch)?;
    let mut seconds = Vec::new();
    for pass in 0..method.passes() {
        let at = |step| Position {
            epoch: 1,
            pass,
            step,
            steps: steps + 1,
        };
        method.begin_pass(at(0))?;
        // The first step, not counted, allocates.
        for step in 0..=steps {
            let start = Instant::now();
            method.train_step(at(step), &batch)?;
            wait(device);
            if step > 0 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    seconds.sort_by(f64::total_cmp);
    let test = samples(EVALUATION, device);
    let start = Instant::now();
    drop(method.predict(&test)?);
    wait(device);
    println!(
        "{id:>8}: {:.3} s a training step (best {:.3}), {:.2} s for {EVALUATION} predictions, peak memory {}",
        seconds[seconds.len() / 2],
        seconds[0],
        start.elapsed().as_secs_f64(),
        peak_memory(),
    );
    Ok(())
}

/// The largest resident size of this process so far, as the kernel writes it.
fn peak_memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".to_owned(), |l| l.trim().to_owned())
}

fn main() -> Result<(), Box<dyn Error>> {
    let encoder = std::env::var_os("MISSBENCH_ENCODER_EN")
        .map_or_else(|| root().join(".deps/encoder"), PathBuf::from);
    if !encoder.join("config.json").exists() {
        println!(
            "skipped: no encoder at {}; `make setup` lays it",
            encoder.display()
        );
        return Ok(());
    }
    let steps = std::env::var("MISSBENCH_BENCH_STEPS").map_or(Ok(5), |s| s.parse())?;
    let device = match std::env::var("MISSBENCH_BENCH_DEVICE").as_deref() {
        Ok("cpu") | Err(_) => Device::Cpu,
        Ok(name) => match name.strip_prefix("cuda:").map(str::parse) {
            Some(Ok(index)) => Device::Cuda(index),
            _ => return Err(format!("MISSBENCH_BENCH_DEVICE is `{name}`: cpu or cuda:0").into()),
        },
    };
    let named: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    for (id, _) in REGISTRY {
        if named.is_empty() || named.iter().any(|name| name == id) {
            measure(id, &encoder, device, steps.max(1))?;
        }
    }
    Ok(())
}
