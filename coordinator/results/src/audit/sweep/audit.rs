//! Audits a sweep step by step: predictions are large, and come a method at a time.

use super::{jobs, predictions};
use crate::audit::{
    Cell, Finding, Place, Rule, Severity, cell, classes, classes::Splits, f1, finding, no_effect,
    range, repeated, trend,
};
use halfheard_shared::{
    benchmark::Benchmark,
    results::{AuditRecords, JobOutcome, Model, Predictions, Results},
};
use std::collections::BTreeMap;

/// An audit in progress.
#[derive(Debug)]
pub struct SweepAudit<'a> {
    results: &'a Results,
    records: &'a AuditRecords,
    findings: Vec<Finding>,
    splits: Splits,
    samples: BTreeMap<Benchmark, usize>,
}

impl<'a> SweepAudit<'a> {
    /// Begins with the jobs. Without [`Results::audit`], stored values are not checked.
    pub fn new(results: &'a Results) -> Self {
        static NONE: std::sync::LazyLock<AuditRecords> = std::sync::LazyLock::new(Default::default);
        let records = results.audit.as_ref().unwrap_or(&NONE);
        Self {
            results,
            records,
            findings: jobs::check(results, records),
            splits: Splits::default(),
            samples: BTreeMap::new(),
        }
    }

    /// Checks stored predictions: those of [`Results::evaluated`], in any portions.
    pub fn check(&mut self, predictions: &Predictions) {
        for (&dataset, labels) in &predictions.labels {
            self.splits.count(dataset, labels);
            self.samples.insert(dataset, labels.len());
        }
        let found = predictions::check(predictions, &self.records.values);
        self.findings.extend(found);
    }

    /// Notes that predictions of a method on a dataset cannot be read.
    pub fn unreadable(&mut self, dataset: Benchmark, method: &str, reason: String) {
        self.findings.push(Finding::new(
            Rule::WrongResult,
            Severity::Error,
            "predictions cannot be read: nothing can be checked against them",
            vec![Place::of_model(dataset, &Model::new(method, ""))],
            vec![reason],
        ));
    }

    /// Applies the rules for tables; returns all findings, sorted by severity.
    pub fn finish(mut self) -> Vec<Finding> {
        self.findings.extend(self.tables());
        finding::sort(&mut self.findings);
        self.findings
    }

    /// The rules for tables.
    fn tables(&self) -> Vec<Finding> {
        let cells = self.cells();
        let means = over_seeds(&cells);
        // Accuracies on few samples may be equal by chance; errors and correlations are not.
        let exact: Vec<Cell> = cells
            .iter()
            .filter(|cell| matches!(cell.place.metric.as_str(), "mae" | "corr"))
            .cloned()
            .collect();
        let mut findings = [
            range::check(&cells),
            f1::check(&cells, &self.splits),
            repeated::columns(&exact),
            trend::check(&means),
            classes::majority(&means, &self.splits),
            no_effect::check(&means),
        ]
        .concat();
        // Small gaps come from different checkpoints for each metric.
        let nesting = range::nesting(&means).into_iter();
        findings.extend(nesting.filter(Finding::counts));
        findings
    }

    /// The numbers behind tables: each metric by the checkpoint of its family.
    fn cells(&self) -> Vec<Cell> {
        let jobs = self.results.each_job().iter();
        let mut cells = Vec::new();
        for job in jobs.filter(|job| job.outcome == JobOutcome::Done) {
            let (Some(case), Some(values)) = (job.case, self.records.values.get(&job.id)) else {
                continue;
            };
            for metric in job.dataset.metrics().iter().filter(|m| m.in_paper()) {
                let criterion = job.dataset.criterion_of(metric.id);
                let value = criterion.and_then(|criterion| {
                    let key = (criterion.id.to_owned(), metric.id.to_owned());
                    values.get(&key).copied().flatten()
                });
                let Some(value) = value else { continue };
                cells.push(Cell {
                    place: Place {
                        seed: Some(job.seed),
                        metric: metric.id.to_owned(),
                        case: Some(case.into()),
                        ..Place::of_model(job.dataset, &job.model)
                    },
                    value,
                    half: 0.0,
                    std: None,
                    samples: self.samples.get(&job.dataset).copied().unwrap_or(1),
                });
            }
        }
        cells
    }
}

fn over_seeds(cells: &[Cell]) -> Vec<Cell> {
    let groups = cell::by(cells, |p| Place {
        seed: None,
        ..p.clone()
    });
    groups
        .into_iter()
        .map(|(place, cells)| Cell {
            place,
            value: cells.iter().map(|cell| cell.value).sum::<f64>() / cells.len() as f64,
            half: 0.0,
            std: None,
            samples: cells[0].samples,
        })
        .collect()
}

/// The models whose every evaluation has predictions that are constant or of one class: `almt on mosi`,
/// with the seeds unless all of them are.
pub fn collapsed(predictions: &Predictions) -> Vec<String> {
    predictions::collapsed_models(predictions)
}
