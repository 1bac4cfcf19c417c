//! Stored predictions, with the labels that they are measured against.

use super::Model;
use crate::{benchmark::Benchmark, case::Case, ids::JobId, selection::TEST};
use std::{collections::BTreeMap, sync::Arc};

/// Which predictions to load; empty lists stand for all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Methods by their ids, with all their variants.
    pub methods: Vec<String>,
    /// Datasets.
    pub datasets: Vec<Benchmark>,
    /// Cases.
    pub cases: Vec<Case>,
}

/// A sweep's predictions.
#[derive(Clone, Debug, Default)]
pub struct Predictions {
    /// By dataset, the labels of its test split, `[samples]`.
    pub labels: BTreeMap<Benchmark, Arc<[f32]>>,
    /// One per finished evaluation: by dataset, model, case and seed.
    pub evaluations: Vec<Evaluation>,
}

/// What a trained model predicts on one case.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The evaluation job.
    pub job: JobId,
    /// The dataset.
    pub dataset: Benchmark,
    /// The model.
    pub model: Model,
    /// The training seed.
    pub seed: u64,
    /// The case.
    pub case: Case,
    /// By selection criterion, the predictions of its checkpoint, `[samples]` in the order of the
    /// test split. Criteria that selected the same checkpoint share them. Where both splits choose, those
    /// of the test split begin with [`TEST`].
    pub by_criterion: BTreeMap<String, Arc<[f32]>>,
}

impl Predictions {
    /// Those of the checkpoints that the test split chose, where both splits choose.
    #[must_use]
    pub fn chosen_on_test(mut self) -> Self {
        for evaluation in &mut self.evaluations {
            let all = std::mem::take(&mut evaluation.by_criterion).into_iter();
            evaluation.by_criterion = all
                .filter_map(|(id, values)| Some((id.strip_prefix(TEST)?.to_owned(), values)))
                .collect();
        }
        self.evaluations
            .retain(|evaluation| !evaluation.by_criterion.is_empty());
        self
    }
}

impl Evaluation {
    /// The predictions that `metric` is measured on: those of the checkpoint that its family's
    /// criterion selected.
    pub fn of_metric(&self, metric: &str) -> Option<&Arc<[f32]>> {
        self.by_criterion.get(self.dataset.criterion_of(metric)?.id)
    }
}
