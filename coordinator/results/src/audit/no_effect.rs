//! Cases that a model answers alike: what differs between them has no effect on it, or one evaluation
//! was counted twice.

use super::{
    Cell, Finding, Place, Rule, Severity,
    cell::{by, joined_text},
};
use std::collections::{BTreeMap, BTreeSet};

/// The least number of metrics.
const METRICS: usize = 4;
/// The least number of different values among the equal ones: few distinct values are those of
/// constant predictions.
const DISTINCT: usize = 3;

/// The numbers of a case by metric; a table may repeat those of another.
type Numbers<'a> = BTreeMap<&'a str, &'a Cell>;

/// Finds cases of one model with equal numbers in all metrics but at most one: one note per dataset.
pub(super) fn check(cells: &[Cell]) -> Vec<Finding> {
    let cases = cells.iter().filter(|cell| !cell.place.is_mean());
    let mut found: BTreeMap<_, (Vec<Place>, Vec<String>)> = BTreeMap::new();
    let models = by(cases, |p| (p.dataset, p.model.clone(), p.seed));
    for ((dataset, ..), cells) in models {
        for group in groups(cells) {
            let entry = found.entry(dataset).or_default();
            let metrics = equal(&group);
            entry.1.push(line(&group, &metrics));
            let of_group = group.iter().flat_map(|numbers| numbers.values());
            let equal = of_group.filter(|cell| metrics.contains(cell.place.metric.as_str()));
            entry.0.extend(equal.map(|cell| cell.place.clone()));
        }
    }
    found
        .into_values()
        .map(|(places, numbers)| {
            Finding::new(
                Rule::NoEffect,
                Severity::Note,
                "different cases have the same numbers",
                places,
                numbers,
            )
        })
        .collect()
}

/// The cases of one model in groups that are alike.
fn groups<'a>(cells: Vec<&'a Cell>) -> Vec<Vec<Numbers<'a>>> {
    let mut groups: Vec<Vec<Numbers<'a>>> = Vec::new();
    for cells in by(cells, |p| p.case).into_values() {
        let numbers: Numbers<'_> = cells
            .into_iter()
            .map(|cell| (cell.place.metric.as_str(), cell))
            .collect();
        match groups.iter().position(|group| fits(group, &numbers)) {
            Some(at) => groups[at].push(numbers),
            None => groups.push(vec![numbers]),
        }
    }
    groups.retain(|group| group.len() > 1);
    groups
}

/// Whether a case is like those of a group.
fn fits(group: &[Numbers<'_>], numbers: &Numbers<'_>) -> bool {
    let mut all = group.to_vec();
    all.push(numbers.clone());
    let metrics = equal(&all);
    let distinct: BTreeSet<u64> = metrics
        .iter()
        .filter_map(|metric| Some(numbers.get(metric)?.value.to_bits()))
        .collect();
    numbers.len() >= METRICS && metrics.len() + 1 >= numbers.len() && distinct.len() >= DISTINCT
}

/// The metrics in which all cases are equal.
fn equal<'a>(group: &[Numbers<'a>]) -> BTreeSet<&'a str> {
    let Some((first, others)) = group.split_first() else {
        return BTreeSet::new();
    };
    let same = |metric: &&str, cell: &Cell| {
        let mut others = others.iter().map(|numbers| numbers.get(metric));
        others.all(|other| other.is_some_and(|other| other.value == cell.value))
    };
    let equal = first.iter().filter(|(metric, cell)| same(metric, cell));
    equal.map(|(metric, _)| *metric).collect()
}

/// `CENET: missing=l and missing=lv, all 8 metrics`.
fn line(group: &[Numbers<'_>], metrics: &BTreeSet<&str>) -> String {
    let first = group.iter().flat_map(|numbers| numbers.values()).next();
    let place = first.map(|cell| &cell.place);
    let cases = group.iter().filter_map(|numbers| {
        let (_, cell) = numbers.first_key_value()?;
        Some(cell.place.case_text())
    });
    let all = group.first().map_or(0, BTreeMap::len);
    let share = if metrics.len() == all {
        format!("all {all} metrics")
    } else {
        format!("{} of {all} metrics", metrics.len())
    };
    let seed = place.and_then(|place| place.seed);
    let seed = seed.map_or(String::new(), |seed| format!(" seed {seed}"));
    format!(
        "{}{seed}: {}, {share}",
        place.map(Place::label).unwrap_or_default(),
        joined_text(cases),
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::{cell::tests::cell, chance::tests::Normal},
        *,
    };

    const METRICS: [&str; 6] = ["acc7", "acc5", "acc2_nonzero", "f1_nonzero", "mae", "corr"];

    fn table(normal: &mut Normal) -> Vec<Cell> {
        let mut cells = Vec::new();
        for (table, case) in [
            (9, "r=0"),
            (13, "missing=l"),
            (13, "missing=a"),
            (13, "missing=v"),
        ] {
            for metric in METRICS {
                cells.push(cell(
                    table,
                    "misa",
                    metric,
                    case,
                    0.5 + 0.05 * normal.next(),
                ));
            }
        }
        cells
    }

    #[test]
    fn cases_with_equal_numbers_are_one_note() {
        let mut cells = table(&mut Normal::new(1));
        assert_eq!(check(&cells), []);
        for i in 0..6 {
            cells[18 + i].value = cells[i].value;
        }
        let found = check(&cells);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].severity, Severity::Note);
        assert_eq!(found[0].numbers, ["MISA: missing=v and r=0, all 6 metrics"]);
        cells[18].value += 0.01;
        assert_eq!(
            check(&cells)[0].numbers,
            ["MISA: missing=v and r=0, 5 of 6 metrics"]
        );
        cells[19].value += 0.01;
        assert_eq!(check(&cells), []);
    }

    /// Constant predictions have equal accuracies for a reason that another rule gives.
    #[test]
    fn few_distinct_values_are_not_found() {
        let mut cells = table(&mut Normal::new(2));
        for cell in &mut cells {
            cell.value = if cell.place.metric.starts_with("acc") {
                0.5777
            } else {
                0.4231
            };
        }
        assert_eq!(check(&cells), []);
    }

    #[test]
    fn random_cases_have_no_finding() {
        let mut normal = Normal::new(3);
        assert!((0..1000).all(|_| check(&table(&mut normal)).is_empty()));
    }
}
