//! Erasure of neighboring steps: one block, or bursts.

use super::steps::length;
use crate::numpy_rng::RandomState;

/// The mean length of a burst, in steps, up to the rate from which steps erased independently are in
/// longer ones.
pub const MEAN_BURST: f64 = 5.0;

/// Rows of a mask of `samples`, each `[steps]`. None if there are no steps.
///
/// Panics when the sizes do not fit.
fn rows(mask: &mut [u8], samples: usize) -> std::slice::ChunksMut<'_, u8> {
    assert_eq!(mask.len() % samples.max(1), 0, "one row a sample");
    let steps = mask.len() / samples.max(1);
    mask.chunks_mut(steps.max(1))
}

/// Erases one contiguous block of each sample. `present` is `[samples, steps]`, 1 where a step is not
/// padding.
///
/// As NIAT draws it for aligned modalities (`Columbine21/NIAT`, `static_block_drop`, under the first of
/// its seeds): the block has the rate's share of the steps between the first and the last, rounded half
/// to even, and lies anywhere between them, which are always kept. The number of draws depends on the
/// lengths of the samples before, so another rate moves the blocks.
///
/// Panics when the sizes do not fit.
pub fn block(present: &[u8], samples: usize, rate: f64, seed: u32) -> Vec<u8> {
    let mut kept = present.to_vec();
    let mut rng = RandomState::new(seed);
    for row in rows(&mut kept, samples) {
        let Some(inner) = length(row).checked_sub(2) else {
            continue;
        };
        let missing = (inner as f64 * rate).round_ties_even() as usize;
        // Sequences have far fewer than 2^32 steps.
        let start = rng.integer(1, (inner - missing + 2) as u32) as usize;
        row[start..start + missing].fill(0);
    }
    kept
}

/// Erases bursts of steps. `present` is `[samples, steps]`, 1 where a step is not padding.
///
/// A Markov chain of two states (Gilbert 1960; Elliott 1963, with nothing and everything lost in them)
/// along the steps of each sample, begun in its stationary distribution: every step is erased with
/// probability `rate`, and bursts have [`MEAN_BURST`] steps in the mean. From the rate at which
/// independent steps are in such bursts anyway (0.8), it is independent erasure, the same as `r`.
///
/// One uniform number is drawn for each step, padding included, as for independent erasure. So what a
/// sample loses depends on its place alone, and a higher rate erases the same and more.
///
/// Panics when the sizes do not fit.
pub fn bursts(present: &[u8], samples: usize, rate: f64, seed: u32) -> Vec<u8> {
    let independent = 1.0 - 1.0 / MEAN_BURST;
    let stay = rate.max(independent);
    let enter = if rate >= independent {
        rate
    } else {
        rate / (MEAN_BURST * (1.0 - rate))
    };
    let mut kept = present.to_vec();
    let mut rng = RandomState::new(seed);
    for row in rows(&mut kept, samples) {
        let mut threshold = rate;
        for step in row {
            let erased = rng.uniform() <= threshold;
            threshold = if erased { stay } else { enter };
            if erased {
                *step = 0;
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::erasure::steps::{kept, present};
    use proptest::prelude::*;

    const STEPS: usize = 24;

    fn lengths() -> impl Strategy<Value = Vec<i64>> {
        prop::collection::vec(0..=STEPS as i64, 1..20)
    }

    #[test]
    fn no_samples_and_no_steps_are_fine() {
        for erase in [block, bursts] {
            assert!(erase(&[], 0, 0.5, 1).is_empty());
            assert!(erase(&[], 3, 0.5, 1).is_empty());
        }
    }

    #[test]
    fn blocks_are_at_every_place() {
        let mask = present(&[7; 4000], 7);
        let kept = block(&mask, 4000, 0.4, 1111);
        let mut starts = [0; 7];
        for row in kept.chunks(7) {
            starts[row.iter().position(|&k| k == 0).unwrap()] += 1;
        }
        assert_eq!((starts[0], starts[5], starts[6]), (0, 0, 0));
        let fair = starts[1..5].iter().all(|n| (900..1100).contains(n));
        assert!(fair, "{starts:?}");
    }

    /// Rate and burst length of the chain, over enough steps for three digits.
    #[test]
    fn bursts_have_their_rate_and_length() {
        let (samples, steps) = (200, 5000);
        let mask = vec![1; samples * steps];
        for rate in [0.1, 0.3, 0.5, 0.7, 0.9] {
            let kept = bursts(&mask, samples, rate, 1111);
            let erased = kept.iter().filter(|&&k| k == 0).count() as f64;
            assert!((erased / mask.len() as f64 - rate).abs() < 0.01, "{rate}");
            let begins = |row: &[u8]| row.windows(2).filter(|w| w == &[1, 0]).count();
            let count: usize = kept.chunks(steps).map(begins).sum();
            let expected = MEAN_BURST.max(1.0 / (1.0 - rate));
            let mean = erased / count as f64;
            assert!((mean / expected - 1.0).abs() < 0.03, "{rate}: {mean}");
        }
    }

    #[test]
    fn bursts_at_high_rates_are_independent_erasure() {
        let mask = present(&[20; 30], 20);
        for rate in [0.8, 0.9, 1.0] {
            assert_eq!(
                bursts(&mask, 30, rate, 7),
                kept(&mask, &[rate; 30], 7),
                "{rate}"
            );
        }
    }

    proptest! {
        #[test]
        fn block_is_contiguous_of_its_length_and_inside(
            lengths in lengths(), thousandths in 0u16..=1000, seed: u32
        ) {
            let rate = f64::from(thousandths) / 1000.0;
            let mask = present(&lengths, STEPS);
            let kept = block(&mask, lengths.len(), rate, seed);
            for (row, &length) in kept.chunks(STEPS).zip(&lengths) {
                let length = length as usize;
                prop_assert!(row[length..].iter().all(|&k| k == 0), "padding is not kept");
                let erased: Vec<usize> = (0..length).filter(|&step| row[step] == 0).collect();
                let inner = length.saturating_sub(2) as f64;
                prop_assert_eq!(erased.len() as f64, (inner * rate).round_ties_even());
                if let (Some(first), Some(last)) = (erased.first(), erased.last()) {
                    prop_assert_eq!(last - first + 1, erased.len());
                    prop_assert!(*first > 0 && last + 1 < length);
                }
            }
            prop_assert_eq!(kept, block(&mask, lengths.len(), rate, seed));
        }

        #[test]
        fn bursts_of_higher_rate_contain_those_of_lower(
            lengths in lengths(), low in 0.0..=1.0f64, high in 0.0..=1.0f64, seed: u32
        ) {
            let (low, high) = (low.min(high), low.max(high));
            let mask = present(&lengths, STEPS);
            let (more, less) = (
                bursts(&mask, lengths.len(), low, seed),
                bursts(&mask, lengths.len(), high, seed),
            );
            for ((&present, &more), &less) in mask.iter().zip(&more).zip(&less) {
                prop_assert!(less <= more && more <= present);
            }
            prop_assert!(bursts(&mask, lengths.len(), 1.0, seed).iter().all(|&k| k == 0));
            prop_assert_eq!(bursts(&mask, lengths.len(), 0.0, seed), mask);
        }

        #[test]
        fn bursts_of_a_sample_depend_on_its_place_alone(
            lengths in lengths(), rate in 0.0..=1.0f64, seed: u32
        ) {
            let mask = present(&lengths, STEPS);
            let full = bursts(&vec![1; mask.len()], lengths.len(), rate, seed);
            let cut: Vec<u8> = full.iter().zip(&mask).map(|(kept, present)| kept * present).collect();
            prop_assert_eq!(bursts(&mask, lengths.len(), rate, seed), cut);
        }
    }
}
