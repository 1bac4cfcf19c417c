//! Errors of training and evaluation, and what each means for the attempt.

use crate::methods::MethodError;
use halfheard_shared::{
    dataset::DatasetError,
    erasure::DamageError,
    features::FeaturesError,
    metrics::MetricsError,
    wire::{Failure, FailureKind, Fault, WireError},
};
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

/// Why a training or evaluation job failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A job that cannot be done anywhere.
    #[error("{0}")]
    Spec(String),
    /// The spec cannot be encoded.
    #[error("cannot fingerprint the training spec")]
    Fingerprint(#[source] WireError),
    /// The worker lacks something that the job needs and another worker may have.
    #[error("{0}")]
    Worker(Fault),
    /// A method that this program does not have.
    #[error("this worker has no method `{method}`: run the same release of coord and worker")]
    Unknown {
        /// The method's id.
        method: String,
    },
    /// The method failed.
    #[error(transparent)]
    Method(#[from] MethodError),
    /// An unusable dataset.
    #[error("the dataset cannot be used")]
    Dataset(#[from] DatasetError),
    /// Damage that lacks what it needs.
    #[error("the case cannot be made")]
    Damage(#[from] DamageError),
    /// Predictions that have no metrics.
    #[error("the predictions after epoch {epoch} cannot be scored")]
    Prediction {
        /// The last trained epoch.
        epoch: u32,
        /// What is wrong with them.
        source: MetricsError,
    },
    /// The wrong number of predictions.
    #[error("{method} returned predictions of shape {found:?} for {samples} samples")]
    Shape {
        /// The method's id.
        method: String,
        /// The shape of the predictions.
        found: Vec<i64>,
        /// The number of samples.
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
    /// Features that cannot be encoded.
    #[error("cannot store the features")]
    Features(#[from] FeaturesError),
    /// A state or checkpoint that cannot be encoded.
    #[error("cannot encode the state")]
    State(#[source] safetensors::SafeTensorError),
    /// An error of libtorch.
    #[error("libtorch failed")]
    Torch(#[from] tch::TchError),
    /// Out of memory.
    #[error("out of memory{}: use a smaller batch_size, or a device with more memory", details(.requested, *.batch_size))]
    OutOfMemory {
        /// The size of the failed allocation, as libtorch prints it.
        requested: Option<String>,
        /// Samples per batch, if known.
        batch_size: Option<usize>,
        /// libtorch's message.
        #[source]
        source: TorchMessage,
    },
    /// A panic in a method or in libtorch's wrapper.
    #[error("panic: {0}")]
    Panic(TorchMessage),
    /// An external program that died, took too much, or did not keep to what is agreed.
    #[error("the program failed: {what}")]
    External {
        /// What it did.
        what: String,
        /// Whether it may not do so again.
        retryable: bool,
        /// The last lines that it wrote to standard error.
        #[source]
        last_words: Option<LastWords>,
    },
    /// A device that this process can no longer use.
    #[error("the device failed; this worker process restarts")]
    Device(#[source] TorchMessage),
}

/// The last lines that an external program wrote to standard error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("its last words: {0}")]
pub struct LastWords(pub String);

/// An error message of libtorch or a panic.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct TorchMessage(pub String);

fn details(requested: &Option<String>, batch_size: Option<usize>) -> String {
    let requested = requested.as_ref().map(|size| format!("{size} requested"));
    let batch = batch_size.map(|b| format!("batch_size {b}"));
    match (requested, batch) {
        (None, None) => String::new(),
        (Some(one), None) | (None, Some(one)) => format!(" ({one})"),
        (Some(requested), Some(batch)) => format!(" ({requested}, {batch})"),
    }
}

/// libtorch's message without its C++ stack and the wrapper's quoting.
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

/// The size of a failed allocation, from libtorch's message.
fn requested_memory(text: &str) -> Option<String> {
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

/// Whether libtorch's message reports a lack of memory.
fn is_out_of_memory(text: &str) -> bool {
    let lower = text.to_lowercase();
    lower.contains("out of memory")
        || lower.contains("can't allocate memory")
        || lower.contains("bad_alloc")
        || lower.contains("cublas_status_alloc_failed")
        || lower.contains("cudnn_status_alloc_failed")
}

/// Whether libtorch's message reports that the process can no longer use its device.
fn is_device_failure(text: &str) -> bool {
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
    .any(|part| lower.contains(part))
}

/// Whether the job itself caused the device failure: an index out of range stops a kernel on every
/// device.
fn is_assertion(text: &str) -> bool {
    text.to_lowercase().contains("device-side assert")
}

/// Whether a message is about the machine, so that a retry may help.
fn is_transient(text: &str) -> bool {
    let lower = text.to_lowercase();
    [
        "resource temporarily unavailable",
        "too many open files",
        "no space left on device",
        "input/output error",
        "interrupted system call",
    ]
    .iter()
    .any(|part| lower.contains(part))
}

impl TrainError {
    /// Recognizes a lack of memory and a device failure in libtorch's message.
    fn classify(self, batch_size: Option<usize>) -> Self {
        let text = match &self {
            TrainError::Torch(e) | TrainError::Method(MethodError::Torch(e)) => e.to_string(),
            TrainError::Panic(message) => message.0.clone(),
            _ => return self,
        };
        let message = || TorchMessage(short(&text));
        if is_out_of_memory(&text) {
            TrainError::OutOfMemory {
                requested: requested_memory(&text),
                batch_size,
                source: message(),
            }
        } else if is_device_failure(&text) {
            TrainError::Device(message())
        } else {
            self
        }
    }

    /// Whether the process must exit: a failed device stays unusable.
    pub fn is_fatal_to_process(&self) -> bool {
        matches!(self, TrainError::Device(_))
    }

    /// Whether the device failed for reasons other than the job.
    pub fn is_device_failure(&self) -> bool {
        matches!(self, TrainError::Device(message) if !is_assertion(&message.0))
    }

    /// The kind of failure, if it is the job's and not the worker's. A job fails the same way
    /// wherever it runs; a retry helps only if the error depends on the machine.
    fn kind(&self) -> FailureKind {
        let by_message = |text: &str| {
            if is_transient(text) {
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
                by_message(&error.to_string())
            }
            TrainError::Panic(message) => by_message(&message.0),
            TrainError::Device(message) if is_assertion(&message.0) => FailureKind::Permanent,
            TrainError::OutOfMemory { .. } => FailureKind::OutOfMemory,
            TrainError::Dataset(DatasetError::Io { .. })
            | TrainError::Worker(_)
            | TrainError::Device(_)
            | TrainError::External {
                retryable: true, ..
            } => FailureKind::Retryable,
            TrainError::Spec(_)
            | TrainError::Fingerprint(_)
            | TrainError::Unknown { .. }
            | TrainError::Method(_)
            | TrainError::Dataset(_)
            | TrainError::Prediction { .. }
            | TrainError::Shape { .. }
            | TrainError::Features(_)
            | TrainError::Damage(_)
            | TrainError::Weights { .. }
            | TrainError::External { .. }
            | TrainError::State(_) => FailureKind::Permanent,
        }
    }
}

/// The texts of an error and its causes, outermost first, without libtorch's C++ stack.
pub fn chain(error: &dyn std::error::Error) -> Vec<String> {
    let causes = halfheard_shared::error::causes(error);
    causes.iter().map(|text| short(text)).collect()
}

/// The failure that an attempt reports for `error`; `what` is what it was doing.
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

/// Runs `work` and turns a panic into an error, since libtorch's wrapper reports many errors by
/// panicking. `batch_size` is for the message.
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
    // The caller drops what `work` borrowed after an error.
    let outcome = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    outcome
        .unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no panic message");
            Err(TrainError::Panic(TorchMessage(short(text))))
        })
        .map_err(|error| error.classify(batch_size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn failed_allocation_is_out_of_memory_and_reports_its_size() {
        let error = catch_panics(Some(64), || {
            // 4 EiB, more than any machine has.
            let _ = Tensor::zeros([1 << 60], (Kind::Float, Device::Cpu));
            Ok(())
        })
        .unwrap_err();
        let failure = failure("train x", &error);
        assert_eq!(failure.kind, FailureKind::OutOfMemory);
        let text = failure.chain.join(" | ");
        assert!(text.contains("batch_size 64"), "{text}");
        assert!(text.contains("4611686018427387904 bytes"), "{text}");
        assert!(!text.contains("frame #"), "{text}");
    }

    #[test]
    fn cuda_messages_are_classified() {
        let message = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity";
        assert!(is_out_of_memory(message));
        assert_eq!(requested_memory(message).as_deref(), Some("2.50 GiB"));
        assert!(is_device_failure("CUDA error: an illegal memory access"));
        assert!(is_device_failure(
            "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"
        ));
    }

    #[test]
    fn device_failure_is_blamed_on_the_job_only_for_assertions() {
        let broken = |message: &str| {
            let error = catch_panics(None, || -> Result<(), TrainError> { panic!("{message}") });
            error.unwrap_err()
        };
        let ecc = broken("CUDA error: uncorrectable ECC error encountered");
        assert!(ecc.is_device_failure() && ecc.is_fatal_to_process());
        let assertion = broken("CUDA error: device-side assert triggered");
        assert!(!assertion.is_device_failure() && assertion.is_fatal_to_process());
        assert_eq!(failure("x", &assertion).kind, FailureKind::Permanent);
    }

    #[test]
    fn deterministic_errors_are_permanent() {
        let kind = |message: &str| {
            let error = catch_panics(None, || -> Result<(), TrainError> { panic!("{message}") });
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
    fn repeated_causes_are_dropped_from_the_chain() {
        let prediction = TrainError::Prediction {
            epoch: 1,
            source: MetricsError::NonFinite { sample: 0 },
        };
        let text = failure("x", &prediction).chain.join(": ");
        assert_eq!(text.matches("not finite").count(), 1, "{text}");
        assert!(text.contains("epoch 1"), "{text}");
        // An error that repeats its cause.
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {0}")]
        struct Outer(#[source] TorchMessage);
        assert_eq!(
            chain(&Outer(TorchMessage("inner".into()))),
            ["outer: inner"]
        );
    }

    #[test]
    fn panic_becomes_an_error_with_its_message() {
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
