//! What a run of a program starts from.

use super::{limits::Limits, output::OutputSink};
use halfheard_models::device::Device;
use halfheard_shared::{
    dataset::{Dataset, Split},
    external::{ExternalTraining, JobDataset, JobEncoder, JobFile, Regime, Task, VERSION},
    methods::faults::Fault,
    wire::TrainSpec,
};
use std::{collections::BTreeMap, path::PathBuf};

/// The program, and where and within which limits it runs.
#[derive(Clone)]
pub(crate) struct Inputs {
    pub(crate) training: ExternalTraining,
    /// The file of the program's bundle.
    pub(crate) bundle: PathBuf,
    /// The folder in which runs have folders of their own.
    pub(crate) root: PathBuf,
    /// The name of the run's folder.
    pub(crate) run: String,
    pub(crate) limits: Limits,
    pub(crate) device: Device,
    pub(crate) threads: u32,
    pub(crate) output: OutputSink,
}

impl Inputs {
    /// The job file, without what depends on the task.
    pub(super) fn job_file(
        &self,
        task: Task,
        spec: &TrainSpec,
        data: &Dataset,
        encoder: &std::path::Path,
    ) -> JobFile {
        let samples = Split::ALL.map(|split| (split.as_str().to_owned(), data.split(split).len()));
        JobFile {
            version: VERSION,
            task,
            method: spec.method.clone(),
            variant: spec.variant.clone(),
            seed: spec.seed,
            device: match self.device {
                // The only one that it sees.
                Device::Cuda(_) => "cuda:0".to_owned(),
                _ => "cpu".to_owned(),
            },
            threads: self.threads,
            max_epochs: spec.max_epochs,
            hyper: self.training.hyper.clone(),
            dataset: JobDataset {
                name: spec.dataset.id().to_owned(),
                path: data.path().display().to_string(),
                shapes: data.shapes(),
                samples: BTreeMap::from(samples),
            },
            encoder: JobEncoder {
                path: encoder.display().to_string(),
                tokens: spec.tokens,
            },
            regime: Regime {
                train_missing: spec.protocol.train_missing,
                erasure_seed: spec.protocol.erasure_seed,
                selection: spec.protocol.selection,
                selection_rate: f64::from(spec.protocol.selection_rate) / 1000.0,
                fidelity: spec.protocol.fidelity,
                repeated_numbers: spec.protocol.faults().keeps(Fault::RepeatedNumbers),
            },
            selection: Vec::new(),
            state: None,
            after_epoch: 0,
            cases: Vec::new(),
        }
    }
}
