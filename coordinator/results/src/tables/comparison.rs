//! Other numbers below ours: the paper's, those of another sweep, intervals.

use super::{
    Block, Column, ColumnMetric, Companion, CompanionValue, Row, Table, Value,
    layout::{self, Layout, Scope},
};
use crate::statistics::{
    LEVEL,
    bootstrap::{BootstrapOptions, BootstrapSamples},
};
use halfheard_shared::{
    benchmark::Benchmark,
    case::CaseOrMean,
    published::{self, Erratum, ErratumKind, Number},
    results::{Cells, Model},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::LazyLock,
};

/// The most lines about errata.
const ERRATA_LINES: usize = 6;

/// Adds the paper's numbers below each row of `table`, and the differences. `cells` are ours, with the
/// metrics that the table does not print: a published F1 with labels and predictions swapped is
/// compared with our swapped one.
pub fn published(table: &mut Table, cells: &Cells, layout: Layout) {
    let mut errata = Errata::default();
    let mut unpublished: BTreeSet<String> = BTreeSet::new();
    for block in &mut table.blocks {
        let case = layout.case_or_mean(block.case);
        let dataset = dataset(cells, &block.dataset);
        let Some((dataset, printed)) = dataset.and_then(|own| Some((own, own.published()?))) else {
            unpublished.insert(layout::dataset_title(&block.dataset));
            continue;
        };
        for row in &mut block.rows {
            let find = |metric: &ColumnMetric| number(layout.number, printed, row, case, metric);
            let theirs = each(&block.columns, |_, _, metric| match find(metric) {
                None => CompanionValue::Nothing,
                Some(number) => match number.erratum() {
                    None => CompanionValue::Other(number.value, number.std),
                    Some(erratum) => {
                        errata.add(&row.label, dataset, number, erratum);
                        CompanionValue::Erratum(valid(number))
                    }
                },
            });
            let differences = each(&block.columns, |c, m, metric| {
                let Some(number) = find(metric) else {
                    return CompanionValue::Nothing;
                };
                let swapped = number
                    .erratum()
                    .is_some_and(|erratum| erratum.kind == ErratumKind::LabelsSwapped);
                let ours = if swapped {
                    let metric = format!("{}_swapped", metric.id);
                    let ours = cells.get(dataset, &row.model, case, &metric);
                    ours.and_then(|cell| cell.mean)
                } else {
                    row.cells[c][m].mean
                };
                difference(ours, valid(number))
            });
            push(row, "published", theirs);
            push(row, "difference", differences);
        }
    }
    let lines = errata.lines();
    for name in &unpublished {
        table.notes.push(format!(
            "{name} has a protocol of its own: nothing is published for {name} to compare with"
        ));
    }
    let any = table.blocks.len() > unpublished.len();
    if (layout.scope == Scope::Overall && any) || !lines.is_empty() {
        table.notes.push(
            "published: the paper's numbers, corrected where errata have the right value (†); \
             difference: ours minus theirs, in the same unit"
                .to_owned(),
        );
    }
    table.notes.extend(lines);
}

/// The dataset of a block.
fn dataset(cells: &Cells, name: &str) -> Option<Benchmark> {
    let mut datasets = cells.keys().map(|key| key.dataset);
    datasets.find(|dataset| dataset.id() == name)
}

/// The published number of a cell.
fn number(
    table: u8,
    dataset: Benchmark,
    row: &Row,
    case: CaseOrMean,
    metric: &ColumnMetric,
) -> Option<&'static Number> {
    /// By table, dataset, method, variant, case and metric.
    type Key = (
        u8,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
    );
    static NUMBERS: LazyLock<HashMap<Key, &Number>> = LazyLock::new(|| {
        let numbers = published::numbers().iter();
        numbers
            .map(|n| {
                let key = (
                    n.table,
                    n.dataset.id(),
                    n.method,
                    n.variant,
                    n.case,
                    n.metric,
                );
                (key, n)
            })
            .collect()
    });
    let case = case.to_string();
    let Model { method, variant } = &row.model;
    let key = (
        table,
        dataset.id(),
        &**method,
        &**variant,
        &*case,
        &*metric.id,
    );
    NUMBERS.get(&key).copied()
}

/// The number to compare with; `None` if it was retracted.
fn valid(number: &Number) -> Option<f64> {
    match number.erratum().map(|erratum| erratum.kind) {
        Some(ErratumKind::Corrected(value)) => Some(value),
        Some(ErratumKind::Retracted) => None,
        Some(ErratumKind::LabelsSwapped) | None => Some(number.value),
    }
}

/// By row and reason, what is wrong in print.
#[derive(Default)]
struct Errata(BTreeMap<(String, &'static str), BTreeSet<String>>);

impl Errata {
    fn add(&mut self, label: &str, dataset: Benchmark, number: &Number, erratum: &Erratum) {
        let row = format!("{label} on {}", dataset.title());
        let name = Benchmark::metric(number.dataset, number.metric).map(|m| m.name);
        let printed = format!("{} {}", name.unwrap_or(number.metric), number.printed);
        self.0
            .entry((row, erratum.why))
            .or_default()
            .insert(printed);
    }

    fn lines(self) -> Vec<String> {
        let errata = self.0.into_iter();
        let mut lines: Vec<String> = errata
            .map(|((row, why), printed)| {
                // A detailed table would list every case.
                let some: Vec<String> = printed.iter().take(2).cloned().collect();
                let more = match printed.len() - some.len() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                format!("† {row}: in print {}{more}; {why}", some.join(", "))
            })
            .collect();
        let more = lines.len().saturating_sub(ERRATA_LINES);
        if more > 0 {
            lines.truncate(ERRATA_LINES);
            lines.push(format!("† and {more} more, in database table erratum"));
        }
        lines
    }
}

/// Adds below each row what the checkpoints that the test split chose have, and by how much that looks better.
/// `on_test` is the same table of these.
pub fn optimism(table: &mut Table, on_test: &Table) {
    for block in &mut table.blocks {
        let mut blocks = on_test.blocks.iter();
        let same = |other: &&Block| (&other.dataset, other.case) == (&block.dataset, block.case);
        let Some(other) = blocks.find(same) else {
            continue;
        };
        for row in &mut block.rows {
            let Some(chosen) = other.rows.iter().find(|other| other.model == row.model) else {
                continue;
            };
            let value = |c: usize, m: usize| chosen.cells.get(c)?.get(m).copied();
            let theirs = each(&block.columns, |c, m, _| match value(c, m) {
                Some(Value {
                    mean: Some(mean),
                    std,
                    ..
                }) => CompanionValue::Other(mean, std.filter(|_| table.spread)),
                _ => CompanionValue::Nothing,
            });
            let optimism = each(&block.columns, |c, m, metric| {
                let (ours, theirs) = (row.cells[c][m].mean, value(c, m).and_then(|v| v.mean));
                match metric.higher_is_better {
                    true => difference(theirs, ours),
                    false => difference(ours, theirs),
                }
            });
            push(row, "chosen on test", theirs);
            push(row, "optimism", optimism);
        }
    }
    table.notes.push(
        "chosen on test: the checkpoints that the test split chose; optimism: by how much they look \
         better, + where test-chosen minus validation-chosen is an improvement"
            .to_owned(),
    );
}

/// Adds the numbers of another sweep below each row that it has, and the differences.
pub fn sweep(table: &mut Table, cells: &Cells, layout: Layout, label: &str) {
    for block in &mut table.blocks {
        let Some(dataset) = dataset(cells, &block.dataset) else {
            continue;
        };
        let case = layout.case_or_mean(block.case);
        for row in &mut block.rows {
            let find = |metric: &ColumnMetric| {
                let cell = cells.get(dataset, &row.model, case, &metric.id)?;
                Some((cell.mean?, cell.std))
            };
            let spread = table.spread;
            let theirs = each(&block.columns, |_, _, metric| match find(metric) {
                Some((mean, std)) => CompanionValue::Other(mean, std.filter(|_| spread)),
                None => CompanionValue::Nothing,
            });
            let differences = each(&block.columns, |c, m, metric| {
                difference(row.cells[c][m].mean, find(metric).map(|(mean, _)| mean))
            });
            push(row, label, theirs);
            push(row, "difference", differences);
        }
    }
    table.notes.push(format!(
        "{label}: the other sweep; difference: this sweep minus the other"
    ));
}

/// Adds the 95 % bootstrap interval below each row.
pub fn intervals(
    table: &mut Table,
    samples: &BootstrapSamples,
    layout: Layout,
    options: BootstrapOptions,
) {
    let datasets = samples.datasets();
    for block in &mut table.blocks {
        let mut known = datasets.iter().copied();
        let Some(dataset) = known.find(|known| known.id() == block.dataset) else {
            continue;
        };
        let case = layout.case_or_mean(block.case);
        for row in &mut block.rows {
            let cells = each(&block.columns, |_, _, metric| {
                match samples.interval(dataset, &row.model, case, &metric.id, LEVEL) {
                    Some((low, high)) => CompanionValue::Interval(low, high),
                    None => CompanionValue::Nothing,
                }
            });
            push(row, "95 % interval", cells);
        }
    }
    table.notes.push(format!(
        "95 % intervals: test samples and seeds resampled {} times with replacement (percentile \
         bootstrap, seed {})",
        options.resamples, options.seed
    ));
}

fn difference(ours: Option<f64>, theirs: Option<f64>) -> CompanionValue {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => CompanionValue::Difference(ours - theirs),
        _ => CompanionValue::Nothing,
    }
}

/// One number for each metric of each column.
fn each(
    columns: &[Column],
    mut number: impl FnMut(usize, usize, &ColumnMetric) -> CompanionValue,
) -> Vec<Vec<CompanionValue>> {
    let mut cells = Vec::with_capacity(columns.len());
    for (c, column) in columns.iter().enumerate() {
        let metrics = column.metrics.iter().enumerate();
        cells.push(metrics.map(|(m, metric)| number(c, m, metric)).collect());
    }
    cells
}

/// Adds a line, unless it is empty.
fn push(row: &mut Row, label: &str, cells: Vec<Vec<CompanionValue>>) {
    if cells
        .iter()
        .flatten()
        .any(|cell| *cell != CompanionValue::Nothing)
    {
        row.companions.push(Companion {
            label: label.to_owned(),
            cells,
        });
    }
}
