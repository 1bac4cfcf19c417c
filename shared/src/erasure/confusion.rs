//! Misheard texts: tokens replaced by others, as speech recognition errs.

use super::{
    steps::length,
    text::ErasedText,
    words::{WordConfusions, WordError},
};
use crate::{encoder::TokenIds, hash::Hash, numpy_rng::RandomState};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Keeps the stream that chooses words apart from that which chooses places.
const CHOICE: u32 = 0x0a55_0c0f;

/// What the bytes of a table begin with.
const HEADER: &[u8] = b"halfheard confusion table 1\n";

/// Which tokens of an encoder's vocabulary are heard as which. Only words that are one token in it are
/// replaced, by words that are, so a text keeps its length: nothing is inserted or deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfusionTable {
    /// What each token is heard as, with weights.
    entries: BTreeMap<i64, Vec<(i64, f64)>>,
    /// Tokens that continue the word before: what they follow is only a part of a word.
    continuing: BTreeSet<i64>,
}

/// How much of something a table covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// How many the table has an entry for.
    pub covered: usize,
    /// How many there are.
    pub all: usize,
}

impl ConfusionTable {
    /// A table of words for an encoder with this vocabulary, and how many of its pairs are pairs of single
    /// tokens there; the others are left out.
    ///
    /// A word is looked up as vocabularies write whole words: as it is in those that mark continuations
    /// (`##ing`), otherwise after the mark of a beginning (`Ġword`, `▁word`), and as it is and
    /// capitalized. What bears a mark already is looked up as it is.
    ///
    /// # Errors
    ///
    /// No pair is one of single tokens.
    pub fn of_words(
        words: &WordConfusions,
        vocabulary: &HashMap<String, i64>,
    ) -> Result<(Self, Coverage), WordError> {
        let marks = ["Ġ", "▁"];
        let mark = marks.into_iter().find(|mark| {
            // A few entries may begin with it by chance.
            vocabulary
                .keys()
                .filter(|token| token.starts_with(mark))
                .take(100)
                .count()
                == 100
        });
        let find = |word: &str, capital: bool| {
            let word = if capital {
                capitalized(word)
            } else {
                word.to_owned()
            };
            let marked = word.starts_with("##") || marks.iter().any(|mark| word.starts_with(mark));
            let prefix = if marked { "" } else { mark.unwrap_or("") };
            vocabulary.get(&format!("{prefix}{word}")).copied()
        };
        let mut entries = BTreeMap::<i64, BTreeMap<i64, f64>>::new();
        let mut coverage = Coverage { covered: 0, all: 0 };
        for (word, heard, weight) in words.pairs() {
            coverage.all += 1;
            let both = |capital| Some((find(word, capital)?, find(heard, capital)?));
            let found = [both(false), both(true)];
            coverage.covered += usize::from(found.iter().any(Option::is_some));
            for (word, heard) in found.into_iter().flatten() {
                if word != heard {
                    entries.entry(word).or_default().insert(heard, weight);
                }
            }
        }
        if entries.is_empty() {
            return Err(WordError::Vocabulary {
                pairs: coverage.all,
            });
        }
        let continues = |token: &str| match mark {
            Some(mark) => {
                !token.starts_with(mark) && token.starts_with(|c: char| c.is_alphanumeric())
            }
            None => token.len() > 2 && token.starts_with("##"),
        };
        let continuing = vocabulary.iter().filter(|(token, _)| continues(token));
        let table = Self {
            entries: entries
                .into_iter()
                .map(|(token, heard)| (token, heard.into_iter().collect()))
                .collect(),
            continuing: continuing.map(|(_, id)| *id).collect(),
        };
        Ok((table, coverage))
    }

    /// Replaces tokens. `ids` and `mask` are `[samples, tokens]`, `mask` 1 where a token is not padding;
    /// `special` are those of the encoder that the text is for. All tokens are kept: what is misheard is
    /// not missing.
    ///
    /// A token with an entry is replaced where the number that erasure would draw for it does not exceed
    /// the sample's rate, so `asr` mishears where `r` erases; others stay, so the share of all tokens that
    /// is replaced is [`ConfusionTable::coverage`] times the rate. What it is replaced by is the same at
    /// each rate. Never replaced are the first and the last token of a text, and the first part of a word
    /// of several.
    ///
    /// Panics when the sizes do not fit.
    pub fn mishear(
        &self,
        ids: &[i64],
        mask: &[u8],
        rates: &[f64],
        seed: u32,
        special: TokenIds,
    ) -> ErasedText {
        assert_eq!(ids.len(), mask.len(), "one mask entry a token");
        assert_eq!(ids.len() % rates.len().max(1), 0, "one row a sample");
        let tokens = (ids.len() / rates.len().max(1)).max(1);
        let mut places = RandomState::new(seed);
        let mut choices = RandomState::from_key(&[seed, CHOICE]);
        let mut heard = Vec::with_capacity(ids.len());
        let texts = ids.chunks(tokens).zip(mask.chunks(tokens));
        for ((ids, mask), rate) in texts.zip(rates) {
            let length = length(mask);
            for (place, (&id, &mask)) in ids.iter().zip(mask).enumerate() {
                let stays = places.uniform() > *rate;
                let choice = choices.uniform();
                let options = self.options(&ids[..length], place);
                heard.push(match options {
                    _ if mask == 0 => special.padding,
                    Some(options) if !stays => choose(options, choice),
                    _ => id,
                });
            }
        }
        ErasedText {
            ids: heard,
            kept: mask.to_vec(),
        }
    }

    /// How many of the tokens of texts, but for the first and last of each, can be misheard. Sizes as in
    /// [`ConfusionTable::mishear`].
    pub fn coverage(&self, ids: &[i64], mask: &[u8], samples: usize) -> Coverage {
        let tokens = (ids.len() / samples.max(1)).max(1);
        let mut coverage = Coverage { covered: 0, all: 0 };
        for (ids, mask) in ids.chunks(tokens).zip(mask.chunks(tokens)) {
            let text = &ids[..length(mask)];
            coverage.all += text.len().saturating_sub(2);
            let heard = (0..text.len()).filter(|place| self.options(text, *place).is_some());
            coverage.covered += heard.count();
        }
        coverage
    }

    /// What the token at `place` of a text without its padding may be heard as.
    fn options(&self, text: &[i64], place: usize) -> Option<&[(i64, f64)]> {
        let next = text.get(place + 1)?;
        if place == 0 || self.continuing.contains(next) {
            return None;
        }
        self.entries.get(&text[place]).map(Vec::as_slice)
    }

    /// The table as bytes, the same for the same table: little-endian, each list with its length before it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        let mut number = |number: u64| bytes.extend(number.to_le_bytes());
        number(self.entries.len() as u64);
        for (token, heard) in &self.entries {
            number(*token as u64);
            number(heard.len() as u64);
            for (heard, weight) in heard {
                number(*heard as u64);
                number(weight.to_bits());
            }
        }
        number(self.continuing.len() as u64);
        self.continuing
            .iter()
            .for_each(|token| number(*token as u64));
        bytes
    }

    /// Reads what [`ConfusionTable::to_bytes`] wrote, and nothing else: the same table has one form.
    ///
    /// # Errors
    ///
    /// The bytes are no table.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WordError> {
        Self::of_numbers(bytes)
            .filter(|table| table.to_bytes() == bytes)
            .ok_or(WordError::Bytes)
    }

    fn of_numbers(bytes: &[u8]) -> Option<Self> {
        let (numbers, _) = bytes.strip_prefix(HEADER)?.as_chunks();
        let mut numbers = numbers.iter().map(|number| u64::from_le_bytes(*number));
        let mut number = || numbers.next();
        let mut entries = BTreeMap::new();
        // No list grows beyond the bytes: each element is read before it is stored.
        for _ in 0..number()? {
            let (token, count) = (number()?, number()?);
            let mut heard = Vec::new();
            for _ in 0..count {
                let (token, weight) = (number()? as i64, f64::from_bits(number()?));
                heard.push((weight.is_finite() && weight > 0.0).then_some((token, weight))?);
            }
            entries.insert(token as i64, (!heard.is_empty()).then_some(heard)?);
        }
        let mut continuing = BTreeSet::new();
        for _ in 0..number()? {
            continuing.insert(number()? as i64);
        }
        Some(Self {
            entries,
            continuing,
        })
    }

    /// The hash of the table: who hears the same has the same.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.to_bytes())
    }
}

/// The option at a place in `[0, 1)` of all weights.
fn choose(options: &[(i64, f64)], place: f64) -> i64 {
    let all: f64 = options.iter().map(|(_, weight)| weight).sum();
    let mut left = place * all;
    for (token, weight) in options {
        left -= weight;
        if left < 0.0 {
            return *token;
        }
    }
    // Rounding can leave a last bit.
    options[options.len() - 1].0
}

fn capitalized(word: &str) -> String {
    let mut characters = word.chars();
    let first = characters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(characters.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BERT: TokenIds = TokenIds::BERT;

    fn vocabulary(tokens: &[(&str, i64)]) -> HashMap<String, i64> {
        let tokens = tokens.iter();
        tokens
            .map(|(token, id)| ((*token).to_owned(), *id))
            .collect()
    }

    /// `know` (201) is heard as `no` (200) and back, `for` (202) as `four` (203) thrice as often as `fore`.
    fn table() -> ConfusionTable {
        let words = b"no\tknow\nknow\tno\nfor\tfour\t3\nfor\tfore\nfor\tfor's";
        let words = WordConfusions::parse(words).unwrap();
        let known = vocabulary(&[
            ("no", 200),
            ("know", 201),
            ("for", 202),
            ("four", 203),
            ("fore", 204),
            ("##xious", 205),
        ]);
        let (table, coverage) = ConfusionTable::of_words(&words, &known).unwrap();
        assert_eq!(coverage, Coverage { covered: 4, all: 5 });
        table
    }

    #[test]
    fn all_that_can_be_misheard_is_at_rate_one() {
        // [CLS] no no ##xious know yes [SEP] [PAD], with garbage at the padding.
        let ids = [101, 200, 200, 205, 201, 300, 102, 9];
        let mask = [1, 1, 1, 1, 1, 1, 1, 0];
        let heard = table().mishear(&ids, &mask, &[1.0], 1111, BERT);
        assert_eq!(heard.ids, [101, 201, 200, 205, 200, 300, 102, 0]);
        assert_eq!(heard.kept, mask);
        let coverage = table().coverage(&ids, &mask, 1);
        assert_eq!(coverage, Coverage { covered: 2, all: 5 });
    }

    #[test]
    fn weights_are_shares() {
        let row: Vec<i64> = std::iter::once(101)
            .chain([202; 8000])
            .chain([102])
            .collect();
        let heard = table().mishear(&row, &[1; 8002], &[0.5], 1111, BERT).ids;
        let count = |id| heard.iter().filter(|&&other| other == id).count();
        assert!((3850..4150).contains(&count(202)), "{}", count(202));
        let share = count(203) as f64 / (count(203) + count(204)) as f64;
        assert!((share - 0.75).abs() < 0.03, "{share}");
    }

    #[test]
    fn marked_vocabularies_and_capitals_are_looked_up() {
        let mut known: HashMap<String, i64> = (0..100).map(|i| (format!("Ġx{i}"), i)).collect();
        known.extend(vocabulary(&[
            ("Ġno", 200),
            ("Ġknow", 201),
            ("no", 202),
            ("know", 203),
            ("ĠNo", 204),
            ("ĠKnow", 205),
        ]));
        let words = WordConfusions::parse(b"no\tknow").unwrap();
        let (table, _) = ConfusionTable::of_words(&words, &known).unwrap();
        let ids = [0, 200, 204, 200, 202, 2];
        let heard = table.mishear(&ids, &[1; 6], &[1.0], 7, BERT).ids;
        // The third is followed by `no`, which continues it.
        assert_eq!(heard, [0, 201, 205, 200, 202, 2]);
    }

    #[test]
    fn table_of_no_single_tokens_is_an_error() {
        let words = WordConfusions::parse(b"no\tknow").unwrap();
        let error = ConfusionTable::of_words(&words, &HashMap::new()).unwrap_err();
        assert!(matches!(error, WordError::Vocabulary { pairs: 1 }));
    }

    #[test]
    fn bytes_identify_the_table() {
        let (table, mut other) = (table(), table());
        assert_eq!(table.hash(), other.hash());
        let bytes = table.to_bytes();
        assert_eq!(ConfusionTable::from_bytes(&bytes).unwrap(), table);
        // A weight that is no number: after the number of entries, a token, and how many it is heard as.
        let mut damaged = bytes.clone();
        let weight = HEADER.len() + 4 * 8;
        damaged[weight..weight + 8].copy_from_slice(&f64::NAN.to_bits().to_le_bytes());
        assert!(ConfusionTable::from_bytes(&damaged).is_err());
        other.continuing.insert(999);
        assert_ne!(table.hash(), other.hash());
        let digest = "ab8cee15";
        assert_eq!(
            &table.hash().as_str()[..8],
            digest,
            "the form of the bytes changed"
        );
    }

    proptest! {
        #[test]
        fn damaged_bytes_are_no_table(place in 0usize..1000, value: u8, cut in 0usize..1000) {
            let bytes = table().to_bytes();
            prop_assert!(ConfusionTable::from_bytes(&bytes[..cut % bytes.len()]).is_err());
            let mut longer = bytes.clone();
            longer.extend([0; 8]);
            prop_assert!(ConfusionTable::from_bytes(&longer).is_err());
            let mut changed = bytes.clone();
            changed[place % bytes.len()] = value;
            // Another number may make another table, but never two forms of one.
            if let Ok(other) = ConfusionTable::from_bytes(&changed) {
                prop_assert_eq!(other.to_bytes(), changed);
            }
        }

        #[test]
        fn higher_rate_mishears_the_same_and_more(
            texts in prop::collection::vec(prop::collection::vec(200..206i64, 6), 1..12),
            low in 0.0..=1.0f64,
            high in 0.0..=1.0f64,
            seed: u32,
        ) {
            let (low, high) = (low.min(high), low.max(high));
            let ids: Vec<i64> = texts.concat();
            let mask = vec![1; ids.len()];
            let at = |rate| table().mishear(&ids, &mask, &vec![rate; texts.len()], seed, BERT).ids;
            let (fewer, more) = (at(low), at(high));
            for (place, ((&id, &low), &high)) in ids.iter().zip(&fewer).zip(&more).enumerate() {
                prop_assert!(low == id || low == high, "{id} {low} {high}");
                let ends = place % 6 == 0 || place % 6 == 5;
                prop_assert!(!ends || high == id);
            }
            prop_assert_eq!(&at(0.0), &ids);
            prop_assert_eq!(at(high), more);
        }
    }
}
