//! What a worker says of the machine it is on: `worker --check` and `worker --look`, read.

use crate::local::programs::Programs;
use halfheard_shared::text::count;
use std::{
    path::Path,
    process::{Command, Stdio},
};

/// The part of the answer that people and `coord run` need; see the worker's own description.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct WorkerCheck {
    /// GPUs that libtorch sees.
    pub gpus: usize,
    /// The NVIDIA driver's version.
    #[serde(default)]
    pub driver: Option<String>,
    /// Why there is no GPU, where one was looked for.
    #[serde(default)]
    pub trouble_says: Option<String>,
    /// What to do about it.
    #[serde(default)]
    pub remedy: Option<String>,
    /// The kind of trouble.
    #[serde(default)]
    pub trouble: Option<Trouble>,
    /// The slots that would start.
    pub slots: Vec<Slot>,
    /// Slots that would not, for want of a GPU of their own.
    #[serde(default)]
    pub left_out: usize,
    /// Why no slot can start, or cannot compute.
    pub device_error: Option<String>,
    /// CPU threads of a slot.
    pub threads: u32,
}

/// Why there is no GPU, by its kind.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Trouble {
    /// `no_cuda_build`, `does_not_load`, `driver_too_old`, `no_driver`, `no_gpu`.
    pub kind: String,
}

/// Where one slot would compute.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Slot {
    /// Its number.
    pub slot: usize,
    /// Its device's name.
    pub device: String,
    /// Why its device cannot be used.
    #[serde(default)]
    pub error: Option<String>,
}

/// Why the worker did not answer.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It does not run.
    #[error("it does not run: {0}")]
    Run(#[from] std::io::Error),
    /// It ended without an answer.
    #[error("it ended with {status}: {said}")]
    Ended {
        /// How.
        status: std::process::ExitStatus,
        /// The end of what it said.
        said: String,
    },
    /// Its answer is of another release.
    #[error("what it says cannot be read ({0}): use the worker of the same release")]
    Answer(#[from] serde_json::Error),
}

/// Asks the worker with these flags. Blocks for as long as the GPU's library takes to load.
///
/// # Errors
///
/// It does not run, or says nothing that can be understood.
pub fn ask(
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
    // It answers with an exit code of its own where a device cannot be used.
    match serde_json::from_slice(&output.stdout) {
        Ok(check) => Ok(check),
        Err(error) if output.status.success() => Err(error.into()),
        Err(_) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = said.trim().lines().collect();
            Err(CheckError::Ended {
                status: output.status,
                said: lines[lines.len().saturating_sub(5)..].join("\n"),
            })
        }
    }
}

impl WorkerCheck {
    /// Which slot computes where: `slot 0 on cuda:0, slot 1 on cuda:1`; slots on the same device
    /// together.
    pub fn places(&self) -> String {
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

    /// What keeps slots off a GPU, or out altogether, in one line; nothing if nobody will wonder.
    pub fn warning(&self) -> Option<String> {
        if let Some(says) = &self.trouble_says {
            return Some(format!(
                "computing on the CPU, because no GPU can be used: {says}; {}",
                self.remedy.as_deref().unwrap_or("use `--device cpu`")
            ));
        }
        (self.left_out > 0).then(|| {
            format!(
                "{} asked for, and libtorch sees {}: {} started, each on a GPU of its own; --share-gpus lets them share",
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
    fn slots_on_one_device_are_told_together() {
        let text = r#"{"gpus": 2, "slots": [{"slot": 0, "device": "cuda:0 A"}, {"slot": 1,
            "device": "cuda:1 A"}, {"slot": 2, "device": "cuda:0 A"}], "device_error": null,
            "threads": 3, "some_field_of_the_future": 1}"#;
        let check: WorkerCheck = serde_json::from_str(text).unwrap();
        assert_eq!(check.places(), "slots 0, 2 on cuda:0 A, slot 1 on cuda:1 A");
        assert_eq!(check.warning(), None);
    }
}
