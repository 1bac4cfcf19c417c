//! The same number in two tables, with different values.

use super::{Cell, Finding, Place, Rule, Severity, cell::by};
use std::collections::BTreeMap;

/// One number in two tables.
type Two<'a> = (&'a Cell, &'a Cell);

/// Finds numbers that two tables print differently: one finding for two exchanged variants, one for
/// each other row.
pub(super) fn check(cells: &[Cell]) -> Vec<Finding> {
    let numbers = by(cells, |p| Place {
        table: None,
        ..p.clone()
    });
    let mut rows: BTreeMap<_, Vec<Two<'_>>> = BTreeMap::new();
    for cells in numbers.values() {
        for (i, first) in cells.iter().enumerate() {
            for second in &cells[i + 1..] {
                if !first.agrees(second) {
                    let p = &first.place;
                    let key = (p.table, second.place.table, p.dataset, p.model.clone());
                    rows.entry(key).or_default().push((first, second));
                }
            }
        }
    }
    let mut findings = Vec::new();
    let rows: Vec<Vec<Two<'_>>> = rows.into_values().collect();
    let mut done = vec![false; rows.len()];
    for i in 0..rows.len() {
        if done[i] {
            continue;
        }
        let partner = (i + 1..rows.len()).find(|&j| !done[j] && exchanged(&rows[i], &rows[j]));
        let mut places: Vec<Place> = both(&rows[i]);
        let what = if let Some(j) = partner {
            done[j] = true;
            places.extend(both(&rows[j]));
            format!(
                "{} and {} are exchanged between the two tables",
                rows[i][0].0.place.label(),
                rows[j][0].0.place.label()
            )
        } else {
            "the same number has two values".to_owned()
        };
        let lines = rows[i].iter().map(|(first, second)| {
            format!(
                "{}: {} in Table {}, {} in Table {}",
                first.place.metric,
                first.text(),
                first.place.table.unwrap_or_default(),
                second.text(),
                second.place.table.unwrap_or_default(),
            )
        });
        findings.push(Finding::new(
            Rule::SameNumber,
            Severity::Error,
            what,
            places,
            lines.collect(),
        ));
    }
    findings
}

fn both(row: &[Two<'_>]) -> Vec<Place> {
    row.iter()
        .flat_map(|(first, second)| [first.place.clone(), second.place.clone()])
        .collect()
}

/// Whether each row has in one table the values of the other row in the other table, in several metrics.
fn exchanged(a: &[Two<'_>], b: &[Two<'_>]) -> bool {
    a.len() > 1
        && a.len() == b.len()
        && a.iter().zip(b).all(|((a1, a2), (b1, b2))| {
            (a1.place.table, a2.place.table) == (b1.place.table, b2.place.table)
                && a1.place.metric == b1.place.metric
                && a1.agrees(b2)
                && a2.agrees(b1)
        })
}

#[cfg(test)]
mod tests {
    use super::{super::cell::tests::cell, *};

    fn row(table: u8, variant: &str, values: [f64; 2]) -> Vec<Cell> {
        ["acc7", "mae"]
            .iter()
            .zip(values)
            .map(|(metric, value)| {
                let mut cell = cell(table, "lnln", metric, "r=mean", value);
                cell.place.model.variant = variant.to_owned();
                cell
            })
            .collect()
    }

    #[test]
    fn different_values_of_a_number_are_found() {
        let clean = [row(5, "a", [0.34, 1.046]), row(7, "a", [0.34, 1.046])].concat();
        assert_eq!(check(&clean), []);
        let wrong = [row(5, "a", [0.34, 1.048]), row(7, "a", [0.34, 1.148])].concat();
        let found = check(&wrong);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].numbers,
            ["mae: 1.048 in Table 5, 1.148 in Table 7"]
        );
    }

    #[test]
    fn exchanged_rows_are_one_finding() {
        let cells = [
            row(5, "a", [0.34, 1.046]),
            row(5, "b", [0.31, 1.100]),
            row(7, "a", [0.31, 1.100]),
            row(7, "b", [0.34, 1.046]),
        ]
        .concat();
        let found = check(&cells);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("exchanged"));
        assert_eq!(found[0].places.len(), 8);
    }
}
