//! Parses a worker's report on its machine: `worker --check` and `worker --look`.

use crate::local::programs::Programs;
use halfheard_shared::text::count;
use std::{
    path::Path,
    process::{Command, Stdio},
};

/// The part of the report that `coord` uses.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct WorkerCheck {
    /// The number of GPUs that libtorch sees.
    pub(crate) gpus: usize,
    /// The NVIDIA driver's version.
    #[serde(default)]
    pub(crate) driver: Option<String>,
    /// Why there is no GPU, if one was looked for.
    #[serde(default)]
    pub(crate) trouble_says: Option<String>,
    /// What to do about it.
    #[serde(default)]
    pub(crate) remedy: Option<String>,
    /// Why there is no GPU, by kind.
    #[serde(default)]
    pub(crate) trouble: Option<Trouble>,
    /// The slots that would start.
    pub(crate) slots: Vec<Slot>,
    /// The number of slots that would not start for lack of their own GPU.
    #[serde(default)]
    pub(crate) left_out: usize,
    /// Why no slot can start, or cannot compute.
    pub(crate) device_error: Option<String>,
    /// CPU threads per slot.
    pub(crate) threads: u32,
}

/// Why there is no GPU, by its kind.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct Trouble {
    /// `no_cuda_build`, `load_failed`, `driver_too_old`, `no_driver`, `no_gpu`.
    pub(crate) kind: String,
}

/// Where one slot would compute.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct Slot {
    /// The number of the slot.
    pub(crate) slot: usize,
    /// The name of its device.
    pub(crate) device: String,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    /// The worker cannot be started.
    #[error("cannot run it")]
    Run(#[from] std::io::Error),
    /// It exited without a report.
    #[error("{status}: {stderr}")]
    Exited {
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The end of its standard error.
        stderr: String,
    },
    /// The report is invalid.
    #[error("cannot parse its report; is it of the same release?")]
    Report(#[from] serde_json::Error),
}

/// Runs the worker with these flags. Blocks while it loads the GPU's library.
///
/// # Errors
///
/// It does not run, or prints no valid report.
pub(crate) fn query(
    worker: &Path,
    programs: &Programs,
    flags: &[String],
) -> Result<WorkerCheck, CheckError> {
    let mut command = Command::new(worker);
    command
        .args(flags)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    if let Some(libraries) = programs.library_path() {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    let output = command.output()?;
    // If a device cannot be used, it reports that and exits with an error.
    match serde_json::from_slice(&output.stdout) {
        Ok(check) => Ok(check),
        Err(error) if output.status.success() => Err(error.into()),
        Err(_) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = stderr.trim().lines().collect();
            Err(CheckError::Exited {
                status: output.status,
                stderr: lines[lines.len().saturating_sub(5)..].join("\n"),
            })
        }
    }
}

impl WorkerCheck {
    /// Lists the device of each slot, grouped by device: `slots 0, 2 on cuda:0, slot 1 on cuda:1`.
    pub(crate) fn placement(&self) -> String {
        let mut groups: Vec<(&str, Vec<usize>)> = Vec::new();
        for slot in &self.slots {
            match groups.iter_mut().find(|(device, _)| *device == slot.device) {
                Some((_, slots)) => slots.push(slot.slot),
                None => groups.push((&slot.device, vec![slot.slot])),
            }
        }
        let groups: Vec<String> = groups
            .iter()
            .map(|(device, slots)| {
                let numbers: Vec<String> = slots.iter().map(usize::to_string).collect();
                let word = if slots.len() == 1 { "slot" } else { "slots" };
                format!("{word} {} on {device}", numbers.join(", "))
            })
            .collect();
        groups.join(", ")
    }

    /// Returns one line on what keeps slots off a GPU or from starting, if that may be a surprise.
    pub(crate) fn warning(&self) -> Option<String> {
        if let Some(says) = &self.trouble_says {
            return Some(format!(
                "computing on the CPU because no GPU is usable: {says}; {}",
                self.remedy.as_deref().unwrap_or("use `--device cpu`")
            ));
        }
        (self.left_out > 0).then(|| {
            format!(
                "{} requested, but libtorch sees {}: starting {}, each on its own GPU; --share-gpus lets them share",
                count(self.slots.len() + self.left_out, "worker"),
                count(self.gpus, "GPU"),
                count(self.slots.len(), "worker"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_grouped_by_device() {
        let text = r#"{"gpus": 2, "slots": [{"slot": 0, "device": "cuda:0 A"}, {"slot": 1,
            "device": "cuda:1 A"}, {"slot": 2, "device": "cuda:0 A"}], "device_error": null,
            "threads": 3, "some_field_of_the_future": 1}"#;
        let check: WorkerCheck = serde_json::from_str(text).unwrap();
        assert_eq!(
            check.placement(),
            "slots 0, 2 on cuda:0 A, slot 1 on cuda:1 A"
        );
        assert_eq!(check.warning(), None);
    }
}
