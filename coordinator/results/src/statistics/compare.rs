//! Where one of two models is really better: paired bootstrap, corrected for looking at many cells
//! (Holm 1979).

use super::{
    bootstrap::{Drawn, Model},
    interval, sums,
};
use halfheard_shared::benchmark::Benchmark;

/// One comparison.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Difference {
    /// The dataset.
    pub dataset: Benchmark,
    /// The case; `r=mean` and `missing=mean` for means over them.
    pub case: String,
    /// The metric.
    pub metric: &'static str,
    /// The first model's mean over seeds.
    pub a: f64,
    /// The second's.
    pub b: f64,
    /// The first less the second.
    pub difference: f64,
    /// Where the difference lies.
    pub interval: Option<(f64, f64)>,
    /// How often so large a difference comes up by chance, two-sided, by itself.
    pub p: f64,
    /// The same among all that were compared.
    pub p_holm: f64,
    /// Which is really better, if one is: at `p_holm` below the level.
    pub better: Option<Side>,
}

/// One of two models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

/// How many draws are needed for `comparisons` at significance `alpha`: twice as many as the
/// smallest p that Holm's method may ask for takes.
pub fn draws_needed(comparisons: usize, alpha: f64) -> usize {
    (4.0 * comparisons as f64 / alpha).ceil() as usize
}

/// Compares two models by the metrics of the paper: in every case that both have, and in the means
/// over rates and over sets where `means` says so. `wanted` chooses metrics.
pub fn compare(
    drawn: &Drawn,
    a: &Model,
    b: &Model,
    means: bool,
    alpha: f64,
    wanted: impl Fn(&str) -> bool,
) -> Vec<Difference> {
    let mut found = Vec::new();
    for dataset in drawn.datasets() {
        let metrics = sums::ids(dataset).into_iter();
        let metrics: Vec<&'static str> = metrics
            .filter(|id| !id.ends_with("_swapped") && wanted(id))
            .collect();
        let cases = drawn.cases(dataset, a, "");
        let both: Vec<&str> = cases
            .into_iter()
            .filter(|case| drawn.cell(dataset, b, case).is_some())
            .collect();
        for metric in metrics {
            if means {
                for kind in ["r=", "missing="] {
                    // A mean of both is over the same cases, or none.
                    let same = drawn.cases(dataset, a, kind) == drawn.cases(dataset, b, kind);
                    let a = drawn.mean(dataset, a, kind, metric);
                    let b = drawn.mean(dataset, b, kind, metric);
                    if let (true, Some(a), Some(b)) = (same, a, b) {
                        let pairs = ((a.0, &a.1[..]), (b.0, &b.1[..]));
                        found.extend(one(dataset, format!("{kind}mean"), metric, pairs));
                    }
                }
                continue;
            }
            for case in &both {
                let a = drawn.metric(dataset, a, case, metric);
                let b = drawn.metric(dataset, b, case, metric);
                if let (Some(a), Some(b)) = (a, b) {
                    found.extend(one(dataset, (*case).to_owned(), metric, (a, b)));
                }
            }
        }
    }
    holm(&mut found, alpha);
    found
}

/// A metric as observed and as drawn.
type Drawing<'a> = (f32, &'a [f32]);

fn one(
    dataset: Benchmark,
    case: String,
    metric: &'static str,
    (a, b): (Drawing<'_>, Drawing<'_>),
) -> Option<Difference> {
    let (a, a_draws) = (f64::from(a.0), a.1);
    let (b, b_draws) = (f64::from(b.0), b.1);
    if a.is_nan() || b.is_nan() {
        return None;
    }
    let pairs = a_draws.iter().zip(b_draws);
    let draws: Vec<f32> = pairs.map(|(a, b)| a - b).filter(|d| !d.is_nan()).collect();
    // The observed one counts as a draw, so that no p is zero.
    let tail = |beyond: fn(f32) -> bool| {
        let count = draws.iter().filter(|d| beyond(**d)).count();
        (count + 1) as f64 / (draws.len() + 1) as f64
    };
    let p = (2.0 * tail(|d| d <= 0.0).min(tail(|d| d >= 0.0))).min(1.0);
    Some(Difference {
        dataset,
        case,
        metric,
        a,
        b,
        difference: a - b,
        interval: interval(&draws, 0.95),
        p,
        p_holm: 1.0,
        better: None,
    })
}

/// Holm's step-down correction, and what follows from it.
fn holm(found: &mut [Difference], alpha: f64) {
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_by(|&i, &j| found[i].p.total_cmp(&found[j].p));
    let mut highest = 0.0f64;
    for (place, &i) in order.iter().enumerate() {
        let corrected = found[i].p * (order.len() - place) as f64;
        highest = highest.max(corrected.min(1.0));
        let difference = &mut found[i];
        difference.p_holm = highest;
        if highest < alpha {
            let metric = difference.dataset.metric(difference.metric);
            let higher = metric.is_none_or(|metric| metric.higher_is_better);
            difference.better = Some(if (difference.difference > 0.0) == higher {
                Side::A
            } else {
                Side::B
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::bootstrap::Cell;

    fn model(name: &str) -> Model {
        (name.to_owned(), String::new())
    }

    /// Cells whose every metric is drawn evenly from `centre` ± `width`.
    fn drawn(cells: &[(&str, &str, f32, f32)]) -> Drawn {
        let mut drawn = Drawn::default();
        for &(name, case, centre, width) in cells {
            let metrics = sums::ids(Benchmark::Sims).len();
            let draws: Vec<f32> = (0..2001)
                .map(|i| centre + width * ((i * 7919 % 2001) as f32 / 1000.0 - 1.0))
                .collect();
            let key = (Benchmark::Sims, model(name), case.to_owned());
            let cell = Cell {
                seeds: 3,
                observed: vec![centre; metrics],
                draws: vec![draws; metrics],
            };
            drawn.cells.insert(key, cell);
        }
        drawn
    }

    #[test]
    fn a_clear_difference_is_found_and_goes_by_the_metrics_direction() {
        let drawn = drawn(&[("a", "r=0", 0.8, 0.01), ("b", "r=0", 0.7, 0.005)]);
        let found = compare(&drawn, &model("a"), &model("b"), false, 0.05, |_| true);
        assert_eq!(found.len(), 6);
        for difference in &found {
            let better = if difference.metric == "mae" {
                Side::B
            } else {
                Side::A
            };
            assert_eq!(difference.better, Some(better), "{difference:?}");
            assert!(difference.p > 0.0 && difference.p_holm >= difference.p);
        }
    }

    #[test]
    fn what_chance_explains_is_no_difference() {
        let drawn = drawn(&[("a", "r=0", 0.705, 0.1), ("b", "r=0", 0.7, 0.0)]);
        let found = compare(&drawn, &model("a"), &model("b"), false, 0.05, |_| true);
        assert!(found.iter().all(|d| d.better.is_none() && d.p > 0.5));
    }

    #[test]
    fn more_comparisons_ask_for_more() {
        let p = |p: f64| Difference {
            dataset: Benchmark::Mosi,
            case: String::new(),
            metric: "acc7",
            a: 0.0,
            b: 0.0,
            difference: 1.0,
            interval: None,
            p,
            p_holm: 1.0,
            better: None,
        };
        // Worked by hand: 0.01·4, 0.015·3, then the larger of 0.03·2 and what came before.
        let mut found = [p(0.03), p(0.01), p(0.015), p(0.04)];
        holm(&mut found, 0.05);
        let corrected: Vec<f64> = found
            .iter()
            .map(|d| (d.p_holm * 1e6).round() / 1e6)
            .collect();
        assert_eq!(corrected, [0.06, 0.04, 0.045, 0.06]);
        let better: Vec<bool> = found.iter().map(|d| d.better.is_some()).collect();
        assert_eq!(better, [false, true, true, false]);
        assert!(draws_needed(352, 0.05) as f64 > 2.0 * 352.0 / 0.05);
    }

    #[test]
    fn means_are_compared_over_the_same_cases_only() {
        let cells = [
            ("a", "r=0", 0.8, 0.0),
            ("a", "r=0.5", 0.6, 0.0),
            ("b", "r=0", 0.5, 0.0),
        ];
        let one = drawn(&cells);
        assert!(compare(&one, &model("a"), &model("b"), true, 0.05, |_| true).is_empty());
        let mut more = cells.to_vec();
        more.push(("b", "r=0.5", 0.3, 0.0));
        let found = compare(&drawn(&more), &model("a"), &model("b"), true, 0.05, |m| {
            m == "acc2"
        });
        assert_eq!(found.len(), 1);
        assert!((found[0].difference - 0.3).abs() < 1e-6);
        assert_eq!(found[0].case, "r=mean");
    }
}
