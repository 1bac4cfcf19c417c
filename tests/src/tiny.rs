//! A dataset and a text encoder so small that real workers train on them in seconds.

use anyhow::Result;
use halfheard_shared::{
    benchmark::Benchmark,
    case::Case,
    encoder::TokenIds,
    hash::hash_file,
    ids::JobId,
    matrix::{PlannedJob, PlannedWork},
    wire::{BlobRef, Fidelity, Protocol, Selection, TrainSpec},
};
use halfheard_store::submit::NewSweep;
use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A dataset file and an encoder's folder.
#[derive(Clone, Debug)]
pub struct Tiny {
    data: PathBuf,
    encoder: PathBuf,
}

impl Tiny {
    /// Creates both under `folder`, with `train` training samples.
    pub fn make(folder: &Path, train: usize) -> Result<Self> {
        let tiny = Self {
            data: folder.join("tiny.safetensors"),
            encoder: folder.join("tiny-encoder"),
        };
        halfheard_tiny::dataset(&tiny.data, train)?;
        halfheard_tiny::encoder(&tiny.encoder)?;
        Ok(tiny)
    }

    /// A new folder with both.
    pub fn folder(train: usize) -> Result<tempfile::TempDir> {
        let folder = tempfile::tempdir()?;
        // Postgres may run as another user, who needs access.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        Self::make(folder.path(), train)?;
        Ok(folder)
    }

    /// A new folder with both, and `tiny.toml`: a spec of one training of `method` and one evaluation.
    pub fn folder_with_spec(method: &str) -> Result<tempfile::TempDir> {
        let folder = Self::folder(32)?;
        let spec = Self::spec_text("tiny", method, 1);
        std::fs::write(folder.path().join("tiny.toml"), spec)?;
        Ok(folder)
    }

    /// A spec, for a file beside dataset and encoder, of one training for an epoch and one evaluation. Tables may be
    /// appended.
    pub fn spec_text(name: &str, method: &str, seed: u64) -> String {
        format!(
            r#"
            name = "{name}"
            methods = ["{method}"]
            seeds = [{seed}]
            rates = [0.0]
            epochs = 1
            [datasets.mosi]
            file = "tiny.safetensors"
            [encoders.en]
            path = "tiny-encoder"
            "#
        )
    }

    /// The dataset by its hash.
    pub fn data(&self) -> Result<BlobRef> {
        blob(&self.data, &self.data)
    }

    /// The encoder by its weights' hash.
    pub fn encoder(&self) -> Result<BlobRef> {
        blob(&self.encoder.join("model.safetensors"), &self.encoder)
    }

    /// A training job of a small `method` (`lnln` or `almt`).
    pub fn spec(&self, method: &str, seed: u64, max_epochs: u32) -> Result<TrainSpec> {
        let hyper = match method {
            "lnln" => serde_json::json!({
                "batch_size": 16, "max_epochs": max_epochs, "early_stop": 0,
                "learning_rate": 1e-3, "weight_decay": 1e-4,
                "alpha": 0.9, "beta": 0.8, "gamma": 0.1, "sigma": 1.0,
                "width": 16, "tokens": 4, "heads": 4,
                "embedding_depth": 1, "proxy_depth": 1, "discriminator_hidden": 8,
                "completeness_depth": 1, "reconstructor_depth": 1, "language_depth": 1,
                "hyper_depth": 1, "fusion_depth": 1,
                "dmc": true, "reconstructor": true, "dmml": true, "train_missing": true,
                "language": true, "audio": true, "vision": true,
            }),
            "almt" => serde_json::json!({
                "batch_size": 16, "max_epochs": max_epochs, "early_stop": 0,
                "learning_rate": 1e-3, "weight_decay": 1e-4, "max_grad_norm": -1.0, "frames": 0,
                "width": 16, "tokens": 4,
                "embedding_depth": [1, 1, 1], "embedding_heads": [2, 2, 2],
                "embedding_hidden": 16, "language_heads": 2, "hyper_depth": 1,
                "hyper_heads": 2, "fusion_depth": 1, "fusion_heads": 2, "fusion_hidden": 16,
            }),
            other => anyhow::bail!("no small `{other}`"),
        };
        Ok(TrainSpec {
            method: method.to_owned(),
            variant: String::new(),
            dataset: Benchmark::Mosi,
            data: self.data()?,
            encoder: self.encoder()?,
            tokens: TokenIds::BERT,
            seed,
            max_epochs,
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
        })
    }
}

/// A training and its evaluations.
pub fn jobs(sweep: &NewSweep, spec: &TrainSpec, cases: &[&str]) -> Result<Vec<PlannedJob>> {
    let what = format!("{} {}", spec.method, spec.seed);
    let train = JobId::derive(&[sweep.id.as_bytes(), b"train", what.as_bytes()]);
    let spec = Arc::new(spec.clone());
    let mut jobs = vec![PlannedJob::new(train, PlannedWork::Train(spec.clone()))];
    for case in cases {
        let parsed: Case = case.parse()?;
        let parts: [&[u8]; 4] = [
            sweep.id.as_bytes(),
            b"eval",
            what.as_bytes(),
            case.as_bytes(),
        ];
        let work = PlannedWork::Eval {
            train,
            spec: spec.clone(),
            case: parsed,
            confusions: None,
        };
        jobs.push(PlannedJob::new(JobId::derive(&parts), work));
    }
    Ok(jobs)
}

fn blob(file: &Path, path: &Path) -> Result<BlobRef> {
    Ok(BlobRef {
        blake3: hash_file(file)?.as_str().to_owned(),
        path: path.display().to_string(),
    })
}
