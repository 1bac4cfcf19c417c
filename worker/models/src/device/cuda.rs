//! The GPU's library: where it is looked for, bringing it in, and what is wrong where no GPU comes
//! of it.

use halfheard_shared::text::count;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};
use serde::{Deserialize, Serialize};
use std::{
    ffi::{CStr, c_char, c_int},
    fmt,
    path::{Path, PathBuf},
};
use tch::Cuda;

/// What makes GPUs known to libtorch.
pub const CUDA_LIBRARY: &str = "libtorch_cuda.so";
/// The NVIDIA driver's own library.
const DRIVER_LIBRARY: &str = "libcuda.so.1";
/// What the driver tells of itself.
const DRIVER_SAYS: &str = "/proc/driver/nvidia/version";

/// What has been found of GPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuDetection {
    /// The library that was loaded.
    pub library: Option<PathBuf>,
    /// How many GPUs libtorch sees.
    pub gpus: usize,
    /// Why there are none.
    pub trouble: Option<GpuProblem>,
}

/// Why there is no GPU for libtorch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum GpuProblem {
    /// This libtorch is one for the CPU alone.
    NoCudaBuild {
        /// The folders that have no `libtorch_cuda.so`.
        looked: Vec<PathBuf>,
        /// NVIDIA GPUs that the kernel knows of.
        unused: usize,
    },
    /// There is a library and it does not load.
    LoadFailed {
        /// Which.
        path: PathBuf,
        /// Why, in the loader's words.
        reason: String,
        /// The library that it needs and that is not found.
        missing: Option<String>,
        /// Where that library lies, out of the loader's sight.
        lies_in: Option<PathBuf>,
    },
    /// The driver knows only older releases of CUDA than the library was built for.
    DriverTooOld {
        /// The library.
        path: PathBuf,
        /// The driver's version, as it says itself.
        driver: Option<String>,
        /// The newest CUDA that the driver knows.
        driver_cuda: String,
        /// The CUDA that the library was built for.
        build_cuda: String,
    },
    /// The library loads, and there is no NVIDIA driver.
    NoDriver {
        /// The library.
        path: PathBuf,
    },
    /// Library and driver are there, and there is no GPU.
    NoGpu {
        /// The library.
        path: PathBuf,
        /// What CUDA says.
        says: Option<String>,
        /// The value of `CUDA_VISIBLE_DEVICES`, if it is set.
        visible_devices: Option<String>,
    },
}

impl fmt::Display for GpuProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GpuProblem::NoCudaBuild { looked, unused } => {
                let looked: Vec<String> = looked.iter().map(|p| p.display().to_string()).collect();
                write!(
                    f,
                    "this libtorch is built for the CPU alone: there is no {CUDA_LIBRARY} in {}",
                    looked.join(", ")
                )?;
                match unused {
                    0 => Ok(()),
                    unused => write!(f, ", though this machine has {}", count(*unused, "GPU")),
                }
            }
            GpuProblem::LoadFailed {
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
                "the NVIDIA driver{} is too old for this libtorch: it knows CUDA up to {driver_cuda}, the libtorch is built for CUDA {build_cuda}",
                driver
                    .as_ref()
                    .map_or_else(String::new, |v| format!(" {v}"))
            ),
            GpuProblem::NoDriver { path } => write!(
                f,
                "{} loads, and there is no NVIDIA driver on this machine ({DRIVER_LIBRARY})",
                path.display()
            ),
            GpuProblem::NoGpu {
                path,
                says,
                visible_devices,
            } => {
                write!(f, "{} loads and sees no GPU", path.display())?;
                if let Some(says) = says {
                    write!(f, ": CUDA says `{says}`")?;
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
    /// What to do.
    pub fn remedy(&self) -> String {
        match self {
            GpuProblem::NoCudaBuild { .. } => "for a GPU, set LIBTORCH and LD_LIBRARY_PATH to a CUDA build of the same libtorch release (docs/guide/cluster.md); for the CPU, say `--device cpu`".to_owned(),
            GpuProblem::LoadFailed { missing, lies_in, reason, .. } => match (missing, lies_in) {
                (Some(_), Some(folder)) => format!("it lies in {0}: add that folder to LD_LIBRARY_PATH", folder.display()),
                (Some(missing), None) if missing == DRIVER_LIBRARY => "install the NVIDIA driver; in a container, start it with the GPUs (`docker run --gpus all`)".to_owned(),
                (Some(missing), None) => match component(missing) {
                    Some(part) => format!("install NVIDIA's {part}, or add the folder of {missing} to LD_LIBRARY_PATH; with pip's torch it lies below site-packages/nvidia"),
                    None => format!("install it, or add the folder of {missing} to LD_LIBRARY_PATH"),
                },
                (None, _) if reason.contains("undefined symbol") || reason.contains("version `") => "it is of another libtorch release than the one in use: take both from the same CUDA build".to_owned(),
                (None, _) => "it is damaged or not for this machine: lay that libtorch down again".to_owned(),
            },
            GpuProblem::DriverTooOld { build_cuda, driver_cuda, .. } => format!(
                "update the NVIDIA driver to one that knows CUDA {build_cuda}, or use a libtorch that is built for CUDA {driver_cuda} or older"
            ),
            GpuProblem::NoDriver { .. } => "install the NVIDIA driver; in a container, start it with the GPUs (`docker run --gpus all`); for the CPU, say `--device cpu`".to_owned(),
            GpuProblem::NoGpu { visible_devices: Some(_), .. } => "unset CUDA_VISIBLE_DEVICES or have it name a GPU that `nvidia-smi -L` lists; for the CPU, say `--device cpu`".to_owned(),
            GpuProblem::NoGpu { .. } => "see what `nvidia-smi` says; in a container, start it with the GPUs; for the CPU, say `--device cpu`".to_owned(),
        }
    }
}

/// What NVIDIA calls the part of its software that a library belongs to.
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

/// The folder that this process has libtorch from.
pub fn libtorch_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|l| l.contains("/libtorch_cpu.so"))?;
    let path = Path::new(&line[line.find('/')?..]);
    path.parent().map(Path::to_owned)
}

/// The GPU's library, or the folders that do not have it. Loads nothing.
pub fn find_library() -> Result<PathBuf, Vec<PathBuf>> {
    let mut looked: Vec<PathBuf> = Vec::new();
    let libtorch = std::env::var_os("LIBTORCH").filter(|value| !value.is_empty());
    looked.extend(libtorch.map(|root| PathBuf::from(root).join("lib")));
    looked.extend(libtorch_folder());
    if let Some(paths) = std::env::var_os("LD_LIBRARY_PATH") {
        looked.extend(std::env::split_paths(&paths).filter(|p| !p.as_os_str().is_empty()));
    }
    let mut seen = std::collections::HashSet::new();
    looked.retain(|folder| seen.insert(folder.clone()));
    let found = looked
        .iter()
        .map(|folder| folder.join(CUDA_LIBRARY))
        .find(|path| path.is_file());
    found.ok_or(looked)
}

/// What there is to say where no library was found in `looked`.
pub fn no_library_in(looked: Vec<PathBuf>) -> GpuDetection {
    let gpus = std::fs::read_dir("/proc/driver/nvidia/gpus");
    GpuDetection {
        library: None,
        gpus: 0,
        trouble: Some(GpuProblem::NoCudaBuild {
            looked,
            unused: gpus.map_or(0, |gpus| gpus.flatten().count()),
        }),
    }
}

/// Loads the GPU's library if there is one, and counts GPUs. To be called before the first tensor is
/// made.
pub fn load_library() -> GpuDetection {
    let path = match find_library() {
        Ok(path) => path,
        Err(looked) => return no_library_in(looked),
    };
    // SAFETY: libtorch's own library, whose initialisers register its kernels and are made to run
    // at loading; no tensor exists yet.
    let library = match unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => library,
        Err(error) => return failed_load(path, &crate::train::chain(&error).join(": ")),
    };
    let gpus = usize::try_from(Cuda::device_count()).unwrap_or(0);
    let trouble = (gpus == 0).then(|| without_gpu(&library, &path));
    // For as long as the process lives: kernels are called through it.
    std::mem::forget(library);
    GpuDetection {
        library: Some(path),
        gpus,
        trouble,
    }
}

/// What there is to say of a library that does not load, given the loader's words.
pub fn failed_load(path: PathBuf, reason: &str) -> GpuDetection {
    let missing = missing(reason);
    let lies_in = missing.as_deref().and_then(|name| nearby(&path, name));
    GpuDetection {
        library: None,
        gpus: 0,
        trouble: Some(GpuProblem::LoadFailed {
            path,
            reason: reason.to_owned(),
            missing,
            lies_in,
        }),
    }
}

/// The library that the loader did not find, from its words: `dlopen failed: libcudnn.so.9: cannot
/// open shared object file: No such file or directory`.
fn missing(reason: &str) -> Option<String> {
    let (before, _) = reason.split_once(": cannot open shared object file")?;
    let name = before.rsplit(": ").next()?.trim();
    (!name.is_empty() && !name.contains('/')).then(|| name.to_owned())
}

/// Where pip lays the libraries of NVIDIA: beside torch, `nvidia/*/lib`.
fn nearby(library: &Path, name: &str) -> Option<PathBuf> {
    let packages = library.parent()?.parent()?.parent()?;
    let parts = std::fs::read_dir(packages.join("nvidia")).ok()?.flatten();
    let mut folders = parts.map(|part| part.path().join("lib"));
    folders.find(|folder| folder.join(name).is_file())
}

type Ask = unsafe extern "C" fn(*mut c_int) -> c_int;
type Name = unsafe extern "C" fn(c_int) -> *const c_char;

/// What a function of the CUDA runtime answers: its status and the number; `None` where there is no
/// such function.
fn ask(library: &Library, function: &CStr) -> Option<(c_int, c_int)> {
    // SAFETY: these functions of the CUDA runtime take one pointer to an int and return a status.
    let call: Symbol<Ask> = unsafe { library.get(function.to_bytes_with_nul()) }.ok()?;
    let mut number: c_int = 0;
    // SAFETY: as above; the pointer is good for the call.
    let status = unsafe { call(&raw mut number) };
    Some((status, number))
}

/// `cudaErrorInsufficientDriver`.
const INSUFFICIENT_DRIVER: c_int = 35;

/// Why the library, which loaded, sees no GPU: the CUDA runtime that came with it knows.
fn without_gpu(library: &Library, path: &Path) -> GpuProblem {
    let path = path.to_owned();
    let counted = ask(library, c"cudaGetDeviceCount");
    // Answers 0 where there is no driver.
    let driver = ask(library, c"cudaDriverGetVersion").map(|(_, version)| version);
    let build = ask(library, c"cudaRuntimeGetVersion").map(|(_, version)| version);
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
            says: status
                .filter(|&status| status != 0)
                .map(|status| words(library, status)),
            visible_devices: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
        },
    }
}

/// A status in CUDA's words.
fn words(library: &Library, status: c_int) -> String {
    // SAFETY: `cudaGetErrorString` takes a status and returns a string that stands for ever, or null.
    let text = unsafe {
        let name: Result<Symbol<Name>, _> = library.get(c"cudaGetErrorString".to_bytes_with_nul());
        let text = name.ok().map(|name| name(status));
        text.filter(|text| !text.is_null())
            .map(|text| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    text.unwrap_or_else(|| format!("error {status}"))
}

/// `12080` is 12.8.
fn cuda(version: c_int) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// The driver's version, where the kernel tells it.
pub fn driver_version() -> Option<String> {
    parse_driver(&std::fs::read_to_string(DRIVER_SAYS).ok()?)
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
    fn the_missing_library_is_read_from_the_loaders_words() {
        let name = |text: &str| missing(text);
        assert_eq!(
            name(
                "dlopen failed: libcudnn.so.9: cannot open shared object file: No such file or directory"
            )
            .as_deref(),
            Some("libcudnn.so.9")
        );
        // The library itself cannot be opened: none is missing.
        assert_eq!(
            name(
                "dlopen failed: /a/libtorch_cuda.so: cannot open shared object file: Permission denied"
            ),
            None
        );
        assert_eq!(name("/a/libtorch_cuda.so: file too short"), None);
    }

    #[test]
    fn a_missing_library_that_lies_beside_torch_is_pointed_at() {
        let packages = tempfile::tempdir().unwrap();
        let at = |path: &str| packages.path().join(path);
        std::fs::create_dir_all(at("nvidia/cudnn/lib")).unwrap();
        std::fs::write(at("nvidia/cudnn/lib/libcudnn.so.9"), "").unwrap();
        let reason = "libcudnn.so.9: cannot open shared object file: No such file or directory";
        let found = failed_load(at("torch/lib/libtorch_cuda.so"), reason);
        let trouble = found.trouble.unwrap();
        assert!(
            trouble.to_string().contains("needs libcudnn.so.9 (cuDNN)"),
            "{trouble}"
        );
        assert!(
            trouble
                .remedy()
                .contains(&*at("nvidia/cudnn/lib").to_string_lossy())
        );
        let found = failed_load("/a/torch/lib/libtorch_cuda.so".into(), reason);
        let remedy = found.trouble.unwrap().remedy();
        assert!(remedy.contains("install NVIDIA's cuDNN"), "{remedy}");
        let reason = "libtorch_cuda.so: undefined symbol: _ZN3c104cuda, version libc10_cuda.so";
        let found = failed_load("/a/b/libtorch_cuda.so".into(), reason);
        let remedy = found.trouble.unwrap().remedy();
        assert!(remedy.contains("another libtorch release"), "{remedy}");
    }

    #[test]
    fn versions_are_read_as_nvidia_writes_them() {
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
