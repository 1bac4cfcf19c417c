//! Checks of programs, encoders and devices.

use super::finding::{Finding, Verdict};
use crate::{
    config::Settings,
    local::{
        programs::{Found, Part, ProgramError, Programs},
        worker_check::{self, WorkerCheck},
    },
    submission::{
        encoders::{self, ExamineError},
        memory,
    },
    tuning::{self, Candidate, Room, Unused, choose},
};
use halfheard_shared::{
    error::{Hint, chain},
    hash_cache::HashCache,
    text::count,
};

/// Checks a program that only the private servers of `coord run` need.
pub(super) fn server(programs: &Programs, part: Part, what: &'static str) -> Finding {
    match programs.find(part) {
        Ok(found) => Finding::ok(what, describe(&found)),
        Err(error) => Finding::warn(
            what,
            format!("`coord run` cannot start one: {}", error.found()),
            error.remedy(),
        ),
    }
}

fn describe(found: &Found) -> String {
    format!("{} ({})", found.version, found.path.display())
}

pub(super) fn part(
    programs: &Programs,
    part: Part,
    what: &'static str,
    missing: Verdict,
) -> Finding {
    match programs.find(part) {
        Ok(found) => Finding::ok(what, describe(&found)),
        // An unusable one is worse than none.
        Err(error) => {
            let verdict = match error {
                ProgramError::Missing { .. } => missing,
                ProgramError::Unusable { .. } => Verdict::Bad,
            };
            Finding::new(what, verdict, error.found(), error.remedy())
        }
    }
}

/// Checks a text encoder as a worker does.
pub(super) fn encoder(
    programs: &Programs,
    encoder: Part,
    what: &'static str,
    hashes: &mut HashCache,
) -> Finding {
    let Ok(found) = programs.find(encoder) else {
        return part(programs, encoder, what, Verdict::Warn);
    };
    match encoders::examine(&found.path, hashes) {
        Ok(examined) => Finding::ok(
            what,
            format!("{} ({})", examined.summary, found.path.display()),
        ),
        Err(ExamineError::Unsuitable(error)) => Finding::bad(
            what,
            format!("cannot use {}: {}", error.folder.display(), error.found),
            error.remedy,
        ),
        Err(error) => Finding::bad(what, chain(&error), error.hint().unwrap_or_default()),
    }
}

/// Checks the worker, and by its report libtorch and GPUs.
pub(super) async fn worker(programs: &Programs) -> Vec<Finding> {
    const WHAT: &str = "worker";
    let found = match programs.find(Part::Worker) {
        Ok(found) => found,
        Err(error) => {
            return vec![Finding::bad(WHAT, error.found(), error.remedy())];
        }
    };
    let (path, programs) = (found.path.clone(), programs.clone());
    let report = tokio::task::spawn_blocking(move || {
        worker_check::query(&path, &programs, &["--check".to_owned()])
    });
    let check = match report.await {
        Ok(Ok(check)) => check,
        Ok(Err(error)) => {
            let found = format!("`worker --check` failed: {}", chain(&error));
            let remedy = "check LIBTORCH and LD_LIBRARY_PATH";
            return vec![Finding::bad(WHAT, found, remedy)];
        }
        Err(error) => {
            return vec![Finding::bad(WHAT, error.to_string(), "try again")];
        }
    };
    vec![Finding::ok(WHAT, describe(&found)), devices(&check)]
}

/// Says what `coord run` starts on the CPU here; nothing without a worker.
pub(super) fn tuning(programs: &Programs, settings: &Settings) -> Option<Finding> {
    const WHAT: &str = "CPU workers";
    let worker = programs.find(Part::Worker).ok()?;
    let tuning = match tuning::of_this_machine(&settings.data_dir, &worker.version) {
        Ok(tuning) => tuning,
        Err(unused @ Unused::Absent) => return Some(Finding::ok(WHAT, unused.to_string())),
        Err(unused @ Unused::Other(_)) => {
            let remedy = "run `coord tune-machine`";
            return Some(Finding::warn(WHAT, unused.to_string(), remedy));
        }
    };
    let room = Room {
        free: memory::available(),
        slot: None,
    };
    let Candidate { slots, threads } = choose(&tuning.candidates, room)?.candidate;
    let found = format!(
        "{} of {}, measured on {}",
        count(slots, "worker"),
        count(threads, "thread"),
        tuning.measured_at.format("%Y-%m-%d")
    );
    Some(Finding::ok(WHAT, found))
}

/// Checks the devices of slots, and what keeps them off a GPU.
fn devices(check: &WorkerCheck) -> Finding {
    const WHAT: &str = "device";
    let driver = match &check.driver {
        Some(driver) => format!(", NVIDIA driver {driver}"),
        None => String::new(),
    };
    let remedy = || {
        let remedy = check.remedy.clone();
        remedy.unwrap_or_else(|| "run `nvidia-smi` and `worker --check`".to_owned())
    };
    if let Some(error) = &check.device_error {
        return Finding::bad(WHAT, error.clone(), remedy());
    }
    match (&check.trouble, &check.trouble_says) {
        (Some(trouble), Some(says)) => {
            // Without a CUDA build nothing is broken: it computes on the CPU.
            let verdict = match trouble.kind.as_str() {
                "no_cuda_build" => Verdict::Warn,
                _ => Verdict::Bad,
            };
            let found = format!(
                "{says}; {}, {} CPU threads each",
                check.placement(),
                check.threads
            );
            Finding::new(WHAT, verdict, found, remedy())
        }
        _ if check.gpus == 0 => Finding::ok(
            WHAT,
            format!("{}, {} CPU threads each", check.placement(), check.threads),
        ),
        _ => {
            let gpus = count(check.gpus, "GPU");
            let mut found = format!("{gpus}{driver}; {}", check.placement());
            if check.slots.len() < check.gpus {
                found += &format!("; `worker --slots {}` uses all of them", check.gpus);
            }
            match check.warning() {
                Some(warning) => Finding::warn(WHAT, found, warning),
                None => Finding::ok(WHAT, found),
            }
        }
    }
}
