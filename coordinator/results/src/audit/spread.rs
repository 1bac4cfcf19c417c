//! Spreads over seeds out of proportion to the others of their row.
//!
//! Seeds move all metrics of a model together: where the accuracy moves by half of its sampling
//! error, the correlation does not move by five times its own.

use super::{
    Cell, Finding, Place, Rule, Severity,
    cell::{by, is_percent, median, show},
};

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

fn odd(row: &[&Cell]) -> Vec<(Place, String)> {
    let ratio = |cell: &Cell| cell.std.unwrap_or_default() / sampling_error(cell);
    let ratios: Vec<f64> = row.iter().map(|cell| ratio(cell)).collect();
    let Some(usual) = median(&ratios).filter(|usual| *usual > 0.0 && ratios.len() >= 4) else {
        return Vec::new();
    };
    row.iter()
        .zip(&ratios)
        .filter(|(_, ratio)| **ratio > FAR * usual)
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
    }
}
