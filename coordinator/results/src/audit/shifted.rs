//! Values that stand one column further in a related row.
//!
//! Rows are related if they are of variants of one method, all the more if these have the same training
//! objective, or if they are the same row of two tables. One equal value is chance, and several may be:
//! their probability follows from how much the values of related rows vary.

use super::{
    Cell, Finding, Place, Rule, Severity,
    cell::{by, is_percent, noise},
    chance::{self, RARE, SEEDS},
};
use crate::tables::layout;
use halfheard_shared::benchmark::Benchmark;
use std::collections::BTreeMap;

/// A method and two of its variants that train by the same objective.
pub(super) type SameObjective = (&'static str, &'static str, &'static str);

/// The least number of shifted values, which must differ.
const SHIFTED: usize = 2;

/// How two rows are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Relation {
    Same,
    SameObjective,
    Variants,
}

/// A row, by column; `None` where the table has no such column.
struct Row<'a>(Vec<Option<&'a Cell>>);

/// Equal values of two rows.
struct Shift<'a> {
    /// In the one row, and a column further in the other.
    shifted: Vec<(&'a Cell, &'a Cell)>,
    /// In the same column.
    in_place: Vec<&'a Cell>,
    /// The probability of as many by chance.
    likely: f64,
}

/// Finds shifted values: one finding per two models of a dataset.
pub(super) fn check(cells: &[Cell], same_objective: &[SameObjective]) -> Vec<Finding> {
    let mut compared: BTreeMap<Relation, usize> = BTreeMap::new();
    let mut found: Vec<(Relation, Shift<'_>)> = Vec::new();
    let methods = by(cells, |p| (p.dataset, p.case, p.model.method.clone()));
    for ((dataset, ..), cells) in methods {
        let rows = rows(dataset, cells);
        let spreads = spreads(&rows);
        for (i, first) in rows.iter().enumerate() {
            for second in &rows[i + 1..] {
                let Some(relation) = relation(first, second, same_objective) else {
                    continue;
                };
                for (from, to) in [(first, second), (second, first)] {
                    *compared.entry(relation).or_default() += 1;
                    if let Some(shift) = shift(from, to, &spreads, relation) {
                        found.push((relation, shift));
                    }
                }
            }
        }
    }
    let mut models: BTreeMap<_, Vec<(Relation, Shift<'_>, f64)>> = BTreeMap::new();
    for (relation, shift) in found {
        let expected = shift.likely * compared[&relation] as f64;
        if expected <= RARE {
            let (from, to) = shift.shifted[0];
            let key = (
                from.place.dataset,
                from.place.case,
                from.place.model.clone(),
                to.place.model.clone(),
            );
            let entry = models.entry(key).or_default();
            entry.push((relation, shift, expected));
        }
    }
    let findings = models.into_values();
    findings.map(|shifts| finding(&shifts, &compared)).collect()
}

/// The rows of one method on one case: one per table, variant and seed, in the tables' order of columns.
fn rows<'a>(dataset: Benchmark, cells: Vec<&'a Cell>) -> Vec<Row<'a>> {
    let order: Vec<&str> = layout::columns(dataset)
        .into_iter()
        .flat_map(|(_, metrics)| metrics)
        .collect();
    let rows = by(cells, |p| (p.table, p.model.clone(), p.seed)).into_values();
    rows.map(|cells| {
        let at = |metric: &&str| cells.iter().copied().find(|c| c.place.metric == *metric);
        Row(order.iter().map(at).collect())
    })
    .collect()
}

impl Row<'_> {
    fn place(&self) -> Option<&Place> {
        self.0.iter().flatten().next().map(|cell| &cell.place)
    }
}

fn relation(a: &Row<'_>, b: &Row<'_>, same_objective: &[SameObjective]) -> Option<Relation> {
    let (a, b) = (a.place()?, b.place()?);
    let (one, other) = (a.model.variant.as_str(), b.model.variant.as_str());
    if one == other {
        return Some(Relation::Same);
    }
    let same = |&(method, x, y): &SameObjective| {
        method == a.model.method && ((x, y) == (one, other) || (y, x) == (one, other))
    };
    Some(if same_objective.iter().any(same) {
        Relation::SameObjective
    } else {
        Relation::Variants
    })
}

/// The spread of each column over the different models: the smaller of its own and of its differences to
/// other columns, since metrics of one model move together.
fn spreads(rows: &[Row<'_>]) -> Vec<Option<f64>> {
    let mut models: BTreeMap<_, &Row<'_>> = BTreeMap::new();
    for row in rows {
        if let Some(place) = row.place() {
            models.entry((&place.model, place.seed)).or_insert(row);
        }
    }
    let rows: Vec<&Row<'_>> = models.into_values().collect();
    let columns = rows.first().map_or(0, |row| row.0.len());
    (0..columns)
        .map(|i| {
            let first = rows.iter().find_map(|row| row.0[i])?;
            let others = (0..columns).filter(|&j| j != i);
            let differences = others.filter_map(|j| {
                let values = rows.iter().filter_map(|row| {
                    let (a, b) = (row.0[i]?, row.0[j]?);
                    same_unit(a, b).then_some(a.value - b.value)
                });
                chance::spread(&values.collect::<Vec<_>>())
            });
            let own = rows.iter().filter_map(|row| Some(row.0[i]?.value));
            let own = chance::spread(&own.collect::<Vec<_>>());
            // Of few rows, no more is known than the size of the test split.
            let own = own.unwrap_or_else(|| noise(first));
            Some(differences.fold(own, f64::min))
        })
        .collect()
}

fn same_unit(a: &Cell, b: &Cell) -> bool {
    is_percent(&a.place) == is_percent(&b.place)
}

/// The probability that two cells of these columns are equal by chance.
fn likely(a: &Cell, b: &Cell, spread: f64) -> f64 {
    // Accuracies of one case are whole numbers of samples, over the seeds.
    let step = if is_percent(&a.place) && !a.place.is_mean() {
        1.0 / (SEEDS * a.samples as f64)
    } else {
        0.0
    };
    chance::equal((a.half + b.half).max(step), spread)
}

/// Compares each column of `from` with the next of `to`, and the columns of both with each other.
fn shift<'a>(
    from: &Row<'a>,
    to: &Row<'a>,
    spreads: &[Option<f64>],
    relation: Relation,
) -> Option<Shift<'a>> {
    let equal =
        |a: Option<&Cell>, b: Option<&Cell>| a.zip(b).is_some_and(|(a, b)| a.value == b.value);
    let (mut shifted, mut chances) = (Vec::new(), Vec::new());
    let (mut in_place, mut chances_in_place) = (Vec::new(), Vec::new());
    for i in 0..from.0.len() {
        let spread = spreads[i]?;
        if let (Some(a), Some(b)) = (from.0[i], to.0[i]) {
            chances_in_place.push(likely(a, b, spread));
            if a.value == b.value {
                in_place.push(a);
            }
        }
        let next = to.0.get(i + 1).copied().flatten();
        let (Some(a), Some(b)) = (from.0[i], next) else {
            continue;
        };
        // Values that agree where they stand need no shift.
        let agree = equal(from.0[i], to.0[i]) || equal(from.0[i + 1], to.0[i + 1]);
        if !same_unit(a, b) || agree {
            continue;
        }
        chances.push(likely(a, b, spread.min(spreads[i + 1]?)));
        if a.value == b.value {
            shifted.push((a, b));
        }
    }
    let mut distinct: Vec<u64> = shifted.iter().map(|(a, _)| a.value.to_bits()).collect();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < SHIFTED {
        return None;
    }
    let mut likely = chance::at_least(distinct.len(), &chances);
    if relation == Relation::Same {
        // The same row agrees in place as it should.
        in_place.clear();
    } else {
        likely *= chance::at_least(in_place.len(), &chances_in_place);
    }
    Some(Shift {
        shifted,
        in_place,
        likely,
    })
}

fn finding(shifts: &[(Relation, Shift<'_>, f64)], compared: &BTreeMap<Relation, usize>) -> Finding {
    let at = |cell: &Cell| match cell.place.table {
        Some(table) => format!("Table {table} {}", cell.place.metric),
        None => cell.place.metric.clone(),
    };
    let (mut places, mut numbers) = (Vec::new(), Vec::new());
    for (relation, shift, expected) in shifts {
        for (from, to) in &shift.shifted {
            places.extend([from.place.clone(), to.place.clone()]);
            numbers.push(format!(
                "{} in {} ({}) = {} ({})",
                from.text(),
                at(from),
                from.place.label(),
                at(to),
                to.place.label()
            ));
        }
        if !shift.in_place.is_empty() {
            let equal = shift.in_place.iter();
            let equal: Vec<String> = equal
                .map(|cell| format!("{} {}", cell.place.metric, cell.text()))
                .collect();
            numbers.push(format!("equal in place: {}", equal.join(", ")));
        }
        let (how, compared) = (
            match relation {
                Relation::Same => "the same row in two tables",
                Relation::SameObjective => "variants with the same objective",
                Relation::Variants => "variants of one method",
            },
            compared[relation],
        );
        numbers.push(format!(
            "{how}: {} such shifts are expected by chance among the {compared} compared",
            chance::text(*expected)
        ));
    }
    places.sort();
    places.dedup();
    Finding::new(
        Rule::Shifted,
        Severity::Warning,
        "values of the one row stand one column further in the other",
        places,
        numbers,
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::{cell::tests::cell, chance::tests::Normal},
        *,
    };

    const METRICS: [(&str, f64); 8] = [
        ("acc7", 0.33),
        ("acc5", 0.37),
        ("acc2_nonzero", 0.721),
        ("acc2_nonneg", 0.706),
        ("f1_nonzero", 0.728),
        ("f1_nonneg", 0.711),
        ("mae", 1.06),
        ("corr", 0.515),
    ];

    /// Two tables of variants of one method, whose metrics move together as the paper's do.
    fn tables(normal: &mut Normal) -> Vec<Cell> {
        let mut cells = Vec::new();
        for variant in 0..10 {
            let whole = normal.next();
            for (metric, middle) in METRICS {
                let sd = if metric == "mae" { 0.02 } else { 0.008 };
                let value = middle + sd * (0.7 * whole + 0.7 * normal.next());
                let mut cell = cell(4 + variant / 5, "lnln", metric, "r=mean", value);
                cell.place.model.variant = format!("v{variant}");
                cells.push(cell);
            }
        }
        cells
    }

    /// The first row of Table 4, misplaced in the first of Table 5.
    fn plant(cells: &mut [Cell], in_place: usize) {
        for i in 0..in_place {
            cells[40 + i].value = cells[i].value;
        }
        for i in [2, 4] {
            cells[41 + i].value = cells[i].value;
        }
    }

    #[test]
    fn shifted_values_are_found() {
        let mut cells = tables(&mut Normal::new(1));
        assert_eq!(check(&cells, &[]), []);
        plant(&mut cells, 2);
        let found = check(&cells, &[("lnln", "v5", "v0")]);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].severity, Severity::Warning);
        let named: Vec<(Option<u8>, &str)> = found[0]
            .places
            .iter()
            .map(|p| (p.table, p.metric.as_str()))
            .collect();
        assert_eq!(
            named,
            [
                (Some(4), "acc2_nonzero"),
                (Some(4), "f1_nonzero"),
                (Some(5), "acc2_nonneg"),
                (Some(5), "f1_nonneg")
            ]
        );
        assert!(found[0].numbers[3].starts_with("variants with the same objective: "));
        // Without the knowledge that the objective is the same, one among many pairs.
        assert_eq!(check(&cells, &[]).len(), 1);
    }

    /// One equal value is chance; so are values that agree in place, and equal neighbors in one row.
    #[test]
    fn single_equal_value_and_equal_neighbors_are_not_found() {
        let clean = tables(&mut Normal::new(2));
        let mut cells = clean.clone();
        cells[43].value = cells[2].value;
        assert_eq!(check(&cells, &[("lnln", "v0", "v5")]), []);
        let mut cells = clean;
        for i in 0..8 {
            cells[40 + i].value = cells[i].value;
            if i % 2 == 0 && i < 6 {
                cells[41 + i].value = cells[i].value;
                cells[1 + i].value = cells[i].value;
            }
        }
        assert_eq!(check(&cells, &[("lnln", "v0", "v5")]), []);
    }

    #[test]
    fn shift_between_two_tables_of_one_row_needs_more_values() {
        let row = |table: u8, normal: &mut Normal| -> Vec<Cell> {
            let values = METRICS.iter();
            values
                .map(|(metric, middle)| {
                    cell(
                        table,
                        "misa",
                        metric,
                        "r=mean",
                        middle + 0.01 * normal.next(),
                    )
                })
                .collect()
        };
        let mut normal = Normal::new(3);
        let first = row(2, &mut normal);
        let mut second = row(8, &mut normal);
        assert_eq!(check(&[first.clone(), second.clone()].concat(), &[]), []);
        for i in 1..5 {
            second[i + 1].value = first[i].value;
        }
        assert_eq!(check(&[first, second].concat(), &[]).len(), 1);
    }

    /// Of 2,000 clean pairs of tables, at most one in a hundred has a finding.
    #[test]
    fn clean_tables_have_findings_as_rarely_as_promised() {
        let mut normal = Normal::new(4);
        let false_alarms = (0..2000)
            .filter(|_| !check(&tables(&mut normal), &[("lnln", "v0", "v5")]).is_empty())
            .count();
        println!("{false_alarms} of 2000 clean tables have a finding");
        assert!(false_alarms <= 20, "{false_alarms}");
    }
}
