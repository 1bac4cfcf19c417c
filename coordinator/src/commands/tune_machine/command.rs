//! The command.

use super::{
    args::TuneMachineArgs,
    progress::Progress,
    report::{Report, Skipped},
};
use crate::{
    config::Settings,
    exit::Exit,
    local::{
        measurement::{self, Answer, MeasureError, Question},
        programs::{Part, Programs},
        worker_check,
    },
    output::Output,
    submission::memory,
    tuning::{
        Candidate, Cores, Machine, Measured, MethodRate, Room, Tuning, candidates, choose, path,
    },
};
use anyhow::Context as _;
use halfheard_shared::{
    shutdown::{Interrupted, Shutdown},
    text::count,
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// The share of the time that is measured; starting processes and their first steps take the rest.
const MEASURED: f64 = 0.7;
/// The share of the cores that others may keep busy without a word.
const BUSY: f64 = 0.25;
/// Slots may need a little more memory than those of the measurement before.
const SPARE: f64 = 1.1;

/// Measures, prints and keeps what is best.
///
/// # Errors
///
/// The worker or the text encoder is missing, a worker fails, or the data folder cannot be written.
pub(crate) async fn run(args: TuneMachineArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let interrupt = Shutdown::on_signals(Exit::Interrupted.code())?;
    match interrupt.or(tune(&args, settings)).await {
        Ok(tuned) => tuned.map(|()| ExitCode::SUCCESS),
        Err(Interrupted) => {
            eprintln!("interrupted; nothing was changed");
            Ok(Exit::Interrupted.into())
        }
    }
}

async fn tune(args: &TuneMachineArgs, settings: &Settings) -> anyhow::Result<()> {
    let output = Output::of(settings);
    let programs = Programs::discover();
    let worker = programs.find(Part::Worker)?;
    let encoder = programs.find(Part::EncoderEn)?.path;
    let gpus = gpus(&worker.path, &programs).await?;
    let machine = Machine::this(&worker.version);
    if let Some(busy) = busy(machine.cores) {
        output.note(busy);
    }
    let free = memory::available();
    let bench = Bench {
        worker: &worker.path,
        programs: &programs,
        encoder: &encoder,
        methods: &args.methods,
        free,
    };
    let candidates = candidates(Cores::of_this_process());
    let (measured, skipped) = bench.measure_all(&candidates, args.seconds, output).await?;
    let room = Room { free, slot: None };
    let chosen = choose(&measured, room).context("nothing was measured")?;
    let tuning = Tuning::new(machine, measured);
    let file = path(&settings.data_dir, &tuning.machine.host);
    tuning
        .save(&settings.data_dir)
        .with_context(|| format!("cannot write {}", file.display()))?;
    output.print_pretty(&Report::new(&tuning, &skipped, chosen, gpus, &file))?;
    Ok(())
}

/// Says that other processes compute here, if they do: workers that wait for each other's cores are slower with
/// more threads, and the choice is one for a busy machine.
fn busy(cores: usize) -> Option<String> {
    let load = load(&std::fs::read_to_string("/proc/loadavg").ok()?)?;
    (load > BUSY * cores as f64).then(|| {
        format!(
            "other processes keep about {load:.1} of {} busy: measure again when they are done",
            count(cores, "core")
        )
    })
}

/// Processes that ran or waited for a core in the last minute.
fn load(loadavg: &str) -> Option<f64> {
    loadavg.split_whitespace().next()?.parse().ok()
}

/// The number of GPUs that slots would use.
async fn gpus(worker: &Path, programs: &Programs) -> anyhow::Result<usize> {
    let (worker, programs) = (worker.to_owned(), programs.clone());
    let look = ["--look", "--slots=1", "--device=auto"].map(str::to_owned);
    let check = tokio::task::spawn_blocking(move || worker_check::query(&worker, &programs, &look));
    let check = check.await.context("cannot query the worker")?;
    Ok(check.context("cannot query the worker for devices")?.gpus)
}

/// What measures.
struct Bench<'a> {
    worker: &'a Path,
    programs: &'a Programs,
    encoder: &'a PathBuf,
    methods: &'a [String],
    /// Free bytes of memory.
    free: Option<u64>,
}

impl Bench<'_> {
    /// Measures all that fit into memory, fewest slots first.
    async fn measure_all(
        &self,
        candidates: &[Candidate],
        time: Duration,
        output: Output,
    ) -> Result<(Vec<Measured>, Vec<Skipped>), MeasureError> {
        let measurements = candidates.len() * self.methods.len();
        let each = time.mul_f64(MEASURED / measurements.max(1) as f64);
        let progress = Progress::new(output, measurements);
        let mut all: Vec<Measured> = Vec::new();
        let mut skipped = Vec::new();
        for &candidate in candidates {
            let slot = all.iter().map(Measured::slot_memory).max().unwrap_or(0);
            if let Some(needed) = self.too_large(candidate, slot) {
                skipped.push(Skipped { candidate, needed });
                continue;
            }
            let mut methods = Vec::new();
            for method in self.methods {
                progress.measuring(candidate, method);
                let answers = self.measure(candidate, method, each).await?;
                methods.push(MethodRate {
                    method: method.clone(),
                    steps_per_second: answers.iter().map(Answer::rate).sum(),
                    slot_memory: answers.iter().map(|a| a.peak_memory).max().unwrap_or(0),
                });
                progress.measured();
            }
            all.push(Measured { candidate, methods });
        }
        Ok((all, skipped))
    }

    /// Returns what a candidate needs, if it is more than there is: the first one measures what a slot takes.
    fn too_large(&self, candidate: Candidate, slot: u64) -> Option<u64> {
        let needed = (slot as f64 * SPARE * candidate.slots as f64) as u64;
        self.free.filter(|free| needed > *free).map(|_| needed)
    }

    async fn measure(
        &self,
        candidate: Candidate,
        method: &str,
        time: Duration,
    ) -> Result<Vec<Answer>, MeasureError> {
        measurement::measure(Question {
            worker: self.worker,
            programs: self.programs,
            encoder: self.encoder,
            method,
            slots: candidate.slots,
            threads: candidate.threads,
            time,
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_the_first_number() {
        assert_eq!(load("2.39 1.80 0.88 3/412 17174\n"), Some(2.39));
        assert_eq!(load(""), None);
        assert!(busy(usize::MAX).is_none());
    }
}
