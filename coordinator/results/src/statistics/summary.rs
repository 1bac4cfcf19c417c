//! The field's summaries of a curve over missing rates.

/// A metric's curve over missing rates in one number, as robustness papers of the field print it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Summary {
    /// AUILC, the area under the indicators' line chart, by the trapezoidal rule. It is not divided by the
    /// range of rates: two areas compare only over the same `from` and `to`.
    pub auilc: f64,
    /// The mean height of the curve: the area divided by the range of rates.
    pub mean: f64,
    /// The value at the lowest rate minus the area, OpenVNA's effective robustness: of a curve from 0 to 1,
    /// what is lost in the mean.
    pub loss: f64,
    /// The lowest rate.
    pub from: f64,
    /// The highest rate.
    pub to: f64,
}

/// Summarizes a curve of points (rate, value) in any order.
///
/// TFR-Net defines AUILC for any sequence of rates; NIAT (`calculate_AUILC`) and EMT-DLFR (`run_once.py`)
/// compute the same for steps of 0.1, over the rates 0 to 1 on MOSI and MOSEI and, in EMT-DLFR, 0 to 0.5 on
/// SIMS. OpenVNA (`AIRrobustness`) calls it absolute robustness.
///
/// `None` for fewer than two rates, a rate that is there twice, or a value that is not finite.
pub fn summary(points: &[(f64, f64)]) -> Option<Summary> {
    let mut points = points.to_vec();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let finite = |&(rate, value): &(f64, f64)| rate.is_finite() && value.is_finite();
    let distinct = points.windows(2).all(|pair| pair[0].0 < pair[1].0);
    let (&(from, first), &(to, _)) = (points.first()?, points.last()?);
    if points.len() < 2 || !distinct || !points.iter().all(finite) {
        return None;
    }
    let auilc = area(&points);
    Some(Summary {
        auilc,
        mean: auilc / (to - from),
        loss: first - auilc,
        from,
        to,
    })
}

/// The area under a curve whose points are in the order of their rates.
pub(super) fn area(points: &[(f64, f64)]) -> f64 {
    let trapezoid = |pair: &[(f64, f64)]| {
        let [(from, start), (to, end)] = [pair[0], pair[1]];
        (to - from) * f64::midpoint(start, end)
    };
    points.windows(2).map(trapezoid).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What NIAT's and EMT-DLFR's codes compute for eleven accuracies at the rates 0 to 1.
    #[test]
    fn auilc_is_that_of_the_papers_codes() {
        let accuracies = [
            86.0, 84.5, 82.0, 79.3, 76.1, 72.4, 69.0, 65.2, 61.7, 58.0, 42.2,
        ];
        let theirs: f64 = accuracies
            .windows(2)
            .map(|pair| (pair[0] + pair[1]) * 0.1 / 2.0)
            .sum();
        let tenths = (0..11u8).map(|tenth| f64::from(tenth) / 10.0);
        let mut points: Vec<(f64, f64)> = tenths.zip(accuracies).collect();
        points.reverse();
        let summary = summary(&points).unwrap();
        assert!((summary.auilc - theirs).abs() < 1e-9, "{summary:?}");
        assert!((summary.auilc - 71.23).abs() < 1e-9, "{summary:?}");
        assert_eq!((summary.from, summary.to), (0.0, 1.0));
        assert!((summary.loss - 14.77).abs() < 1e-9, "{summary:?}");
        assert!((summary.mean - summary.auilc).abs() < 1e-9);
    }

    #[test]
    fn area_grows_with_the_range_and_the_mean_does_not() {
        let of = |to: f64| summary(&[(0.0, 0.8), (to, 0.8)]).unwrap();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        close(of(0.9).auilc, 0.72);
        close(of(0.5).auilc, 0.4);
        close(of(0.9).mean, 0.8);
        close(of(0.5).mean, 0.8);
    }

    #[test]
    fn what_is_no_curve_has_no_summary() {
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[(0.0, 1.0)]), None);
        assert_eq!(summary(&[(0.0, 1.0), (0.0, 2.0)]), None);
        assert_eq!(summary(&[(0.0, 1.0), (0.5, f64::NAN)]), None);
        assert_eq!(summary(&[(0.0, 1.0), (f64::INFINITY, 0.5)]), None);
    }
}
