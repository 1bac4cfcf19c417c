//! Seconds per training step and predictions per second of each method: MOSI's shapes (text 50, audio
//! 375 x 5, vision 500 x 20), batches of 64, the small English encoder, random data.
//!
//! Each method is measured twice with the same weights, in separate processes: unoptimized (full
//! padding, erased and complete inputs encoded apart, evaluation in training batches without a cache,
//! memory released after every use), and optimized, as in the worker.
//!
//! `cargo bench -p halfheard-models --bench steps -- lnln almt` measures the named methods, or all.
//! With `--json`, a line of JSON is printed for each named method, as in the worker alone: `bench/steps`
//! sets it beside eager PyTorch.
//! `HALFHEARD_BENCH_BATCH` sets the samples in a training batch (64), `HALFHEARD_BENCH_ROUNDS` the number of timed rounds of four steps (3),
//! `HALFHEARD_BENCH_THREADS` the number of threads (2), `HALFHEARD_ENCODER_EN` the encoder's folder,
//! `HALFHEARD_BENCH_PRECISION` in what matrices are multiplied (`float32`, `bf16`),
//! and `HALFHEARD_BENCH_DEVICE` the device (`cpu`, `cuda:0`).

use halfheard_models::{
    context::{EncoderCache, Optimizations},
    environment, memory,
    methods::{Batch, Method, Position, REGISTRY},
    numerics::{Numerics, initialize},
    precision::Precision,
    synthetic::{self, ROUND, SHAPE, WORDS, seconds_per_step, synchronize},
    train::PREDICTION_BATCH,
};
use halfheard_shared::encoder::Config;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    error::Error,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};
use tch::{Device, Kind};

/// In a child process: the mode to measure.
const MODE: &str = "HALFHEARD_BENCH_MODE";

/// Samples per training batch, unless the environment says otherwise.
const BATCH: i64 = 64;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn batch_size() -> Result<i64, Box<dyn Error>> {
    match std::env::var("HALFHEARD_BENCH_BATCH") {
        Err(_) => Ok(BATCH),
        Ok(text) => match text.parse() {
            Ok(size @ 1..) => Ok(size),
            _ => Err(format!("HALFHEARD_BENCH_BATCH is `{text}`: a number of samples").into()),
        },
    }
}

/// In what matrices are multiplied.
fn precision() -> Result<Precision, Box<dyn Error>> {
    match std::env::var("HALFHEARD_BENCH_PRECISION").as_deref() {
        Ok("float32") | Err(_) => Ok(Precision::Float32),
        Ok("bf16") => Ok(Precision::Bfloat16),
        Ok(name) => Err(format!("HALFHEARD_BENCH_PRECISION is `{name}`: float32 or bf16").into()),
    }
}

/// A method's hyper-parameters for MOSI, with batches of one size.
fn hyper(id: &str) -> Result<Value, Box<dyn Error>> {
    let mut hyper = synthetic::hyper(id)?;
    hyper.insert("batch_size".to_owned(), batch_size()?.into());
    Ok(hyper.into())
}

/// Floating-point operations of a training step.
fn operations(id: &str) -> Result<f64, Box<dyn Error>> {
    let Value::Object(hyper) = hyper(id)? else {
        return Err("hyper-parameters are an object".into());
    };
    let encoder = Config::read(&encoder())?;
    synthetic::operations(id, &hyper, &encoder).ok_or_else(|| format!("no method {id}").into())
}

/// Random samples, whose lengths and labels the host knows, as a dataset's.
fn samples(count: i64, device: Device) -> Result<Batch, Box<dyn Error>> {
    Ok(synthetic::samples(count, SHAPE, &WORDS, device).known_on_host()?)
}

/// Measurements of a method in one mode.
#[derive(Serialize, Deserialize)]
struct Measured {
    /// Seconds per training step.
    step: f64,
    /// Predictions per second.
    evaluated: f64,
    /// Peak resident memory in bytes.
    peak: u64,
    /// Floating-point operations of a training step, all in products of matrices.
    operations: f64,
}

/// The two modes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Before,
    After,
}

impl Mode {
    fn named(name: &str) -> Result<Self, Box<dyn Error>> {
        match name {
            "before" => Ok(Self::Before),
            "after" => Ok(Self::After),
            _ => Err(format!("{MODE} is `{name}`: before or after").into()),
        }
    }

    /// Measures a method in a child process, since settings of its heap and threads take effect at its start.
    fn measure(self, id: &str) -> Result<Measured, Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?);
        child.arg("--bench").arg(id);
        match self {
            Self::Before => child.env(MODE, "before").env_remove(environment::TUNABLES),
            Self::After => child
                .env(MODE, "after")
                .envs(environment::of_training_process()),
        };
        let out = child.stderr(Stdio::inherit()).output()?;
        if !out.status.success() {
            return Err(format!("measuring {id} failed: {}", out.status).into());
        }
        Ok(serde_json::from_slice(&out.stdout)?)
    }
}

fn measure(
    id: &str,
    mode: Mode,
    device: Device,
    rounds: usize,
) -> Result<Measured, Box<dyn Error>> {
    let (optimizations, size) = match mode {
        Mode::Before => (Optimizations::NONE, batch_size()?),
        Mode::After => (Optimizations::ALL, PREDICTION_BATCH),
    };
    let computes = (device, optimizations, precision()?);
    let mut method = synthetic::build(id, &hyper(id)?, SHAPE, &encoder(), computes)?;
    let batch = samples(batch_size()?, device)?;
    method.prepare(&batch)?;
    let mut seconds = Vec::new();
    for pass in 0..method.passes() {
        let at = Position {
            // TFR-Net trains its generators from the second epoch on.
            epoch: 2,
            pass,
            step: 0,
            steps: ROUND * (rounds + 1),
        };
        seconds.extend(seconds_per_step(
            method.as_mut(),
            &batch,
            at,
            rounds,
            device,
        )?);
    }
    Ok(Measured {
        step: median(seconds),
        evaluated: evaluated_per_second(method.as_ref(), size, mode == Mode::After, device)?,
        peak: memory::peak_bytes().ok_or("the kernel reports no peak memory")?,
        operations: operations(id)?,
    })
}

/// Predictions per second for sixteen cases with eleven distinct texts: ten missing rates, no
/// language, and five that share one of these.
fn evaluated_per_second(
    method: &dyn Method,
    size: i64,
    reuse: bool,
    device: Device,
) -> Result<f64, Box<dyn Error>> {
    let mut batch = samples(size, device)?;
    let text = batch.input.text.shallow_clone();
    let texts = (0..16).map(|case| {
        // Other tokens of the same lengths.
        let other = if case < 11 { case } else { 0 };
        &text + text.ge(1000).to_kind(Kind::Int64) * other
    });
    drop(method.predict(&batch, None)?);
    synchronize(device);
    let start = Instant::now();
    let cache = reuse.then(EncoderCache::default);
    for text in texts {
        batch.input.text = text;
        drop(method.predict(&batch, cache.as_ref())?);
    }
    synchronize(device);
    Ok((16 * size) as f64 / start.elapsed().as_secs_f64())
}

/// The median of a non-empty list.
fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn encoder() -> PathBuf {
    std::env::var_os("HALFHEARD_ENCODER_EN")
        .map_or_else(|| root().join(".deps/encoder"), PathBuf::from)
}

fn main() -> Result<(), Box<dyn Error>> {
    if !encoder().join("config.json").exists() {
        println!(
            "skipped: no encoder at {}; `make setup` installs it",
            encoder().display()
        );
        return Ok(());
    }
    let rounds: usize = std::env::var("HALFHEARD_BENCH_ROUNDS").map_or(Ok(3), |s| s.parse())?;
    let rounds = rounds.max(1);
    let threads = std::env::var("HALFHEARD_BENCH_THREADS").map_or(Ok(2), |s| s.parse())?;
    initialize(Numerics::Machine)?;
    tch::set_num_threads(threads);
    let device = match std::env::var("HALFHEARD_BENCH_DEVICE").as_deref() {
        Ok("cpu") | Err(_) => Device::Cpu,
        Ok(name) => match name.strip_prefix("cuda:").map(str::parse) {
            Some(Ok(index)) => Device::Cuda(index),
            _ => return Err(format!("HALFHEARD_BENCH_DEVICE is `{name}`: cpu or cuda:0").into()),
        },
    };
    let named: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    if let (Ok(mode), [id]) = (std::env::var(MODE), &named[..]) {
        let measured = measure(id, Mode::named(&mode)?, device, rounds)?;
        println!("{}", serde_json::to_string(&measured)?);
        return Ok(());
    }
    if std::env::args().any(|arg| arg == "--json") {
        for id in &named {
            println!("{}", serde_json::to_string(&Mode::After.measure(id)?)?);
        }
        return Ok(());
    }
    let batch = batch_size()?;
    println!("batches of {batch}, {threads} threads, medians of {rounds} rounds of {ROUND} steps");
    for (id, _) in REGISTRY {
        if !named.is_empty() && !named.iter().any(|name| name == id) {
            continue;
        }
        let (before, after) = (Mode::Before.measure(id)?, Mode::After.measure(id)?);
        println!(
            "{id:>8}: a training step {:.3} s before, {:.3} s after ({:.2}x); predictions a second \
             {:.0} before, {:.0} after ({:.2}x); peak memory {:.1} GB before, {:.1} GB after",
            before.step,
            after.step,
            before.step / after.step,
            before.evaluated,
            after.evaluated,
            after.evaluated / before.evaluated,
            before.peak as f64 / 1e9,
            after.peak as f64 / 1e9,
        );
    }
    Ok(())
}
