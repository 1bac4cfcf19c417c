//! Other numbers below ours: the paper's, those of another sweep, intervals.

use super::{
    Beside, Block, Column, ColumnMetric, Companion, Row, Table,
    layout::{self, CaseKind, Layout, Scope},
    load::Values,
};
use crate::statistics::bootstrap::{Drawn, Options};
use halfheard_shared::benchmark::Benchmark;
use halfheard_shared::published::{self, ErratumKind, Number};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The most lines about errata.
const ERRATA_LINES: usize = 6;

/// Sets the paper's numbers below each row of `table`, and the difference. `values` are ours, with
/// the metrics that the table does not print: a published F1 with truth and prediction swapped is
/// compared with our swapped one.
pub fn published(table: &mut Table, values: &Values, layout: Layout) {
    let overall = match layout.kind {
        CaseKind::Rate => "r=mean",
        CaseKind::Missing => "missing=mean",
    };
    let numbers: HashMap<_, &Number> = published::numbers()
        .iter()
        .filter(|n| n.table == layout.number)
        .map(|n| ((n.dataset.id(), n.method, n.variant, n.case, n.metric), n))
        .collect();
    let mut errata: BTreeMap<(String, &str), BTreeSet<String>> = BTreeMap::new();
    let mut unpublished: BTreeSet<String> = BTreeSet::new();
    for block in &mut table.blocks {
        let benchmark = values.dataset(&block.dataset);
        let Some(printed) = benchmark.and_then(Benchmark::published) else {
            unpublished.insert(layout::dataset_title(&block.dataset));
            continue;
        };
        let Block {
            dataset,
            case,
            columns,
            rows,
        } = block;
        for row in rows {
            let find = |metric: &ColumnMetric| {
                let case = case.as_deref().unwrap_or(overall);
                let key = (
                    printed.id(),
                    row.method.as_str(),
                    row.variant.as_str(),
                    case,
                    metric.id.as_str(),
                );
                numbers.get(&key).copied()
            };
            let mut any = false;
            let theirs = each(columns, |_, _, metric| {
                let Some(number) = find(metric) else {
                    return Beside::Nothing;
                };
                any = true;
                let Some(erratum) = number.erratum() else {
                    return Beside::Other(number.value, number.std);
                };
                let who = format!("{} on {}", row.label, layout::dataset_title(dataset));
                let names = errata.entry((who, erratum.why)).or_default();
                let name = Benchmark::metric(number.dataset, number.metric).map(|m| m.name);
                names.insert(format!(
                    "{} {}",
                    name.unwrap_or(number.metric),
                    number.printed
                ));
                Beside::Erratum(match erratum.kind {
                    ErratumKind::Corrected(value) => Some(value),
                    ErratumKind::LabelsSwapped => Some(number.value),
                    ErratumKind::Retracted => None,
                })
            });
            if !any {
                continue;
            }
            let name = (row.method.as_str(), row.variant.as_str());
            let differences = each(columns, |c, m, metric| {
                let Some(number) = find(metric) else {
                    return Beside::Nothing;
                };
                let (ours, theirs) = match number.erratum().map(|e| e.kind) {
                    None => (row.cells[c][m].mean, Some(number.value)),
                    Some(ErratumKind::Corrected(value)) => (row.cells[c][m].mean, Some(value)),
                    Some(ErratumKind::Retracted) => (None, None),
                    Some(ErratumKind::LabelsSwapped) => {
                        let metric = format!("{}_swapped", metric.id);
                        let ours = values.get(dataset, case.as_deref(), name, &metric);
                        (ours.and_then(|value| value.mean), Some(number.value))
                    }
                };
                difference(ours, theirs)
            });
            push(row, "published", theirs);
            push(row, "difference", differences);
        }
    }
    let mut lines: Vec<String> = errata
        .into_iter()
        .map(|((who, why), printed)| {
            // A detailed table would list every case.
            let some: Vec<String> = printed.iter().take(2).cloned().collect();
            let more = match printed.len().saturating_sub(some.len()) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("† {who}: in print {}{more}; {why}", some.join(", "))
        })
        .collect();
    let more = lines.len().saturating_sub(ERRATA_LINES);
    if more > 0 {
        lines.truncate(ERRATA_LINES);
        lines.push(format!("† and {more} more, in database table erratum"));
    }
    for name in &unpublished {
        table.notes.push(format!(
            "nothing is published for {name}, which has a protocol of its own: there is nothing to \
             compare it with"
        ));
    }
    let any = table.blocks.len() > unpublished.len();
    if (layout.scope == Scope::Overall && any) || !lines.is_empty() {
        table.notes.push(
            "published: the paper's numbers, corrected where errata have the right one (†); \
             difference: ours less theirs, in the same unit"
                .to_owned(),
        );
    }
    table.notes.extend(lines);
}

/// Sets the numbers of another sweep below each row that it has, and the difference.
pub fn sweep(table: &mut Table, values: &Values, label: &str) {
    for block in &mut table.blocks {
        let Block {
            dataset,
            case,
            columns,
            rows,
        } = block;
        for row in rows {
            let name = (row.method.as_str(), row.variant.as_str());
            let find = |metric: &ColumnMetric| {
                let value = values.get(dataset, case.as_deref(), name, &metric.id)?;
                Some((value.mean?, value.std))
            };
            let spread = table.spread;
            let theirs = each(columns, |_, _, metric| match find(metric) {
                Some((mean, std)) => Beside::Other(mean, std.filter(|_| spread)),
                None => Beside::Nothing,
            });
            let differences = each(columns, |c, m, metric| {
                difference(row.cells[c][m].mean, find(metric).map(|(mean, _)| mean))
            });
            push(row, label, theirs);
            push(row, "difference", differences);
        }
    }
    table.notes.push(format!(
        "{label}: the other sweep; difference: this one less it"
    ));
}

/// Sets the 95 % interval below each row, from what was drawn.
pub fn drawn(table: &mut Table, drawn: &Drawn, layout: Layout, options: Options) {
    let kind = match layout.kind {
        CaseKind::Rate => "r=",
        CaseKind::Missing => "missing=",
    };
    let datasets = drawn.datasets();
    for block in &mut table.blocks {
        let mut known = datasets.iter().copied();
        let Some(dataset) = known.find(|known| known.id() == block.dataset) else {
            continue;
        };
        for row in &mut block.rows {
            let model = (row.method.clone(), row.variant.clone());
            let case = block.case.as_deref();
            let cells = each(&block.columns, |_, _, metric| {
                match drawn.interval(dataset, &model, case, kind, &metric.id, 0.95) {
                    Some((low, high)) => Beside::Interval(low, high),
                    None => Beside::Nothing,
                }
            });
            push(row, "95 % interval", cells);
        }
    }
    table.notes.push(format!(
        "95 % intervals: test samples and seeds drawn {} times with replacement (percentile \
         bootstrap, seed {})",
        options.draws, options.seed
    ));
}

fn difference(ours: Option<f64>, theirs: Option<f64>) -> Beside {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => Beside::Difference(ours - theirs),
        _ => Beside::Nothing,
    }
}

/// One number for each metric of each column.
fn each(
    columns: &[Column],
    mut number: impl FnMut(usize, usize, &ColumnMetric) -> Beside,
) -> Vec<Vec<Beside>> {
    let mut cells = Vec::with_capacity(columns.len());
    for (c, column) in columns.iter().enumerate() {
        let metrics = column.metrics.iter().enumerate();
        cells.push(metrics.map(|(m, metric)| number(c, m, metric)).collect());
    }
    cells
}

/// Adds a line, unless there is nothing in it.
fn push(row: &mut Row, label: &str, cells: Vec<Vec<Beside>>) {
    if cells.iter().flatten().any(|cell| *cell != Beside::Nothing) {
        row.companions.push(Companion {
            label: label.to_owned(),
            cells,
        });
    }
}
