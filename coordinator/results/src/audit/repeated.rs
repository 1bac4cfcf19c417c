//! Columns and rows that occur twice.
//!
//! A run of four or more values with at least three different ones, equal in every digit, is not
//! chance. The other models of the table show which of the two is misplaced: a copied column does not
//! fit them.

use super::{
    Cell, Finding, Place, Rule, Severity,
    cell::{ColumnKey, by, column, median, noise},
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The shortest run that is not chance.
const RUN: usize = 4;
/// The least number of different values in a run.
const DISTINCT: usize = 3;
/// The factor by which the wrong place fits worse than the other.
const CLEAR: f64 = 2.0;

type Column<'a> = (ColumnKey, Vec<&'a Cell>);
/// Two equal runs, number by number.
type Copies<'a> = Vec<(&'a Cell, &'a Cell)>;

/// Finds repeated columns: one finding per pair of models, with all repeated metrics.
pub(super) fn columns(cells: &[Cell]) -> Vec<Finding> {
    let columns: Vec<Column<'_>> = by(cells.iter().filter(|c| !c.place.is_mean()), column)
        .into_iter()
        .collect();
    // The places of each window of values.
    let mut windows: HashMap<Vec<u64>, Vec<(usize, usize)>> = HashMap::new();
    for (c, (_, cells)) in columns.iter().enumerate() {
        for (start, window) in cells.windows(RUN).enumerate() {
            let bits: Vec<u64> = window.iter().map(|cell| cell.value.to_bits()).collect();
            if bits.iter().collect::<BTreeSet<_>>().len() >= DISTINCT {
                windows.entry(bits).or_default().push((c, start));
            }
        }
    }
    // Overlapping windows are one run: two columns and their shift.
    let mut runs: BTreeMap<(usize, usize, isize), BTreeSet<usize>> = BTreeMap::new();
    for stands in windows.values() {
        for (i, &(a, at_a)) in stands.iter().enumerate() {
            for &(b, at_b) in &stands[i + 1..] {
                let ((a, at_a), (b, at_b)) = ((a, at_a).min((b, at_b)), (a, at_a).max((b, at_b)));
                if a != b && !expected_alike(&columns[a].0, &columns[b].0) {
                    let shift = at_b as isize - at_a as isize;
                    runs.entry((a, b, shift))
                        .or_default()
                        .extend(at_a..at_a + RUN);
                }
            }
        }
    }
    // All metrics of the same two models together.
    let mut models: BTreeMap<(Place, Place, isize), Copies<'_>> = BTreeMap::new();
    for ((a, b, shift), indices) in runs {
        let (first, second) = (&columns[a].1, &columns[b].1);
        let entry = models
            .entry((model(first[0]), model(second[0]), shift))
            .or_default();
        for at in indices {
            let Some(there) = at.checked_add_signed(shift) else {
                continue;
            };
            entry.push((first[at], second[there]));
        }
    }
    models
        .into_values()
        .map(|copies| finding(&copies, cells, "the column occurs twice"))
        .collect()
}

/// The place of a cell without metric and case.
fn model(cell: &Cell) -> Place {
    Place {
        metric: String::new(),
        case: None,
        ..cell.place.clone()
    }
}

/// Metrics of the same model that may agree: an accuracy over fewer classes equals the one over more if
/// the outer classes are never predicted. Seeds of one model have their own rule.
fn expected_alike(a: &ColumnKey, b: &ColumnKey) -> bool {
    let same_model = (a.table, a.dataset, &a.model) == (b.table, b.dataset, &b.model);
    let accuracies = [a, b].iter().all(|key| key.metric.starts_with("acc"));
    same_model && (a.seed != b.seed || accuracies)
}

/// Finds repeated rows among means: two models or datasets of one table that agree in at least three
/// different values and half of their metrics.
pub(super) fn rows(cells: &[Cell]) -> Vec<Finding> {
    let means = cells.iter().filter(|cell| cell.place.is_mean());
    let mut findings = Vec::new();
    for cells_of in by(means, |p| (p.table, p.case)).into_values() {
        let rows: Vec<Vec<&Cell>> = by(cells_of, |p| (p.dataset, p.model.clone(), p.seed))
            .into_values()
            .collect();
        for (i, first) in rows.iter().enumerate() {
            for second in &rows[i + 1..] {
                let mut shared = 0;
                let copies: Copies<'_> = first
                    .iter()
                    .filter_map(|a| {
                        let b = second.iter().find(|b| b.place.metric == a.place.metric)?;
                        shared += 1;
                        (a.value == b.value).then_some((*a, *b))
                    })
                    .collect();
                let distinct: BTreeSet<u64> =
                    copies.iter().map(|(a, _)| a.value.to_bits()).collect();
                if distinct.len() >= DISTINCT && 2 * copies.len() >= shared {
                    findings.push(finding(&copies, cells, "the row occurs twice"));
                }
            }
        }
    }
    findings
}

fn finding(copies: &Copies<'_>, cells: &[Cell], what: &str) -> Finding {
    let firsts: Vec<&Cell> = copies.iter().map(|copy| copy.0).collect();
    let seconds: Vec<&Cell> = copies.iter().map(|copy| copy.1).collect();
    let fits = [misfit(&firsts, cells), misfit(&seconds, cells)];
    let named = |cells: &[&Cell]| {
        let places: Vec<Place> = cells.iter().map(|cell| cell.place.clone()).collect();
        super::cell::summary(&places)
    };
    let mut numbers = vec![format!("{} = {}", named(&firsts), named(&seconds))];
    for metric in firsts
        .iter()
        .map(|cell| &cell.place.metric)
        .collect::<BTreeSet<_>>()
    {
        let values: Vec<String> = firsts
            .iter()
            .filter(|cell| cell.place.metric == *metric)
            .map(|cell| cell.text())
            .collect();
        numbers.push(format!("{metric}: {}", values.join(" ")));
    }
    let places = |cells: &[&Cell]| cells.iter().map(|cell| cell.place.clone()).collect();
    // The place that does not fit, if that is clear.
    let wrong: Vec<Place> = match fits {
        [Some(a), Some(b)] => {
            numbers.push(format!(
                "the first is {a:.1} times the spread of the other models from their median, the \
                 second {b:.1}"
            ));
            if b >= CLEAR * a {
                places(&seconds)
            } else if a >= CLEAR * b {
                places(&firsts)
            } else {
                let all: Vec<&Cell> = firsts.iter().chain(&seconds).copied().collect();
                places(&all)
            }
        }
        _ => {
            let all: Vec<&Cell> = firsts.iter().chain(&seconds).copied().collect();
            places(&all)
        }
    };
    Finding::new(Rule::Repeated, Severity::Error, what, wrong, numbers)
}

/// The median distance of cells from the median of the other models at the same place, in units of the
/// spread of those models.
fn misfit(cells: &[&Cell], all: &[Cell]) -> Option<f64> {
    let distances: Vec<f64> = cells
        .iter()
        .filter_map(|cell| {
            let place = &cell.place;
            let others: Vec<f64> = all
                .iter()
                .filter(|other| {
                    let p = &other.place;
                    (p.table, p.dataset, &p.metric, p.case)
                        == (place.table, place.dataset, &place.metric, place.case)
                        && p.model != place.model
                })
                .map(|other| other.value)
                .collect();
            if others.len() < DISTINCT {
                return None;
            }
            let middle = median(&others)?;
            let off: Vec<f64> = others.iter().map(|value| (value - middle).abs()).collect();
            let spread = (1.4826 * median(&off)?).max(noise(cell));
            Some((cell.value - middle).abs() / spread)
        })
        .collect();
    median(&distances)
}

#[cfg(test)]
mod tests {
    use super::{super::cell::tests::cell, *};
    use halfheard_shared::benchmark::Benchmark;

    fn tables() -> Vec<Cell> {
        let mut cells = Vec::new();
        for (d, dataset) in [Benchmark::Mosi, Benchmark::Mosei].into_iter().enumerate() {
            for (m, method) in ["lnln", "almt", "misa", "mmim"].iter().enumerate() {
                for i in 0..6 {
                    let value = 0.45 + 0.15 * d as f64 - 0.013 * m as f64 - 0.0313 * f64::from(i);
                    let mut cell = cell(
                        9,
                        method,
                        "acc5",
                        &format!("r={}", f64::from(i) / 10.0),
                        value,
                    );
                    cell.place.dataset = dataset;
                    cells.push(cell);
                }
            }
        }
        cells
    }

    #[test]
    fn copied_column_is_found_where_it_does_not_fit() {
        let mut cells = tables();
        assert_eq!(columns(&cells), []);
        // The second model's column of the first dataset, in the second.
        for i in 0..6 {
            cells[30 + i].value = cells[6 + i].value;
        }
        let found = columns(&cells);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].places.len(), 6);
        assert!(
            found[0]
                .places
                .iter()
                .all(|p| p.dataset == Benchmark::Mosei)
        );
    }

    #[test]
    fn shifted_copy_is_found_and_constant_columns_are_not() {
        let mut cells = tables();
        for i in 0..4 {
            cells[18 + i].value = cells[1 + i].value;
        }
        assert_eq!(columns(&cells).len(), 1);
        let mut cells = tables();
        for i in 0..6 {
            cells[i].value = 0.5777;
            cells[6 + i].value = 0.5777;
        }
        assert_eq!(columns(&cells), []);
    }

    #[test]
    fn equal_rows_of_means_are_found() {
        let mut cells = Vec::new();
        for (m, method) in ["lnln", "almt"].iter().enumerate() {
            for (i, metric) in ["acc5", "acc7", "mae", "corr"].iter().enumerate() {
                let value = 0.3 + 0.07 * i as f64 + 0.011 * m as f64;
                cells.push(cell(2, method, metric, "r=mean", value));
            }
        }
        assert_eq!(rows(&cells), []);
        for i in 0..3 {
            cells[4 + i].value = cells[i].value;
        }
        assert_eq!(rows(&cells).len(), 1);
    }
}
