//! Finds the dict of splits in a feature file, and its splits.

use crate::{ImportError, recognize};
use halfheard_shared::{
    dataset::Split,
    pickle::{Limits, Pickle, Value},
};
use std::path::Path;

/// Maximum number of pickles that are read in one file.
const MAX_PICKLES: usize = 16;

/// The number with which files of PyTorch's torch.save began before they were zips.
const TORCH_SAVE: &[u8] = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// A pickle with a dict of splits at or near its root.
#[derive(Debug)]
pub(crate) struct Root<'a> {
    pub pickle: Pickle<'a>,
    /// The dict of splits.
    pub dict: Value<'a>,
    /// Where it was found, if not at the root.
    pub notes: Vec<String>,
}

/// The names of a split in files, in lower case.
fn names_of(split: Split) -> &'static [&'static str] {
    match split {
        Split::Train => &["train", "training"],
        Split::Valid => &["valid", "validation", "val", "dev", "devel"],
        Split::Test => &["test", "testing"],
    }
}

/// Whether `key` is a name of `split`.
fn is_name_of(key: &str, split: Split) -> bool {
    names_of(split).contains(&key.to_lowercase().as_str())
}

/// Whether a value is a dict (or of a derived class) that has a split.
fn has_splits<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> bool {
    pickle
        .entries(value)
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| pickle.text(key))
        .any(|key| Split::ALL.into_iter().any(|split| is_name_of(key, split)))
}

impl<'a> Root<'a> {
    /// Reads the file's pickles until one is a dict of splits or a list with one.
    pub(crate) fn find(bytes: &'a [u8], path: &Path) -> Result<Self, ImportError> {
        let read = |offset| Pickle::read_at(bytes, offset, Limits::default());
        let first = read(0).map_err(|source| ImportError::pickle(path, bytes, source))?;
        if first.root() == Value::BigInt(TORCH_SAVE) {
            return Err(ImportError::NotPickle {
                path: path.to_owned(),
                what: recognize::torch_save(),
            });
        }
        if let Some(root) = Self::in_pickle(first.root(), &first) {
            return Ok(root.of(first));
        }
        // More pickles may follow the first one; anything else that follows is ignored.
        let mut end = first.end();
        for number in 2..=MAX_PICKLES {
            let Ok(next) = read(end) else { break };
            if let Some(mut root) = Self::in_pickle(next.root(), &next) {
                root.notes.push(format!(
                    "the file holds several pickles; the splits are in pickle {number}"
                ));
                return Ok(root.of(next));
            }
            end = next.end();
        }
        let root = first.root();
        if first.entries(root).is_some() {
            // A dict without splits: the error for the first one lists the existing keys.
            split(&first, root, Split::Train)?;
        }
        Err(ImportError::Root {
            found: first.describe(root),
        })
    }

    fn in_pickle(value: Value<'a>, pickle: &Pickle<'a>) -> Option<Found<'a>> {
        if has_splits(pickle, value) {
            return Some(Found {
                dict: value,
                notes: Vec::new(),
            });
        }
        let mut inside = pickle
            .items(value)
            .or_else(|| pickle.objects(value))?
            .iter()
            .take(MAX_PICKLES)
            .filter(|item| has_splits(pickle, **item));
        match (inside.next(), inside.next()) {
            (Some(&dict), None) => Some(Found {
                dict,
                notes: vec![format!("the dict of splits is inside {}", value.kind())],
            }),
            _ => None,
        }
    }
}

/// Where the dict of splits was found, before the pickle is moved.
struct Found<'a> {
    dict: Value<'a>,
    notes: Vec<String>,
}

impl<'a> Found<'a> {
    fn of(self, pickle: Pickle<'a>) -> Root<'a> {
        Root {
            pickle,
            dict: self.dict,
            notes: self.notes,
        }
    }
}

/// The value of a split and its key in the file: its own name, or the only other key that is a name of it
/// (`dev`, `Train`).
pub(crate) fn split<'a>(
    pickle: &Pickle<'a>,
    root: Value<'a>,
    split: Split,
) -> Result<(Value<'a>, String), ImportError> {
    if let Some(value) = pickle.get(root, split.as_str()) {
        return Ok((value, split.to_string()));
    }
    let mut others: Vec<(String, Value<'a>)> = Vec::new();
    for (key, value) in pickle.entries(root).into_iter().flatten() {
        if let Some(key) = pickle.text(key)
            && is_name_of(key, split)
        {
            // A repeated key counts once, with its last value.
            others.retain(|(known, _)| known != key);
            others.push((key.to_owned(), value));
        }
    }
    match others.as_slice() {
        [(key, value)] => Ok((*value, key.clone())),
        [] => Err(ImportError::MissingSplit {
            split,
            have: keys(pickle, root),
        }),
        several => Err(ImportError::AmbiguousSplit {
            split,
            keys: several.iter().map(|(key, _)| key.clone()).collect(),
        }),
    }
}

/// Keys of the root that hold samples of other splits, for a note.
pub(crate) fn other_splits<'a>(pickle: &Pickle<'a>, root: Value<'a>) -> Vec<String> {
    let mut names: Vec<String> = pickle
        .entries(root)
        .into_iter()
        .flatten()
        .filter(|(_, value)| pickle.get(*value, "text_bert").is_some())
        .filter_map(|(key, _)| pickle.text(key))
        .filter(|key| !Split::ALL.into_iter().any(|split| is_name_of(key, split)))
        .map(escaped)
        .take(10)
        .collect();
    names.dedup();
    names
}

/// The text keys of a dict, for messages.
pub(crate) fn keys<'a>(pickle: &Pickle<'a>, dict: Value<'a>) -> Vec<String> {
    pickle
        .entries(dict)
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| pickle.text(key))
        .map(escaped)
        .take(30)
        .collect()
}

fn escaped(key: &str) -> String {
    key.chars().take(40).flat_map(char::escape_debug).collect()
}
