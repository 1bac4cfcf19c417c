//! `worker --check`: what this machine has for slots to compute on, as JSON for people, `coord` and
//! the supervisor.

use super::{Chosen, at, cuda, cuda::Trouble, look, refusal, set_threads};
use halfheard_shared::device::{Assignment, Devices, Place};
use serde::Serialize;
use std::path::PathBuf;

/// What `worker --check` prints.
#[derive(Debug, Serialize)]
pub struct Check {
    /// The program's version.
    pub version: String,
    /// The folder of the libtorch in use.
    pub libtorch: Option<PathBuf>,
    /// The libtorch release that the program was made for.
    pub libtorch_release: &'static str,
    /// The GPU's library, where it was loaded.
    pub cuda_library: Option<PathBuf>,
    /// The NVIDIA driver's version, where there is one.
    pub driver: Option<String>,
    /// GPUs that libtorch sees.
    pub gpus: usize,
    /// Why there are none, where they were looked for.
    pub trouble: Option<Trouble>,
    /// The same for people.
    pub trouble_says: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// The slots that would start, and where each computes.
    pub slots: Vec<SlotCheck>,
    /// Slots that were asked for and would not start, for want of a GPU of their own.
    pub left_out: usize,
    /// Why no slot can start.
    pub device_error: Option<String>,
    /// Threads a slot.
    pub threads: usize,
    /// Whether a small product came out right on each slot's device; nothing where it was not tried.
    pub works: Option<bool>,
}

/// Where one slot computes.
#[derive(Debug, Serialize)]
pub struct SlotCheck {
    /// Its number.
    pub slot: usize,
    /// Its device's name.
    pub device: String,
    /// Why its device cannot be used.
    pub error: Option<String>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Where slots are to compute.
    pub devices: Devices,
    /// How many slots.
    pub slots: usize,
    /// Whether they may share GPUs.
    pub share: bool,
    /// Threads of each slot.
    pub threads: usize,
    /// Whether to compute something.
    pub compute: bool,
}

/// Looks at this machine, and tries the devices out if asked to.
pub fn check(question: &Question) -> Check {
    let found = look(&question.devices);
    let assigned = question
        .devices
        .assign(question.slots, found.gpus, question.share);
    let (assigned, mut device_error) = match assigned {
        Ok(assigned) => (assigned, None),
        Err(error) => {
            let error = refusal(&question.devices, &found, error);
            let none = Assignment {
                places: Vec::new(),
                left_out: question.slots,
            };
            (none, Some(error.to_string()))
        }
    };
    if question.compute {
        // Nothing that is asked for here cannot be had.
        let _ = halfheard_models::numerics::settle(halfheard_models::numerics::Numerics::Machine);
        set_threads(question.threads);
    }
    let mut tried: Vec<(Place, Option<String>)> = Vec::new();
    let mut slots = Vec::new();
    for (slot, &place) in assigned.places.iter().enumerate() {
        let Chosen { device, name } = at(place);
        let error = match tried.iter().find(|(other, _)| *other == place) {
            Some((_, error)) => error.clone(),
            None => {
                let error = question.compute.then(|| product(device).err()).flatten();
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
    let (trouble_says, remedy) = match &found.trouble {
        Some(trouble) => (Some(trouble.to_string()), Some(trouble.remedy())),
        None => (None, None),
    };
    Check {
        version: crate::identity::VERSION.to_owned(),
        libtorch: cuda::loaded_from(),
        libtorch_release: "2.11",
        cuda_library: found.library,
        driver: cuda::driver_version(),
        gpus: found.gpus,
        trouble: found.trouble,
        trouble_says,
        remedy,
        works: question.compute.then_some(device_error.is_none()),
        slots,
        left_out: assigned.left_out,
        device_error,
        threads: question.threads,
    }
}

/// Whether a small product comes out right.
fn product(device: tch::Device) -> Result<(), String> {
    let value = halfheard_models::train::guarded(None, || {
        let two = tch::Tensor::f_full([3, 3], 2.0, (tch::Kind::Float, device))?;
        Ok(two.f_matmul(&two)?.f_double_value(&[1, 1])?)
    });
    match value {
        Ok(12.0) => Ok(()),
        Ok(other) => Err(format!("a product that should be 12 came out as {other}")),
        Err(error) => Err(crate::chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_finds_the_libtorch_in_use() {
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
