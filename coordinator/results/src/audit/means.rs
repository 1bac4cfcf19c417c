//! Means that do not follow from their details.

use super::{Cell, Finding, Place, Rule, Severity, cell::is_percent};
use halfheard_shared::case::CaseOrMean;
use std::collections::{BTreeMap, HashMap};

/// A table of means and the table of their details.
pub(super) type Details = (u8, u8);

/// The details of a mean.
pub(super) fn details_of<'a>(mean: &Cell, cells: &'a [Cell], layout: &[Details]) -> Vec<&'a Cell> {
    let Some(table) = details_table(&mean.place, layout) else {
        return Vec::new();
    };
    let place = &mean.place;
    cells
        .iter()
        .filter(|cell| {
            let other = &cell.place;
            other.table == Some(table)
                && (other.dataset, &other.model, &other.metric, other.kind())
                    == (place.dataset, &place.model, &place.metric, place.kind())
        })
        .collect()
}

fn details_table(place: &Place, layout: &[Details]) -> Option<u8> {
    if !place.is_mean() || !place.model.variant.is_empty() {
        return None;
    }
    let mut pairs = layout.iter();
    pairs
        .find(|(means, _)| Some(*means) == place.table)
        .map(|p| p.1)
}

/// The mean of details, and the largest difference of a printed one: half a unit of the last digit of
/// the details and of its own.
pub(super) fn expected(mean: &Cell, details: &[&Cell]) -> Option<(f64, f64)> {
    if details.is_empty() {
        return None;
    }
    let count = details.len() as f64;
    let sum: f64 = details.iter().map(|cell| cell.value).sum();
    let halves: f64 = details.iter().map(|cell| cell.half).sum();
    Some((sum / count, mean.half + halves / count + 1e-9))
}

/// Finds means off by more than rounding: one finding per row of a table.
pub(super) fn check(cells: &[Cell], layout: &[Details]) -> Vec<Finding> {
    // Grouped once: searching the details of each mean would be quadratic.
    let of_kind = |place: &Place| place.kind().map(CaseOrMean::Mean);
    let mut columns: HashMap<Place, Vec<&Cell>> = HashMap::new();
    for cell in cells.iter().filter(|cell| !cell.place.is_mean()) {
        let key = Place {
            case: of_kind(&cell.place),
            ..cell.place.clone()
        };
        columns.entry(key).or_default().push(cell);
    }
    let mut found: BTreeMap<_, (Vec<Place>, Vec<String>)> = BTreeMap::new();
    for mean in cells {
        let place = &mean.place;
        let Some(table) = details_table(place, layout) else {
            continue;
        };
        let key = Place {
            table: Some(table),
            case: of_kind(place),
            ..place.clone()
        };
        let Some(details) = columns.get(&key) else {
            continue;
        };
        let Some((expected, tolerance)) = expected(mean, details) else {
            continue;
        };
        let off = mean.value - expected;
        if off.abs() <= tolerance {
            continue;
        }
        let entry = found
            .entry((place.table, place.dataset, place.model.method.clone()))
            .or_default();
        entry.0.push(place.clone());
        let exact = show_fine(place, expected);
        entry.1.push(format!(
            "{}: printed {}, the {} details of Table {table} give {exact}; rounding explains a \
             difference of {}, this is {:+.1} units of the last digit",
            place.metric,
            mean.text(),
            details.len(),
            show_fine(place, tolerance),
            off / (2.0 * mean.half),
        ));
    }
    found
        .into_values()
        .map(|(places, numbers)| {
            Finding::new(
                Rule::Mean,
                Severity::Error,
                "the mean does not follow from its details",
                places,
                numbers,
            )
        })
        .collect()
}

/// With one more digit than tables print.
fn show_fine(place: &Place, value: f64) -> String {
    if is_percent(place) {
        format!("{:.3}", value * 100.0)
    } else {
        format!("{value:.4}")
    }
}

#[cfg(test)]
mod tests {
    use super::{super::cell::tests::cell, *};

    fn table(mean: f64) -> Vec<Cell> {
        let mut cells: Vec<Cell> = (0..10)
            .map(|i| {
                let case = format!("r={}", f64::from(i) / 10.0);
                cell(9, "lnln", "acc7", &case, 0.45 - 0.0202 * f64::from(i))
            })
            .collect();
        cells.push(cell(2, "lnln", "acc7", "r=mean", mean));
        cells
    }

    #[test]
    fn mean_may_be_off_by_rounding_and_not_more() {
        let right = 0.45 - 0.0202 * 4.5;
        assert_eq!(check(&table(right), &[(2, 9)]), []);
        assert_eq!(check(&table(right + 0.0001), &[(2, 9)]), []);
        let found = check(&table(right + 0.0004), &[(2, 9)]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].places[0].table, Some(2));
        assert_eq!(found[0].severity, Severity::Error);
        // Without details nothing can be checked.
        assert_eq!(check(&table(0.9), &[(3, 10)]), []);
    }
}
