//! Where one of two models is significantly better: paired bootstrap, corrected for multiple
//! comparisons (Holm 1979).

use super::{LEVEL, bootstrap::BootstrapSamples, interval, sums};
use halfheard_shared::{
    benchmark::Benchmark,
    case::{CaseKind, CaseOrMean},
    results::Model,
};

/// The difference of two models in one metric of one cell.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Difference {
    /// The dataset.
    pub dataset: Benchmark,
    /// The case, or all cases of a kind.
    pub case: CaseOrMean,
    /// The metric's id.
    pub metric: &'static str,
    /// The first model's mean over seeds.
    pub a: f64,
    /// The second's.
    pub b: f64,
    /// The first minus the second.
    pub difference: f64,
    /// The interval of the difference.
    pub interval: Option<(f64, f64)>,
    /// The two-sided p-value of this comparison alone.
    pub p: f64,
    /// The p-value corrected for all comparisons.
    pub p_holm: f64,
    /// The better model, if `p_holm` is below the significance level.
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

/// The number of resamples for `comparisons` at significance level `alpha`: twice as many as the
/// smallest p-value that Holm's method may need.
pub fn resamples_needed(comparisons: usize, alpha: f64) -> usize {
    (4.0 * comparisons as f64 / alpha).ceil() as usize
}

/// What a comparison is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// Every case that both models have.
    Cases,
    /// The means over missing rates and over sets of missing modalities.
    Means,
}

/// Compares two models by the metrics of the paper that `wanted` selects.
pub fn compare(
    samples: &BootstrapSamples,
    a: &Model,
    b: &Model,
    compared: Compared,
    alpha: f64,
    wanted: impl Fn(&str) -> bool,
) -> Vec<Difference> {
    let mut found = Vec::new();
    for dataset in samples.datasets() {
        let metrics = sums::ids(dataset).into_iter();
        let metrics: Vec<&'static str> = metrics
            .filter(|id| !id.ends_with("_swapped") && wanted(id))
            .collect();
        let mut both = samples.cases(dataset, a);
        both.retain(|case| samples.cell(dataset, b, *case).is_some());
        for metric in metrics {
            if compared == Compared::Means {
                for kind in [CaseKind::Rate, CaseKind::Missing] {
                    // Means are comparable over the same cases only.
                    let cases = |model| samples.cases_of(dataset, model, kind);
                    let same = cases(a) == cases(b);
                    let a = samples.mean(dataset, a, kind, metric);
                    let b = samples.mean(dataset, b, kind, metric);
                    if let (true, Some(a), Some(b)) = (same, a, b) {
                        let pairs = ((a.0, &a.1[..]), (b.0, &b.1[..]));
                        found.extend(one(dataset, CaseOrMean::Mean(kind), metric, pairs));
                    }
                }
                continue;
            }
            for &case in &both {
                let a = samples.metric(dataset, a, case, metric);
                let b = samples.metric(dataset, b, case, metric);
                if let (Some(a), Some(b)) = (a, b) {
                    found.extend(one(dataset, case.into(), metric, (a, b)));
                }
            }
        }
    }
    holm(&mut found, alpha);
    found
}

/// A metric as observed and as resampled.
type Sampled<'a> = (f32, &'a [f32]);

fn one(
    dataset: Benchmark,
    case: CaseOrMean,
    metric: &'static str,
    (a, b): (Sampled<'_>, Sampled<'_>),
) -> Option<Difference> {
    let (a, a_samples) = (f64::from(a.0), a.1);
    let (b, b_samples) = (f64::from(b.0), b.1);
    if a.is_nan() || b.is_nan() {
        return None;
    }
    let pairs = a_samples.iter().zip(b_samples);
    let differences: Vec<f32> = pairs.map(|(a, b)| a - b).filter(|d| !d.is_nan()).collect();
    // The observed difference counts as a resample: no p-value is zero.
    let tail = |beyond: fn(f32) -> bool| {
        let count = differences.iter().filter(|d| beyond(**d)).count();
        (count + 1) as f64 / (differences.len() + 1) as f64
    };
    let p = (2.0 * tail(|d| d <= 0.0).min(tail(|d| d >= 0.0))).min(1.0);
    Some(Difference {
        dataset,
        case,
        metric,
        a,
        b,
        difference: a - b,
        interval: interval(&differences, LEVEL),
        p,
        p_holm: 1.0,
        better: None,
    })
}

/// Holm's step-down correction, and which model is better by it.
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
    use crate::statistics::bootstrap::SampledCell;

    fn model(name: &str) -> Model {
        Model::new(name, "")
    }

    /// Cells whose every metric is spread evenly over `center` ± `width`.
    fn samples(cells: &[(&str, &str, f32, f32)]) -> BootstrapSamples {
        let mut resampled = BootstrapSamples::default();
        for &(name, case, center, width) in cells {
            let metrics = sums::ids(Benchmark::Sims).len();
            let samples: Vec<f32> = (0..2001)
                .map(|i| center + width * ((i * 7919 % 2001) as f32 / 1000.0 - 1.0))
                .collect();
            let key = (Benchmark::Sims, model(name), case.parse().unwrap());
            let cell = SampledCell {
                seeds: 3,
                observed: vec![center; metrics],
                samples: vec![samples; metrics],
            };
            resampled.cells.insert(key, cell);
        }
        resampled
    }

    #[test]
    fn clear_difference_is_found_in_the_direction_of_the_metric() {
        let samples = samples(&[("a", "r=0", 0.8, 0.01), ("b", "r=0", 0.7, 0.005)]);
        let found = compare(
            &samples,
            &model("a"),
            &model("b"),
            Compared::Cases,
            0.05,
            |_| true,
        );
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
    fn difference_within_chance_is_not_significant() {
        let samples = samples(&[("a", "r=0", 0.705, 0.1), ("b", "r=0", 0.7, 0.0)]);
        let found = compare(
            &samples,
            &model("a"),
            &model("b"),
            Compared::Cases,
            0.05,
            |_| true,
        );
        assert!(found.iter().all(|d| d.better.is_none() && d.p > 0.5));
    }

    #[test]
    fn more_comparisons_need_smaller_p_values_and_more_resamples() {
        let p = |p: f64| Difference {
            dataset: Benchmark::Mosi,
            case: CaseOrMean::Mean(CaseKind::Rate),
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
        assert!(resamples_needed(352, 0.05) as f64 > 2.0 * 352.0 / 0.05);
    }

    #[test]
    fn means_are_compared_over_equal_cases_only() {
        let cells = [
            ("a", "r=0", 0.8, 0.0),
            ("a", "r=0.5", 0.6, 0.0),
            ("b", "r=0", 0.5, 0.0),
        ];
        let one = samples(&cells);
        assert!(
            compare(
                &one,
                &model("a"),
                &model("b"),
                Compared::Means,
                0.05,
                |_| true
            )
            .is_empty()
        );
        let mut more = cells.to_vec();
        more.push(("b", "r=0.5", 0.3, 0.0));
        let found = compare(
            &samples(&more),
            &model("a"),
            &model("b"),
            Compared::Means,
            0.05,
            |m| m == "acc2",
        );
        assert_eq!(found.len(), 1);
        assert!((found[0].difference - 0.3).abs() < 1e-6);
        assert_eq!(found[0].case.to_string(), "r=mean");
    }
}
