//! What can be said beyond means: intervals, comparisons, robustness, ranks. All from the stored
//! predictions; nothing is computed by a model again.
//!
//! [`sums`] makes metrics functions of sums over samples, [`bootstrap`] draws samples and seeds
//! again and again, [`compare`] and [`robustness`] read what was drawn, [`ranks`] needs means only.

pub mod bootstrap;
pub mod compare;
pub mod ranks;
pub mod robustness;
pub mod sums;

/// What lies between the `(1 - level) / 2` and the `(1 + level) / 2` quantile of `draws`, of which
/// undefined ones (NaN) are left out; `None` where more than a twentieth is undefined.
pub fn interval(draws: &[f32], level: f64) -> Option<(f64, f64)> {
    let mut sorted: Vec<f32> = draws.iter().copied().filter(|v| !v.is_nan()).collect();
    if sorted.is_empty() || sorted.len() * 20 < draws.len() * 19 {
        return None;
    }
    sorted.sort_unstable_by(f32::total_cmp);
    // Linear between the two nearest draws.
    let quantile = |q: f64| {
        let place = q * (sorted.len() - 1) as f64;
        let below = place.floor() as usize;
        let above = (below + 1).min(sorted.len() - 1);
        let share = place - place.floor();
        f64::from(sorted[below]) * (1.0 - share) + f64::from(sorted[above]) * share
    };
    Some((
        quantile((1.0 - level) / 2.0),
        quantile(f64::midpoint(1.0, level)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_its_share_of_the_draws() {
        let draws: Vec<f32> = (0..=1000).rev().map(|i| i as f32).collect();
        let (low, high) = interval(&draws, 0.95).unwrap();
        assert!((low - 25.0).abs() < 1e-6 && (high - 975.0).abs() < 1e-6);
        assert_eq!(interval(&[], 0.95), None);
        let mut some = draws.clone();
        some[..30].fill(f32::NAN);
        assert!(interval(&some, 0.95).is_some());
        some[..100].fill(f32::NAN);
        assert_eq!(interval(&some, 0.95), None);
    }
}
