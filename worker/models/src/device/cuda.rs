//! The GPU library: finding it, loading it, and diagnosing why libtorch has no GPU.

use halfheard_shared::text::count;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};
use serde::{Deserialize, Serialize};
use std::{
    ffi::{CStr, c_char, c_int},
    fmt,
    path::{Path, PathBuf},
};
use tch::Cuda;

/// The library that adds GPU support to libtorch.
pub const CUDA_LIBRARY: &str = "libtorch_cuda.so";
/// The NVIDIA driver's library.
const DRIVER_LIBRARY: &str = "libcuda.so.1";
/// The driver's version file.
const DRIVER_VERSION: &str = "/proc/driver/nvidia/version";

/// The result of GPU detection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuDetection {
    /// The loaded library.
    pub library: Option<PathBuf>,
    /// The number of GPUs that libtorch sees.
    pub gpus: usize,
    /// Why libtorch has no GPU.
    pub problem: Option<GpuProblem>,
}

/// Why libtorch has no GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum GpuProblem {
    /// This libtorch is a CPU-only build.
    NoCudaBuild {
        /// The searched folders.
        searched: Vec<PathBuf>,
        /// The number of NVIDIA GPUs known to the kernel.
        unused: usize,
    },
    /// The library cannot be loaded.
    DoesNotLoad {
        /// The library.
        path: PathBuf,
        /// The loader's message.
        reason: String,
        /// The missing library that it depends on.
        missing: Option<String>,
        /// The folder with that library, if it exists outside the loader's search path.
        found_in: Option<PathBuf>,
    },
    /// The driver supports only older CUDA releases than the library was built for.
    DriverTooOld {
        /// The library.
        path: PathBuf,
        /// The driver's version.
        driver: Option<String>,
        /// The newest CUDA release that the driver supports.
        driver_cuda: String,
        /// The CUDA release that the library was built for.
        build_cuda: String,
    },
    /// The library loads, but the machine has no NVIDIA driver.
    NoDriver {
        /// The library.
        path: PathBuf,
    },
    /// Library and driver work, but there is no GPU.
    NoGpu {
        /// The library.
        path: PathBuf,
        /// CUDA's error message.
        message: Option<String>,
        /// The value of `CUDA_VISIBLE_DEVICES`, if set.
        visible_devices: Option<String>,
    },
}

impl fmt::Display for GpuProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GpuProblem::NoCudaBuild { searched, unused } => {
                let searched: Vec<String> =
                    searched.iter().map(|p| p.display().to_string()).collect();
                write!(
                    f,
                    "this libtorch is a CPU-only build: no {CUDA_LIBRARY} in {}",
                    searched.join(", ")
                )?;
                match unused {
                    0 => Ok(()),
                    unused => write!(f, ", though this machine has {}", count(*unused, "GPU")),
                }
            }
            GpuProblem::DoesNotLoad {
                path,
                reason,
                missing,
                ..
            } => match missing {
                Some(missing) => write!(
                    f,
                    "{} does not load: it needs {missing}{}, which is not found",
                    path.display(),
                    component(missing).map_or_else(String::new, |part| format!(" ({part})")),
                ),
                None => write!(f, "{} does not load: {reason}", path.display()),
            },
            GpuProblem::DriverTooOld {
                driver,
                driver_cuda,
                build_cuda,
                ..
            } => write!(
                f,
                "the NVIDIA driver{} is too old for this libtorch: it supports CUDA up to {driver_cuda}, but libtorch was built for CUDA {build_cuda}",
                driver
                    .as_ref()
                    .map_or_else(String::new, |v| format!(" {v}"))
            ),
            GpuProblem::NoDriver { path } => write!(
                f,
                "{} loads, but this machine has no NVIDIA driver ({DRIVER_LIBRARY})",
                path.display()
            ),
            GpuProblem::NoGpu {
                path,
                message,
                visible_devices,
            } => {
                write!(f, "{} loads but sees no GPU", path.display())?;
                if let Some(message) = message {
                    write!(f, ": CUDA reports `{message}`")?;
                }
                match visible_devices {
                    Some(value) => write!(f, "; CUDA_VISIBLE_DEVICES is `{value}`"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl GpuProblem {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            GpuProblem::NoCudaBuild { .. } => "for a GPU, set LIBTORCH and LD_LIBRARY_PATH to a CUDA build of the same libtorch release (docs/guide/cluster.md); for the CPU, pass `--device cpu`".to_owned(),
            GpuProblem::DoesNotLoad { missing, found_in, reason, .. } => match (missing, found_in) {
                (Some(_), Some(folder)) => format!("add {0}, which contains it, to LD_LIBRARY_PATH", folder.display()),
                (Some(missing), None) if missing == DRIVER_LIBRARY => "install the NVIDIA driver; in a container, start it with the GPUs (`docker run --gpus all`)".to_owned(),
                (Some(missing), None) => match component(missing) {
                    Some(part) => format!("install NVIDIA's {part}, or add the folder of {missing} to LD_LIBRARY_PATH; with pip's torch it is below site-packages/nvidia"),
                    None => format!("install it, or add the folder of {missing} to LD_LIBRARY_PATH"),
                },
                (None, _) if reason.contains("undefined symbol") || reason.contains("version `") => "it is from another libtorch release than the one in use: take both from the same CUDA build".to_owned(),
                (None, _) => "it is damaged or not for this machine: reinstall that libtorch".to_owned(),
            },
            GpuProblem::DriverTooOld { build_cuda, driver_cuda, .. } => format!(
                "update the NVIDIA driver to one that supports CUDA {build_cuda}, or use a libtorch that is built for CUDA {driver_cuda} or older"
            ),
            GpuProblem::NoDriver { .. } => "install the NVIDIA driver; in a container, start it with the GPUs (`docker run --gpus all`); for the CPU, pass `--device cpu`".to_owned(),
            GpuProblem::NoGpu { visible_devices: Some(_), .. } => "unset CUDA_VISIBLE_DEVICES or have it name a GPU that `nvidia-smi -L` lists; for the CPU, pass `--device cpu`".to_owned(),
            GpuProblem::NoGpu { .. } => "check `nvidia-smi`; in a container, start it with the GPUs; for the CPU, pass `--device cpu`".to_owned(),
        }
    }
}

/// NVIDIA's name for the component that a library belongs to.
fn component(library: &str) -> Option<&'static str> {
    const PARTS: [(&str, &str); 15] = [
        ("libcudnn", "cuDNN"),
        ("libcublas", "cuBLAS"),
        ("libcudart", "CUDA runtime"),
        ("libcufft", "cuFFT"),
        ("libcufile", "cuFile"),
        ("libcupti", "CUPTI"),
        ("libcurand", "cuRAND"),
        ("libcusolver", "cuSOLVER"),
        ("libcusparse", "cuSPARSE"),
        ("libnccl", "NCCL"),
        ("libnvJitLink", "nvJitLink"),
        ("libnvToolsExt", "NVTX"),
        ("libnvrtc", "NVRTC"),
        ("libnvshmem", "NVSHMEM"),
        ("libcuda.", "driver"),
    ];
    let part = PARTS.iter().find(|(begin, _)| library.starts_with(begin));
    part.map(|(_, part)| *part)
}

/// The folder of the libtorch in use.
pub fn libtorch_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|l| l.contains("/libtorch_cpu.so"))?;
    let path = Path::new(&line[line.find('/')?..]);
    path.parent().map(Path::to_owned)
}

/// Finds the GPU library without loading it. The error is the list of searched folders.
pub fn find_library() -> Result<PathBuf, Vec<PathBuf>> {
    let mut searched: Vec<PathBuf> = Vec::new();
    let libtorch = std::env::var_os("LIBTORCH").filter(|value| !value.is_empty());
    searched.extend(libtorch.map(|root| PathBuf::from(root).join("lib")));
    searched.extend(libtorch_folder());
    if let Some(paths) = std::env::var_os("LD_LIBRARY_PATH") {
        searched.extend(std::env::split_paths(&paths).filter(|p| !p.as_os_str().is_empty()));
    }
    let mut seen = std::collections::HashSet::new();
    searched.retain(|folder| seen.insert(folder.clone()));
    let found = searched
        .iter()
        .map(|folder| folder.join(CUDA_LIBRARY))
        .find(|path| path.is_file());
    found.ok_or(searched)
}

/// The detection result when no library was found in the searched folders.
pub fn no_library_in(searched: Vec<PathBuf>) -> GpuDetection {
    let gpus = std::fs::read_dir("/proc/driver/nvidia/gpus");
    GpuDetection {
        library: None,
        gpus: 0,
        problem: Some(GpuProblem::NoCudaBuild {
            searched,
            unused: gpus.map_or(0, |gpus| gpus.flatten().count()),
        }),
    }
}

/// Loads the GPU library, if installed, and counts GPUs. Must be called before the first tensor.
pub fn load_library() -> GpuDetection {
    let path = match find_library() {
        Ok(path) => path,
        Err(searched) => return no_library_in(searched),
    };
    // SAFETY: libtorch's own library, whose initializers register its kernels and are meant to run
    // at load time; no tensor exists yet.
    let library = match unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => library,
        Err(error) => return failed_load(path, &crate::train::chain(&error).join(": ")),
    };
    let gpus = usize::try_from(Cuda::device_count()).unwrap_or(0);
    let problem = (gpus == 0).then(|| without_gpu(&library, &path));
    // Never unloaded: kernels are called through it.
    std::mem::forget(library);
    GpuDetection {
        library: Some(path),
        gpus,
        problem,
    }
}

/// The detection result for a library that cannot be loaded, from the loader's message.
pub fn failed_load(path: PathBuf, reason: &str) -> GpuDetection {
    let missing = missing(reason);
    let found_in = missing.as_deref().and_then(|name| nearby(&path, name));
    GpuDetection {
        library: None,
        gpus: 0,
        problem: Some(GpuProblem::DoesNotLoad {
            path,
            reason: reason.to_owned(),
            missing,
            found_in,
        }),
    }
}

/// The library that the loader did not find, from its message: `dlopen failed: libcudnn.so.9: cannot
/// open shared object file: No such file or directory`.
fn missing(reason: &str) -> Option<String> {
    let (before, _) = reason.split_once(": cannot open shared object file")?;
    let name = before.rsplit(": ").next()?.trim();
    (!name.is_empty() && !name.contains('/')).then(|| name.to_owned())
}

/// The folder with library `name` where pip installs NVIDIA's libraries: next to torch, in
/// `nvidia/*/lib`.
fn nearby(library: &Path, name: &str) -> Option<PathBuf> {
    let packages = library.parent()?.parent()?.parent()?;
    let parts = std::fs::read_dir(packages.join("nvidia")).ok()?.flatten();
    let mut folders = parts.map(|part| part.path().join("lib"));
    folders.find(|folder| folder.join(name).is_file())
}

type QueryFn = unsafe extern "C" fn(*mut c_int) -> c_int;
type MessageFn = unsafe extern "C" fn(c_int) -> *const c_char;

/// Calls a function of the CUDA runtime and returns its status and number; `None` if the function
/// does not exist.
fn query(library: &Library, function: &CStr) -> Option<(c_int, c_int)> {
    // SAFETY: these functions of the CUDA runtime take one pointer to an int and return a status.
    let call: Symbol<QueryFn> = unsafe { library.get(function.to_bytes_with_nul()) }.ok()?;
    let mut number: c_int = 0;
    // SAFETY: as above; the pointer is valid during the call.
    let status = unsafe { call(&raw mut number) };
    Some((status, number))
}

/// Free and total memory of GPU `number` in bytes; `None` where the CUDA runtime does not say. Call
/// [`load_library`] first.
pub fn memory(number: usize) -> Option<(u64, u64)> {
    type Device = unsafe extern "C" fn(c_int) -> c_int;
    type Memory = unsafe extern "C" fn(*mut usize, *mut usize) -> c_int;
    let number = c_int::try_from(number).ok()?;
    // The runtime came with the GPU library, whose symbols are global.
    let program = Library::this();
    let (status, before) = query(&program, c"cudaGetDevice")?;
    if status != 0 {
        return None;
    }
    // SAFETY: `cudaSetDevice` takes a device's number, `cudaMemGetInfo` two pointers to sizes; both
    // return a status.
    let (select, ask): (Symbol<Device>, Symbol<Memory>) = unsafe {
        (
            program.get(c"cudaSetDevice".to_bytes_with_nul()).ok()?,
            program.get(c"cudaMemGetInfo".to_bytes_with_nul()).ok()?,
        )
    };
    let (mut free, mut total) = (0_usize, 0_usize);
    // SAFETY: as above; the pointers are valid during the call. The thread's device is as before
    // afterwards.
    let status = unsafe {
        let selected = select(number);
        let asked = ask(&raw mut free, &raw mut total);
        select(before);
        selected | asked
    };
    (status == 0).then_some((free as u64, total as u64))
}

/// `cudaErrorInsufficientDriver`.
const INSUFFICIENT_DRIVER: c_int = 35;

/// Why the loaded library sees no GPU, according to its CUDA runtime.
fn without_gpu(library: &Library, path: &Path) -> GpuProblem {
    let path = path.to_owned();
    let counted = query(library, c"cudaGetDeviceCount");
    // 0 without a driver.
    let driver = query(library, c"cudaDriverGetVersion").map(|(_, version)| version);
    let build = query(library, c"cudaRuntimeGetVersion").map(|(_, version)| version);
    let status = counted.map(|(status, _)| status);
    match (driver, build) {
        (Some(0), _) => GpuProblem::NoDriver { path },
        (Some(driver), Some(build))
            if status == Some(INSUFFICIENT_DRIVER) || driver / 1000 < build / 1000 =>
        {
            GpuProblem::DriverTooOld {
                path,
                driver: driver_version(),
                driver_cuda: cuda(driver),
                build_cuda: cuda(build),
            }
        }
        _ => GpuProblem::NoGpu {
            path,
            message: status
                .filter(|&status| status != 0)
                .map(|status| message(library, status)),
            visible_devices: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
        },
    }
}

/// CUDA's message for a status.
fn message(library: &Library, status: c_int) -> String {
    // SAFETY: `cudaGetErrorString` takes a status and returns a static string or null.
    let text = unsafe {
        let name: Result<Symbol<MessageFn>, _> =
            library.get(c"cudaGetErrorString".to_bytes_with_nul());
        let text = name.ok().map(|name| name(status));
        text.filter(|text| !text.is_null())
            .map(|text| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    text.unwrap_or_else(|| format!("error {status}"))
}

/// Formats CUDA's version number: `12080` is 12.8.
fn cuda(version: c_int) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// The driver's version, if the kernel module reports it.
pub fn driver_version() -> Option<String> {
    parse_driver(&std::fs::read_to_string(DRIVER_VERSION).ok()?)
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023`
fn parse_driver(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.contains("NVRM version"))?;
    let version = line
        .split_whitespace()
        .find(|word| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.'))?;
    Some(version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_library_is_parsed_from_loader_message() {
        let name = |text: &str| missing(text);
        assert_eq!(
            name(
                "dlopen failed: libcudnn.so.9: cannot open shared object file: No such file or directory"
            )
            .as_deref(),
            Some("libcudnn.so.9")
        );
        // The library itself cannot be opened; no other is missing.
        assert_eq!(
            name(
                "dlopen failed: /a/libtorch_cuda.so: cannot open shared object file: Permission denied"
            ),
            None
        );
        assert_eq!(name("/a/libtorch_cuda.so: file too short"), None);
    }

    #[test]
    fn missing_library_next_to_torch_is_located() {
        let packages = tempfile::tempdir().unwrap();
        let at = |path: &str| packages.path().join(path);
        std::fs::create_dir_all(at("nvidia/cudnn/lib")).unwrap();
        std::fs::write(at("nvidia/cudnn/lib/libcudnn.so.9"), "").unwrap();
        let reason = "libcudnn.so.9: cannot open shared object file: No such file or directory";
        let found = failed_load(at("torch/lib/libtorch_cuda.so"), reason);
        let problem = found.problem.unwrap();
        assert!(
            problem.to_string().contains("needs libcudnn.so.9 (cuDNN)"),
            "{problem}"
        );
        assert!(
            problem
                .remedy()
                .contains(&*at("nvidia/cudnn/lib").to_string_lossy())
        );
        let found = failed_load("/a/torch/lib/libtorch_cuda.so".into(), reason);
        let remedy = found.problem.unwrap().remedy();
        assert!(remedy.contains("install NVIDIA's cuDNN"), "{remedy}");
        let reason = "libtorch_cuda.so: undefined symbol: _ZN3c104cuda, version libc10_cuda.so";
        let found = failed_load("/a/b/libtorch_cuda.so".into(), reason);
        let remedy = found.problem.unwrap().remedy();
        assert!(remedy.contains("another libtorch release"), "{remedy}");
    }

    #[test]
    fn nvidia_versions_are_parsed() {
        assert_eq!((cuda(12_080), cuda(11_080)), ("12.8".into(), "11.8".into()));
        for line in [
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build",
        ] {
            let text = format!("{line}\nGCC version:  gcc version 12.2.0\n");
            assert_eq!(parse_driver(&text).as_deref(), Some("535.104.05"));
        }
        assert_eq!(parse_driver("GCC version: 12.2.0"), None);
    }
}
