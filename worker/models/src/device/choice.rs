//! Choosing where tensors live.

use super::cuda::{self, GpuDetection, GpuProblem};
use halfheard_shared::{
    device::{Devices, Place, ShareError},
    error::Hint,
};
use tch::Device;

/// A device that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A requested GPU on a machine without usable GPUs.
    #[error("cannot use {requested}: {problem}")]
    NoGpu {
        /// The requested devices.
        requested: String,
        /// Why libtorch has no GPU.
        problem: Box<GpuProblem>,
    },
    /// GPUs that cannot be assigned as requested.
    #[error(transparent)]
    Share(#[from] ShareError),
}

impl Hint for DeviceError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoGpu { problem, .. } => Some(problem.remedy()),
            Self::Share(_) => None,
        }
    }
}

/// A device and its name for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComputeDevice {
    /// Where tensors live.
    pub device: Device,
    /// The device's name, with the GPU's model if the driver reports it.
    pub name: String,
}

/// In a debug build, a test may pretend to have GPUs: slots are assigned to them but compute on the
/// CPU. Release builds ignore the variable.
#[cfg(debug_assertions)]
fn pretended() -> Option<usize> {
    std::env::var("HALFHEARD_TEST_PRETEND_GPUS")
        .ok()?
        .parse()
        .ok()
}

#[cfg(not(debug_assertions))]
fn pretended() -> Option<usize> {
    None
}

/// Detects GPUs for `devices` without loading the GPU library; `None` if it has to be loaded.
pub fn detect_without_loading(devices: &Devices) -> Option<GpuDetection> {
    let without_library = |gpus| GpuDetection {
        library: None,
        gpus,
        problem: None,
    };
    if *devices == Devices::Cpu {
        return Some(without_library(0));
    }
    if let Some(gpus) = pretended() {
        return Some(without_library(gpus));
    }
    cuda::find_library().err().map(cuda::no_library_in)
}

/// Detects GPUs for `devices`. Loads the GPU library if it is needed and installed, so the first
/// tensor must not exist yet.
pub fn detect(devices: &Devices) -> GpuDetection {
    detect_without_loading(devices).unwrap_or_else(cuda::load_library)
}

/// The error for `devices` that cannot be assigned, with the reason if the machine has no usable GPU.
pub fn device_error(devices: &Devices, found: &GpuDetection, error: ShareError) -> DeviceError {
    match (&found.problem, &error) {
        (Some(problem), ShareError::NotThere { .. }) => DeviceError::NoGpu {
            requested: devices.to_string(),
            problem: Box::new(problem.clone()),
        },
        _ => error.into(),
    }
}

/// The device of a slot: the first of `devices`. Call [`detect`] first.
///
/// # Errors
///
/// The GPU does not exist.
pub fn choose(devices: &Devices, found: &GpuDetection) -> Result<ComputeDevice, DeviceError> {
    let assigned = devices.assign(1, found.gpus, false);
    let assigned = assigned.map_err(|error| device_error(devices, found, error))?;
    Ok(of_place(
        assigned.places.first().copied().unwrap_or(Place::Cpu),
    ))
}

/// The device of a place.
pub fn of_place(place: Place) -> ComputeDevice {
    match place {
        Place::Gpu(number) if pretended().is_some() => ComputeDevice {
            device: Device::Cpu,
            name: format!("cuda:{number} (pretended)"),
        },
        Place::Gpu(number) => ComputeDevice {
            device: Device::Cuda(number),
            name: gpu_name(number),
        },
        Place::Cpu => ComputeDevice {
            device: Device::Cpu,
            name: "cpu".to_owned(),
        },
    }
}

fn gpu_name(number: usize) -> String {
    let models: Vec<String> = std::fs::read_dir("/proc/driver/nvidia/gpus")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|gpu| std::fs::read_to_string(gpu.path().join("information")).ok())
        .filter_map(|text| {
            let line = text.lines().find_map(|l| l.strip_prefix("Model:"))?;
            Some(line.trim().to_owned())
        })
        .collect();
    // CUDA_VISIBLE_DEVICES may permute the indices, so a name is certain only if all are equal.
    match models.split_first() {
        Some((first, rest)) if rest.iter().all(|model| model == first) => {
            format!("cuda:{number} {first}")
        }
        _ => format!("cuda:{number}"),
    }
}

/// Sets the number of libtorch's threads. Must be called before the first tensor, on the thread that
/// creates tensors, because OpenMP stores the number per thread.
pub fn set_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(1));
    tch::set_num_interop_threads(1);
}

/// Threads per slot on the CPU: an equal share of the machine's cores.
pub fn default_threads(slots: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / slots.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_gpu_is_reported_with_reason_and_hint() {
        let found = cuda::no_library_in(vec!["/a/lib".into()]);
        let chosen = choose(&Devices::Auto, &found).unwrap();
        assert_eq!((chosen.device, chosen.name.as_str()), (Device::Cpu, "cpu"));
        let gpus = Devices::Gpus(vec![1]);
        let error = choose(&gpus, &found).unwrap_err();
        let hint = error.hint().unwrap_or_default();
        let error = error.to_string();
        assert!(
            error.contains("cuda:1") && error.contains("/a/lib") && hint.contains("LIBTORCH"),
            "{error}; {hint}"
        );
        let found = GpuDetection {
            library: None,
            gpus: 1,
            problem: None,
        };
        let error = choose(&gpus, &found).unwrap_err().to_string();
        assert!(error.contains("libtorch sees 1 GPU"), "{error}");
    }

    #[test]
    fn slot_computes_on_its_assigned_device() {
        let found = GpuDetection {
            library: None,
            gpus: 4,
            problem: None,
        };
        let chosen = choose(&Devices::Gpus(vec![3]), &found).unwrap();
        assert_eq!(chosen.device, Device::Cuda(3));
        assert!(chosen.name.starts_with("cuda:3"));
        assert_eq!(choose(&Devices::Cpu, &found).unwrap().device, Device::Cpu);
    }
}
