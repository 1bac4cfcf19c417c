//! One run of a program: its folder, its files, its process.

use super::{
    error::{machine, misbehaved},
    folder::JobFolder,
    inputs::Inputs,
    needs,
    process::{Running, environment},
};
use bytes::Bytes;
use halfheard_models::train::TrainError;
use halfheard_shared::{
    bundle::Bundle,
    case::Case,
    dataset::{Dataset, Split},
    erased_split::ErasedSplit,
    erasure::ConfusionTable,
    external::{JobFile, Predictions},
    wire::TrainSpec,
};

/// A folder with all that a program starts from.
pub(super) struct Session<'a> {
    inputs: &'a Inputs,
    pub(super) folder: JobFolder,
}

impl<'a> Session<'a> {
    /// Makes the folder with the program's files.
    pub(super) fn prepare(inputs: &'a Inputs) -> Result<Self, TrainError> {
        let folder = JobFolder::create(&inputs.root, &inputs.run)?;
        let bundle = std::fs::read(&inputs.bundle)
            .map_err(|error| machine("cannot read the program's files", &error))?;
        let bundle = Bundle::decode(&bundle)
            .map_err(|error| machine("cannot read the program's files", &error))?;
        folder.unpack(&bundle, "program")?;
        Ok(Self { inputs, folder })
    }

    /// Writes an erased split without labels. Returns its path, as the job file has it.
    pub(super) fn write_inputs(
        &self,
        data: &Dataset,
        split: Split,
        (case, confusions): (&Case, Option<&ConfusionTable>),
        spec: &TrainSpec,
    ) -> Result<String, TrainError> {
        let seed = spec.protocol.erasure_seed;
        let name = format!("inputs/{split}-{case}.safetensors");
        ErasedSplit::new(data, split, case, seed, spec.tokens, confusions)?
            .write_tensors(&self.folder.job().join(&name), false)
            .map_err(|error| machine("cannot write the program's inputs", &error))?;
        Ok(name)
    }

    /// Writes a checkpoint. Returns its path, as the job file has it.
    pub(super) fn write_checkpoint(
        &self,
        hash: &str,
        content: &Bytes,
    ) -> Result<String, TrainError> {
        let name = format!("checkpoints/{hash}");
        std::fs::write(self.folder.job().join(&name), content)
            .map_err(|error| machine("cannot write a checkpoint for the program", &error))?;
        Ok(name)
    }

    /// Starts the program, if this machine has what it needs.
    pub(super) fn start(&self, job: &JobFile) -> Result<Running, TrainError> {
        let Inputs {
            training,
            limits,
            device,
            threads,
            output,
            ..
        } = self.inputs;
        let inside = self.folder.job().join("program");
        let environment = environment(self.folder.job(), *device, *threads);
        if let Some(fault) = needs::missing(&job.method, training, &inside, &environment) {
            return Err(TrainError::Worker(fault));
        }
        self.folder.write_job(job)?;
        Running::start(
            &self.folder,
            training.program.command.clone(),
            inside,
            environment,
            *limits,
            output.clone(),
        )
    }

    /// The values of predictions, as many as there are samples.
    pub(super) fn values(
        &self,
        predictions: Predictions,
        samples: usize,
        what: &str,
    ) -> Result<Vec<f32>, TrainError> {
        let values = match predictions {
            Predictions::Values(values) => values,
            Predictions::File(path) => self.folder.predictions(&path, samples)?,
        };
        if values.len() != samples {
            return Err(misbehaved(format!(
                "it predicted {} values for the {samples} samples of {what}",
                values.len()
            )));
        }
        Ok(values)
    }
}
