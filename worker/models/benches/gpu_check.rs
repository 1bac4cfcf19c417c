//! Checks and measures every method on a GPU: whether it trains as on the CPU, seconds a step, peak
//! memory, operators a step, and how often the host waits for the device in a step.
//!
//! `make gpu-check` runs it, and `make gpu-check GPU_CHECK=--help` says what can be chosen.

use clap::{Parser, builder::PossibleValuesParser, value_parser};
use halfheard_models::{
    context::Optimizations,
    device, environment,
    memory::PeakMemory,
    methods::{Batch, Losses, Method, Position, ids},
    numerics::{Numerics, initialize},
    precision::Precision,
    synthetic::{self, ROUND, seconds_per_step},
};
use halfheard_shared::{device::Devices, encoder::Config};
use halfheard_torch_shim::Counter;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    error::Error,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};
use tch::Device;

/// In a child process: its options, as JSON.
const CHILD: &str = "HALFHEARD_GPU_CHECK";

/// Samples in a batch of the comparison, which also runs on the CPU.
const COMPARED_BATCH: i64 = 32;

/// Batches of the comparison, one after the other.
const BATCHES: usize = 5;

/// By how much the first loss may differ from the CPU's, relative to it: products are rounded otherwise,
/// to ten bits in convolutions (TF32).
const FIRST_BOUND: f64 = 1e-3;

/// By how much any loss may: Adam makes steps of the same size from gradients that differ in their sign.
const BOUND: f64 = 5e-2;

/// Timed rounds of each pass, after one that is not counted.
const ROUNDS: usize = 3;

/// Check and measure every method on a GPU
///
/// Whether it trains as on the CPU, seconds a step, peak memory, operators a step, and how often the host waits for the
/// device in a step. HALFHEARD_ENCODER_EN names the folder of the English encoder.
#[derive(Clone, Debug, Parser, Serialize, Deserialize)]
#[command(
    bin_name = "cargo bench -p halfheard-models --bench gpu_check --",
    after_help = "Exit codes: 1 if a loss is out of its bounds, a step reads from the device or a method fails;\n\
                  3 if there is no such device.\n\n\
                  Examples:\n  make gpu-check\n  make gpu-check GPU_CHECK='--python python3 --json lnln'"
)]
struct Options {
    /// The methods; all if none is named
    #[arg(value_name = "METHOD", value_parser = PossibleValuesParser::new(ids()))]
    #[arg(default_values = ids(), hide_default_value = true)]
    methods: Vec<String>,
    /// Another device than the first GPU: cpu, or cuda:1
    #[arg(long, default_value = "cuda:0")]
    device: String,
    /// A Python with PyTorch: the eager peers (bench/eager) are measured on the same device
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
    /// Print a line of JSON for each method
    #[arg(long)]
    json: bool,
    /// How many steps are compared with the CPU's
    #[arg(long, value_name = "N", default_value = "20")]
    steps: NonZeroUsize,
    /// Samples in a measured batch
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = value_parser!(i64).range(1..))]
    batch: i64,
    /// Threads; as many as there are cores by default
    #[arg(long, value_name = "N", default_value_t = cores())]
    #[arg(hide_default_value = true)]
    threads: NonZeroUsize,
    /// From cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// What was found out about a method.
#[derive(Debug, Serialize, Deserialize)]
struct Checked {
    method: String,
    /// The largest difference of a first loss from the CPU's, relative to it.
    first_difference: f64,
    /// The largest of all losses.
    difference: f64,
    /// Seconds a step.
    step: f64,
    /// Seconds a step of the eager peer, if it was measured.
    eager: Option<f64>,
    /// Peak memory of the device in bytes, libtorch's own share included.
    peak: u64,
    /// Operators a step, those inside of others included: an upper bound of kernel launches.
    operators: f64,
    /// Waits of the host a step, for a value of the device.
    host_reads: f64,
    /// Copies to the device a step.
    copies_to_device: f64,
}

impl Checked {
    /// What is wrong, if anything.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut out = |what: &str, found: f64, bound: f64| {
            if found.is_nan() || found > bound {
                problems.push(format!("{what} is {found:.1e}, at most {bound:.0e}"));
            }
        };
        out(
            "the first loss's difference",
            self.first_difference,
            FIRST_BOUND,
        );
        out("a loss's difference", self.difference, BOUND);
        if self.host_reads > 0.0 {
            problems.push(format!("{:.2} host reads a step", self.host_reads));
        }
        problems
    }

    fn line(&self) -> String {
        let eager = self.eager.map_or_else(String::new, |eager| {
            format!(" (eager {eager:.4} s, {:.2}x)", eager / self.step)
        });
        let problems = self.problems();
        let verdict = match problems.is_empty() {
            true => "ok".to_owned(),
            false => problems.join(", "),
        };
        format!(
            "{:>9}: losses within {:.1e}, then {:.1e}; {:.4} s a step{eager}; peak {:.2} GB; \
             {:.0} operators, {:.2} host reads, {:.2} copies a step: {verdict}",
            self.method,
            self.first_difference,
            self.difference,
            self.step,
            self.peak as f64 / 1e9,
            self.operators,
            self.host_reads,
            self.copies_to_device,
        )
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn encoder() -> PathBuf {
    std::env::var_os("HALFHEARD_ENCODER_EN")
        .map_or_else(|| root().join(".deps/encoder"), PathBuf::from)
}

/// The encoder without dropout, as links to its files and a changed configuration.
fn without_dropout(encoder: &Path) -> Result<tempfile::TempDir, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    for entry in fs::read_dir(encoder)? {
        let entry = entry?;
        if entry.file_name() != "config.json" {
            let link = folder.path().join(entry.file_name());
            std::os::unix::fs::symlink(entry.path().canonicalize()?, link)?;
        }
    }
    let mut config: Value = serde_json::from_slice(&fs::read(encoder.join("config.json"))?)?;
    for name in ["hidden_dropout_prob", "attention_probs_dropout_prob"] {
        config[name] = 0.0.into();
    }
    fs::write(folder.path().join("config.json"), config.to_string())?;
    Ok(folder)
}

fn built(
    id: &str,
    hyper: &Value,
    encoder: &Path,
    device: Device,
) -> Result<Box<dyn Method>, Box<dyn Error>> {
    let (data, _) = synthetic::fitting(&Config::read(encoder)?);
    let computes = (device, Optimizations::ALL, Precision::Float32);
    Ok(synthetic::build(id, hyper, data, encoder, computes)?)
}

/// Batches, the same on every device.
fn batches(
    count: usize,
    samples: i64,
    encoder: &Path,
    device: Device,
) -> Result<Vec<Batch>, Box<dyn Error>> {
    let (shape, words) = synthetic::fitting(&Config::read(encoder)?);
    tch::manual_seed(2);
    let all = (0..count).map(|_| -> Result<Batch, Box<dyn Error>> {
        let batch = synthetic::samples(samples, shape, &words, Device::Cpu);
        Ok(batch.known_on_host()?.to_device(device)?)
    });
    all.collect()
}

/// The losses of the steps of all passes, without dropout, from the weights of a CPU's model.
fn losses(id: &str, options: &Options, device: Device) -> Result<Vec<f64>, Box<dyn Error>> {
    let folder = without_dropout(&encoder())?;
    let mut hyper = synthetic::hyper(id)?;
    hyper.insert("batch_size".to_owned(), COMPARED_BATCH.into());
    for (name, value) in &mut hyper {
        if name.contains("drop") && value.is_f64() {
            *value = 0.0.into();
        }
    }
    let hyper = Value::Object(hyper);
    let mut method = built(id, &hyper, folder.path(), device)?;
    let initial = built(id, &hyper, folder.path(), Device::Cpu)?
        .vars()
        .variables();
    tch::no_grad(|| {
        for (name, mut variable) in method.vars().variables() {
            if let Some(weight) = initial.get(&name) {
                variable.copy_(weight);
            }
        }
    });
    let batches = batches(BATCHES, COMPARED_BATCH, folder.path(), device)?;
    for batch in &batches {
        method.prepare(batch)?;
    }
    let mut steps = Vec::new();
    for pass in 0..method.passes() {
        let at = |step| Position {
            // Generated labels and generators are used from the second epoch on.
            epoch: 2,
            pass,
            step,
            steps: options.steps.get(),
        };
        method.begin_pass(at(0))?;
        for step in 0..options.steps.get() {
            let batch = &batches[step % BATCHES];
            steps.push((at(step), method.train_step(at(step), batch)?.losses));
        }
    }
    let read = Losses::read_all(&steps)?;
    // Those of MMIM's first pass have no total.
    let total = |losses: &std::collections::BTreeMap<_, f64>| {
        let loss = losses.get("loss").or_else(|| losses.values().next());
        loss.copied().unwrap_or(f64::NAN)
    };
    Ok(read.iter().map(total).collect())
}

/// Checks and measures one method, in a process of its own.
fn check(id: &str, options: &Options, device: Device) -> Result<Checked, Box<dyn Error>> {
    // Before its first tensor.
    let memory = PeakMemory::new(Some(device));
    let encoder = encoder();
    let mut hyper = synthetic::hyper(id)?;
    hyper.insert("batch_size".to_owned(), options.batch.into());
    let mut method = built(id, &hyper.into(), &encoder, device)?;
    let batch = batches(1, options.batch, &encoder, device)?.remove(0);
    method.prepare(&batch)?;
    let (mut seconds, mut operators, mut reads, mut copies) = (Vec::new(), 0, 0, 0);
    for pass in 0..method.passes() {
        let at = |step| Position {
            epoch: 2,
            pass,
            step,
            steps: ROUND * (ROUNDS + 2),
        };
        seconds.extend(seconds_per_step(
            method.as_mut(),
            &batch,
            at(0),
            ROUNDS,
            device,
        )?);
        // Apart from what is timed: counting takes time.
        let mut counter = Counter::start();
        for step in 0..ROUND {
            method.train_step(at((ROUNDS + 1) * ROUND + step), &batch)?;
        }
        let counts = counter.take();
        operators += counts.operators;
        reads += counts.host_reads();
        copies += counts.copies_to_device;
    }
    let peak = memory.of_job(0);
    drop(method);
    let (host, own) = (
        losses(id, options, Device::Cpu)?,
        losses(id, options, device)?,
    );
    let differences: Vec<f64> = own
        .iter()
        .zip(&host)
        .map(|(own, host)| (own - host).abs() / host.abs().max(1e-3))
        .collect();
    // A NaN stays one, where `f64::max` would drop it.
    let largest = |most: f64, next: &f64| match next.is_nan() || *next > most {
        true => *next,
        false => most,
    };
    seconds.sort_by(f64::total_cmp);
    let counted = (ROUND * seconds.len() / ROUNDS) as f64;
    Ok(Checked {
        method: id.to_owned(),
        first_difference: differences.first().copied().unwrap_or(f64::NAN),
        difference: differences.iter().fold(0.0, largest),
        step: seconds[seconds.len() / 2],
        eager: None,
        peak,
        operators: operators as f64 / counted,
        host_reads: reads as f64 / counted,
        copies_to_device: copies as f64 / counted,
    })
}

/// Runs [`check`] in a child process, whose memory is its own, and measures the eager peer.
fn checked(id: &str, options: &Options) -> Result<Checked, Box<dyn Error>> {
    let mut child = Command::new(std::env::current_exe()?);
    child.arg(id).env(CHILD, serde_json::to_string(options)?);
    child.envs(environment::of_training_process());
    let out = child.stderr(Stdio::inherit()).output()?;
    if !out.status.success() {
        return Err(format!("{id} failed: {}", out.status).into());
    }
    let mut checked: Checked = serde_json::from_slice(&out.stdout)?;
    if let Some(python) = &options.python {
        checked.eager = Some(eager(python, id, options)?);
    }
    Ok(checked)
}

/// Seconds a step of the eager peer.
fn eager(python: &Path, id: &str, options: &Options) -> Result<f64, Box<dyn Error>> {
    let out = Command::new(python)
        .arg("-B")
        .arg(root().join("bench/eager"))
        .args(["measure", id, "--device", &options.device])
        .args(["--batch", &options.batch.to_string()])
        .args(["--threads", &options.threads.to_string()])
        .arg("--encoder")
        .arg(encoder())
        // Its libtorch is its own.
        .env_remove("LD_LIBRARY_PATH")
        .stderr(Stdio::inherit())
        .output()?;
    if !out.status.success() {
        return Err(format!("the eager peer of {id} failed: {}", out.status).into());
    }
    let measured: Value = serde_json::from_slice(&out.stdout)?;
    measured["step"]
        .as_f64()
        .ok_or_else(|| format!("the eager peer of {id} says no `step`").into())
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let child = std::env::var(CHILD).ok();
    let options: Options = match &child {
        Some(json) => serde_json::from_str(json)?,
        None => Options::parse(),
    };
    let devices: Devices = options.device.parse()?;
    let found = device::detect(&devices);
    let device = match device::choose(&devices, &found) {
        Ok(chosen) => chosen,
        Err(error) => {
            eprintln!("no GPU to check: {error}");
            if let Some(problem) = &found.problem {
                eprintln!("hint: {}", problem.remedy());
            }
            eprintln!("hint: `--device cpu` runs the same on the CPU");
            return Ok(ExitCode::from(3));
        }
    };
    if !encoder().join("config.json").exists() {
        let folder = encoder();
        return Err(format!("no encoder at {}: run `make setup`", folder.display()).into());
    }
    initialize(Numerics::Machine)?;
    device::set_threads(options.threads.get());
    if child.is_some() {
        let id = std::env::args().nth(1).ok_or("no method")?;
        let checked = check(&id, &options, device.device)?;
        println!("{}", serde_json::to_string(&checked)?);
        return Ok(ExitCode::SUCCESS);
    }
    let Options { steps, batch, .. } = options;
    eprintln!(
        "{}: {steps} steps of {COMPARED_BATCH} samples compared with the CPU, batches of {batch} measured",
        device.name
    );
    let mut fine = true;
    for id in &options.methods {
        match checked(id, &options) {
            Ok(checked) => {
                fine &= checked.problems().is_empty();
                match options.json {
                    true => println!("{}", serde_json::to_string(&checked)?),
                    false => println!("{}", checked.line()),
                }
            }
            Err(error) => {
                fine = false;
                eprintln!("{id}: {error}");
            }
        }
    }
    Ok(if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}
