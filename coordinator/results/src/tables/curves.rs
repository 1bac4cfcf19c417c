//! Curves over the amount of damage in one number, as robustness papers of the field print them.

use super::{
    Block, ColumnMetric, Companion, CompanionValue, Row, Table, Value, layout, notes::about, paper,
};
use crate::statistics::summary::{Summary, summary};
use halfheard_shared::{
    benchmark::Benchmark,
    case::{Case, CaseOrMean, Damage, Rate},
    results::{Cells, Model, Results},
};
use std::collections::{BTreeMap, BTreeSet};

/// The curves of a dataset: by kind, its cases by the amount of damage.
type Curves = BTreeMap<String, Vec<(f64, Case)>>;

/// The mean height of each curve, and below it its area and what is lost of it.
pub fn table(results: &Results) -> Table {
    let cells = &results.cells;
    let datasets: BTreeSet<Benchmark> = cells.keys().map(|key| key.dataset).collect();
    let blocks: Vec<Block> = datasets
        .into_iter()
        .filter_map(|dataset| block(cells, dataset))
        .collect();
    let mut notes = about(results, |_, _| true);
    if blocks.is_empty() {
        notes.push(
            "no curve: a kind of case needs two amounts that are finished, such as `rates = [0.0, \
             0.5]` or `cases = [\"block=0.5\"]` beside `rates = [0.0]`"
                .to_owned(),
        );
    } else {
        notes.extend([
            "values: the mean height of the curve, its area divided by the range of amounts"
                .to_owned(),
            "AUILC: the area under the indicators' line chart (trapezoidal rule), not divided; it \
             compares only over the same range"
                .to_owned(),
            "effective robustness loss: the value at the lowest amount minus the area".to_owned(),
        ]);
    }
    Table {
        number: None,
        title: "Curves: each metric over the amount of damage, in one number".to_owned(),
        stub: "Method",
        spread: false,
        blocks,
        notes,
    }
}

/// The curves of a dataset. `r=0` belongs to all of them: no kind has another name for it.
fn curves(cells: &Cells, dataset: Benchmark) -> Curves {
    let own = cells.keys().filter(|key| key.dataset == dataset);
    let cases: BTreeSet<Case> = own.filter_map(|key| key.case.case()).collect();
    let complete = Case::at_rate(Rate::ZERO);
    let mut curves = Curves::new();
    for case in cases.iter().filter(|case| case.mask.is_none()) {
        if let Some(amount) = case.damage.amount()
            && *case != complete
        {
            let name = match case.damage {
                Damage::RateMissing(_, set) => format!("r+missing={set}"),
                damage => damage.kind().to_owned(),
            };
            curves.entry(name).or_default().push((amount, *case));
        }
    }
    for (name, curve) in &mut curves {
        // Where a modality is missing throughout, the curve begins without it.
        let first = match name.strip_prefix("r+") {
            Some(missing) => missing.parse().ok(),
            None => Some(complete),
        };
        curve.extend(
            first
                .filter(|case| cases.contains(case))
                .map(|case| (0.0, case)),
        );
        curve.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    curves.retain(|_, curve| curve.len() > 1);
    curves
}

fn block(cells: &Cells, dataset: Benchmark) -> Option<Block> {
    let columns = paper::columns(dataset);
    let own = cells.keys().filter(|key| key.dataset == dataset);
    let models: BTreeSet<&Model> = own.map(|key| &key.model).collect();
    let mut models: Vec<Model> = models.into_iter().cloned().collect();
    layout::sort_models(&mut models);
    let mut rows = Vec::new();
    for (name, curve) in curves(cells, dataset) {
        for model in &models {
            let of = |metric: &ColumnMetric| summarized(cells, dataset, model, &curve, metric);
            let found: Vec<Vec<Option<Summary>>> = columns
                .iter()
                .map(|column| column.metrics.iter().map(of).collect())
                .collect();
            let Some(range) = found.iter().flatten().flatten().next() else {
                continue;
            };
            let companion = |label: String, of: fn(&Summary) -> CompanionValue| Companion {
                label,
                cells: found
                    .iter()
                    .map(|cell| {
                        let values = cell.iter();
                        values
                            .map(|found| found.as_ref().map_or(CompanionValue::Nothing, of))
                            .collect()
                    })
                    .collect(),
            };
            rows.push(Row {
                label: format!(
                    "{}, {name} {}–{}",
                    layout::label(model),
                    range.from,
                    range.to
                ),
                companions: vec![
                    companion("AUILC".to_owned(), |s| CompanionValue::Other(s.auilc, None)),
                    companion("loss".to_owned(), |s| CompanionValue::Difference(s.loss)),
                ],
                cells: found
                    .iter()
                    .map(|cell| cell.iter().map(value).collect())
                    .collect(),
                model: model.clone(),
            });
        }
    }
    (!rows.is_empty()).then(|| Block {
        dataset: dataset.id().to_owned(),
        case: None,
        columns,
        rows,
    })
}

fn value(found: &Option<Summary>) -> Value {
    Value {
        mean: found.as_ref().map(|summary| summary.mean),
        completed: i64::from(found.is_some()),
        expected: 1,
        ..Value::MISSING
    }
}

/// The summary of a curve; `None` while a point of it is missing.
fn summarized(
    cells: &Cells,
    dataset: Benchmark,
    model: &Model,
    curve: &[(f64, Case)],
    metric: &ColumnMetric,
) -> Option<Summary> {
    let point = |&(amount, case): &(f64, Case)| {
        let cell = cells.get(dataset, model, CaseOrMean::Case(case), &metric.id)?;
        Some((amount, cell.mean?))
    };
    let points: Option<Vec<(f64, f64)>> = curve.iter().map(point).collect();
    summary(&points?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::results::{Cell, CellKey};

    fn cells(values: &[(&str, f64)]) -> Cells {
        let cell = |(case, mean): &(&str, f64)| {
            let key = CellKey {
                dataset: Benchmark::Mosi,
                model: Model::new("lnln", ""),
                case: case.parse().unwrap(),
                metric: "acc7",
            };
            let mean = Some(*mean);
            (
                key,
                Cell {
                    mean,
                    ..Cell::default()
                },
            )
        };
        values.iter().map(cell).collect()
    }

    #[test]
    fn kinds_have_curves_of_their_own_from_the_complete_split() {
        let cells = cells(&[
            ("r=0", 0.8),
            ("r=0.5", 0.6),
            ("r=0.5@7", 0.1),
            ("r=0.5+missing=a", 0.5),
            ("missing=a", 0.7),
            ("block=0.5", 0.4),
            ("averaged=a", 0.3),
        ]);
        let block = block(&cells, Benchmark::Mosi).unwrap();
        let column = block
            .columns
            .iter()
            .position(|c| c.name == "Acc-7")
            .unwrap();
        let rows: Vec<(&str, f64, CompanionValue, CompanionValue)> = block
            .rows
            .iter()
            .map(|row| {
                let below = |i: usize| row.companions[i].cells[column][0];
                let mean = row.cells[column][0].mean.unwrap();
                (
                    row.label.as_str(),
                    (mean * 1e6).round() / 1e6,
                    below(0),
                    below(1),
                )
            })
            .collect();
        let other = |value| CompanionValue::Other(value, None);
        assert_eq!(rows[0].0, "LNLN, block 0–0.5");
        assert_eq!(
            (rows[0].1, rows[0].2),
            (0.6, other((0.8 + 0.4) / 2.0 * 0.5))
        );
        assert_eq!((rows[1].0, rows[1].1), ("LNLN, r 0–0.5", 0.7));
        assert_eq!((rows[2].0, rows[2].1), ("LNLN, r+missing=a 0–0.5", 0.6));
        assert_eq!(rows.len(), 3, "{rows:?}");
    }

    #[test]
    fn curve_without_a_finished_point_has_no_number() {
        let mut all: Vec<_> = cells(&[("r=0", 0.8), ("r=0.5", 0.6)])
            .iter()
            .map(|(key, cell)| (key.clone(), *cell))
            .collect();
        all[0].1.mean = None;
        assert_eq!(block(&all.into_iter().collect(), Benchmark::Mosi), None);
    }
}
