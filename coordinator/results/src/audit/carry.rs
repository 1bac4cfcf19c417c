//! What depends on a wrong number: the mean over it, and the same mean in other tables.

use super::{
    Cell, Finding, Place, Rule,
    means::{Details, details_of, expected},
};
use std::collections::BTreeSet;

/// Adds to findings about details the means that depend on them. A mean that does not follow from its
/// details was not computed from them.
pub(super) fn carry(findings: &mut [Finding], cells: &[Cell], layout: &[Details]) {
    for finding in findings {
        if !matches!(
            finding.rule,
            Rule::OutOfRange | Rule::Repeated | Rule::Trend
        ) {
            continue;
        }
        let mut carried = BTreeSet::new();
        for mean in cells.iter().filter(|cell| cell.place.is_mean()) {
            let details = details_of(mean, cells, layout);
            let depends = details
                .iter()
                .any(|detail| finding.places.contains(&detail.place));
            let follows = expected(mean, &details)
                .is_some_and(|(value, tolerance)| (mean.value - value).abs() <= tolerance);
            if depends && follows {
                carried.insert(mean.place.clone());
                carried.extend(repeats(mean, cells));
            }
        }
        finding.carried = carried
            .into_iter()
            .filter(|place| !finding.places.contains(place))
            .collect();
    }
}

/// The same number in other tables.
fn repeats(mean: &Cell, cells: &[Cell]) -> Vec<Place> {
    let anywhere = |place: &Place| Place {
        table: None,
        ..place.clone()
    };
    cells
        .iter()
        .filter(|cell| cell.value == mean.value && anywhere(&cell.place) == anywhere(&mean.place))
        .map(|cell| cell.place.clone())
        .collect()
}
