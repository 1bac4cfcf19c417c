//! Seconds per training step and predictions per second of each method: MOSI's shapes (text 50, audio
//! 375 x 5, vision 500 x 20), batches of 64, the small English encoder, random data.
//!
//! Each method is measured twice with the same weights, in separate processes: unoptimized (full
//! padding, erased and complete inputs encoded apart, evaluation in training batches without a cache,
//! memory released after every use), and optimized, as in the worker.
//!
//! `cargo bench -p halfheard-models --bench steps -- --help` says what can be chosen. `bench/steps` sets what it
//! prints with `--json` beside eager PyTorch.

use clap::{Parser, ValueEnum, builder::PossibleValuesParser, value_parser};
use halfheard_models::{
    context::{EncoderCache, Optimizations},
    environment, memory,
    methods::{Batch, Method, Position, ids},
    numerics::{Numerics, initialize},
    precision::Precision,
    synthetic::{self, ROUND, SHAPE, WORDS, seconds_per_step, synchronize},
    train::PREDICTION_BATCH,
};
use halfheard_shared::encoder::Config;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    error::Error,
    num::NonZeroUsize,
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};
use tch::{Device, Kind};

/// In a child process: its options, as JSON.
const CHILD: &str = "HALFHEARD_BENCH_STEPS";

/// Where `make setup` puts the encoder.
const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.deps/encoder");

/// Measure seconds per training step and predictions per second of each method
///
/// In MOSI's shapes (text 50, audio 375 x 5, vision 500 x 20), on random data: unoptimized, and as in the worker. Each
/// is measured in a process of its own.
#[derive(Clone, Parser, Serialize, Deserialize)]
#[command(
    bin_name = "cargo bench -p halfheard-models --bench steps --",
    after_help = "Examples:\n  cargo bench -p halfheard-models --bench steps -- lnln almt --rounds 5\n  \
                  cargo bench -p halfheard-models --bench steps -- --json misa --precision bf16"
)]
struct Options {
    /// The methods; all if none is named
    #[arg(value_name = "METHOD", value_parser = PossibleValuesParser::new(ids()))]
    #[arg(default_values = ids(), hide_default_value = true)]
    methods: Vec<String>,
    /// Samples in a training batch
    #[arg(
        long,
        env = "HALFHEARD_BENCH_BATCH",
        value_name = "N",
        default_value_t = 64
    )]
    #[arg(value_parser = value_parser!(i64).range(1..))]
    batch: i64,
    /// Timed rounds of four steps, after one that is not counted
    #[arg(
        long,
        env = "HALFHEARD_BENCH_ROUNDS",
        value_name = "N",
        default_value = "3"
    )]
    rounds: NonZeroUsize,
    /// Threads
    #[arg(
        long,
        env = "HALFHEARD_BENCH_THREADS",
        value_name = "N",
        default_value_t = 2
    )]
    #[arg(value_parser = value_parser!(i32).range(1..))]
    threads: i32,
    /// In what matrices are multiplied
    #[arg(
        long,
        env = "HALFHEARD_BENCH_PRECISION",
        value_enum,
        default_value = "float32"
    )]
    precision: Products,
    /// cpu, or cuda:0
    #[arg(long, env = "HALFHEARD_BENCH_DEVICE", default_value = "cpu")]
    device: String,
    /// The folder of the English encoder
    #[arg(long, env = "HALFHEARD_ENCODER_EN", value_name = "FOLDER", default_value = ENCODER)]
    encoder: PathBuf,
    /// Print a line of JSON for each method, measured as in the worker
    #[arg(long)]
    json: bool,
    /// From cargo
    #[arg(long, hide = true)]
    bench: bool,
    /// What a child process measures
    #[arg(skip)]
    mode: Option<Mode>,
}

/// In what matrices are multiplied.
#[derive(Clone, Copy, ValueEnum, Serialize, Deserialize)]
enum Products {
    Float32,
    Bf16,
}

impl From<Products> for Precision {
    fn from(products: Products) -> Self {
        match products {
            Products::Float32 => Self::Float32,
            Products::Bf16 => Self::Bfloat16,
        }
    }
}

impl Options {
    fn device(&self) -> Result<Device, Box<dyn Error>> {
        match self.device.strip_prefix("cuda:").map(str::parse) {
            None if self.device == "cpu" => Ok(Device::Cpu),
            Some(Ok(index)) => Ok(Device::Cuda(index)),
            _ => Err(format!("--device is `{}`: cpu or cuda:0", self.device).into()),
        }
    }

    /// A method's hyper-parameters for MOSI, with batches of one size.
    fn hyper(&self, id: &str) -> Result<Map<String, Value>, Box<dyn Error>> {
        let mut hyper = synthetic::hyper(id)?;
        hyper.insert("batch_size".to_owned(), self.batch.into());
        Ok(hyper)
    }

    /// Floating-point operations of a training step.
    fn operations(&self, id: &str) -> Result<f64, Box<dyn Error>> {
        let encoder = Config::read(&self.encoder)?;
        synthetic::operations(id, &self.hyper(id)?, &encoder)
            .ok_or_else(|| format!("no method {id}").into())
    }

    /// Measures a method in a child process, since settings of its heap and threads take effect at its start.
    fn in_child(&self, id: &str, mode: Mode) -> Result<Measured, Box<dyn Error>> {
        let options = Self {
            methods: vec![id.to_owned()],
            mode: Some(mode),
            ..self.clone()
        };
        let mut child = Command::new(std::env::current_exe()?);
        child.env(CHILD, serde_json::to_string(&options)?);
        match mode {
            Mode::Before => child.env_remove(environment::TUNABLES),
            Mode::After => child.envs(environment::of_training_process()),
        };
        let out = child.stderr(Stdio::inherit()).output()?;
        if !out.status.success() {
            return Err(format!("measuring {id} failed: {}", out.status).into());
        }
        Ok(serde_json::from_slice(&out.stdout)?)
    }
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
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Mode {
    Before,
    After,
}

fn measure(options: &Options, id: &str, mode: Mode) -> Result<Measured, Box<dyn Error>> {
    let device = options.device()?;
    let (optimizations, size) = match mode {
        Mode::Before => (Optimizations::NONE, options.batch),
        Mode::After => (Optimizations::ALL, PREDICTION_BATCH),
    };
    let computes = (device, optimizations, options.precision.into());
    let hyper = options.hyper(id)?.into();
    let mut method = synthetic::build(id, &hyper, SHAPE, &options.encoder, computes)?;
    let batch = samples(options.batch, device)?;
    method.prepare(&batch)?;
    let mut seconds = Vec::new();
    for pass in 0..method.passes() {
        let at = Position {
            // TFR-Net trains its generators from the second epoch on.
            epoch: 2,
            pass,
            step: 0,
            steps: ROUND * (options.rounds.get() + 1),
        };
        seconds.extend(seconds_per_step(
            method.as_mut(),
            &batch,
            at,
            options.rounds.get(),
            device,
        )?);
    }
    Ok(Measured {
        step: median(seconds),
        evaluated: evaluated_per_second(method.as_ref(), size, mode == Mode::After, device)?,
        peak: memory::peak_bytes().ok_or("the kernel reports no peak memory")?,
        operations: options.operations(id)?,
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

fn main() -> Result<(), Box<dyn Error>> {
    let options: Options = match std::env::var(CHILD) {
        Ok(json) => serde_json::from_str(&json)?,
        Err(_) => Options::parse(),
    };
    if !options.encoder.join("config.json").exists() {
        println!(
            "skipped: no encoder at {}; `make setup` installs it",
            options.encoder.display()
        );
        return Ok(());
    }
    initialize(Numerics::Machine)?;
    tch::set_num_threads(options.threads);
    options.device()?;
    if let (Some(mode), [id]) = (options.mode, &options.methods[..]) {
        let measured = measure(&options, id, mode)?;
        println!("{}", serde_json::to_string(&measured)?);
        return Ok(());
    }
    if options.json {
        for id in &options.methods {
            let measured = options.in_child(id, Mode::After)?;
            println!("{}", serde_json::to_string(&measured)?);
        }
        return Ok(());
    }
    let (batch, threads, rounds) = (options.batch, options.threads, options.rounds);
    println!("batches of {batch}, {threads} threads, medians of {rounds} rounds of {ROUND} steps");
    for id in &options.methods {
        let before = options.in_child(id, Mode::Before)?;
        let after = options.in_child(id, Mode::After)?;
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
