//! Tells faults of the worker from failures of the job.

use crate::runtime::{blobs::BlobError, errors::causes_and_hint};
use halfheard_models::{
    methods::MethodError,
    train::{TrainError, chain},
};
use halfheard_shared::{
    artifacts::ArtifactError,
    dataset::DatasetError,
    methods,
    wire::{Fault, FaultKind, TrainSpec},
};
use serde_json::{Map, Value};
use std::{error::Error, path::Path};

/// The fault behind an error of the artifact store. An invalid hash and an oversized object are
/// the job's own.
pub(in crate::runtime) fn store_fault(error: &ArtifactError) -> Option<Fault> {
    match error {
        ArtifactError::Address { .. } | ArtifactError::Hash(_) | ArtifactError::TooLarge { .. } => {
            None
        }
        ArtifactError::Unopened { .. }
        | ArtifactError::Missing { .. }
        | ArtifactError::Damaged { .. }
        | ArtifactError::Full { .. }
        | ArtifactError::Unlisted { .. }
        | ArtifactError::Store { .. } => Some(Fault::new(
            FaultKind::Store,
            "the artifact store",
            causes_and_hint(error),
        )),
    }
}

/// The fault behind a dataset or an encoder that is unavailable.
pub(in crate::runtime) fn input_fault(error: &BlobError, spec: &TrainSpec) -> Option<Fault> {
    match error {
        BlobError::Missing { what, .. } if *what == "dataset" => Some(dataset_fault(error, spec)),
        BlobError::Missing { what, .. } if *what == "program" => Some(Fault::new(
            FaultKind::Method,
            format!("external program {}", spec.method),
            causes_and_hint(error),
        )),
        BlobError::Missing { what, blake3, .. } if *what == "confusion table" => Some(Fault::new(
            FaultKind::Dataset,
            format!("confusion table {}", &blake3.as_str()[..8]),
            causes_and_hint(error),
        )),
        BlobError::Missing { .. } => Some(encoder_fault(causes_and_hint(error), spec)),
        // Damaged in the store, or no room for it here: not every job needs it.
        BlobError::Store(
            cause @ (ArtifactError::Damaged { key, .. }
            | ArtifactError::Store {
                key,
                action: "written to a file",
                ..
            }),
        ) if key.contains(&spec.data.blake3) => Some(dataset_fault(cause, spec)),
        BlobError::Store(
            cause @ (ArtifactError::Damaged { .. }
            | ArtifactError::Store {
                action: "written to a file",
                ..
            }),
        ) => Some(encoder_fault(causes_and_hint(cause), spec)),
        // Damaged in the store: another worker may have the encoder in its data folder.
        BlobError::List { .. } => Some(encoder_fault(causes_and_hint(error), spec)),
        BlobError::Store(error) => store_fault(error),
    }
}

fn dataset_fault(error: &(dyn Error + 'static), spec: &TrainSpec) -> Fault {
    let what = format!("dataset {}", spec.dataset);
    Fault::new(FaultKind::Dataset, what, causes_and_hint(error))
}

fn encoder_fault(chain: Vec<String>, spec: &TrainSpec) -> Fault {
    let short: String = spec.encoder.blake3.chars().take(8).collect();
    Fault::new(FaultKind::Encoder, format!("text encoder {short}"), chain)
}

/// The worker's fault behind a failed training or evaluation job, if it is one. `encoder` is the
/// folder that was used.
pub(in crate::runtime) fn training_fault(
    error: &TrainError,
    spec: &TrainSpec,
    encoder: &Path,
) -> Option<Fault> {
    match error {
        TrainError::Worker(fault) => Some(fault.clone()),
        TrainError::Unknown { method } => Some(Fault::new(
            FaultKind::Method,
            format!("method {method}"),
            chain(error),
        )),
        TrainError::Method(MethodError::Hyper { .. }) => {
            let mismatch = hyperparameter_mismatch(spec)?;
            let mut chain = chain(error);
            chain.insert(0, mismatch);
            let what = format!("method {}", spec.method);
            Some(Fault::new(FaultKind::Method, what, chain))
        }
        TrainError::Method(MethodError::Encoder(_)) => {
            Some(encoder_fault(vec![unreadable_file(encoder)?], spec))
        }
        TrainError::Dataset(DatasetError::Io { .. }) => Some(dataset_fault(error, spec)),
        error if error.is_device_failure() => {
            Some(Fault::new(FaultKind::Device, "its device", chain(error)))
        }
        _ => None,
    }
}

/// How a job's hyper-parameters differ from this release's. The coordinator fills in all that its
/// own release has, so a difference means another release.
fn hyperparameter_mismatch(spec: &TrainSpec) -> Option<String> {
    let known = &methods::find(&spec.method)?.hyper;
    let given: Map<String, Value> = serde_json::from_str(&spec.hyper).ok()?;
    let missing_from = |others: &Map<String, Value>, these: &Map<String, Value>| {
        let names: Vec<String> = these
            .keys()
            .filter(|key| !others.contains_key(*key))
            .map(|key| format!("`{key}`"))
            .collect();
        names.join(", ")
    };
    let (unknown, missing) = (missing_from(known, &given), missing_from(&given, known));
    let what = match (unknown.is_empty(), missing.is_empty()) {
        (true, true) => return None,
        (false, true) => format!("unknown: {unknown}"),
        (true, false) => format!("missing: {missing}"),
        (false, false) => format!("unknown: {unknown}; missing: {missing}"),
    };
    Some(format!(
        "the hyper-parameters are those of another release ({what}): run the same release of coord and worker"
    ))
}

/// The first file in a folder that cannot be read, and why.
fn unreadable_file(folder: &Path) -> Option<String> {
    let read = || -> std::io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_file() {
                let mut file = std::fs::File::open(&path)?;
                std::io::Read::read(&mut file, &mut [0])?;
            }
        }
        Ok(())
    };
    let error = read().err()?;
    Some(format!("{}: {error}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_models::train::failure;
    use halfheard_shared::{
        hash::Hash,
        wire::{BlobRef, FailureKind, Fidelity, Protocol, Selection},
    };

    fn spec(hyper: serde_json::Value) -> TrainSpec {
        let blob = BlobRef {
            blake3: "ab".repeat(32),
            path: "/nowhere".into(),
        };
        TrainSpec {
            method: "lnln".into(),
            variant: String::new(),
            dataset: halfheard_shared::benchmark::Benchmark::Mosi,
            data: blob.clone(),
            encoder: blob,
            tokens: halfheard_shared::encoder::TokenIds::BERT,
            seed: 1,
            max_epochs: 1,
            hyper: hyper.to_string(),
            protocol: Protocol {
                selection: Selection::Validation,
                train_missing: halfheard_shared::regime::Regime::Redrawn,
                erasure_seed: 1111,
                selection_rate: 500,
                fidelity: Fidelity::Reference,
                switched: Vec::new(),
            },
            numerics: halfheard_shared::numerics::Numerics::Machine,
        }
    }

    fn own_hyper() -> serde_json::Map<String, serde_json::Value> {
        methods::find("lnln").unwrap().hyper.clone()
    }

    #[test]
    fn hyperparameter_of_another_release_is_a_worker_fault() {
        let folder = tempfile::tempdir().unwrap();
        let refused = TrainError::Method(MethodError::Hyper {
            method: "lnln",
            what: "unknown field `tokenz`".into(),
        });
        let mut hyper = own_hyper();
        // A known key with an invalid value is the job's own failure.
        let same = spec(hyper.clone().into());
        assert_eq!(training_fault(&refused, &same, folder.path()), None);
        assert_eq!(failure("x", &refused).kind, FailureKind::Permanent);
        hyper.insert("tokenz".into(), 4.into());
        hyper.remove("alpha");
        let fault = training_fault(&refused, &spec(hyper.into()), folder.path()).unwrap();
        assert_eq!(
            (fault.kind, fault.what.as_str()),
            (FaultKind::Method, "method lnln")
        );
        let text = fault.to_string();
        assert!(
            text.contains("`tokenz`") && text.contains("`alpha`"),
            "{text}"
        );
        let unknown = TrainError::Unknown {
            method: "nonesuch".into(),
        };
        let fault = training_fault(&unknown, &same, folder.path()).unwrap();
        assert_eq!(fault.deed(), "run method nonesuch");
    }

    #[test]
    fn unreadable_encoder_is_a_worker_fault_and_invalid_encoder_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let missing = halfheard_shared::encoder::Encoder::open(folder.path()).unwrap_err();
        let refused = TrainError::Method(missing.into());
        let spec = spec(own_hyper().into());
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        assert_eq!(training_fault(&refused, &spec, folder.path()), None);
        let gone = folder.path().join("gone");
        let fault = training_fault(&refused, &spec, &gone).unwrap();
        assert_eq!(fault.deed(), "read text encoder abababab");
    }

    #[test]
    fn invalid_hash_is_not_a_store_fault() {
        let hash = ArtifactError::from("zz".parse::<Hash>().unwrap_err());
        assert_eq!(store_fault(&hash), None);
        let missing = ArtifactError::Missing { key: "k".into() };
        assert_eq!(
            store_fault(&missing).unwrap().deed(),
            "use the artifact store"
        );
    }
}
