//! Erasure: which steps of which samples are missing.
//!
//! As the reference draws it (`core/dataset.py` of LNLN, `generate_m`): one uniform number for each
//! step of each sample, in order, from NumPy's legacy generator, seeded anew with the same seed for
//! each modality; a step is kept where its number exceeds the sample's rate and it is no padding.
//! Erased tokens become `[UNK]`, erased audio and vision steps zeros; the first and the last token
//! of a text, `[CLS]` and `[SEP]`, are always kept.

use crate::numpy_rng::RandomState;

/// The id of `[UNK]` in BERT's vocabularies, English and Chinese.
pub const UNK: i64 = 100;

/// The rates of the three modalities for each sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// Language, one a sample.
    pub text: Vec<f64>,
    /// Audio, one a sample.
    pub audio: Vec<f64>,
    /// Vision, one a sample.
    pub vision: Vec<f64>,
}

impl Rates {
    /// The same case for each of `samples`.
    pub fn of_case(case: &crate::case::Case, samples: usize) -> Self {
        use crate::case::Modality;
        let all = |modality| vec![case.rate_of(modality); samples];
        Self {
            text: all(Modality::Text),
            audio: all(Modality::Audio),
            vision: all(Modality::Vision),
        }
    }

    /// Nothing is missing.
    pub fn complete(samples: usize) -> Self {
        Self {
            text: vec![0.0; samples],
            audio: vec![0.0; samples],
            vision: vec![0.0; samples],
        }
    }

    /// The rates of one epoch of training: in each modality half of the samples, drawn without
    /// replacement, keep rate 0 and the others draw one from U(0, 1). A pure function of the run's
    /// seed and the epoch, so that a resumed run draws what the interrupted one would have.
    pub fn of_training(samples: usize, run_seed: u64, epoch: u32) -> Self {
        // The last word keeps this stream apart from others of the same run and epoch.
        let mut rng =
            RandomState::from_key(&[run_seed as u32, (run_seed >> 32) as u32, epoch, 0x0e5a_5e]);
        let mut modality = || {
            let mut rates: Vec<f64> = (0..samples).map(|_| rng.uniform()).collect();
            let mut order: Vec<usize> = (0..samples).collect();
            for i in 0..samples / 2 {
                order.swap(i, i + rng.below(samples - i));
                rates[order[i]] = 0.0;
            }
            rates
        };
        Self {
            text: modality(),
            audio: modality(),
            vision: modality(),
        }
    }
}

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

/// Which steps are no padding, `[samples, steps]`, from the samples' lengths.
pub fn present(lengths: &[i64], steps: usize) -> Vec<u8> {
    lengths
        .iter()
        .flat_map(|&length| (0..steps).map(move |step| u8::from((step as i64) < length)))
        .collect()
}

/// Texts after erasure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasedText {
    /// Token ids `[samples, tokens]`.
    pub ids: Vec<i64>,
    /// 1 where a token is kept, `[samples, tokens]`.
    pub kept: Vec<u8>,
}

/// Erases tokens. `ids` and `mask` are `[samples, tokens]`, `mask` 1 where a token is no padding.
///
/// Panics when the sizes do not fit.
pub fn erase_text(ids: &[i64], mask: &[u8], rates: &[f64], seed: u32) -> ErasedText {
    assert_eq!(ids.len(), mask.len(), "one mask entry a token");
    let mut kept = kept(mask, rates, seed);
    if !rates.is_empty() {
        let tokens = ids.len() / rates.len();
        for (row, mask) in kept.chunks_mut(tokens).zip(mask.chunks(tokens)) {
            // The text ends at its first padding; a text without padding at the last token.
            let length = mask.iter().position(|&m| m == 0).unwrap_or(tokens);
            if length > 0 {
                row[0] = 1;
                row[length - 1] = 1;
            }
        }
    }
    let ids = ids
        .iter()
        .zip(mask)
        .zip(&kept)
        .map(|((&id, &mask), &kept)| if mask == 1 && kept == 0 { UNK } else { id })
        .collect();
    ErasedText { ids, kept }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts() -> (Vec<i64>, Vec<u8>) {
        // Two texts of five tokens: one of three and one that fills the row.
        (
            vec![101, 7, 102, 0, 0, 101, 8, 9, 10, 102],
            vec![1, 1, 1, 0, 0, 1, 1, 1, 1, 1],
        )
    }

    #[test]
    fn everything_missing_keeps_the_frame_of_the_text() {
        let (ids, mask) = texts();
        let erased = erase_text(&ids, &mask, &[1.0, 1.0], 1111);
        assert_eq!(erased.ids, [101, 100, 102, 0, 0, 101, 100, 100, 100, 102]);
        assert_eq!(erased.kept, [1, 0, 1, 0, 0, 1, 0, 0, 0, 1]);
    }

    #[test]
    fn nothing_missing_changes_nothing() {
        let (ids, mask) = texts();
        let erased = erase_text(&ids, &mask, &[0.0, 0.0], 1111);
        assert_eq!((erased.ids, erased.kept), (ids, mask));
    }

    #[test]
    fn half_of_the_training_samples_are_complete() {
        let rates = Rates::of_training(101, 1111, 3);
        for modality in [&rates.text, &rates.audio, &rates.vision] {
            assert_eq!(modality.iter().filter(|&&r| r == 0.0).count(), 50);
            assert!(modality.iter().all(|r| (0.0..1.0).contains(r)));
        }
        assert_ne!(rates.text, rates.audio);
        assert_eq!(rates, Rates::of_training(101, 1111, 3));
        assert_ne!(rates, Rates::of_training(101, 1111, 4));
        assert_ne!(rates, Rates::of_training(101, 1112, 3));
    }

    proptest! {
        #[test]
        fn a_higher_rate_erases_more_and_padding_is_never_kept(
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
