//! The instruction sets that libtorch computes with, on which the last bits of all results depend.
//!
//! Three libraries select instructions on their own: libtorch's kernels, MKL (matrix products and
//! vectorized functions) and oneDNN (convolutions). They read the environment once, before the first
//! tensor, so the choice holds for the lifetime of a process.
//!
//! MKL also sums products in an order that may depend on the memory alignment of its matrices, unless
//! "conditional numerical reproducibility" is on. libtorch aligns tensors, but not slices of them, to
//! 64 bytes. Over products of 16 to 768 rows the option costs less than 2 %, so every process that
//! computes turns it on: call [`initialize`] before the first tensor.

pub use halfheard_shared::numerics::Numerics;
use halfheard_torch_shim::mkl_goes_by_instructions;
use libloading::os::unix::Library;
use std::{ffi::c_int, sync::OnceLock};
use tch::Device;

/// Branches of MKL (`mkl_types.h`): reproducibility off.
const OFF: c_int = 1;
/// The best instructions of the processor.
const AUTO: c_int = 2;
/// Instructions of every x86-64 processor.
const COMPATIBLE: c_int = 3;
/// Selects the full setting in a query.
const ALL: c_int = -1;

/// Why this process cannot compute as a job asks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumericsError {
    /// An unsupported processor.
    #[error(
        "numerics = \"portable\" needs an x86-64 processor with AVX2 and FMA, and this one has {0}"
    )]
    Processor(String),
    /// A libtorch without MKL.
    #[error(
        "numerics = \"portable\" needs a libtorch with MKL, as PyTorch publishes it for x86-64"
    )]
    NoMkl,
    /// A process started without the required environment.
    #[error(
        "numerics = \"portable\" needs {variable}={wanted} in the environment from the start of the process, but found `{found}`"
    )]
    Environment {
        /// The variable.
        variable: &'static str,
        /// Its required value.
        wanted: &'static str,
        /// Its value.
        found: String,
    },
    /// No instructions for bfloat16.
    #[error(
        "numerics = \"bf16\" needs a GPU, or a processor with instructions for bfloat16 (AVX512_BF16 or AMX), and this is {0} without them"
    )]
    NoBfloat16(String),
    /// MKL rejected the setting.
    #[error("MKL rejected numerics = \"portable\" because it was already in use (branch {0})")]
    TooLate(c_int),
}

/// The environment of a process that computes portably.
const PORTABLE: [(&str, &str); 4] = [
    ("ATEN_CPU_CAPABILITY", "avx2"),
    ("MKL_CBWR", "COMPATIBLE"),
    ("ONEDNN_MAX_CPU_ISA", "AVX2"),
    ("ONEDNN_CPU_ISA_HINTS", "NO_HINTS"),
];

/// Threads of a process that computes portably: more would split sums.
pub const PORTABLE_THREADS: usize = 1;

/// The environment that a child process needs to compute with `numerics`.
pub fn environment(numerics: Numerics) -> &'static [(&'static str, &'static str)] {
    match numerics {
        Numerics::Machine | Numerics::Bf16 => &[],
        Numerics::Portable => &PORTABLE,
    }
}

/// MKL's reproducibility functions, exported by libtorch under their internal names; the documented
/// `mkl_cbwr_get` and `mkl_cbwr_set` are wrappers.
struct Mkl {
    get: unsafe extern "C" fn(c_int) -> c_int,
    set: unsafe extern "C" fn(c_int) -> c_int,
}

impl Mkl {
    fn find() -> Option<Self> {
        let this = Library::this();
        // SAFETY: both take and return one C int, as declared in `mkl_service.h`, and stay loaded
        // because libtorch is linked.
        unsafe {
            Some(Self {
                get: *this.get(b"mkl_serv_cbwr_get\0").ok()?,
                set: *this.get(b"mkl_serv_cbwr_set\0").ok()?,
            })
        }
    }

    fn branch(&self) -> c_int {
        // SAFETY: see `find`.
        unsafe { (self.get)(ALL) }
    }

    /// Has no effect once MKL is in use.
    fn choose(&self, branch: c_int) {
        // SAFETY: see `find`. `branch` reads the result.
        let _ = unsafe { (self.set)(branch) };
    }
}

/// Fixes how this process computes. Everything that computes calls it before the first tensor; later
/// calls have no effect.
///
/// # Errors
///
/// The process cannot compute portably.
pub fn initialize(numerics: Numerics) -> Result<(), NumericsError> {
    static SETTLED: OnceLock<Result<(), NumericsError>> = OnceLock::new();
    SETTLED.get_or_init(|| fix(numerics)).clone()
}

fn fix(numerics: Numerics) -> Result<(), NumericsError> {
    let mkl = Mkl::find();
    if mkl_goes_by_instructions() == Some(false) {
        tracing::warn!(
            "another library answers MKL's question for the processor's maker; products of matrices may be slow on processors that are not Intel's"
        );
    }
    if numerics.of_process() == Numerics::Machine {
        // The user's MKL_CBWR takes precedence.
        if let Some(mkl) = mkl.filter(|mkl| mkl.branch() == OFF) {
            mkl.choose(AUTO);
            if mkl.branch() == OFF {
                tracing::warn!(
                    "MKL was in use before its reproducibility was turned on; results may depend on memory alignment"
                );
            }
        }
        return Ok(());
    }
    check_supported(numerics, Device::Cpu)?;
    for (variable, wanted) in PORTABLE {
        let found = std::env::var(variable).unwrap_or_default();
        if found != wanted {
            return Err(NumericsError::Environment {
                variable,
                wanted,
                found,
            });
        }
    }
    match mkl.map_or(OFF, |mkl| mkl.branch()) {
        COMPATIBLE => Ok(()),
        other => Err(NumericsError::TooLate(other)),
    }
}

/// How many threads compute, at least 1: as many as libtorch's own.
pub(crate) fn threads() -> usize {
    tch::get_num_threads().max(1) as usize
}

/// Checks that a process on this machine can compute with `numerics` on `device`.
///
/// # Errors
///
/// The processor or libtorch does not support it.
pub fn check_supported(numerics: Numerics, device: Device) -> Result<(), NumericsError> {
    match numerics {
        Numerics::Machine => Ok(()),
        Numerics::Portable if !has_avx2() => Err(NumericsError::Processor(instructions())),
        Numerics::Portable => Mkl::find().map(drop).ok_or(NumericsError::NoMkl),
        // Older GPUs have bfloat16 too, if slowly.
        Numerics::Bf16 if matches!(device, Device::Cuda(_)) || has_bfloat16() => Ok(()),
        Numerics::Bf16 => Err(NumericsError::NoBfloat16(instructions())),
    }
}

/// Instructions for bfloat16 that this process may use.
fn has_bfloat16() -> bool {
    // Rust cannot ask for AMX yet, and the kernel has to allow both.
    cpu_info("flags").is_some_and(|flags| {
        let mut words = flags.split_whitespace();
        words.any(|word| matches!(word, "avx512_bf16" | "amx_bf16"))
    })
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}

/// The instruction set that libtorch's kernels use, such as `x86-64-avx512`.
fn instructions() -> String {
    let arch = std::env::consts::ARCH.replace('_', "-");
    let requested = std::env::var("ATEN_CPU_CAPABILITY").unwrap_or_default();
    let set = match requested.as_str() {
        "default" => "",
        "avx2" if has_avx2() => "-avx2",
        _ if has_avx512() => "-avx512",
        _ if has_avx2() => "-avx2",
        _ => "",
    };
    format!("{arch}{set}")
}

/// What the kernel says of the first processor under `name`.
fn cpu_info(name: &str) -> Option<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = cpus.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The processor's vendor, on which MKL's choice of kernels depends.
fn vendor() -> Option<String> {
    Some(match cpu_info("vendor_id")?.as_str() {
        "GenuineIntel" => "intel".to_owned(),
        "AuthenticAMD" => "amd".to_owned(),
        other => slug(other),
    })
}

fn slug(text: &str) -> String {
    let parts = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|part| !part.is_empty());
    let parts: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
    parts.join("-")
}

/// Environment variables that change the instructions of the libraries.
const OVERRIDES: [&str; 4] = [
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
];

/// An id of everything that the last bits of this process's results depend on:
/// `x86-64-avx512-amd-2t` for two threads of such a processor, `cuda-nvidia-h100-80gb-hbm3`, or
/// `portable`. `gpu` is the device's name, `cuda:0 NVIDIA H100 80GB HBM3`.
pub fn processor_id(numerics: Numerics, device: Device, gpu: &str, threads: usize) -> String {
    if numerics == Numerics::Portable {
        return Numerics::Portable.to_string();
    }
    if matches!(device, Device::Cuda(_)) {
        // Equal GPUs compute alike, so the index is left out.
        let model = gpu.split_once(' ').map_or("", |(_, model)| model);
        return slug(&format!("cuda {model}"));
    }
    let mut kind = instructions();
    kind.extend(vendor().map(|vendor| format!("-{vendor}")));
    kind += &format!("-{threads}t");
    for variable in OVERRIDES {
        if let Ok(value) = std::env::var(variable)
            && !value.is_empty()
        {
            kind += &format!("-{}", slug(&format!("{variable} {value}")));
        }
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_id_covers_what_bits_depend_on() {
        let machine = |threads| processor_id(Numerics::Machine, Device::Cpu, "cpu", threads);
        assert!(machine(2).starts_with(&instructions()));
        assert_ne!(machine(1), machine(2));
        let gpu = |name| processor_id(Numerics::Machine, Device::Cuda(1), name, 2);
        assert_eq!(
            gpu("cuda:1 NVIDIA H100 80GB HBM3"),
            "cuda-nvidia-h100-80gb-hbm3"
        );
        assert_eq!(
            gpu("cuda:0 NVIDIA H100 80GB HBM3"),
            gpu("cuda:7 NVIDIA H100 80GB HBM3")
        );
        assert_eq!(gpu("cuda:1"), "cuda");
        let portable = processor_id(Numerics::Portable, Device::Cpu, "cpu", 1);
        assert_eq!(portable, "portable");
    }

    #[test]
    fn portable_numerics_require_the_environment() {
        // Test processes do not have it.
        let error = fix(Numerics::Portable).unwrap_err();
        assert!(
            matches!(
                error,
                NumericsError::Environment { .. } | NumericsError::Processor(_)
            ),
            "{error}"
        );
    }
}
