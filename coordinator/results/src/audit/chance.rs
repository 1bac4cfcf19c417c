//! How likely it is by chance that numbers are equal or near.

use super::cell::median;

/// The number of seeds behind a printed mean.
pub(super) const SEEDS: f64 = 3.0;
/// A coincidence is a finding if at most so many of its kind are expected by chance among all the pairs
/// that were compared.
pub(super) const RARE: f64 = 0.01;
/// The correlation between any two metrics of a model that is assumed, cautiously high, since
/// dependent metrics agree together.
const CORRELATION: f64 = 0.95;

/// The standard deviation, robustly: 1.4826 times the median distance from the median. `None` for fewer
/// than four values.
pub(super) fn spread(values: &[f64]) -> Option<f64> {
    if values.len() < 4 {
        return None;
    }
    let middle = median(values)?;
    let distances: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    Some(1.4826 * median(&distances)?)
}

/// The probability that two values of standard deviation `sd` are the same when rounded to `unit`: at
/// most the unit times the largest density of their difference, 1 / (2 √π sd) of normal values.
pub(super) fn equal(unit: f64, sd: f64) -> f64 {
    let likely = unit / (2.0 * std::f64::consts::PI.sqrt() * sd);
    if likely.is_finite() {
        likely.min(1.0)
    } else {
        1.0
    }
}

/// The probability that at least `count` of independent events happen.
pub(super) fn at_least(count: usize, probabilities: &[f64]) -> f64 {
    // By number of events, the last entry for `count` and more.
    let mut happened = vec![0.0; count + 1];
    happened[0] = 1.0;
    for &p in probabilities {
        for i in (0..=count).rev() {
            let more = if i > 0 { happened[i - 1] * p } else { 0.0 };
            let stays = if i == count { 1.0 } else { 1.0 - p };
            happened[i] = happened[i] * stays + more;
        }
    }
    happened[count]
}

/// An upper bound of the probability that two equally good models differ by at most `limit` in each of
/// `metrics` metrics, in standard deviations that were estimated with `freedom` degrees of freedom.
///
/// Standardized differences have a multivariate t distribution, whose density is largest at zero:
/// Γ((ν+d)/2) / (Γ(ν/2) (νπ)^(d/2) √det R) in d dimensions, with all correlations equal in R. The bound is
/// the volume within the limits times that density.
pub(super) fn all_within(limit: f64, metrics: u32, freedom: u32) -> f64 {
    let (d, nu) = (f64::from(metrics), f64::from(freedom));
    let determinant = (1.0 - CORRELATION).powf(d - 1.0) * (1.0 + (d - 1.0) * CORRELATION);
    let density = gamma_of_half(freedom + metrics)
        / (gamma_of_half(freedom) * (nu * std::f64::consts::PI).powf(d / 2.0) * determinant.sqrt());
    ((2.0 * limit).powf(d) * density).min(1.0)
}

/// Γ(n/2) for n ≥ 1.
fn gamma_of_half(n: u32) -> f64 {
    match n {
        0 | 1 => std::f64::consts::PI.sqrt(),
        2 => 1.0,
        _ => (f64::from(n) / 2.0 - 1.0) * gamma_of_half(n - 2),
    }
}

/// An expected number for people: `4.7`, `0.004`, `2e-7`.
pub(super) fn text(expected: f64) -> String {
    if expected >= 1.0 {
        format!("{expected:.1}")
    } else if expected >= 0.001 {
        format!("{expected:.3}")
    } else {
        format!("{expected:.0e}")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Normal random numbers, the same in every run.
    pub(crate) struct Normal(rand_mt::Mt64);

    impl Normal {
        pub(crate) fn new(seed: u64) -> Self {
            Self(rand_mt::Mt64::new(seed))
        }

        pub(crate) fn uniform(&mut self) -> f64 {
            (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
        }

        pub(crate) fn next(&mut self) -> f64 {
            let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
            radius * (2.0 * std::f64::consts::PI * self.uniform()).cos()
        }
    }

    #[test]
    fn tail_of_independent_events_is_exact() {
        assert!((at_least(0, &[0.3]) - 1.0).abs() < 1e-12);
        assert!((at_least(1, &[0.5, 0.5]) - 0.75).abs() < 1e-12);
        assert!((at_least(2, &[0.5, 0.5, 0.5]) - 0.5).abs() < 1e-12);
        assert!(at_least(2, &[0.5]).abs() < 1e-12);
    }

    #[test]
    fn gamma_matches_known_values() {
        let root = std::f64::consts::PI.sqrt();
        for (n, known) in [(1, root), (2, 1.0), (3, root / 2.0), (8, 6.0), (10, 24.0)] {
            assert!((gamma_of_half(n) - known).abs() < 1e-12, "{n}");
        }
    }

    /// The share of equal pairs of rounded normal values is below the bound, and near it.
    #[test]
    fn probability_of_equal_values_is_a_bound() {
        let mut normal = Normal::new(1);
        let mut rounded = || (normal.next() * 10.0).round();
        let pairs = 20_000;
        let equal_pairs = (0..pairs).filter(|_| rounded() == rounded()).count();
        let share = equal_pairs as f64 / f64::from(pairs);
        let bound = equal(0.1, 1.0);
        assert!(
            share < bound * 1.1 && share > bound * 0.9,
            "{share} {bound}"
        );
        assert!((equal(0.1, 0.0) - 1.0).abs() < f64::EPSILON);
    }

    /// Differences of metrics with a lower correlation than assumed, in spreads estimated from three
    /// seeds, are within a limit less often than the bound says.
    #[test]
    fn probability_of_near_rows_is_a_bound() {
        let mut normal = Normal::new(2);
        for correlation in [0.0_f64, 0.6, 0.9] {
            let bound = all_within(0.15, 3, 2);
            let tries = 40_000;
            let near = (0..tries)
                .filter(|_| {
                    let shared = normal.next();
                    let s = ((normal.next().powi(2) + normal.next().powi(2)) / 2.0).sqrt();
                    (0..3).all(|_| {
                        let own = normal.next();
                        let z = correlation.sqrt() * shared + (1.0 - correlation).sqrt() * own;
                        (z / s).abs() <= 0.15
                    })
                })
                .count();
            let share = near as f64 / f64::from(tries);
            assert!(share <= bound, "{correlation}: {share} {bound}");
        }
        assert!((all_within(5.0, 6, 2) - 1.0).abs() < f64::EPSILON);
    }
}
