//! Whether a report fits its job: what a worker says is checked before it counts.

use crate::job_rows::LockedJob;
use halfheard_shared::{
    benchmark::Benchmark,
    selection::TEST,
    wire::{
        CheckpointRef, CriterionResult, EpochLog, ResultBody, ResultMessage, Selection, TrainSpec,
    },
};
use std::collections::HashMap;
use uuid::Uuid;

/// The largest checkpoint that is believed, in bytes.
const MAX_CHECKPOINT: u64 = 1 << 40;
/// What an epoch measures beside the dataset's metrics.
const VALIDATION_LOSS: &str = "validation_loss";
/// Most losses of an epoch.
const MAX_LOSSES: usize = 64;
/// Most bytes of a loss's name.
const MAX_LOSS_NAME: usize = 64;

/// What the reports of a config's jobs must be like.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    dataset: Benchmark,
    selection: Selection,
    /// Of the checkpoints.
    criteria: Vec<String>,
    max_epochs: u32,
    /// Samples of the test split; `None` if the file is not registered.
    samples: Option<usize>,
}

impl Expected {
    pub(super) fn new(spec: &TrainSpec, samples: Option<&i32>) -> Self {
        Self {
            dataset: spec.dataset,
            selection: spec.protocol.selection,
            criteria: spec.protocol.selection.criteria(spec.dataset),
            max_epochs: spec.max_epochs,
            samples: samples.and_then(|samples| usize::try_from(*samples).ok()),
        }
    }
}

/// Whether the check of this report asks for the job's config.
pub(super) fn needs_config(report: &ResultBody) -> bool {
    matches!(
        report,
        ResultBody::Epoch(_) | ResultBody::Trained { .. } | ResultBody::Evaluated { .. }
    )
}

/// Checks a report against its job; an error says what does not fit.
pub(super) fn report(
    message: &ResultMessage,
    job: &LockedJob,
    expected: &HashMap<Uuid, Result<Expected, String>>,
) -> Result<(), String> {
    if !needs_config(&message.body) {
        return Ok(());
    }
    // A report of the wrong kind is rejected by the job itself.
    let Some(config) = job.config else {
        return Ok(());
    };
    let expected = expected
        .get(&config)
        .ok_or("the database lacks its config")?
        .as_ref()
        .map_err(Clone::clone)?;
    match &message.body {
        ResultBody::Epoch(log) => expected.epoch_log(log),
        ResultBody::Trained {
            checkpoints,
            epochs,
            ..
        } => expected.trained(checkpoints, *epochs),
        ResultBody::Evaluated {
            results,
            predictions,
            ..
        } => expected.evaluated(results, predictions),
        _ => Ok(()),
    }
}

impl Expected {
    fn epoch_log(&self, log: &EpochLog) -> Result<(), String> {
        self.epoch(log.epoch)?;
        self.metrics(log.metrics.iter().filter_map(|(id, value)| {
            let id = match self.selection {
                Selection::Both => id.strip_prefix(TEST).unwrap_or(id),
                Selection::Validation | Selection::Test => id,
            };
            (id != VALIDATION_LOSS).then_some((id, value))
        }))?;
        if log.losses.len() > MAX_LOSSES {
            return Err(format!("{} losses, over {MAX_LOSSES}", log.losses.len()));
        }
        if let Some(name) = log.losses.keys().find(|name| {
            name.len() > MAX_LOSS_NAME || name.contains(|c: char| !c.is_ascii_graphic())
        }) {
            return Err(format!("invalid name of a loss: {name:?}"));
        }
        if log.best_for.len() > self.criteria.len() {
            return Err("best for more criteria than there are".to_owned());
        }
        for id in &log.best_for {
            self.criterion(id)?;
        }
        seconds(log.train_seconds)?;
        seconds(log.eval_seconds)
    }

    fn trained(&self, checkpoints: &[CheckpointRef], epochs: u32) -> Result<(), String> {
        self.epoch(epochs)?;
        self.all_criteria(checkpoints.iter().map(|checkpoint| &checkpoint.criterion))?;
        for checkpoint in checkpoints {
            if checkpoint.epoch == 0 || checkpoint.epoch > epochs {
                return Err(format!(
                    "a checkpoint of epoch {} of {epochs}",
                    checkpoint.epoch
                ));
            }
            let hash = &checkpoint.blake3;
            let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
            if hash.len() != 64 || !hash.bytes().all(is_hex) {
                return Err("a checkpoint's hash is not 64 hexadecimal digits".to_owned());
            }
            if checkpoint.bytes == 0 || checkpoint.bytes > MAX_CHECKPOINT {
                return Err(format!("a checkpoint of {} bytes", checkpoint.bytes));
            }
        }
        Ok(())
    }

    fn evaluated(
        &self,
        results: &[CriterionResult],
        predictions: &[Vec<f32>],
    ) -> Result<(), String> {
        self.all_criteria(results.iter().map(|result| &result.criterion))?;
        if predictions.len() > results.len() {
            return Err(format!(
                "{} prediction vectors for {} criteria",
                predictions.len(),
                results.len()
            ));
        }
        let samples = self
            .samples
            .or_else(|| predictions.first().map(Vec::len))
            .unwrap_or(0);
        for vector in predictions {
            if vector.len() != samples || vector.is_empty() {
                return Err(format!(
                    "{} predictions, but the test split has {samples} samples",
                    vector.len()
                ));
            }
            if !vector.iter().all(|value| value.is_finite()) {
                return Err("a prediction is not finite".to_owned());
            }
        }
        for result in results {
            self.epoch(result.epoch)?;
            let metrics = result.metrics.iter();
            self.metrics(metrics.map(|(id, value)| (id.as_str(), value)))?;
            if usize::try_from(result.predictions).map_or(true, |i| i >= predictions.len()) {
                return Err(format!(
                    "criterion `{}` refers to prediction {} of {}",
                    result.criterion,
                    result.predictions,
                    predictions.len()
                ));
            }
        }
        Ok(())
    }

    fn epoch(&self, epoch: u32) -> Result<(), String> {
        if epoch == 0 || epoch > self.max_epochs {
            return Err(format!("epoch {epoch} of {}", self.max_epochs));
        }
        Ok(())
    }

    fn criterion(&self, id: &str) -> Result<(), String> {
        if self.criteria.iter().any(|known| known == id) {
            return Ok(());
        }
        Err(format!("unknown criterion {id:?}"))
    }

    /// Each criterion, once.
    fn all_criteria<'a>(
        &self,
        ids: impl ExactSizeIterator<Item = &'a String> + Clone,
    ) -> Result<(), String> {
        let criteria = &self.criteria;
        for id in ids.clone() {
            self.criterion(id)?;
        }
        if let Some(missing) = criteria
            .iter()
            .find(|known| !ids.clone().any(|id| id == *known))
        {
            return Err(format!("lacks the criterion `{missing}`"));
        }
        if ids.len() != criteria.len() {
            return Err("the same criterion twice".to_owned());
        }
        Ok(())
    }

    fn metrics<'a>(
        &self,
        metrics: impl Iterator<Item = (&'a str, &'a Option<f64>)>,
    ) -> Result<(), String> {
        for (id, value) in metrics {
            if !self.dataset.metrics().iter().any(|known| known.id == id) {
                return Err(format!("unknown metric {id:?}"));
            }
            if value.is_some_and(|value| !value.is_finite()) {
                return Err(format!("the metric `{id}` is not finite"));
            }
        }
        Ok(())
    }
}

fn seconds(seconds: f64) -> Result<(), String> {
    if seconds.is_finite() && seconds >= 0.0 {
        Ok(())
    } else {
        Err(format!("{seconds} seconds"))
    }
}
