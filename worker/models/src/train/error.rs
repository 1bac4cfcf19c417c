//! What can go wrong while training or evaluating, and what it means for the attempt.

use crate::methods::MethodError;
use halfheard_shared::{
    dataset::DatasetError,
    features::FeaturesError,
    metrics::MetricsError,
    wire::{Failure, FailureKind, Fault},
};
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

/// Why a training or an evaluation could not go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The job asks for what there is not.
    #[error("{0}")]
    Spec(String),
    /// The worker lacks something that the job needs: another may have it.
    #[error("{0}")]
    Worker(Fault),
    /// A method that this program does not have.
    #[error("this worker has no method `{method}`: run the same release of coord and worker")]
    Unknown {
        /// The method's id.
        method: String,
    },
    /// The method refused.
    #[error(transparent)]
    Method(#[from] MethodError),
    /// The dataset cannot be used.
    #[error("the dataset cannot be used")]
    Dataset(#[from] DatasetError),
    /// Predictions without metrics.
    #[error("the predictions after epoch {epoch} cannot be scored")]
    Prediction {
        /// After which epoch.
        epoch: u32,
        /// Why.
        source: MetricsError,
    },
    /// The wrong number of predictions.
    #[error("{method} gave predictions of shape {found:?} for {samples} samples")]
    Shape {
        /// The method's id.
        method: String,
        /// What it gave.
        found: Vec<i64>,
        /// What was asked.
        samples: i64,
    },
    /// A checkpoint that does not fit the model.
    #[error("the checkpoint {checkpoint} does not fit: {what}")]
    Weights {
        /// Its hash.
        checkpoint: String,
        /// What is wrong.
        what: String,
    },
    /// Features that are none.
    #[error("the features cannot be kept")]
    Features(#[from] FeaturesError),
    /// The state could not be written.
    #[error("the state cannot be written")]
    State(#[source] safetensors::SafeTensorError),
    /// libtorch refused.
    #[error("libtorch: {}", short(&.0.to_string()))]
    Torch(#[from] tch::TchError),
    /// No memory left.
    #[error("out of memory{}: use a smaller batch_size, or a device with more memory", demand(.asked, *.batch_size))]
    OutOfMemory {
        /// How much was asked for, in libtorch's words.
        asked: Option<String>,
        /// Samples in a batch, once that is known.
        batch_size: Option<usize>,
        /// libtorch's words.
        #[source]
        source: TorchMessage,
    },
    /// A panic in a method or in libtorch's wrapper.
    #[error("a panic: {0}")]
    Panic(TorchMessage),
    /// The device cannot be used any more by this process.
    #[error("the device failed, this worker process starts anew")]
    Device(#[source] TorchMessage),
}

/// The words of an error that came as text.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct TorchMessage(pub String);

fn demand(asked: &Option<String>, batch_size: Option<usize>) -> String {
    let asked = asked.as_ref().map(|a| format!("{a} asked for"));
    let batch = batch_size.map(|b| format!("batch_size {b}"));
    match (asked, batch) {
        (None, None) => String::new(),
        (Some(one), None) | (None, Some(one)) => format!(" ({one})"),
        (Some(asked), Some(batch)) => format!(" ({asked}, {batch})"),
    }
}

/// libtorch's words without its C++ stack and the wrapper's quoting.
fn short(text: &str) -> String {
    let text = text
        .strip_prefix("called `Result::unwrap()` on an `Err` value: ")
        .unwrap_or(text);
    let text = text
        .strip_prefix("Torch(\"")
        .map_or(text.to_owned(), |t| t.replace("\\n", "\n"));
    let end = ["\nException raised from", "\nframe #0"]
        .iter()
        .filter_map(|mark| text.find(mark))
        .min()
        .unwrap_or(text.len());
    let mut short = text[..end].trim().to_owned();
    if let Some((at, _)) = short.char_indices().nth(2000) {
        short.truncate(at);
    }
    short
}

/// How much memory was asked for, from libtorch's words.
fn memory_asked(text: &str) -> Option<String> {
    // CUDA: "Tried to allocate 2.00 GiB."; CPU: "you tried to allocate 4000 bytes."
    let lower = text.to_lowercase();
    let start = lower.find("tried to allocate ")? + "tried to allocate ".len();
    let words: Vec<&str> = lower[start..].split_whitespace().take(2).collect();
    let [number, unit] = words[..] else {
        return None;
    };
    let unit = match unit.trim_end_matches(|c: char| !c.is_alphanumeric()) {
        "gib" => "GiB",
        "mib" => "MiB",
        "kib" => "KiB",
        "bytes" => "bytes",
        _ => return None,
    };
    number
        .chars()
        .all(|c| c.is_ascii_digit() || c == '.')
        .then(|| format!("{number} {unit}"))
}

/// Whether libtorch's words mean that there was no memory.
fn is_out_of_memory(text: &str) -> bool {
    let lower = text.to_lowercase();
    lower.contains("out of memory")
        || lower.contains("can't allocate memory")
        || lower.contains("bad_alloc")
        || lower.contains("cublas_status_alloc_failed")
        || lower.contains("cudnn_status_alloc_failed")
}

/// Whether libtorch's words mean that the process can no longer use its device.
fn is_broken_device(text: &str) -> bool {
    let lower = text.to_lowercase();
    [
        "cuda error",
        "cuda driver error",
        "device-side assert",
        "cublas_status_",
        "cublaslt",
        "cudnn_status_",
        "cudnn error",
        "cusolver_status_",
        "cufft_",
        "no cuda gpus are available",
    ]
    .iter()
    .any(|words| lower.contains(words))
}

/// Whether the job itself brought its device down: an index out of range stops a kernel on every
/// device alike.
fn is_assertion(text: &str) -> bool {
    text.to_lowercase().contains("device-side assert")
}

/// Whether an error's words speak of the machine, which may be better later or elsewhere.
fn may_pass(text: &str) -> bool {
    let lower = text.to_lowercase();
    [
        "resource temporarily unavailable",
        "too many open files",
        "no space left on device",
        "input/output error",
        "interrupted system call",
    ]
    .iter()
    .any(|words| lower.contains(words))
}

impl TrainError {
    /// Sorts libtorch's words: memory and a broken device are told apart from the rest.
    fn sorted(self, batch_size: Option<usize>) -> Self {
        let text = match &self {
            TrainError::Torch(e) | TrainError::Method(MethodError::Torch(e)) => e.to_string(),
            TrainError::Panic(said) => said.0.clone(),
            _ => return self,
        };
        let said = || TorchMessage(short(&text));
        if is_out_of_memory(&text) {
            TrainError::OutOfMemory {
                asked: memory_asked(&text),
                batch_size,
                source: said(),
            }
        } else if is_broken_device(&text) {
            TrainError::Device(said())
        } else {
            self
        }
    }

    /// Whether the process must not go on after it: a broken device stays broken.
    pub fn is_fatal_to_process(&self) -> bool {
        matches!(self, TrainError::Device(_))
    }

    /// Whether the device broke, and not because of what the job did with it.
    pub fn is_device_failure(&self) -> bool {
        matches!(self, TrainError::Device(said) if !is_assertion(&said.0))
    }

    /// What kind of failure of the job it is, where it is one: see [`halfheard_worker::runtime`] for the faults
    /// of a worker. The same job comes to the same error wherever it runs, to the last bit; only what
    /// depends on the machine may help to try again.
    fn kind(&self) -> FailureKind {
        let by_words = |text: &str| {
            if may_pass(text) {
                FailureKind::Retryable
            } else {
                FailureKind::Permanent
            }
        };
        match self {
            TrainError::Method(MethodError::NonFinite { .. })
            | TrainError::Prediction {
                source: MetricsError::NonFinite { .. },
                ..
            }
            | TrainError::Features(FeaturesError::NonFinite { .. }) => FailureKind::NonFinite,
            TrainError::Method(MethodError::Torch(error)) | TrainError::Torch(error) => {
                by_words(&error.to_string())
            }
            TrainError::Panic(said) => by_words(&said.0),
            TrainError::Device(said) if is_assertion(&said.0) => FailureKind::Permanent,
            TrainError::Dataset(DatasetError::Io { .. })
            | TrainError::Worker(_)
            | TrainError::OutOfMemory { .. }
            | TrainError::Device(_) => FailureKind::Retryable,
            TrainError::Spec(_)
            | TrainError::Unknown { .. }
            | TrainError::Method(_)
            | TrainError::Dataset(_)
            | TrainError::Prediction { .. }
            | TrainError::Shape { .. }
            | TrainError::Features(_)
            | TrainError::Weights { .. }
            | TrainError::State(_) => FailureKind::Permanent,
        }
    }
}

/// An error and its causes, outermost first, each said once: many errors have their cause's words
/// in their own.
pub fn chain(error: &dyn std::error::Error) -> Vec<String> {
    let mut chain = vec![short(&error.to_string())];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = short(&cause.to_string());
        if !chain.iter().any(|said| said.contains(&text)) {
            chain.push(text);
        }
        next = cause.source();
    }
    chain
}

/// What an attempt that ended with `error` reports. `what` says what was being done.
pub fn failure(what: &str, error: &TrainError) -> Failure {
    let mut all = vec![what.to_owned()];
    all.extend(chain(error));
    Failure {
        chain: all,
        kind: error.kind(),
    }
}

thread_local! {
    /// Whether a panic on this thread is caught and reported as a failure.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` so that a panic in it becomes an error: many of libtorch's refusals come as panics
/// of its wrapper. `batch_size` is for the message.
pub fn catch_panics<T>(
    batch_size: Option<usize>,
    work: impl FnOnce() -> Result<T, TrainError>,
) -> Result<T, TrainError> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if GUARDED.get() {
                tracing::debug!(panic = %info, "caught");
            } else {
                default(info);
            }
        }));
    });
    let before = GUARDED.replace(true);
    // What `work` borrowed is dropped by the caller after an error, never used further.
    let outcome = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    outcome
        .unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("without words");
            Err(TrainError::Panic(TorchMessage(short(text))))
        })
        .map_err(|error| error.sorted(batch_size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn memory_that_cannot_be_had_is_retryable_and_says_how_much() {
        let error = catch_panics(Some(64), || {
            // 4 EiB: no machine has it.
            let _ = Tensor::zeros([1 << 60], (Kind::Float, Device::Cpu));
            Ok(())
        })
        .unwrap_err();
        let failure = failure("train x", &error);
        assert_eq!(failure.kind, FailureKind::Retryable);
        let text = failure.chain.join(" | ");
        assert!(text.contains("batch_size 64"), "{text}");
        assert!(text.contains("4611686018427387904 bytes"), "{text}");
        assert!(!text.contains("frame #"), "{text}");
    }

    #[test]
    fn cuda_words_are_understood() {
        let words = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity";
        assert!(is_out_of_memory(words));
        assert_eq!(memory_asked(words).as_deref(), Some("2.50 GiB"));
        assert!(is_broken_device("CUDA error: an illegal memory access"));
        assert!(is_broken_device(
            "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"
        ));
    }

    #[test]
    fn a_device_that_breaks_is_no_failure_of_the_job_unless_the_job_broke_it() {
        let broken = |words: &str| {
            let error = catch_panics(None, || -> Result<(), TrainError> { panic!("{words}") });
            error.unwrap_err()
        };
        let ecc = broken("CUDA error: uncorrectable ECC error encountered");
        assert!(ecc.is_device_failure() && ecc.is_fatal_to_process());
        let assertion = broken("CUDA error: device-side assert triggered");
        assert!(!assertion.is_device_failure() && assertion.is_fatal_to_process());
        assert_eq!(failure("x", &assertion).kind, FailureKind::Permanent);
    }

    #[test]
    fn what_repeats_itself_is_not_tried_again() {
        let kind = |words: &str| {
            let error = catch_panics(None, || -> Result<(), TrainError> { panic!("{words}") });
            failure("x", &error.unwrap_err()).kind
        };
        assert_eq!(
            kind("from is out of bounds for float"),
            FailureKind::Permanent
        );
        assert_eq!(
            kind("failed to spawn thread: Resource temporarily unavailable"),
            FailureKind::Retryable
        );
        let prediction = TrainError::Prediction {
            epoch: 1,
            source: MetricsError::NonFinite { sample: 0 },
        };
        assert_eq!(failure("x", &prediction).kind, FailureKind::NonFinite);
    }

    #[test]
    fn a_cause_is_said_once() {
        let prediction = TrainError::Prediction {
            epoch: 1,
            source: MetricsError::NonFinite { sample: 0 },
        };
        let text = failure("x", &prediction).chain.join(": ");
        assert_eq!(text.matches("not finite").count(), 1, "{text}");
        assert!(text.contains("epoch 1"), "{text}");
        // One whose own words hold its cause's.
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {0}")]
        struct Outer(#[source] TorchMessage);
        assert_eq!(
            chain(&Outer(TorchMessage("inner".into()))),
            ["outer: inner"]
        );
    }

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        let error = catch_panics(None, || -> Result<(), TrainError> {
            let _ = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu))
                .matmul(&Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)));
            Ok(())
        })
        .unwrap_err();
        let text = failure("x", &error).chain.join(" | ");
        assert!(text.contains("mat1 and mat2"), "{text}");
        assert!(!text.contains("unwrap"), "{text}");
    }
}
