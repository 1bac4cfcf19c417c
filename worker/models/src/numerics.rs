//! Which instructions libtorch computes with: the last bits of everything depend on it.
//!
//! Three libraries choose instructions for themselves: libtorch's own kernels, MKL (products of
//! matrices, and functions of many numbers) and oneDNN (convolutions). They look at the environment
//! once, before the first tensor, so that a process has one way to compute for as long as it lives.
//!
//! MKL besides adds up a product in an order that may depend on where its matrices lie in memory,
//! unless its "conditional numerical reproducibility" is on. Tensors of libtorch lie at multiples of
//! 64 bytes, parts of them do not. With it on, results no longer depend on that; measured over
//! products of 16 to 768 rows it costs less than 2 %, so every process that computes has it on:
//! [`initialize`] comes before the first tensor.

pub use halfheard_shared::numerics::Numerics;
use libloading::os::unix::Library;
use std::{ffi::c_int, sync::OnceLock};
use tch::Device;

/// MKL's numbers for its branches (`mkl_types.h`): reproducibility is off.
const OFF: c_int = 1;
/// The best instructions of this processor.
const AUTO: c_int = 2;
/// Instructions that every x86-64 processor has, Intel's or not.
const COMPATIBLE: c_int = 3;
/// Asks for all of the setting.
const ALL: c_int = -1;

/// Why portable results cannot be computed here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumericsError {
    /// Another kind of processor.
    #[error(
        "numerics = \"portable\" needs an x86-64 processor with AVX2 and FMA, and this one has {0}"
    )]
    Processor(String),
    /// A libtorch that is built otherwise.
    #[error(
        "numerics = \"portable\" needs a libtorch with MKL, as PyTorch publishes it for x86-64, and this one has none"
    )]
    NoMkl,
    /// The process was not started for it.
    #[error(
        "numerics = \"portable\" needs {variable}={wanted} in the environment from the start of the process, and found {found}"
    )]
    Environment {
        /// Which variable.
        variable: &'static str,
        /// The value it needs.
        wanted: &'static str,
        /// What it had.
        found: String,
    },
    /// MKL did not take it.
    #[error(
        "MKL did not take its setting for numerics = \"portable\" (it says {0}): it was in use before"
    )]
    TooLate(c_int),
}

/// What a process that computes portably has in its environment.
const PORTABLE: [(&str, &str); 4] = [
    ("ATEN_CPU_CAPABILITY", "avx2"),
    ("MKL_CBWR", "COMPATIBLE"),
    ("ONEDNN_MAX_CPU_ISA", "AVX2"),
    ("ONEDNN_CPU_ISA_HINTS", "NO_HINTS"),
];

/// Threads of a process that computes portably: sums are split among threads.
pub const PORTABLE_THREADS: usize = 1;

/// What a child process needs in its environment to compute in this way.
pub fn environment(numerics: Numerics) -> &'static [(&'static str, &'static str)] {
    match numerics {
        Numerics::Machine => &[],
        Numerics::Portable => &PORTABLE,
    }
}

/// MKL's reproducibility. libtorch has MKL within it and exports these functions under their inner
/// names; the documented names, `mkl_cbwr_get` and `mkl_cbwr_set`, are mere wrappers.
struct Mkl {
    get: unsafe extern "C" fn(c_int) -> c_int,
    set: unsafe extern "C" fn(c_int) -> c_int,
}

impl Mkl {
    fn find() -> Option<Self> {
        let this = Library::this();
        // SAFETY: both take and return one C int, as `mkl_service.h` declares them, and stay where
        // they are for as long as the process lives: libtorch is linked.
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

    /// Nothing happens where it comes too late.
    fn choose(&self, branch: c_int) {
        // SAFETY: see `find`. What it returns is asked for by `branch`.
        let _ = unsafe { (self.set)(branch) };
    }
}

/// Fixes how this process computes. To be called before the first tensor is made, by everything
/// that computes; later calls change nothing.
///
/// # Errors
///
/// The process cannot compute portably, and was asked to.
pub fn initialize(numerics: Numerics) -> Result<(), NumericsError> {
    static SETTLED: OnceLock<Result<(), NumericsError>> = OnceLock::new();
    SETTLED.get_or_init(|| fix(numerics)).clone()
}

fn fix(numerics: Numerics) -> Result<(), NumericsError> {
    let mkl = Mkl::find();
    if numerics == Numerics::Machine {
        // A setting of the user's own, in MKL_CBWR, stands.
        if let Some(mkl) = mkl.filter(|mkl| mkl.branch() == OFF) {
            mkl.choose(AUTO);
            if mkl.branch() == OFF {
                tracing::warn!(
                    "MKL was in use before its reproducibility was turned on: results may depend on where tensors lie"
                );
            }
        }
        return Ok(());
    }
    check_supported(numerics)?;
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

/// Whether a process of this machine can compute in this way.
///
/// # Errors
///
/// It cannot: another processor, another libtorch.
pub fn check_supported(numerics: Numerics) -> Result<(), NumericsError> {
    if numerics == Numerics::Machine {
        return Ok(());
    }
    if !has_avx2() {
        return Err(NumericsError::Processor(instructions()));
    }
    Mkl::find().map(drop).ok_or(NumericsError::NoMkl)
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

/// The instruction set that libtorch's own kernels are chosen by: `x86-64-avx512`.
fn instructions() -> String {
    let arch = std::env::consts::ARCH.replace('_', "-");
    let asked = std::env::var("ATEN_CPU_CAPABILITY").unwrap_or_default();
    let set = match asked.as_str() {
        "default" => "",
        "avx2" if has_avx2() => "-avx2",
        _ if has_avx512() => "-avx512",
        _ if has_avx2() => "-avx2",
        _ => "",
    };
    format!("{arch}{set}")
}

/// Who made the processor: MKL has other kernels for other makers'.
fn maker() -> Option<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = cpus.lines().find(|line| line.starts_with("vendor_id"))?;
    let id = line.split_once(':')?.1.trim();
    Some(match id {
        "GenuineIntel" => "intel".to_owned(),
        "AuthenticAMD" => "amd".to_owned(),
        other => slug(other),
    })
}

fn slug(text: &str) -> String {
    let words = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let words: Vec<String> = words.map(str::to_ascii_lowercase).collect();
    words.join("-")
}

/// Variables by which a user may tell the libraries which instructions to use.
const CHOICES: [&str; 4] = [
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
];

/// What the last bits of this process's results depend on, in a word: `x86-64-avx512-amd-2t` for
/// two threads of such a processor, `cuda-nvidia-h100-80gb-hbm3`, or `portable`. `gpu` is the GPU's
/// name for people, `cuda:0 NVIDIA H100 80GB HBM3`.
pub fn processor_id(numerics: Numerics, device: Device, gpu: &str, threads: usize) -> String {
    if numerics == Numerics::Portable {
        return Numerics::Portable.to_string();
    }
    if matches!(device, Device::Cuda(_)) {
        // Which one of several alike makes no difference.
        let model = gpu.split_once(' ').map_or("", |(_, model)| model);
        return slug(&format!("cuda {model}"));
    }
    let mut kind = instructions();
    kind.extend(maker().map(|maker| format!("-{maker}")));
    kind += &format!("-{threads}t");
    for variable in CHOICES {
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
    fn a_processor_is_named_by_what_bits_depend_on() {
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
    fn a_process_that_was_not_started_for_it_does_not_compute_portably() {
        // This one was not: no test process is.
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
