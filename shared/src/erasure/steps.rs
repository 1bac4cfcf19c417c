//! Steps that are erased each on its own.

use crate::numpy_rng::RandomState;

/// Which steps are kept: 1 where the drawn number exceeds the sample's rate and `present` is 1.
/// `present` is `[samples, steps]`, `rates` `[samples]`.
///
/// Panics when the sizes do not fit.
pub fn kept(present: &[u8], rates: &[f64], seed: u32) -> Vec<u8> {
    if rates.is_empty() {
        return Vec::new();
    }
    assert_eq!(present.len() % rates.len(), 0, "one row a sample");
    let steps = present.len() / rates.len();
    let mut rng = RandomState::new(seed);
    present
        .iter()
        .enumerate()
        .map(|(i, &present)| u8::from(rng.uniform() > rates[i / steps]) * present)
        .collect()
}

/// Which steps are not padding, `[samples, steps]`, from the samples' lengths.
pub fn present(lengths: &[i64], steps: usize) -> Vec<u8> {
    lengths
        .iter()
        .flat_map(|&length| (0..steps).map(move |step| u8::from((step as i64) < length)))
        .collect()
}

/// The steps of a sample before the first padding.
pub(super) fn length(present: &[u8]) -> usize {
    let padding = present.iter().position(|&p| p == 0);
    padding.unwrap_or(present.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_shapes_share_masks_and_seeds_differ() {
        let present = present(&[20; 8], 20);
        let once = kept(&present, &[0.5; 8], 1111);
        assert_eq!(once, kept(&present, &[0.5; 8], 1111));
        assert_ne!(once, kept(&present, &[0.5; 8], 1112));
    }

    proptest! {
        #[test]
        fn higher_rate_erases_more_and_padding_is_never_kept(
            lengths in prop::collection::vec(0i64..9, 1..20),
            low in 0.0..1.0f64,
            high in 0.0..1.0f64,
            seed: u32,
        ) {
            let (low, high) = (low.min(high), low.max(high));
            let present = present(&lengths, 8);
            let kept_at = |rate| kept(&present, &vec![rate; lengths.len()], seed);
            let (more, less) = (kept_at(low), kept_at(high));
            for ((&present, &more), &less) in present.iter().zip(&more).zip(&less) {
                prop_assert!(less <= more && more <= present);
            }
            prop_assert!(kept_at(1.0).iter().all(|&k| k == 0));
        }
    }
}
