//! What jobs take on a GPU of the simulated cluster.

use crate::finished::Noise;
use anyhow::{Context as _, Result};
use halfheard_shared::{
    benchmark::Benchmark,
    methods::{DataFacts, EncoderShape},
    operations,
    spec::ResolvedSpec,
    wire::TrainSpec,
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Samples in a batch, of every method: only relative costs matter here.
const BATCH: f64 = 64.0;
/// Seconds that one training step takes this project's worker on two CPU cores, with a text encoder of the size of
/// BERT-base: measured once for each method on MOSI. In the order of `deploy/benchmark.toml`, in which a sweep's jobs
/// lie.
const STEP_SECONDS: [(&str, f64); 8] = [
    ("misa", 1.2),
    ("self-mm", 2.0),
    ("mmim", 2.3),
    ("cenet", 2.6),
    ("tetfn", 3.9),
    ("tfr-net", 22.0),
    ("almt", 3.2),
    ("lnln", 17.4),
];
/// How much faster a GPU is taken to be than those two cores: LNLN on MOSEI trains for a bit more than an hour.
const GPU_SPEEDUP: f64 = 200.0;
/// Steps of one epoch.
const STEPS: [(Benchmark, u32); 3] = [
    (Benchmark::Mosi, 21),
    (Benchmark::Mosei, 255),
    (Benchmark::Sims, 22),
];
/// What of a training step is its forward pass.
const FORWARD: f64 = 1.0 / 3.0;
/// Epochs until the best one of a method that stops early: at least, and how many more at most. MMSA's methods stop
/// after ten to fifty epochs.
const BEST_EPOCH: (f64, f64) = (4.0, 36.0);

/// Floating-point operations of the trainings of a spec, as `coord submit` counts them, with BERT base.
pub fn operations(spec: &ResolvedSpec) -> BTreeMap<Uuid, f64> {
    operations::of_trainings(spec, |_, dataset| {
        Some((DataFacts::distributed(dataset)?, &EncoderShape::BERT_BASE))
    })
}

/// The methods with known costs, as models without variants.
pub fn models() -> Vec<(String, String)> {
    let methods = STEP_SECONDS.iter();
    methods
        .map(|(method, _)| ((*method).to_owned(), String::new()))
        .collect()
}

/// A training run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Training {
    /// Epochs until it stops.
    pub epochs: u32,
    /// Steps of an epoch.
    pub steps: u32,
    /// Seconds of a step.
    pub step_seconds: f64,
}

impl Training {
    /// What `spec` takes; when it stops early is drawn from its method, dataset and seed.
    ///
    /// # Errors
    ///
    /// A method or dataset whose costs are not known.
    pub fn of(spec: &TrainSpec) -> Result<Self> {
        let (_, steps) = STEPS
            .into_iter()
            .find(|(dataset, _)| *dataset == spec.dataset)
            .with_context(|| format!("unknown costs of dataset {}", spec.dataset))?;
        let hyper: serde_json::Value = serde_json::from_str(&spec.hyper)?;
        let patience = hyper["early_stop"].as_u64().unwrap_or(0);
        let epochs = match u32::try_from(patience)? {
            0 => spec.max_epochs,
            patience => {
                let mut noise = Noise::new(&[
                    spec.method.as_bytes(),
                    spec.dataset.id().as_bytes(),
                    &spec.seed.to_le_bytes(),
                ]);
                let best = BEST_EPOCH.0 + BEST_EPOCH.1 * noise.uniform();
                spec.max_epochs.min(best as u32 + patience)
            }
        };
        Ok(Self {
            epochs,
            steps,
            step_seconds: step_seconds(&spec.method)?,
        })
    }

    /// Seconds of an epoch.
    pub fn epoch_seconds(&self) -> f64 {
        f64::from(self.steps) * self.step_seconds
    }

    /// Seconds of all epochs.
    pub fn seconds(&self) -> f64 {
        f64::from(self.epochs) * self.epoch_seconds()
    }
}

/// Seconds in which a model of `spec` is evaluated on one case: every checkpoint predicts the test split.
///
/// # Errors
///
/// A method or dataset whose costs are not known.
pub fn evaluation_seconds(spec: &TrainSpec) -> Result<f64> {
    let sizes = spec.dataset.split_sizes().context("unknown split sizes")?;
    let batches = (sizes[2] as f64 / BATCH).ceil();
    let checkpoints = spec.dataset.criteria().len() as f64;
    Ok(checkpoints * batches * FORWARD * step_seconds(&spec.method)?)
}

fn step_seconds(method: &str) -> Result<f64> {
    let found = STEP_SECONDS.iter().find(|(id, _)| *id == method);
    let (_, seconds) = found.with_context(|| format!("unknown costs of method {method}"))?;
    Ok(seconds / GPU_SPEEDUP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweeps::train_spec;

    #[test]
    fn training_stops_early_where_its_method_does_and_always_at_the_same_epoch() {
        let mut spec = TrainSpec {
            max_epochs: 200,
            hyper: r#"{"early_stop": 0}"#.to_owned(),
            ..train_spec(1)
        };
        let whole = Training::of(&spec).unwrap();
        assert_eq!((whole.epochs, whole.steps), (200, 21));
        assert!((whole.seconds() - 200.0 * 21.0 * 17.4 / 200.0).abs() < 1e-9);
        spec.hyper = r#"{"early_stop": 8}"#.to_owned();
        let of = |seed| {
            let spec = TrainSpec {
                seed,
                ..spec.clone()
            };
            Training::of(&spec).unwrap().epochs
        };
        let drawn: Vec<u32> = (0..50).map(of).collect();
        assert_eq!(drawn, (0..50).map(of).collect::<Vec<u32>>());
        assert!(drawn.iter().all(|epochs| (12..48).contains(epochs)));
        assert!(drawn.iter().any(|epochs| *epochs != drawn[0]));
        spec.max_epochs = 10;
        assert_eq!(Training::of(&spec).unwrap().epochs, 10);
        spec.method = "mine".to_owned();
        assert!(Training::of(&spec).is_err());
    }
}
