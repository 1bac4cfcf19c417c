//! Erasure: which steps of which samples are missing.
//!
//! As the reference draws it (`core/dataset.py` of LNLN, `generate_m`): one uniform number for each
//! step of each sample, in order, from NumPy's legacy generator, reseeded with the same seed for
//! each modality; a step is kept where its number exceeds the sample's rate and it is not padding.
//! Erased tokens become the unknown token of the encoder's vocabulary (BERT's `[UNK]`), erased audio
//! and vision steps zeros; the first and the last token of a text (BERT's `[CLS]` and `[SEP]`) are
//! always kept.
//!
//! Two things follow. What is erased of a sample depends on its place in the split, so a split is
//! always erased as a whole. And training erasure, too, compares the same numbers with new rates in
//! every epoch: a sample loses the same steps first each time. The reference does so, and so does
//! this.

use crate::{encoder::TokenIds, numpy_rng::RandomState};

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
            RandomState::from_key(&[run_seed as u32, (run_seed >> 32) as u32, epoch, 0x000e_5a5e]);
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

/// Which steps are not padding, `[samples, steps]`, from the samples' lengths.
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

/// Erases tokens. `ids` and `mask` are `[samples, tokens]`, `mask` 1 where a token is not padding;
/// `special` are those of the encoder that the text is for.
///
/// Panics when the sizes do not fit.
pub fn erase_text(
    ids: &[i64],
    mask: &[u8],
    rates: &[f64],
    seed: u32,
    special: TokenIds,
) -> ErasedText {
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
        .map(|((&id, &mask), &kept)| match (kept, mask) {
            (1, _) => id,
            (_, 1) => special.unknown,
            // What a file has at padding means nothing: most have 0, whatever the vocabulary.
            _ => special.padding,
        })
        .collect();
    ErasedText { ids, kept }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BERT: TokenIds = TokenIds::BERT;

    fn texts() -> (Vec<i64>, Vec<u8>) {
        // Two texts of five tokens: one of three and one that fills the row.
        (
            vec![101, 7, 102, 0, 0, 101, 8, 9, 10, 102],
            vec![1, 1, 1, 0, 0, 1, 1, 1, 1, 1],
        )
    }

    #[test]
    fn full_text_erasure_keeps_special_tokens() {
        let (ids, mask) = texts();
        let erased = erase_text(&ids, &mask, &[1.0, 1.0], 1111, BERT);
        assert_eq!(erased.ids, [101, 100, 102, 0, 0, 101, 100, 100, 100, 102]);
        assert_eq!(erased.kept, [1, 0, 1, 0, 0, 1, 0, 0, 0, 1]);
    }

    #[test]
    fn unknown_and_padding_ids_come_from_vocabulary() {
        let (ids, mask) = texts();
        let roberta = TokenIds {
            unknown: 3,
            mask: Some(50_264),
            start: 0,
            end: 2,
            padding: 1,
        };
        let erased = erase_text(&ids, &mask, &[1.0, 1.0], 1111, roberta);
        assert_eq!(erased.ids, [101, 3, 102, 1, 1, 101, 3, 3, 3, 102]);
    }

    #[test]
    fn rate_zero_changes_nothing() {
        let (ids, mask) = texts();
        let erased = erase_text(&ids, &mask, &[0.0, 0.0], 1111, BERT);
        assert_eq!((erased.ids, erased.kept), (ids, mask));
    }

    #[test]
    fn half_of_training_samples_are_complete() {
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

    #[test]
    fn equal_shapes_share_masks_and_seeds_differ() {
        let present = present(&[20; 8], 20);
        let once = kept(&present, &[0.5; 8], 1111);
        assert_eq!(once, kept(&present, &[0.5; 8], 1111));
        assert_ne!(once, kept(&present, &[0.5; 8], 1112));
    }

    #[test]
    fn training_rates_follow_the_papers_distribution() {
        let (mut complete, mut sum) = ([0; 100], 0.0);
        for epoch in 0..400 {
            for (sample, rate) in Rates::of_training(100, 7, epoch).text.iter().enumerate() {
                complete[sample] += usize::from(*rate == 0.0);
                sum += rate;
            }
        }
        // Each sample is complete in half of the epochs; the mean rate is a quarter.
        let fair = complete.iter().all(|n| (140..260).contains(n));
        assert!(fair, "{complete:?}");
        assert!((sum / 40_000.0 - 0.25_f64).abs() < 0.01, "{sum}");
        assert_ne!(
            Rates::of_training(100, 7, 1),
            Rates::of_training(100, 7 + (1 << 32), 1),
            "all bits of the seed count"
        );
    }

    const TOKENS: usize = 12;

    /// Texts of 2 to `TOKENS` tokens, so that some fill their row: ids, masks and lengths.
    fn any_texts() -> impl Strategy<Value = (Vec<i64>, Vec<u8>, Vec<usize>)> {
        let text = (2..=TOKENS, prop::collection::vec(200..30_000_i64, TOKENS));
        prop::collection::vec(text, 1..20).prop_map(|texts| {
            let (mut ids, mut mask, mut lengths) = (vec![], vec![], vec![]);
            for (length, words) in texts {
                ids.extend((0..TOKENS).map(|at| match at {
                    0 => 101,
                    at if at + 1 == length => 102,
                    at if at < length => words[at],
                    _ => 0,
                }));
                mask.extend((0..TOKENS).map(|at| u8::from(at < length)));
                lengths.push(length);
            }
            (ids, mask, lengths)
        })
    }

    proptest! {
        #[test]
        fn text_is_complete_at_rate_0_and_special_tokens_at_rate_1(
            (ids, mask, lengths) in any_texts(), seed: u32
        ) {
            let at = |rate| erase_text(&ids, &mask, &vec![rate; lengths.len()], seed, BERT);
            let whole = at(0.0);
            prop_assert_eq!(&whole.ids, &ids);
            prop_assert_eq!(&whole.kept, &mask);
            let frame = at(1.0);
            for (sample, &length) in lengths.iter().enumerate() {
                for token in 0..TOKENS {
                    let i = sample * TOKENS + token;
                    let stays = token == 0 || token + 1 == length;
                    let id = if stays { ids[i] } else { BERT.unknown * i64::from(mask[i]) };
                    prop_assert_eq!((frame.kept[i], frame.ids[i]), (u8::from(stays), id));
                }
            }
        }

        #[test]
        fn each_text_has_own_rate((ids, mask, lengths) in any_texts(), seed: u32) {
            let rates: Vec<f64> = (0..lengths.len()).map(|i| (i % 2) as f64).collect();
            let erased = erase_text(&ids, &mask, &rates, seed, BERT);
            let rows = erased.ids.chunks(TOKENS).zip(ids.chunks(TOKENS));
            for (sample, (erased, whole)) in rows.enumerate() {
                // A text of [CLS] and [SEP] alone has nothing to lose.
                let stays = sample % 2 == 0 || lengths[sample] == 2;
                prop_assert_eq!(erased == whole, stays);
            }
        }

        #[test]
        fn higher_rate_erases_more_tokens_and_padding_is_never_kept(
            (ids, mask, lengths) in any_texts(),
            seed: u32,
            low in 0.0..1.0f64,
            high in 0.0..1.0f64,
        ) {
            let (low, high) = (low.min(high), low.max(high));
            let at = |rate| erase_text(&ids, &mask, &vec![rate; lengths.len()], seed, BERT).kept;
            for ((more, less), mask) in at(low).into_iter().zip(at(high)).zip(&mask) {
                prop_assert!(less <= more && more <= *mask);
            }
        }

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
