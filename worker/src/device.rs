//! The device: bringing the GPU's libraries in at start, choosing where tensors live, threads.
//!
//! The program is linked against libtorch's CPU libraries only. Where a CUDA build of the same
//! release is there, its `libtorch_cuda.so` is loaded before the first tensor is made; it makes
//! itself known to the rest of libtorch. Without it the same program runs on the CPU.

use crate::numerics::{self, Numerics};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use serde::Serialize;
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};
use tch::{Cuda, Device};

const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// What was asked for with `--device`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// A GPU if there is one.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// This GPU.
    Cuda(usize),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let number = |n: &str| n.parse().ok().map(Choice::Cuda);
        match s {
            "auto" => Ok(Choice::Auto),
            "cpu" => Ok(Choice::Cpu),
            "cuda" => Ok(Choice::Cuda(0)),
            _ => s
                .strip_prefix("cuda:")
                .and_then(number)
                .ok_or_else(|| format!("`{s}` is no device: use auto, cpu or cuda:0")),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Auto => f.write_str("auto"),
            Choice::Cpu => f.write_str("cpu"),
            Choice::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

/// How the GPU's library was found, or not.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum CudaLibrary {
    /// Loaded.
    Loaded {
        /// From here.
        path: PathBuf,
    },
    /// There is none.
    Absent {
        /// The folders looked at.
        looked: Vec<PathBuf>,
    },
    /// There is one that cannot be loaded.
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Not looked for: the CPU was asked for.
    NotWanted,
}

/// The device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A GPU was asked for and the library is not there.
    #[error("cuda:{number} was asked for, but {}", explain(library))]
    NoLibrary {
        /// The GPU's number.
        number: usize,
        /// What was found.
        library: CudaLibrary,
    },
    /// A GPU was asked for and there is none of that number.
    #[error(
        "cuda:{number} was asked for, and libtorch sees {count} GPU(s): check nvidia-smi and CUDA_VISIBLE_DEVICES"
    )]
    NoGpu {
        /// The GPU's number.
        number: usize,
        /// GPUs there are.
        count: i64,
    },
}

fn explain(library: &CudaLibrary) -> String {
    match library {
        CudaLibrary::Loaded { path } => format!("{} has no GPU", path.display()),
        CudaLibrary::Absent { looked } => {
            let looked: Vec<String> = looked.iter().map(|p| p.display().to_string()).collect();
            format!(
                "there is no {CUDA_LIBRARY} in {}: set LIBTORCH and LD_LIBRARY_PATH to a CUDA build of the same libtorch release",
                looked.join(", ")
            )
        }
        CudaLibrary::Unusable { path, reason } => {
            format!("{} cannot be loaded: {reason}", path.display())
        }
        CudaLibrary::NotWanted => "the GPU's library was not loaded".to_owned(),
    }
}

/// The folder that this process has libtorch from.
fn loaded_from() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|l| l.contains("/libtorch_cpu.so"))?;
    let path = Path::new(&line[line.find('/')?..]);
    path.parent().map(Path::to_owned)
}

/// Loads the GPU's library if there is one. To be called before the first tensor is made.
pub fn load_cuda(choice: Choice) -> CudaLibrary {
    if choice == Choice::Cpu {
        return CudaLibrary::NotWanted;
    }
    let mut looked: Vec<PathBuf> = Vec::new();
    let libtorch = std::env::var_os("LIBTORCH").map(PathBuf::from);
    looked.extend(libtorch.map(|root| root.join("lib")));
    looked.extend(loaded_from());
    if let Some(paths) = std::env::var_os("LD_LIBRARY_PATH") {
        looked.extend(std::env::split_paths(&paths).filter(|p| !p.as_os_str().is_empty()));
    }
    let mut seen = std::collections::HashSet::new();
    looked.retain(|folder| seen.insert(folder.clone()));
    let found = looked
        .iter()
        .map(|folder| folder.join(CUDA_LIBRARY))
        .find(|path| path.is_file());
    let Some(path) = found else {
        return CudaLibrary::Absent { looked };
    };
    // SAFETY: libtorch's own library, whose initialisers register its kernels and are made to run
    // at loading; no tensor exists yet.
    match unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => {
            // For as long as the process lives: kernels are called through it.
            std::mem::forget(library);
            CudaLibrary::Loaded { path }
        }
        Err(error) => CudaLibrary::Unusable {
            path,
            reason: error.to_string(),
        },
    }
}

/// The device for what was asked, after [`load_cuda`].
pub fn choose(choice: Choice, library: &CudaLibrary) -> Result<Device, DeviceError> {
    let count = match library {
        CudaLibrary::Loaded { .. } => Cuda::device_count(),
        _ => 0,
    };
    match choice {
        Choice::Cpu => Ok(Device::Cpu),
        Choice::Auto if count > 0 => Ok(Device::Cuda(0)),
        Choice::Auto => {
            tracing::info!("no GPU is used: {}", explain(library));
            Ok(Device::Cpu)
        }
        Choice::Cuda(number) if (number as i64) < count => Ok(Device::Cuda(number)),
        Choice::Cuda(number) => Err(match library {
            CudaLibrary::Loaded { .. } => DeviceError::NoGpu { number, count },
            _ => DeviceError::NoLibrary {
                number,
                library: library.clone(),
            },
        }),
    }
}

/// The device's name for people: the GPU's model where the driver says it.
pub fn name(device: Device) -> String {
    let Device::Cuda(number) = device else {
        return "cpu".to_owned();
    };
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

/// What `worker --check` prints.
#[derive(Debug, Serialize)]
pub struct Check {
    /// The program's version.
    pub version: String,
    /// The folder of the libtorch in use.
    pub libtorch: Option<PathBuf>,
    /// The libtorch release that the program was made for.
    pub libtorch_release: &'static str,
    /// The GPU's library.
    pub cuda_library: CudaLibrary,
    /// GPUs that libtorch sees.
    pub gpus: i64,
    /// The device that would be used.
    pub device: Option<String>,
    /// Why no device can be used.
    pub device_error: Option<String>,
    /// Threads a slot.
    pub threads: usize,
    /// Whether a small product came out right on the device.
    pub works: bool,
}

/// Tries the device out.
pub fn check(choice: Choice, threads: usize) -> Check {
    // Nothing that is asked for here cannot be had.
    let _ = numerics::settle(Numerics::Machine);
    let library = load_cuda(choice);
    set_threads(threads);
    let device = choose(choice, &library);
    let works = device.as_ref().is_ok_and(|&device| {
        crate::train::guarded(None, || {
            let two = tch::Tensor::f_full([3, 3], 2.0, (tch::Kind::Float, device))?;
            Ok(two.f_matmul(&two)?.f_double_value(&[1, 1])? == 12.0)
        })
        .unwrap_or(false)
    });
    Check {
        version: crate::VERSION.to_owned(),
        libtorch: loaded_from(),
        libtorch_release: "2.11",
        gpus: match library {
            CudaLibrary::Loaded { .. } => Cuda::device_count(),
            _ => 0,
        },
        cuda_library: library,
        device: device.as_ref().ok().map(|&device| name(device)),
        device_error: device.err().map(|e| e.to_string()),
        threads,
        works,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_written() {
        for text in ["auto", "cpu", "cuda:0", "cuda:7"] {
            assert_eq!(text.parse::<Choice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(Choice::Cuda(0)));
        assert!("gpu".parse::<Choice>().unwrap_err().contains("cuda:0"));
        assert!("cuda:x".parse::<Choice>().is_err());
    }

    #[test]
    fn a_gpu_that_is_not_there_is_a_clear_error() {
        let library = CudaLibrary::Absent {
            looked: vec!["/a/lib".into()],
        };
        assert_eq!(choose(Choice::Auto, &library).unwrap(), Device::Cpu);
        let error = choose(Choice::Cuda(1), &library).unwrap_err().to_string();
        assert!(
            error.contains("/a/lib") && error.contains("LIBTORCH"),
            "{error}"
        );
    }

    #[test]
    fn the_check_finds_the_libtorch_in_use() {
        let check = check(Choice::Cpu, 1);
        assert!(check.works);
        assert!(check.libtorch.unwrap().join("libtorch_cpu.so").is_file());
    }
}
