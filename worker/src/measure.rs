//! `worker --measure METHOD`: how fast a slot trains here, as JSON for `coord tune-machine`.

use crate::{cli::Cli, exit::Exit, identity, runtime};
use halfheard_models::{
    device::{self, ComputeDevice, DeviceError},
    environment,
    memory::PeakMemory,
    numerics::{self, Numerics, NumericsError},
    synthetic::{SyntheticError, SyntheticRun},
};
use halfheard_shared::error::{Hint, chain, hint_of};
use serde::Serialize;
use std::{
    ffi::OsString,
    io::{BufRead as _, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// The line by which a process says that it is warm and waits for its start.
const READY: &str = "ready";

/// What `worker --measure` prints.
#[derive(Debug, Serialize)]
struct Measured {
    version: &'static str,
    method: String,
    /// Samples per training step.
    batch_size: usize,
    device: String,
    /// CPU threads.
    threads: usize,
    /// Training steps in `seconds`.
    steps: u64,
    seconds: f64,
    /// The most bytes of the device's memory that it needed; 0 if unknown.
    peak_memory: u64,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
enum MeasureError {
    #[error("no text encoder is named")]
    NoEncoder,
    #[error("no text encoder in {}", .0.display())]
    EncoderMissing(PathBuf),
    #[error("cannot start this program anew with a slot's memory settings")]
    Restart(#[source] std::io::Error),
    #[error("cannot read the line that starts the measurement")]
    Start(#[source] std::io::Error),
    #[error(transparent)]
    Numerics(#[from] NumericsError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("cannot train {method}")]
    Train {
        method: String,
        source: SyntheticError,
    },
}

impl Hint for MeasureError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoEncoder | Self::EncoderMissing(_) => Some(
                "name the folder of a BERT with --measure-encoder or in HALFHEARD_ENCODER_EN; `make setup` installs a \
                 small one"
                    .to_owned(),
            ),
            Self::Train {
                source: SyntheticError::Unknown(_),
                ..
            } => Some("methods are listed in docs/reference/methods.md".to_owned()),
            Self::Train { source, .. } => runtime::ERRORS.hint(source),
            Self::Device(error) => hint_of::<DeviceError>(error),
            Self::Restart(_) | Self::Start(_) | Self::Numerics(_) => None,
        }
    }
}

/// Measures training steps of `method` as a slot computes them.
pub(crate) fn run(method: &str, cli: &Cli, flags: Vec<OsString>) -> Exit {
    match measure(method, cli, flags) {
        Ok(measured) => {
            let json = serde_json::to_string(&measured).unwrap_or_default();
            // The reader may have closed the pipe.
            let _ = writeln!(std::io::stdout(), "{json}");
            Exit::Success
        }
        Err(error) => {
            tracing::error!(hint = error.hint(), "{}", chain(&error));
            match error {
                MeasureError::Device(_) | MeasureError::Numerics(_) => Exit::Device,
                MeasureError::Restart(_) | MeasureError::Start(_) => Exit::Internal,
                _ => Exit::Usage,
            }
        }
    }
}

fn measure(method: &str, cli: &Cli, flags: Vec<OsString>) -> Result<Measured, MeasureError> {
    restart_as_slot(flags)?;
    let encoder = encoder(cli.measuring.measure_encoder.as_deref())?;
    numerics::initialize(Numerics::Machine)?;
    let found = device::detect(&cli.device);
    let ComputeDevice { device, name } = device::choose(&cli.device, &found)?;
    let threads = cli.threads_per_slot(cli.requested_slots());
    device::set_threads(threads);
    let peak = PeakMemory::new(Some(device));
    let failed = |source| MeasureError::Train {
        method: method.to_owned(),
        source,
    };
    let mut run = SyntheticRun::new(method, &encoder, device).map_err(failed)?;
    // The first step allocates.
    run.step().map_err(failed)?;
    run.synchronize();
    if cli.measuring.measure_on_line {
        wait_for_line().map_err(MeasureError::Start)?;
    }
    let (steps, seconds) = steps_within(cli.measuring.measure_seconds, &mut run).map_err(failed)?;
    Ok(Measured {
        version: identity::VERSION,
        method: method.to_owned(),
        batch_size: run.batch_size(),
        device: name,
        threads,
        steps,
        seconds,
        peak_memory: peak.of_job(0),
    })
}

/// Replaces this process by one with the environment of a slot, which takes effect at the start of a program. Returns if it
/// has that.
fn restart_as_slot(flags: Vec<OsString>) -> Result<(), MeasureError> {
    let missing = environment::of_training_process();
    if missing.is_empty() {
        return Ok(());
    }
    let failed = Command::new("/proc/self/exe")
        .arg0("worker")
        .args(flags)
        .envs(missing)
        .exec();
    Err(MeasureError::Restart(failed))
}

/// The folder of the text encoder.
fn encoder(named: Option<&Path>) -> Result<PathBuf, MeasureError> {
    let folder = named.ok_or(MeasureError::NoEncoder)?;
    match folder.join("config.json").is_file() {
        true => Ok(folder.to_owned()),
        false => Err(MeasureError::EncoderMissing(folder.to_owned())),
    }
}

/// Says that this process is ready, and waits until it is told to begin: processes that share a machine
/// are to be measured while all of them compute.
fn wait_for_line() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    match std::io::stdin().lock().read_line(&mut String::new())? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Runs steps until `limit` has passed, at least one; their number and the seconds that they took.
fn steps_within(limit: Duration, run: &mut SyntheticRun) -> Result<(u64, f64), SyntheticError> {
    let began = Instant::now();
    let mut steps = 0;
    loop {
        run.step()?;
        run.synchronize();
        steps += 1;
        let passed = began.elapsed();
        if passed >= limit {
            return Ok((steps, passed.as_secs_f64()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_models::device::Device;

    #[test]
    fn steps_are_counted_until_the_limit_has_passed() {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/tests/data/encoders/bert");
        let mut run = SyntheticRun::new("text-only", &folder, Device::Cpu).unwrap();
        let (steps, seconds) = steps_within(Duration::ZERO, &mut run).unwrap();
        assert_eq!(steps, 1);
        assert!(seconds > 0.0);
        // As many steps as fit into five times as long, one at least.
        let limit = Duration::from_secs_f64(5.0 * seconds);
        let (steps, passed) = steps_within(limit, &mut run).unwrap();
        assert!(steps >= 1 && passed >= limit.as_secs_f64());
    }

    #[test]
    fn encoder_must_be_named_and_exist() {
        assert!(matches!(encoder(None), Err(MeasureError::NoEncoder)));
        let error = encoder(Some(Path::new("/nonexistent/bert"))).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/bert"));
        assert!(error.hint().unwrap().contains("make setup"));
    }
}
