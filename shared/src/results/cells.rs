//! Means over seeds, and over cases.

use super::Model;
use crate::{benchmark::Benchmark, case::CaseOrMean};
use std::collections::BTreeMap;

/// What a number is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CellKey {
    /// The dataset.
    pub dataset: Benchmark,
    /// The model.
    pub model: Model,
    /// The case, or all cases of a kind.
    pub case: CaseOrMean,
    /// The metric's id.
    pub metric: &'static str,
}

/// A mean over seeds; over all cases of a kind, the mean of these.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cell {
    /// The mean; `None` while results are missing or where the metric is undefined.
    pub mean: Option<f64>,
    /// The sample standard deviation over seeds, averaged over cases; `None` with fewer than two.
    pub std: Option<f64>,
    /// The smallest of the seeds; `None` over all cases.
    pub min: Option<f64>,
    /// The largest of the seeds; `None` over all cases.
    pub max: Option<f64>,
    /// Seeds whose evaluation is done; over all cases, cases with a seed.
    pub completed: i64,
    /// Seeds of the spec; over all cases, cases of the spec.
    pub expected: i64,
}

/// All cells of a sweep.
#[derive(Clone, Debug, Default)]
pub struct Cells(BTreeMap<CellKey, Cell>);

impl Cells {
    /// One cell.
    pub fn get(
        &self,
        dataset: Benchmark,
        model: &Model,
        case: CaseOrMean,
        metric: &str,
    ) -> Option<&Cell> {
        self.0.get(&CellKey {
            dataset,
            model: model.clone(),
            case,
            metric: dataset.metric(metric)?.id,
        })
    }

    /// All of them, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&CellKey, &Cell)> {
        self.0.iter()
    }

    /// What the cells are of, in order.
    pub fn keys(&self) -> impl Iterator<Item = &CellKey> {
        self.0.keys()
    }
}

impl FromIterator<(CellKey, Cell)> for Cells {
    fn from_iter<I: IntoIterator<Item = (CellKey, Cell)>>(cells: I) -> Self {
        Self(cells.into_iter().collect())
    }
}
