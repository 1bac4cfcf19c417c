//! What a dataset's texts say of the vocabulary they were written in.

use super::{Encoder, TokenIds};
use crate::dataset::{Dataset, Split};
use std::collections::BTreeMap;

/// What an encoder must agree with, of all splits of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextFacts {
    /// Tokens a text, padding included.
    pub length: i64,
    /// The largest token id.
    pub largest: i64,
    /// The largest kind of segment.
    pub segments: i64,
    /// How many texts begin with which token.
    pub starts: BTreeMap<i64, u64>,
    /// How many texts that end before their row does, end with which token. One that fills its row
    /// may have been cut off.
    pub ends: BTreeMap<i64, u64>,
}

impl TextFacts {
    /// Those of `dataset`. Reads its texts, not its features.
    pub fn of(dataset: &Dataset) -> Self {
        let length = dataset.shapes().text_len;
        let mut facts = Self {
            length: length as i64,
            ..Self::default()
        };
        for split in Split::ALL {
            for text in dataset.split(split).text().chunks_exact(3 * length) {
                let (ids, rest) = text.split_at(length);
                let (mask, segments) = rest.split_at(length);
                let most = |numbers: &[i32]| numbers.iter().copied().max().unwrap_or(0).into();
                facts.largest = facts.largest.max(most(ids));
                facts.segments = facts.segments.max(most(segments));
                // `Dataset` has checked that a mask is ones, at least one, and then zeros.
                let tokens = mask.iter().take_while(|&&m| m == 1).count().max(1);
                *facts.starts.entry(ids[0].into()).or_default() += 1;
                if tokens < length {
                    *facts.ends.entry(ids[tokens - 1].into()).or_default() += 1;
                }
            }
        }
        facts
    }

    /// Why `encoder`, whose special tokens are `tokens`, cannot read these texts; `None` where it
    /// can. Looking up a token beyond its tables would end a worker in mid-training.
    pub fn misfit(&self, encoder: &EncoderFacts) -> Option<String> {
        let EncoderFacts {
            vocabulary,
            longest,
            segments,
            tokens,
        } = encoder;
        let other = |at: &str, counts: &BTreeMap<i64, u64>, expected: i64| {
            let texts: u64 = counts.values().sum();
            let (token, count) = counts
                .iter()
                .filter(|(token, _)| **token != expected)
                .max_by_key(|(_, count)| **count)?;
            let how_many = if *count == texts {
                "all".to_owned()
            } else {
                format!("{count} of {texts}")
            };
            Some(format!(
                "it was tokenised for another vocabulary: {how_many} of its texts {at} with the \
                 token {token}, this encoder's {at} with {expected}"
            ))
        };
        if let Some(problem) = other("start", &self.starts, tokens.start)
            .or_else(|| other("end", &self.ends, tokens.end))
        {
            return Some(problem);
        }
        // A text gets the unknown token by erasure.
        let largest = self.largest.max(tokens.unknown);
        if largest >= *vocabulary {
            return Some(format!(
                "it has the token {largest}, but the encoder has only {vocabulary} tokens"
            ));
        }
        if self.segments >= *segments {
            return Some(format!(
                "it has segments up to {}, but the encoder has only {segments} kinds",
                self.segments
            ));
        }
        if self.length > *longest {
            return Some(format!(
                "its texts have {} tokens, but the encoder takes at most {longest}",
                self.length
            ));
        }
        None
    }
}

/// What texts must agree with, of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderFacts {
    /// The number of tokens in its vocabulary.
    pub vocabulary: i64,
    /// Maximum number of tokens of a text.
    pub longest: i64,
    /// The number of segment types that it distinguishes.
    pub segments: i64,
    /// The ids of its special tokens.
    pub tokens: TokenIds,
}

impl EncoderFacts {
    /// Those of `encoder`, whose special tokens have the ids `tokens`.
    pub fn of(encoder: &Encoder, tokens: TokenIds) -> Self {
        let config = encoder.config();
        Self {
            vocabulary: config.vocab_size,
            longest: config.longest(),
            segments: match config.architecture {
                super::Architecture::Bert => config.type_vocab_size,
                // A text's segments are not looked at.
                super::Architecture::Roberta => i64::MAX,
            },
            tokens,
        }
    }
}
