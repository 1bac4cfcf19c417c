//! Rows that are nearer to each other than seeds allow.
//!
//! Two trainings of equally good models differ by chance: their means over three seeds have a standard
//! error that follows from the published spread. Two rows that agree far better, in all metrics at once,
//! are not of two trainings. The metric in which they are the least near decides.

use super::{
    Cell, Finding, Rule, Severity,
    cell::{by, show},
    chance::{self, RARE, SEEDS},
    spread::{self, Spreads},
};
use std::collections::BTreeMap;

/// The least number of metrics with a spread.
const METRICS: usize = 4;
/// Degrees of freedom of a standard deviation over three seeds.
const FREEDOM: u32 = 2;

/// Two rows of a table: the metrics with a spread, and the probability that they are so near.
struct Near<'a> {
    cells: Vec<(&'a Cell, &'a Cell, f64)>,
    likely: f64,
}

/// Finds rows of one table that are too near: one finding per two models of a dataset.
pub(super) fn check(cells: &[Cell]) -> Vec<Finding> {
    let spreads = spread::plausible(cells);
    let mut compared = 0;
    let mut pairs: BTreeMap<_, Vec<Near<'_>>> = BTreeMap::new();
    for table in by(cells, |p| (p.table, p.dataset, p.case)).into_values() {
        let rows: Vec<Vec<&Cell>> = by(table, |p| (p.model.clone(), p.seed))
            .into_values()
            .collect();
        for (i, first) in rows.iter().enumerate() {
            for second in &rows[i + 1..] {
                let Some(near) = near(first, second, &spreads) else {
                    continue;
                };
                compared += 1;
                let (a, b) = (&first[0].place, &second[0].place);
                let key = (a.dataset, a.case, a.model.clone(), b.model.clone());
                pairs.entry(key).or_default().push(near);
            }
        }
    }
    let rare = |near: &Near<'_>| near.likely * f64::from(compared) <= RARE;
    pairs
        .into_values()
        .filter_map(|mut nears| {
            nears.retain(rare);
            (!nears.is_empty()).then(|| finding(&nears, compared))
        })
        .collect()
}

fn near<'a>(first: &[&'a Cell], second: &[&'a Cell], spreads: &Spreads) -> Option<Near<'a>> {
    let cells: Vec<(&Cell, &Cell, f64)> = first
        .iter()
        .filter_map(|a| {
            let b = second.iter().find(|b| b.place.metric == a.place.metric)?;
            let (one, other) = (
                spread::of(spreads, &a.place)?,
                spread::of(spreads, &b.place)?,
            );
            Some((*a, *b, ((one.powi(2) + other.powi(2)) / 2.0).sqrt()))
        })
        .collect();
    // Rows with the same digits have a rule of their own.
    let equal = cells.iter().filter(|(a, b, _)| a.value == b.value).count();
    if cells.len() < METRICS || 2 * equal > cells.len() {
        return None;
    }
    // The metric that is the least near, in standard errors of the difference of two means over seeds.
    let limits = cells.iter().map(|(a, b, spread)| {
        let error = spread * (2.0 / SEEDS).sqrt();
        ((a.value - b.value).abs() + a.half + b.half) / error
    });
    let limit = limits.fold(0.0, f64::max);
    Some(Near {
        likely: chance::all_within(limit, u32::try_from(cells.len()).ok()?, FREEDOM),
        cells,
    })
}

fn finding(nears: &[Near<'_>], compared: u32) -> Finding {
    let (mut places, mut numbers) = (Vec::new(), Vec::new());
    for Near { cells, likely } in nears {
        for (a, b, spread) in cells {
            places.extend([a.place.clone(), b.place.clone()]);
            numbers.push(format!(
                "{}: {} and {}, at a spread over seeds of {}",
                a.place.metric,
                a.text(),
                b.text(),
                show(&a.place, *spread)
            ));
        }
        // First, since evidence is cut.
        numbers.insert(
            0,
            format!(
                "{} such pairs are expected by chance among the {compared} compared",
                chance::text(likely * f64::from(compared))
            ),
        );
    }
    places.sort();
    places.dedup();
    Finding::new(
        Rule::TooClose,
        Severity::Warning,
        "two rows are nearer to each other in all metrics than two trainings are",
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

    const METRICS: [(&str, f64, f64); 6] = [
        ("acc7", 0.34, 0.0117),
        ("acc5", 0.38, 0.0123),
        ("acc2_nonzero", 0.725, 0.0111),
        ("acc2_nonneg", 0.709, 0.0128),
        ("f1_nonzero", 0.727, 0.0099),
        ("f1_nonneg", 0.712, 0.0106),
    ];

    /// A table with spreads and one of variants, all equally good: means over three seeds, whose metrics
    /// have the correlation.
    fn tables(normal: &mut Normal, correlation: f64) -> Vec<Cell> {
        let mut cells = Vec::new();
        for variant in 0..12 {
            let shared = normal.next();
            for (metric, middle, sd) in METRICS {
                let z = correlation.sqrt() * shared + (1.0 - correlation).sqrt() * normal.next();
                let value = middle + sd / SEEDS.sqrt() * z;
                let table = if variant == 0 { 8 } else { 4 };
                let mut cell = cell(table, "lnln", metric, "r=mean", value);
                if variant == 0 {
                    // As estimated from three seeds.
                    let s = ((normal.next().powi(2) + normal.next().powi(2)) / 2.0).sqrt();
                    cell.std = Some(sd * s);
                } else {
                    cell.place.model.variant = format!("v{variant}");
                }
                cells.push(cell);
            }
        }
        cells
    }

    #[test]
    fn rows_nearer_than_seeds_allow_are_found() {
        let mut cells = tables(&mut Normal::new(1), 0.6);
        for (cell, (_, _, sd)) in cells.iter_mut().zip(METRICS) {
            cell.std = Some(sd);
        }
        assert_eq!(check(&cells), []);
        for i in 0..6 {
            cells[12 + i].value = cells[6 + i].value + [2e-4, 5e-4, 1e-4, 4e-4, 1e-4, 4e-4][i];
        }
        let found = check(&cells);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].severity, Severity::Warning);
        assert_eq!(found[0].places.len(), 12);
        assert!(
            found[0].numbers[0].ends_with("among the 55 compared"),
            "{:?}",
            found[0]
        );
    }

    #[test]
    fn near_rows_without_a_spread_and_rows_near_in_few_metrics_are_not_found() {
        let mut cells = tables(&mut Normal::new(2), 0.6);
        for i in 0..6 {
            cells[12 + i].value = cells[6 + i].value + if i < 3 { 1e-4 } else { 0.02 };
        }
        assert_eq!(check(&cells), []);
        for i in 0..6 {
            cells[12 + i].value = cells[6 + i].value + 1e-4;
            cells[i].std = None;
        }
        assert_eq!(check(&cells), []);
    }

    /// Equally good models, trained independently: at most one table in a hundred has a finding,
    /// however much their metrics depend on each other.
    #[test]
    fn equally_good_models_are_found_as_rarely_as_promised() {
        let mut normal = Normal::new(3);
        for correlation in [0.0, 0.6, 0.9] {
            let false_alarms = (0..1000)
                .filter(|_| !check(&tables(&mut normal, correlation)).is_empty())
                .count();
            println!("{false_alarms} of 1000 clean tables at a correlation of {correlation}");
            assert!(false_alarms <= 10, "{correlation}: {false_alarms}");
        }
    }
}
