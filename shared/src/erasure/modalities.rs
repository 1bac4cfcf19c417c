//! Random modality missing: whole modalities of single samples, one at least being kept.
//!
//! As GCNet draws it (`zeroQiaoba/GCNet`, `random_mask`, after CPM-Nets), which DiCMoR, IMDer and
//! others compare with: one modality of each sample is certain; others are added at random, in whole
//! percent, so that the wanted share is kept; all is drawn again until the share is met to 0.005.

use crate::numpy_rng::RandomState;

/// The rate above which nothing more can be missing, as GCNet and those who compare with it have it: one
/// modality of each sample is kept, so two thirds are missing.
pub const MAX_RATE: f64 = 0.7;

/// The share that is kept must be this near to the wanted one.
const TOLERANCE: f64 = 0.005;

/// GCNet's training draws this many rows for a smaller batch, too: of fewer, many shares cannot be met.
const MIN_SAMPLES: usize = 32;

/// The source draws until the share is met, for ever at rates such as 0.66, to which whole percents are
/// not near enough. Here the nearest of so many masks is taken.
const ATTEMPTS: usize = 1000;

/// Which modalities of each sample are kept, 1 or 0, in columns of the source's order.
///
/// At rates of two thirds and more, `0.7` in the field's tables, one modality of each sample is kept,
/// whatever the rate: what is called 0.7 is 0.667.
pub fn kept(samples: usize, rate: f64, seed: u32) -> Vec<[u8; 3]> {
    let share = 1.0 - rate;
    if share == 1.0 {
        return vec![[1; 3]; samples];
    }
    let mut rng = RandomState::new(seed);
    if share <= 1.0 / 3.0 {
        return certain(&mut rng, samples);
    }
    let drawn = samples.max(MIN_SAMPLES);
    let mut nearest: Option<(f64, Vec<[u8; 3]>)> = None;
    for _ in 0..ATTEMPTS {
        let mask = attempt(&mut rng, drawn, share);
        let kept: usize = mask.iter().flatten().map(|&k| usize::from(k)).sum();
        let error = (share - kept as f64 / (3 * drawn) as f64).abs();
        if nearest.as_ref().is_none_or(|(least, _)| error < *least) {
            nearest = Some((error, mask));
        }
        if error < TOLERANCE {
            break;
        }
    }
    let mut mask = nearest.map(|(_, mask)| mask).unwrap_or_default();
    mask.truncate(samples);
    mask
}

/// One modality of each sample.
fn certain(rng: &mut RandomState, samples: usize) -> Vec<[u8; 3]> {
    let one = |_| {
        let mut row = [0; 3];
        row[rng.integer(0, 3) as usize] = 1;
        row
    };
    (0..samples).map(one).collect()
}

/// One mask, in the source's order of draws and of operations on doubles.
fn attempt(rng: &mut RandomState, samples: usize, share: f64) -> Vec<[u8; 3]> {
    let mut mask = certain(rng, samples);
    let cells = (3 * samples) as f64;
    let wanted = cells * share - samples as f64;
    let mut others = |ratio: f64| -> Vec<[bool; 3]> {
        let percent = (ratio * 100.0) as i64;
        let mut other = || i64::from(rng.integer(0, 100)) < percent;
        (0..samples)
            .map(|_| std::array::from_fn(|_| other()))
            .collect()
    };
    // A first draw only counts how many would fall on what is certain, so that more are drawn.
    let first = others(wanted / cells);
    let cells_of = mask.iter().flatten().zip(first.iter().flatten());
    let lost = cells_of
        .filter(|(certain, other)| **certain == 1 && **other)
        .count();
    let second = others(wanted / (1.0 - lost as f64 / wanted) / cells);
    for (cell, other) in mask.iter_mut().flatten().zip(second.iter().flatten()) {
        *cell |= u8::from(*other);
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_thirds_are_missing_at_most() {
        for rate in [0.667, 0.7, 1.0] {
            let mask = kept(300, rate, 1111);
            assert!(mask.iter().all(|row| row.iter().sum::<u8>() == 1));
            assert_eq!(mask, kept(300, 2.0 / 3.0, 1111), "{rate}");
        }
        assert_eq!(kept(5, 0.0, 1111), [[1; 3]; 5]);
        assert!(kept(0, 0.3, 1111).is_empty());
    }

    /// The source would draw for ever: no whole percent of others makes the share.
    #[test]
    fn rate_that_the_source_cannot_meet_ends() {
        let mask = kept(686, 0.66, 1111);
        assert!(mask.iter().all(|row| row.iter().sum::<u8>() == 1));
    }

    proptest! {
        #[test]
        fn share_is_met_and_one_modality_is_kept(
            samples in 32usize..400, tenths in 0u8..=6, seed: u32
        ) {
            let rate = f64::from(tenths) / 10.0;
            let mask = kept(samples, rate, seed);
            prop_assert_eq!(mask.len(), samples);
            prop_assert!(mask.iter().all(|row| row.contains(&1)));
            let share = mask.iter().flatten().filter(|&&k| k == 0).count() as f64
                / (3 * samples) as f64;
            // A third of a percent of few cells cannot be met.
            prop_assert!((share - rate).abs() < TOLERANCE.max(1.0 / samples as f64));
            prop_assert_eq!(mask, kept(samples, rate, seed));
        }

        #[test]
        fn few_samples_keep_one_modality(samples in 0usize..32, thousandths in 0u16..=1000, seed: u32) {
            let mask = kept(samples, f64::from(thousandths) / 1000.0, seed);
            prop_assert_eq!(mask.len(), samples);
            prop_assert!(mask.iter().all(|row| row.contains(&1)));
        }
    }
}
