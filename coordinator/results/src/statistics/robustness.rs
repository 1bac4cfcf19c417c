//! Robustness as one number: the area under a metric's curve over missing rates, relative to a flat
//! curve.

use super::{bootstrap::BootstrapSamples, interval, summary::area};
use halfheard_shared::{benchmark::Benchmark, case::CaseKind, results::Model};

/// The robustness of a model by one metric.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Robustness {
    /// The area under the curve from `r = 0` to the highest rate, by the trapezoidal rule, over the
    /// area under the constant value at `r = 0`: 1 if nothing is lost, above 1 for an error, which
    /// grows.
    pub share: f64,
    /// The interval of the share.
    pub interval: Option<(f64, f64)>,
}

/// The robustness of a model by a metric; `None` without the case `r=0` or another rate, or if the
/// metric is undefined.
pub fn robustness(
    samples: &BootstrapSamples,
    dataset: Benchmark,
    model: &Model,
    metric: &str,
    level: f64,
) -> Option<Robustness> {
    let mut curve: Vec<(f64, f32, &[f32])> = Vec::new();
    for case in samples.cases_of(dataset, model, CaseKind::Rate) {
        let Some(rate) = case.rate() else { continue };
        let (observed, own) = samples.metric(dataset, model, case, metric)?;
        curve.push((rate.value(), observed, own));
    }
    curve.sort_by(|a, b| a.0.total_cmp(&b.0));
    let rates: Vec<f64> = curve.iter().map(|point| point.0).collect();
    let values: Vec<f64> = curve.iter().map(|point| f64::from(point.1)).collect();
    let share = share(&rates, &values)?;
    let count = curve.iter().map(|point| point.2.len()).min().unwrap_or(0);
    let shares: Vec<f32> = (0..count)
        .map(|resample| {
            let values: Vec<f64> = curve
                .iter()
                .map(|point| f64::from(point.2[resample]))
                .collect();
            self::share(&rates, &values).map_or(f32::NAN, |share| share as f32)
        })
        .collect();
    Some(Robustness {
        share,
        interval: interval(&shares, level),
    })
}

/// The normalized area under a curve whose first rate must be 0.
fn share(rates: &[f64], values: &[f64]) -> Option<f64> {
    let (&first, &last) = (rates.first()?, rates.last()?);
    let start = *values.first()?;
    if first != 0.0 || last <= 0.0 || start == 0.0 || values.iter().any(|v| v.is_nan()) {
        return None;
    }
    let points: Vec<(f64, f64)> = rates.iter().copied().zip(values.iter().copied()).collect();
    Some(area(&points) / (last * start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_is_one_for_a_flat_curve_and_a_half_for_a_straight_fall_to_zero() {
        let rates = [0.0, 0.3, 0.9];
        assert_eq!(share(&rates, &[0.8, 0.8, 0.8]), Some(1.0));
        let fallen = share(&[0.0, 0.5, 1.0], &[0.8, 0.4, 0.0]).unwrap();
        assert!((fallen - 0.5).abs() < 1e-12);
        assert_eq!(share(&[0.1, 0.9], &[0.8, 0.8]), None);
        assert_eq!(share(&[0.0], &[0.8]), None);
        assert_eq!(share(&rates, &[0.8, f64::NAN, 0.1]), None);
    }
}
