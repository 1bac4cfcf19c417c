//! Tables of words that are heard as others: the built-in English one, and files.

use super::english;
use crate::error::Hint;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, Read as _},
    marker::PhantomData,
    path::{Path, PathBuf},
};

/// The longest file, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// The longest word, in bytes.
const MAX_WORD: usize = 100;

/// Words, or an encoder's tokens, and what each is heard as, with weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WordConfusions {
    words: BTreeMap<String, BTreeMap<String, f64>>,
}

/// Why a table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WordError {
    /// The file cannot be opened or read.
    #[error("cannot read the confusion table {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file was read, its content is no table.
    #[error("cannot use the confusion table {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<WordError>,
    },
    /// It is too long.
    #[error("more than {} MiB", MAX_BYTES >> 20)]
    Size,
    /// A line is wrong.
    #[error("line {line}: {what}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// The JSON is wrong.
    #[error("invalid JSON")]
    Json(#[source] serde_json::Error),
    /// An entry of a JSON table is wrong.
    #[error("entry `{word}`: {what}")]
    Entry {
        /// Its word.
        word: String,
        /// What is wrong with it.
        what: String,
    },
    /// It has no entries.
    #[error("it has no entries")]
    Empty,
    /// The bytes are not those of a resolved table.
    #[error("not a resolved confusion table, or a damaged one")]
    Bytes,
    /// No entry is about single tokens.
    #[error(
        "of its {pairs} pairs of words none is a pair of single tokens in the encoder's vocabulary"
    )]
    Vocabulary {
        /// Pairs that the table has.
        pairs: usize,
    },
}

impl Hint for WordError {
    fn hint(&self) -> Option<String> {
        match self {
            WordError::Read { .. } | WordError::Bytes => None,
            WordError::File { source, .. } => source.hint(),
            WordError::Vocabulary { .. } => Some(
                "write words in the case of the vocabulary, or tokens as the vocabulary has them"
                    .to_owned(),
            ),
            _ => Some(
                "write lines `word<TAB>heard as<TAB>weight` (the weight may be left out), or JSON \
                 `{\"word\": {\"heard as\": weight}}`"
                    .to_owned(),
            ),
        }
    }
}

impl WordConfusions {
    /// English words that sound alike, each heard as any other of its group with equal weight: a
    /// stand-in where no recognizer's own confusions are at hand, not a measurement of one.
    pub fn english() -> Self {
        let mut words = BTreeMap::<String, BTreeMap<String, f64>>::new();
        for group in english::GROUPS.lines() {
            for word in group.split(' ') {
                let others = group.split(' ').filter(|other| *other != word);
                let heard = words.entry(word.to_owned()).or_default();
                heard.extend(others.map(|other| (other.to_owned(), 1.0)));
            }
        }
        Self { words }
    }

    /// Reads a file of either form.
    ///
    /// # Errors
    ///
    /// It cannot be read, has more than 16 MiB, or is no table; the line is named.
    pub fn read(path: &Path) -> Result<Self, WordError> {
        let mut content = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut content))
            .map_err(|source| WordError::Read {
                path: path.to_owned(),
                source,
            })?;
        Self::parse(&content).map_err(|source| WordError::File {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    /// The table in a file's content: JSON if it begins with `{`, otherwise lines of a word, a tab, what it
    /// is heard as, and, if need be, a tab and a weight. Empty lines and those that begin with `#` are
    /// skipped.
    ///
    /// # Errors
    ///
    /// As [`WordConfusions::read`].
    pub fn parse(content: &[u8]) -> Result<Self, WordError> {
        if content.len() as u64 > MAX_BYTES {
            return Err(WordError::Size);
        }
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        let table = match content.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{') => Self::of_json(content)?,
            _ => Self::of_lines(content)?,
        };
        if table.words.is_empty() {
            return Err(WordError::Empty);
        }
        Ok(table)
    }

    fn of_lines(content: &[u8]) -> Result<Self, WordError> {
        let mut table = Self::default();
        for (line, number) in content.split(|&byte| byte == b'\n').zip(1..) {
            let wrong = |what: String| WordError::Line { line: number, what };
            let line = std::str::from_utf8(line).map_err(|_| wrong("not UTF-8 text".to_owned()))?;
            let line = line.trim_end_matches('\r');
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
            let (word, heard, weight) = match fields[..] {
                [word, heard] => (word, heard, 1.0),
                [word, heard, weight] => {
                    let number = weight.parse();
                    (
                        word,
                        heard,
                        number.map_err(|_| wrong(format!("`{weight}` is not a number")))?,
                    )
                }
                _ => {
                    let count = fields.len();
                    return Err(wrong(format!(
                        "2 or 3 fields between tabs expected, {count} found"
                    )));
                }
            };
            table.insert(word, heard, weight).map_err(wrong)?;
        }
        Ok(table)
    }

    fn of_json(content: &[u8]) -> Result<Self, WordError> {
        let Pairs(entries): Pairs<Heard> =
            serde_json::from_slice(content).map_err(WordError::Json)?;
        let mut table = Self::default();
        for (word, heard) in entries {
            let heard = match heard {
                Heard::Equal(words) => words.into_iter().map(|word| (word, 1.0)).collect(),
                Heard::Weighted(Pairs(heard)) => heard,
            };
            for (heard, weight) in heard {
                let inserted = table.insert(&word, &heard, weight);
                inserted.map_err(|what| WordError::Entry {
                    word: word.chars().take(MAX_WORD).collect(),
                    what,
                })?;
            }
        }
        Ok(table)
    }

    fn insert(&mut self, word: &str, heard: &str, weight: f64) -> Result<(), String> {
        for word in [word, heard] {
            if word.is_empty() {
                return Err("an empty word".to_owned());
            }
            if word.len() > MAX_WORD {
                return Err(format!("a word of more than {MAX_WORD} bytes"));
            }
            if word.contains(char::is_whitespace) {
                return Err(format!("`{word}` is more than one word"));
            }
        }
        if word == heard {
            return Err(format!("`{word}` is heard as itself"));
        }
        if !(weight > 0.0 && weight.is_finite()) {
            return Err(format!("the weight {weight} is not above 0"));
        }
        let heard_as = self.words.entry(word.to_owned()).or_default();
        match heard_as.insert(heard.to_owned(), weight) {
            Some(_) => Err(format!("`{word}` heard as `{heard}` is there twice")),
            None => Ok(()),
        }
    }

    /// Every pair with its weight, in the order of the words.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str, f64)> {
        self.words.iter().flat_map(|(word, heard)| {
            let heard = heard.iter();
            heard.map(move |(heard, weight)| (word.as_str(), heard.as_str(), *weight))
        })
    }
}

/// What a word is heard as, in JSON.
#[derive(Deserialize)]
#[serde(untagged)]
enum Heard {
    Equal(Vec<String>),
    Weighted(Pairs<f64>),
}

/// A JSON object in its own order, where a key can be seen to be there twice.
struct Pairs<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
            type Value = Pairs<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of words")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<T>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Object(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::chain;

    fn pairs(content: &str) -> Vec<(String, String, f64)> {
        let table = WordConfusions::parse(content.as_bytes()).unwrap();
        let pairs = table.pairs();
        pairs
            .map(|(w, h, n)| (w.to_owned(), h.to_owned(), n))
            .collect()
    }

    #[test]
    fn lines_and_json_are_the_same_table() {
        let lines = "# heard\r\n\nfour\tfor\t2.5\r\nfour\tfore\nno\tknow\t1\n";
        let json = r#" {"four": {"for": 2.5, "fore": 1}, "no": ["know"]}"#;
        assert_eq!(pairs(lines), pairs(json));
        assert_eq!(pairs(lines)[0], ("four".to_owned(), "for".to_owned(), 2.5));
    }

    #[test]
    fn built_in_table_is_symmetric_and_has_no_faults() {
        let table = WordConfusions::english();
        let mut again = WordConfusions::default();
        for (word, heard, weight) in table.pairs() {
            again.insert(word, heard, weight).unwrap();
            assert_eq!(table.words[heard][word], weight, "{word} {heard}");
            assert!(
                word.bytes().all(|b| b.is_ascii_lowercase() || b == b'\''),
                "{word}"
            );
        }
        let groups: Vec<&str> = english::GROUPS.lines().collect();
        assert!((250..400).contains(&groups.len()), "{}", groups.len());
        assert!(table.words["there"].contains_key("their"));
    }

    #[test]
    fn faults_are_named_with_their_line() {
        for (content, expected) in [
            ("", "it has no entries"),
            ("# nothing\n", "it has no entries"),
            (
                "a\tb\nonly\n",
                "line 2: 2 or 3 fields between tabs expected, 1 found",
            ),
            (
                "a\tb\tc\td",
                "line 1: 2 or 3 fields between tabs expected, 4 found",
            ),
            ("a\tb\tmuch", "line 1: `much` is not a number"),
            ("a\tb\t0", "line 1: the weight 0 is not above 0"),
            ("a\tb\tinf", "line 1: the weight inf is not above 0"),
            ("a\tb\tNaN", "line 1: the weight NaN is not above 0"),
            ("a\ta", "line 1: `a` is heard as itself"),
            ("a\t", "line 1: an empty word"),
            ("a\tb c", "line 1: `b c` is more than one word"),
            ("a\tb\n\na\tb\t3", "line 3: `a` heard as `b` is there twice"),
            (
                r#"{"a": {"b": 1}, "a": ["b"]}"#,
                "entry `a`: `a` heard as `b` is there twice",
            ),
            (r#"{"a": ["a"]}"#, "entry `a`: `a` is heard as itself"),
        ] {
            let error = WordConfusions::parse(content.as_bytes()).unwrap_err();
            assert_eq!(chain(&error), expected, "{content:?}");
            assert!(error.hint().unwrap().contains("<TAB>"));
        }
        let error = WordConfusions::parse(b"a\tb\n\xff\tc").unwrap_err();
        assert_eq!(chain(&error), "line 2: not UTF-8 text");
        let error = WordConfusions::parse(b"{\n\"a\": 3}").unwrap_err();
        assert!(chain(&error).contains("line 2"), "{}", chain(&error));
        let long = format!("a\t{}", "b".repeat(MAX_WORD + 1));
        let error = WordConfusions::parse(long.as_bytes()).unwrap_err();
        assert_eq!(chain(&error), "line 1: a word of more than 100 bytes");
        let error = WordConfusions::parse(&vec![b'\n'; (MAX_BYTES + 1) as usize]).unwrap_err();
        assert_eq!(chain(&error), "more than 16 MiB");
        let error = WordConfusions::read(Path::new("/nowhere/table.tsv")).unwrap_err();
        assert!(chain(&error).starts_with("cannot read the confusion table /nowhere/table.tsv:"));
    }
}
