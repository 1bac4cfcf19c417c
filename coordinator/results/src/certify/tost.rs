//! Two one-sided tests of equivalence (Schuirmann 1987) for means with unequal variances (Welch 1947).

use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// The level of each test.
pub const LEVEL: f64 = 0.05;

/// A mean, with what is known of its error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// The mean.
    pub value: f64,
    /// The variance of the mean, not of a single value.
    pub variance: f64,
    /// The degrees of freedom of the variance.
    pub freedom: f64,
}

impl Mean {
    /// A mean over `count` independent values of standard deviation `std`; `None` with fewer than two,
    /// which have no deviation.
    pub fn of(value: f64, std: f64, count: usize) -> Option<Self> {
        (count >= 2).then(|| Self {
            value,
            variance: std * std / count as f64,
            freedom: count as f64 - 1.0,
        })
    }
}

/// The outcome of the tests.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Tost {
    /// The first mean minus the second.
    pub difference: f64,
    /// The standard error of the difference.
    pub standard_error: f64,
    /// The degrees of freedom by Welch and Satterthwaite; `None` where both variances are 0.
    pub freedom: Option<f64>,
    /// The ends of the 90 % interval of the difference: it lies within the bounds exactly when the
    /// means are equivalent at [`LEVEL`].
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The larger p-value of the two one-sided tests, of "the difference reaches the bound".
    pub p_equivalence: f64,
    /// The two-sided p-value of "the means are equal".
    pub p_difference: f64,
}

/// What the tests decide at [`LEVEL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The difference is within the bounds, whether or not it is zero.
    Equivalent,
    /// The difference is not zero, and not shown to be within the bounds.
    Different,
    /// Neither is shown.
    Undecided,
}

impl Tost {
    /// Decides by both tests (Lakens 2017): equivalence goes first, since a difference may be certain and
    /// too small to matter.
    pub fn decision(&self) -> Decision {
        if self.p_equivalence < LEVEL {
            Decision::Equivalent
        } else if self.p_difference < LEVEL {
            Decision::Different
        } else {
            Decision::Undecided
        }
    }
}

/// Tests whether the means differ by less than `bound`; `None` unless every number is finite, no
/// variance is negative and all degrees of freedom are positive.
///
/// Means without any variance have an exact difference: p-values are then 0 or 1.
pub fn tost(a: Mean, b: Mean, bound: f64) -> Option<Tost> {
    let difference = a.value - b.value;
    let variance = a.variance + b.variance;
    let valid = |mean: &Mean| mean.variance >= 0.0 && mean.freedom > 0.0;
    if !(difference.is_finite() && variance.is_finite() && valid(&a) && valid(&b)) {
        return None;
    }
    let standard_error = variance.sqrt();
    if standard_error == 0.0 {
        let p = |rejected: bool| if rejected { 0.0 } else { 1.0 };
        return Some(Tost {
            difference,
            standard_error,
            freedom: None,
            low: difference,
            high: difference,
            p_equivalence: p(difference.abs() < bound),
            p_difference: p(difference != 0.0),
        });
    }
    let share = |mean: &Mean| (mean.variance / variance).powi(2) / mean.freedom;
    let freedom = 1.0 / (share(&a) + share(&b));
    let t = StudentsT::new(0.0, 1.0, freedom).ok()?;
    let beyond = |distance: f64| t.sf(distance / standard_error);
    let margin = t.inverse_cdf(1.0 - LEVEL) * standard_error;
    Some(Tost {
        difference,
        standard_error,
        freedom: Some(freedom),
        low: difference - margin,
        high: difference + margin,
        p_equivalence: beyond(bound - difference.abs()),
        p_difference: 2.0 * beyond(difference.abs()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(ours: f64, theirs: f64) {
        assert!((ours - theirs).abs() < 1e-9, "{ours} is not {theirs}");
    }

    /// Two samples of five and three values; figures by statsmodels 0.15 (`ttost_ind`, unequal variances)
    /// and scipy 1.17 (`ttest_ind`, `confidence_interval`).
    #[test]
    fn figures_agree_with_statsmodels_and_scipy() {
        let a = Mean::of(71.84, 0.826_438_140_455_776, 5).unwrap();
        let b = Mean::of(71.266_666_666_666_67, 1.069_267_662_156_367, 3).unwrap();
        let two = tost(a, b, 2.0).unwrap();
        close(two.freedom.unwrap(), 3.467_882_887_496_311);
        close(two.p_equivalence, 0.064_602_084_169_208_54);
        close(two.p_difference, 0.476_518_665_894_141_94);
        close(two.low, -1.030_765_516_929_083);
        close(two.high, 2.177_432_183_595_758);
        assert_eq!(two.decision(), Decision::Undecided);
        let three = tost(a, b, 3.0).unwrap();
        close(three.p_equivalence, 0.017_404_537_273_525_273);
        assert_eq!(three.decision(), Decision::Equivalent);
    }

    /// Probabilities and quantiles of Student's distribution by scipy 1.17, up to the degrees of freedom of
    /// a hundred seeds.
    #[test]
    fn distribution_agrees_with_scipy() {
        for (freedom, x, p, quantile) in [
            (1.0, 0.5, 0.647_583_617_650_433_3, 6.313_751_514_675_037),
            (
                3.31,
                -1.7,
                0.089_534_180_555_465_03,
                2.266_171_915_179_419_3,
            ),
            (8.88, 1.83, 0.949_528_093_360_936, 1.835_937_268_577_775_7),
            (
                20.0,
                2.086,
                0.975_001_822_771_279_9,
                1.724_718_242_920_786_7,
            ),
            (169.3, 1.65, 0.949_601_502_632_381, 1.653_903_787_670_743_2),
            (119.0, 1.96, 0.973_833_393_483_763_5, 1.657_759_284_942_833),
        ] {
            let t = StudentsT::new(0.0, 1.0, freedom).unwrap();
            close(t.cdf(x), p);
            close(t.inverse_cdf(1.0 - LEVEL), quantile);
        }
    }

    #[test]
    fn interval_lies_within_the_bounds_exactly_when_equivalent() {
        let theirs = Mean::of(0.0, 1.0, 3).unwrap();
        let mut seen = [false; 2];
        for step in 0..400 {
            let ours = Mean::of(f64::from(step) * 0.01 - 2.0, 0.8, 6).unwrap();
            let found = tost(ours, theirs, 2.0).unwrap();
            let within = -2.0 < found.low && found.high < 2.0;
            assert_eq!(
                within,
                found.decision() == Decision::Equivalent,
                "{found:?}"
            );
            seen[usize::from(within)] = true;
        }
        assert_eq!(seen, [true, true]);
    }

    #[test]
    fn equal_values_divide_by_no_zero() {
        let exact = |value| Mean::of(value, 0.0, 3).unwrap();
        let decision = |a, b, bound| tost(a, b, bound).map(|found| found.decision());
        assert_eq!(
            decision(exact(1.0), exact(1.0), 0.1),
            Some(Decision::Equivalent)
        );
        assert_eq!(
            decision(exact(1.0), exact(1.05), 0.1),
            Some(Decision::Equivalent)
        );
        assert_eq!(
            decision(exact(1.0), exact(2.0), 0.1),
            Some(Decision::Different)
        );
        // No bound at all: equal means are not within it.
        assert_eq!(
            decision(exact(1.0), exact(1.0), 0.0),
            Some(Decision::Undecided)
        );
        // One side without deviation has the other's error.
        let spread = Mean::of(1.0, 1.0, 3).unwrap();
        let one = tost(exact(1.0), spread, 2.0).unwrap();
        close(one.freedom.unwrap(), 2.0);
        close(one.standard_error, 1.0 / 3f64.sqrt());
        assert_eq!(one.decision(), Decision::Equivalent);
        assert_eq!(Mean::of(1.0, 0.0, 1), None);
        for bad in [f64::NAN, f64::INFINITY] {
            assert_eq!(tost(exact(bad), spread, 1.0), None);
        }
    }
}
