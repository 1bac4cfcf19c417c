//! Choosing where tensors live.

use super::cuda::{self, GpuDetection, GpuProblem};
use halfheard_shared::device::{Devices, Place, ShareError};
use tch::Device;

/// The device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A GPU was asked for and there is none.
    #[error("{asked} was asked for, but {trouble}; {}", trouble.remedy())]
    NoGpu {
        /// What was asked for.
        asked: String,
        /// Why there is none.
        trouble: Box<GpuProblem>,
    },
    /// There are GPUs, and not as they were asked for.
    #[error(transparent)]
    Share(#[from] ShareError),
}

/// A device for tensors, and what people call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComputeDevice {
    /// Where tensors live.
    pub device: Device,
    /// The device's name: the GPU's model where the driver says it.
    pub name: String,
}

/// In a debug build a test may have as many GPUs as it likes: slots are given out to them, and
/// compute on the CPU. A release build has no such variable.
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

/// What is there for `devices`, where that can be said without loading the GPU's library; `None`
/// where it has to be loaded for it.
pub fn detect_without_loading(devices: &Devices) -> Option<GpuDetection> {
    let nothing = |gpus| GpuDetection {
        library: None,
        gpus,
        trouble: None,
    };
    if *devices == Devices::Cpu {
        return Some(nothing(0));
    }
    if let Some(gpus) = pretended() {
        return Some(nothing(gpus));
    }
    cuda::find_library().err().map(cuda::no_library_in)
}

/// What is there for `devices`. Loads the GPU's library if one is wanted and there, so it has to be
/// called before the first tensor is made.
pub fn detect(devices: &Devices) -> GpuDetection {
    detect_without_loading(devices).unwrap_or_else(cuda::load_library)
}

/// The error of a machine without a GPU for a choice that names one.
pub fn device_error(devices: &Devices, found: &GpuDetection, error: ShareError) -> DeviceError {
    match (&found.trouble, &error) {
        (Some(trouble), ShareError::NotThere { .. }) => DeviceError::NoGpu {
            asked: devices.to_string(),
            trouble: Box::new(trouble.clone()),
        },
        _ => error.into(),
    }
}

/// The device of a slot that was given `devices`, of which it takes the first, after [`detect`].
///
/// # Errors
///
/// A GPU that is not there.
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
    // Numbers may be permuted by CUDA_VISIBLE_DEVICES: a name is sure only where all are alike.
    match models.split_first() {
        Some((first, rest)) if rest.iter().all(|model| model == first) => {
            format!("cuda:{number} {first}")
        }
        _ => format!("cuda:{number}"),
    }
}

/// Threads of libtorch on this thread and in this process. Must come before the first tensor, on
/// the thread that makes them: OpenMP keeps the number by thread.
pub fn set_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(1));
    tch::set_num_interop_threads(1);
}

/// Threads for each of `slots` slots on the CPU: the machine's cores shared out.
pub fn default_threads(slots: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / slots.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_is_not_there_is_a_clear_error() {
        let found = cuda::no_library_in(vec!["/a/lib".into()]);
        let chosen = choose(&Devices::Auto, &found).unwrap();
        assert_eq!((chosen.device, chosen.name.as_str()), (Device::Cpu, "cpu"));
        let gpus = Devices::Gpus(vec![1]);
        let error = choose(&gpus, &found).unwrap_err().to_string();
        assert!(
            error.contains("cuda:1") && error.contains("/a/lib") && error.contains("LIBTORCH"),
            "{error}"
        );
        let found = GpuDetection {
            library: None,
            gpus: 1,
            trouble: None,
        };
        let error = choose(&gpus, &found).unwrap_err().to_string();
        assert!(error.contains("libtorch sees 1 GPU"), "{error}");
    }

    #[test]
    fn a_slot_computes_where_it_was_told_to() {
        let found = GpuDetection {
            library: None,
            gpus: 4,
            trouble: None,
        };
        let chosen = choose(&Devices::Gpus(vec![3]), &found).unwrap();
        assert_eq!(chosen.device, Device::Cuda(3));
        assert!(chosen.name.starts_with("cuda:3"));
        assert_eq!(choose(&Devices::Cpu, &found).unwrap().device, Device::Cpu);
    }
}
