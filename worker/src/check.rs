//! `worker --check`: what this machine has for the slots, as JSON for people, `coord` and the
//! supervisor.

use halfheard_models::device::{
    self, ComputeDevice, cuda, cuda::GpuProblem, detect, device_error, of_place, set_threads,
};
use halfheard_shared::{
    device::{Assignment, Devices, Place},
    error::chain,
};
use serde::Serialize;
use std::path::PathBuf;

/// What `worker --check` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) version: String,
    /// The folder of the libtorch in use.
    pub(crate) libtorch: Option<PathBuf>,
    /// The libtorch release that the program is built for.
    pub(crate) libtorch_release: &'static str,
    /// The GPU library, if it was loaded.
    pub(crate) cuda_library: Option<PathBuf>,
    /// The NVIDIA driver's version.
    pub(crate) driver: Option<String>,
    /// GPUs that libtorch sees.
    pub(crate) gpus: usize,
    /// Why there are none.
    pub(crate) trouble: Option<GpuProblem>,
    /// The same as text.
    pub(crate) trouble_says: Option<String>,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
    /// The slots that would start, with their devices.
    pub(crate) slots: Vec<SlotCheck>,
    /// Requested slots that would not start because there is no GPU for them.
    pub(crate) left_out: usize,
    /// Why no slot can start.
    pub(crate) device_error: Option<String>,
    /// Threads per slot.
    pub(crate) threads: usize,
    /// Whether every slot's device passed a small computation; `None` if none was tried.
    pub(crate) works: Option<bool>,
}

/// One slot's device.
#[derive(Debug, Serialize)]
pub(crate) struct SlotCheck {
    pub(crate) slot: usize,
    pub(crate) device: String,
    /// Why it cannot be used.
    pub(crate) error: Option<String>,
}

/// What to check.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) devices: Devices,
    pub(crate) slots: usize,
    /// Whether slots may share GPUs.
    pub(crate) share: bool,
    /// Threads per slot.
    pub(crate) threads: usize,
    /// Whether to test the devices.
    pub(crate) compute: bool,
}

/// Inspects this machine, and tests the devices if requested.
pub(crate) fn check(question: &Question) -> Check {
    let found = detect(&question.devices);
    let assigned = question
        .devices
        .assign(question.slots, found.gpus, question.share);
    let (assigned, mut device_error) = match assigned {
        Ok(assigned) => (assigned, None),
        Err(error) => {
            let error = device_error(&question.devices, &found, error);
            let none = Assignment {
                places: Vec::new(),
                left_out: question.slots,
            };
            (none, Some(error.to_string()))
        }
    };
    if question.compute {
        // Machine numerics are always possible.
        let _ =
            halfheard_models::numerics::initialize(halfheard_models::numerics::Numerics::Machine);
        set_threads(question.threads);
    }
    let mut tried: Vec<(Place, Option<String>)> = Vec::new();
    let mut slots = Vec::new();
    for (slot, &place) in assigned.places.iter().enumerate() {
        let ComputeDevice { device, name } = of_place(place);
        let error = match tried.iter().find(|(other, _)| *other == place) {
            Some((_, error)) => error.clone(),
            None => {
                let error = question
                    .compute
                    .then(|| device::probe(device).err())
                    .flatten()
                    .map(|error| chain(&error));
                tried.push((place, error.clone()));
                error
            }
        };
        if let (None, Some(error)) = (&device_error, &error) {
            device_error = Some(format!("{name} cannot compute: {error}"));
        }
        slots.push(SlotCheck {
            slot,
            device: name,
            error,
        });
    }
    let (trouble_says, remedy) = match &found.problem {
        Some(trouble) => (Some(trouble.to_string()), Some(trouble.remedy())),
        None => (None, None),
    };
    Check {
        version: crate::identity::VERSION.to_owned(),
        libtorch: cuda::libtorch_folder(),
        libtorch_release: "2.11",
        cuda_library: found.library,
        driver: cuda::driver_version(),
        gpus: found.gpus,
        trouble: found.problem,
        trouble_says,
        remedy,
        works: question.compute.then_some(device_error.is_none()),
        slots,
        left_out: assigned.left_out,
        device_error,
        threads: question.threads,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_reports_the_libtorch_in_use() {
        let check = check(&Question {
            devices: Devices::Cpu,
            slots: 2,
            share: false,
            threads: 1,
            compute: true,
        });
        assert_eq!((check.works, check.gpus), (Some(true), 0));
        assert!(check.libtorch.unwrap().join("libtorch_cpu.so").is_file());
        let devices: Vec<&str> = check.slots.iter().map(|s| s.device.as_str()).collect();
        assert_eq!(devices, ["cpu", "cpu"]);
    }
}
