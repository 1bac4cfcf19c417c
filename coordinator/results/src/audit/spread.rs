//! Spreads over seeds out of proportion to the others of their row.
//!
//! Seeds move all metrics of a model together: where the accuracy moves by half of its sampling
//! error, the correlation does not move by five times its own.

use super::{
    Cell, Finding, Place, Rule, Severity,
    cell::{by, is_percent, median, show},
};
use halfheard_shared::{benchmark::Benchmark, case::CaseOrMean};
use std::collections::BTreeMap;

/// The multiple of the row's median ratio that is a finding.
const FAR: f64 = 4.0;

/// Finds spreads whose ratio to the sampling error is far above that of their row: one finding per table
/// and dataset.
pub(super) fn check(cells: &[Cell]) -> Vec<Finding> {
    let with_std = cells.iter().filter(|cell| cell.std.is_some());
    by(with_std, |p| (p.table, p.dataset))
        .into_values()
        .filter_map(|cells| {
            let rows = by(cells, |p| (p.model.clone(), p.case));
            let found: Vec<(Place, String)> =
                rows.into_values().flat_map(|row| odd(&row)).collect();
            let (places, numbers): (Vec<Place>, Vec<String>) = found.into_iter().unzip();
            (!places.is_empty()).then(|| {
                Finding::new(
                    Rule::Spread,
                    Severity::Warning,
                    "the spread is out of proportion to the others of its row",
                    places,
                    numbers,
                )
            })
        })
        .collect()
}

/// Standard deviations over seeds: by dataset, method, case and metric.
pub(super) type Spreads = BTreeMap<(Benchmark, String, Option<CaseOrMean>, String), f64>;

/// The printed spreads, without those out of proportion to their row.
pub(super) fn plausible(cells: &[Cell]) -> Spreads {
    let with_std = cells.iter().filter(|cell| cell.std.is_some());
    let rows = by(with_std, |p| (p.table, p.dataset, p.model.clone(), p.case));
    let mut spreads = Spreads::new();
    for row in rows.into_values() {
        let usual = usual(&row).unwrap_or(f64::INFINITY);
        let plausible = row.iter().filter(|cell| ratio(cell) <= FAR * usual);
        spreads.extend(plausible.filter_map(|cell| Some((key(&cell.place), cell.std?))));
    }
    spreads
}

/// The spread of a number: a variant has that of its method.
pub(super) fn of(spreads: &Spreads, place: &Place) -> Option<f64> {
    let spread = spreads.get(&key(place)).copied();
    spread.filter(|spread| *spread > 0.0)
}

fn key(place: &Place) -> (Benchmark, String, Option<CaseOrMean>, String) {
    (
        place.dataset,
        place.model.method.clone(),
        place.case,
        place.metric.clone(),
    )
}

/// The standard error of the metric from the size of the test split.
fn sampling_error(cell: &Cell) -> f64 {
    let root = (cell.samples as f64).sqrt();
    match cell.place.metric.as_str() {
        "corr" => (1.0 - cell.value * cell.value) / root,
        // The standard deviation of absolute errors of a bounded label is about their mean.
        "mae" => cell.value / root,
        _ if is_percent(&cell.place) => (cell.value * (1.0 - cell.value)).max(0.0).sqrt() / root,
        _ => f64::INFINITY,
    }
}

/// The spread of a number in units of its sampling error.
fn ratio(cell: &Cell) -> f64 {
    cell.std.unwrap_or_default() / sampling_error(cell)
}

/// The median ratio of a row of four or more.
fn usual(row: &[&Cell]) -> Option<f64> {
    let ratios: Vec<f64> = row.iter().map(|cell| ratio(cell)).collect();
    median(&ratios).filter(|usual| *usual > 0.0 && ratios.len() >= 4)
}

fn odd(row: &[&Cell]) -> Vec<(Place, String)> {
    let Some(usual) = usual(row) else {
        return Vec::new();
    };
    row.iter()
        .map(|cell| (cell, ratio(cell)))
        .filter(|(_, ratio)| *ratio > FAR * usual)
        .map(|(cell, ratio)| {
            let text = format!(
                "{} {}: {} ± {}, {ratio:.1} times its sampling error; the median of the row is {usual:.1}",
                cell.place.label(),
                cell.place.metric,
                cell.text(),
                show(&cell.place, cell.std.unwrap_or_default()),
            );
            (cell.place.clone(), text)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::cell::tests::cell, *};

    #[test]
    fn disproportionate_spread_is_found() {
        let row = |corr: f64| -> Vec<Cell> {
            [
                ("acc7", 0.34, 0.011),
                ("acc5", 0.38, 0.012),
                ("acc2_nonneg", 0.7, 0.01),
                ("corr", 0.5, corr),
            ]
            .map(|(metric, value, std)| Cell {
                std: Some(std),
                ..cell(8, "lnln", metric, "r=mean", value)
            })
            .to_vec()
        };
        assert_eq!(check(&row(0.02)), []);
        let found = check(&row(0.17));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].places[0].metric, "corr");
        let spreads = plausible(&row(0.17));
        assert_eq!(of(&spreads, &row(0.17)[3].place), None);
        let acc7 = of(&spreads, &row(0.17)[0].place).unwrap();
        assert!((acc7 - 0.011).abs() < 1e-12);
    }
}
