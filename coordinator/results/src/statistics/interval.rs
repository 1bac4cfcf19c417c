//! Percentile intervals.

/// The level of all printed intervals.
pub const LEVEL: f64 = 0.95;

/// The interval between the `(1 - level) / 2` and the `(1 + level) / 2` quantile of `samples`, without
/// undefined ones (NaN); `None` if more than a twentieth is undefined.
pub fn interval(samples: &[f32], level: f64) -> Option<(f64, f64)> {
    let mut sorted: Vec<f32> = samples.iter().copied().filter(|v| !v.is_nan()).collect();
    if sorted.is_empty() || sorted.len() * 20 < samples.len() * 19 {
        return None;
    }
    sorted.sort_unstable_by(f32::total_cmp);
    // Linear between the two nearest samples.
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
    fn interval_contains_its_share_of_the_samples() {
        let samples: Vec<f32> = (0..=1000).rev().map(|i| i as f32).collect();
        let (low, high) = interval(&samples, 0.95).unwrap();
        assert!((low - 25.0).abs() < 1e-6 && (high - 975.0).abs() < 1e-6);
        assert_eq!(interval(&[], 0.95), None);
        let mut some = samples.clone();
        some[..30].fill(f32::NAN);
        assert!(interval(&some, 0.95).is_some());
        some[..100].fill(f32::NAN);
        assert_eq!(interval(&some, 0.95), None);
    }
}
