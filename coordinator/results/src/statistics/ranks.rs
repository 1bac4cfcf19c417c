//! Mean ranks of methods over cells, and their critical difference (Demšar 2006).

use halfheard_shared::{benchmark::Benchmark, case::Case};
use std::collections::{BTreeMap, BTreeSet};

/// The mean ranks of methods.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Ranks {
    /// Methods with their mean ranks, the best first: 1 if a method is always best.
    pub mean: Vec<(String, f64)>,
    /// The number of cells (one dataset and one case each) that all methods have.
    pub cells: usize,
    /// Mean ranks further apart than this differ at the level 0.05 (Nemenyi), for up to twenty
    /// methods. Cells of one dataset share its samples: this is a lower bound.
    pub critical_difference: Option<f64>,
}

/// A mean over seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The printed name of the model.
    pub method: String,
    /// The dataset.
    pub dataset: Benchmark,
    /// The case.
    pub case: Case,
    /// The metric's id.
    pub metric: &'static str,
    /// The mean.
    pub value: f64,
}

/// Two-sided critical values of the studentized range over √2 at 0.05, for 2, 3, … methods
/// (Demšar 2006, Table 5; beyond ten from the same distribution).
const NEMENYI: [f64; 19] = [
    1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164, 3.219, 3.268, 3.313, 3.354,
    3.391, 3.426, 3.458, 3.489, 3.517, 3.544,
];

/// Ranks the methods in every cell by every metric of the paper, and averages over the metrics of a
/// cell and then over cells. Equal methods share their ranks. Cells that a method lacks are left out;
/// `None` with fewer than two methods or without a cell.
pub fn ranks(measured: &[Measurement]) -> Option<Ranks> {
    let methods: BTreeSet<&str> = measured.iter().map(|m| m.method.as_str()).collect();
    if methods.len() < 2 {
        return None;
    }
    /// By metric, the methods' values.
    type Columns<'a> = BTreeMap<&'a str, Vec<(&'a str, f64)>>;
    let mut columns: BTreeMap<(Benchmark, Case), Columns<'_>> = BTreeMap::new();
    for m in measured {
        let in_paper = m
            .dataset
            .metric(m.metric)
            .is_none_or(|metric| metric.in_paper());
        if in_paper && !m.value.is_nan() {
            let cell = columns.entry((m.dataset, m.case)).or_default();
            let values = cell.entry(m.metric).or_default();
            values.push((&m.method, m.value));
        }
    }
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    let mut cells = 0;
    for ((dataset, _), metrics) in &columns {
        let complete: Vec<_> = metrics
            .iter()
            .filter(|(_, values)| values.len() == methods.len())
            .collect();
        if complete.is_empty() {
            continue;
        }
        cells += 1;
        for (metric, values) in &complete {
            let metric = dataset.metric(metric);
            let higher = metric.is_none_or(|metric| metric.higher_is_better);
            for (method, rank) in ranked(values, higher) {
                *sums.entry(method).or_default() += rank / complete.len() as f64;
            }
        }
    }
    if cells == 0 {
        return None;
    }
    let mut mean: Vec<(String, f64)> = sums
        .into_iter()
        .map(|(method, sum)| (method.to_owned(), sum / cells as f64))
        .collect();
    mean.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| a.0.cmp(&b.0)));
    let k = mean.len() as f64;
    let critical = NEMENYI.get(mean.len() - 2);
    Some(Ranks {
        critical_difference: critical.map(|q| q * (k * (k + 1.0) / (6.0 * cells as f64)).sqrt()),
        mean,
        cells,
    })
}

/// Ranks from 1; equal values share their mean rank.
fn ranked<'a>(values: &[(&'a str, f64)], higher: bool) -> Vec<(&'a str, f64)> {
    let better = |a: f64, b: f64| if higher { a > b } else { a < b };
    values
        .iter()
        .map(|&(method, value)| {
            let before = values.iter().filter(|(_, v)| better(*v, value)).count();
            let equal = values.iter().filter(|(_, v)| *v == value).count();
            (method, before as f64 + f64::midpoint(equal as f64, 1.0))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(rows: &[(&str, &str, &'static str, f64)]) -> Vec<Measurement> {
        let row = |&(method, case, metric, value): &(&str, &str, &'static str, f64)| Measurement {
            method: method.to_owned(),
            dataset: Benchmark::Mosi,
            case: case.parse().unwrap(),
            metric,
            value,
        };
        rows.iter().map(row).collect()
    }

    #[test]
    fn ranks_follow_direction_and_ties_share() {
        let ranks = ranks(&measured(&[
            ("a", "r=0", "acc7", 0.5),
            ("b", "r=0", "acc7", 0.4),
            ("c", "r=0", "acc7", 0.4),
            ("a", "r=0", "mae", 1.2),
            ("b", "r=0", "mae", 1.1),
            ("c", "r=0", "mae", 1.0),
            // Not in the paper, and a cell that c lacks.
            ("a", "r=0", "laziness", 0.0),
            ("a", "r=0.5", "acc7", 0.1),
            ("b", "r=0.5", "acc7", 0.2),
        ]))
        .unwrap();
        assert_eq!(ranks.cells, 1);
        // a: (1 + 3) / 2; b: (2.5 + 2) / 2; c: (2.5 + 1) / 2.
        let expected = [("c", 1.75), ("a", 2.0), ("b", 2.25)];
        let expected: Vec<_> = expected.map(|(m, r)| (m.to_owned(), r)).into();
        assert_eq!(ranks.mean, expected);
    }

    #[test]
    fn critical_difference_is_that_of_demsar() {
        // Demšar's own example: four classifiers on fourteen datasets, 1.25.
        let mut rows = Vec::new();
        let cases: Vec<String> = (0..14)
            .map(|i| format!("r={}", f64::from(i) / 20.0))
            .collect();
        for case in &cases {
            for (method, value) in [("a", 0.1), ("b", 0.2), ("c", 0.3), ("d", 0.4)] {
                rows.push((method, case.as_str(), "acc7", value));
            }
        }
        let ranks = ranks(&measured(&rows)).unwrap();
        assert_eq!(ranks.cells, 14);
        assert!((ranks.critical_difference.unwrap() - 1.25).abs() < 0.005);
    }

    #[test]
    fn fewer_than_two_methods_have_no_ranks() {
        assert_eq!(ranks(&[]), None);
        assert_eq!(ranks(&measured(&[("a", "r=0", "acc7", 0.5)])), None);
    }
}
