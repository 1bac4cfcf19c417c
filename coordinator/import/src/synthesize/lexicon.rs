//! Sentences with a level of sentiment, from the words of a real encoder's vocabulary.

use super::random::Random;
use halfheard_shared::error::Hint;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// `[CLS]` in BERT's English and Chinese vocabularies.
pub(super) const CLS: i32 = 101;
/// `[SEP]`.
pub(super) const SEP: i32 = 102;

/// Maximum number of words in a clause with its connector.
pub(super) const LONGEST_CLAUSE: usize = 7;

/// Adjectives and verbs by level, from -3 to 3.
const ADJECTIVES: [&[&str]; 7] = [
    &[
        "terrible",
        "horrible",
        "awful",
        "disgusting",
        "pathetic",
        "worst",
    ],
    &["bad", "boring", "poor", "stupid", "ugly", "annoying"],
    &["weak", "slow", "dull", "flat", "silly"],
    &["normal", "average", "long", "short", "usual", "common"],
    &["fine", "okay", "decent", "nice", "fair", "pleasant"],
    &["good", "great", "funny", "strong", "smart", "lovely"],
    &[
        "amazing",
        "wonderful",
        "brilliant",
        "perfect",
        "fantastic",
        "excellent",
    ],
];
const VERBS: [&[&str]; 7] = [
    &["hated"],
    &["disliked", "regretted"],
    &["endured"],
    &["watched", "saw", "noticed"],
    &["liked"],
    &["enjoyed"],
    &["loved", "adored"],
];
const NOUNS: &[&str] = &[
    "movie", "film", "story", "music", "ending", "acting", "cast", "plot", "scene", "dialogue",
    "picture", "actor", "director", "camera", "song",
];
const DEGREES: &[&str] = &["really", "quite", "very", "so", "rather", "just"];
const CONNECTORS: &[&str] = &["and", "also", "but"];
const GLUE: &[&str] = &["the", "was", "i", "thought", "felt", "to", "me"];

/// Why a vocabulary cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VocabularyError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The special tokens are not where BERT has them.
    #[error("{} is not the vocabulary of a BERT model: `{token}` is not on line {line}", path.display())]
    Special {
        /// The file.
        path: PathBuf,
        /// The token.
        token: &'static str,
        /// The line on which it should be, from 1.
        line: usize,
    },
    /// Words that sentences need are missing.
    #[error("the vocabulary lacks words for sentences: {}", words.join(", "))]
    Words {
        /// The words.
        words: Vec<&'static str>,
    },
}

impl Hint for VocabularyError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { .. } | Self::Special { .. } => {
                "name a BERT vocabulary (vocab.txt) with --vocab"
            }
            Self::Words { .. } => "use the vocabulary of an uncased English BERT",
        };
        Some(hint.to_owned())
    }
}

/// An encoder's vocabulary: one token per line; the id is the line's index.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    ids: HashMap<String, i32>,
    blake3: blake3::Hash,
}

impl Vocabulary {
    /// Reads a `vocab.txt`.
    ///
    /// # Errors
    /// The file cannot be read as text or is not a BERT vocabulary.
    pub fn read(path: &Path) -> Result<Self, VocabularyError> {
        let text = std::fs::read_to_string(path).map_err(|source| VocabularyError::Io {
            path: path.to_owned(),
            source,
        })?;
        let ids: HashMap<String, i32> = text
            .lines()
            .zip(0..)
            .map(|(token, id)| (token.trim_end().to_owned(), id))
            .collect();
        for (token, id) in [("[PAD]", 0), ("[UNK]", 100), ("[CLS]", CLS), ("[SEP]", SEP)] {
            if ids.get(token) != Some(&id) {
                return Err(VocabularyError::Special {
                    path: path.to_owned(),
                    token,
                    line: id as usize + 1,
                });
            }
        }
        Ok(Self {
            ids,
            blake3: blake3::hash(text.as_bytes()),
        })
    }

    /// BLAKE3 of the file.
    pub fn blake3(&self) -> blake3::Hash {
        self.blake3
    }
}

/// A word and its token id.
type Word = (&'static str, i32);

/// The words that a vocabulary has.
pub(super) struct Lexicon {
    adjectives: [Vec<Word>; 7],
    verbs: [Vec<Word>; 7],
    nouns: Vec<Word>,
    degrees: Vec<Word>,
    connectors: Vec<Word>,
    glue: HashMap<&'static str, Word>,
}

/// One sentence.
pub(super) struct Sentence {
    /// Its text.
    pub text: String,
    /// Its token ids without `[CLS]` and `[SEP]`.
    pub tokens: Vec<i32>,
    /// The mean level of its sentiment words, [-1, 1].
    pub level: f32,
}

impl Lexicon {
    /// Looks up the words; a list may lack some but not all.
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self, VocabularyError> {
        let mut missing = Vec::new();
        let mut find = |words: &'static [&'static str]| -> Vec<Word> {
            let found: Vec<Word> = words
                .iter()
                .filter_map(|&word| Some((word, *vocabulary.ids.get(word)?)))
                .collect();
            if found.is_empty() {
                missing.extend(words);
            }
            found
        };
        let adjectives = ADJECTIVES.map(&mut find);
        let verbs = VERBS.map(&mut find);
        let (nouns, degrees, connectors) = (find(NOUNS), find(DEGREES), find(CONNECTORS));
        let mut glue = HashMap::new();
        for &word in GLUE {
            match vocabulary.ids.get(word) {
                Some(&id) => drop(glue.insert(word, (word, id))),
                None => missing.push(word),
            }
        }
        if missing.is_empty() {
            Ok(Self {
                adjectives,
                verbs,
                nouns,
                degrees,
                connectors,
                glue,
            })
        } else {
            Err(VocabularyError::Words { words: missing })
        }
    }

    /// A sentence near `sentiment` in [-1, 1] that fits `text_len` tokens with its frame.
    pub(super) fn sentence(
        &self,
        random: &mut Random,
        sentiment: f32,
        text_len: usize,
    ) -> Sentence {
        let room = text_len - 2;
        // Lengths vary: from one clause up to what fits.
        let wanted = LONGEST_CLAUSE + random.below(room.saturating_sub(LONGEST_CLAUSE) + 1);
        let mut words: Vec<Word> = Vec::new();
        let (mut levels, mut clauses) = (0.0, 0.0);
        while clauses == 0.0 || words.len() + LONGEST_CLAUSE <= wanted {
            let level = (3.0 * sentiment + 0.5 * random.normal())
                .round_ties_even()
                .clamp(-3.0, 3.0);
            if clauses > 0.0 {
                words.extend(random.pick(&self.connectors));
            }
            self.clause(random, (level + 3.0) as usize, &mut words);
            levels += level;
            clauses += 1.0;
        }
        let text = words
            .iter()
            .map(|(word, _)| *word)
            .collect::<Vec<_>>()
            .join(" ");
        Sentence {
            text,
            tokens: words.iter().map(|(_, id)| *id).collect(),
            level: levels / clauses / 3.0,
        }
    }

    fn clause(&self, random: &mut Random, level: usize, words: &mut Vec<Word>) {
        let glue = |list: &[&'static str], words: &mut Vec<Word>| {
            words.extend(list.iter().filter_map(|word| self.glue.get(word)));
        };
        match random.below(4) {
            0 => {
                glue(&["the"], words);
                words.extend(random.pick(&self.nouns));
                glue(&["was"], words);
                words.extend(random.pick(&self.degrees));
                words.extend(random.pick(&self.adjectives[level]));
            }
            1 => {
                glue(&["i"], words);
                words.extend(random.pick(&self.verbs[level]));
                glue(&["the"], words);
                words.extend(random.pick(&self.nouns));
            }
            2 => {
                glue(&["i", "thought", "the"], words);
                words.extend(random.pick(&self.nouns));
                glue(&["was"], words);
                words.extend(random.pick(&self.adjectives[level]));
            }
            _ => {
                glue(&["the"], words);
                words.extend(random.pick(&self.nouns));
                glue(&["felt"], words);
                words.extend(random.pick(&self.adjectives[level]));
                glue(&["to", "me"], words);
            }
        }
    }
}
