//! Texts with tokens erased.

use super::steps::{self, length};
use crate::encoder::TokenIds;

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
    let kept = steps::kept(mask, rates, seed);
    erase_tokens(ids, mask, kept, rates.len(), special)
}

/// Erases the tokens that `kept` does not keep, but never the first and the last of a text.
pub(super) fn erase_tokens(
    ids: &[i64],
    mask: &[u8],
    mut kept: Vec<u8>,
    samples: usize,
    special: TokenIds,
) -> ErasedText {
    if let Some(tokens) = ids.len().checked_div(samples) {
        let tokens = tokens.max(1);
        for (row, mask) in kept.chunks_mut(tokens).zip(mask.chunks(tokens)) {
            // The text ends at its first padding; a text without padding at the last token.
            let length = length(mask);
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

    }
}
