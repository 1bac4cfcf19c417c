//! Values outside the range of their metric, and accuracies below the finer ones that they include.

use super::{Cell, Finding, Place, Rule, Severity, cell::by};
use halfheard_shared::benchmark::Benchmark;
use std::collections::BTreeMap;

/// Finds fractions outside 0 to 1, correlations outside -1 to 1, and errors below 0 or above the label
/// range.
pub(super) fn check(cells: &[Cell]) -> Vec<Finding> {
    cells
        .iter()
        .filter_map(|cell| {
            let range = match cell.place.metric.as_str() {
                "corr" => -1.0..=1.0,
                "mae" => 0.0..=cell.place.dataset.label_span(),
                _ => 0.0..=1.0,
            };
            (!range.contains(&cell.value)).then(|| {
                Finding::new(
                    Rule::OutOfRange,
                    Severity::Error,
                    "the metric cannot have this value",
                    vec![cell.place.clone()],
                    vec![format!(
                        "{}: {}; possible {} to {}",
                        cell.place.metric,
                        cell.text(),
                        range.start(),
                        range.end()
                    )],
                )
            })
        })
        .collect()
}

/// The finer and the coarser of two accuracies with nested classes: a correct fine class is a correct
/// coarse one.
fn nested(dataset: Benchmark) -> Option<(&'static str, &'static str)> {
    let [fine, coarse, ..] = &dataset.rules().scales[..] else {
        return None;
    };
    fine.refines(coarse)
        .then_some((fine.accuracy, coarse.accuracy))
}

/// The gap from which a coarse accuracy below the fine one is a warning.
const FAR: f64 = 0.05;

/// Finds coarse accuracies below the finer ones: one finding per table and dataset. Small gaps are a
/// note: metrics may be of different checkpoints.
pub(super) fn nesting(cells: &[Cell]) -> Vec<Finding> {
    let mut found: BTreeMap<_, (Vec<Place>, Vec<String>)> = BTreeMap::new();
    let models = by(cells, |p| Place {
        metric: String::new(),
        ..p.clone()
    });
    for (place, cells) in models {
        let Some((fine, coarse)) = nested(place.dataset) else {
            continue;
        };
        let value = |metric| cells.iter().find(|cell| cell.place.metric == metric);
        let (Some(fine), Some(coarse)) = (value(fine), value(coarse)) else {
            continue;
        };
        let gap = fine.value - coarse.value;
        if gap > fine.half + coarse.half + 1e-9 {
            let severity = if gap >= FAR {
                Severity::Warning
            } else {
                Severity::Note
            };
            let entry = found
                .entry((severity, place.table, place.dataset))
                .or_default();
            entry.0.push(coarse.place.clone());
            entry.1.push(format!(
                "{} {}: {} {}, {} {}",
                place.label(),
                place.case_text(),
                coarse.place.metric,
                coarse.text(),
                fine.place.metric,
                fine.text()
            ));
        }
    }
    found
        .into_iter()
        .map(|((severity, ..), (places, numbers))| {
            Finding::new(
                Rule::Nested,
                severity,
                "lower accuracy with few classes than with many",
                places,
                numbers,
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::cell::tests::cell, *};

    #[test]
    fn values_outside_their_range_are_found() {
        let of = |metric, value| check(&[cell(9, "lnln", metric, "r=0", value)]).len();
        assert_eq!(of("acc7", 1.01) + of("corr", -1.2) + of("mae", -0.1), 3);
        assert_eq!(of("acc7", 1.0) + of("corr", -0.2) + of("mae", 5.9), 0);
    }

    #[test]
    fn coarse_accuracy_below_the_fine_one_is_found() {
        let cells = |five, seven| {
            [
                cell(9, "lnln", "acc5", "r=0", five),
                cell(9, "lnln", "acc7", "r=0", seven),
            ]
        };
        assert_eq!(nesting(&cells(0.5, 0.45)), []);
        assert_eq!(nesting(&cells(0.45, 0.45)), []);
        assert_eq!(nesting(&cells(0.44, 0.45))[0].severity, Severity::Note);
        assert_eq!(nesting(&cells(0.3, 0.45))[0].severity, Severity::Warning);
    }
}
