//! Modalities and sets of them.

use super::{CaseError, order::order_as_text};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The three modalities, in the order the field writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// Language: token ids.
    Text,
    /// Acoustic features.
    Audio,
    /// Visual features.
    Vision,
}

impl Modality {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Text, Self::Audio, Self::Vision];

    /// The letter of it in cases and tensor names: `l`, `a`, `v`.
    pub fn letter(self) -> &'static str {
        match self {
            Modality::Text => "l",
            Modality::Audio => "a",
            Modality::Vision => "v",
        }
    }
}

/// A set of one or two modalities, written with the letters `l`, `a`, `v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MissingSet {
    /// Whether language is in it.
    pub text: bool,
    /// Whether audio is in it.
    pub audio: bool,
    /// Whether vision is in it.
    pub vision: bool,
}

impl MissingSet {
    /// The paper's six sets in the order of its Tables 13 and 14.
    pub const PAPER: [&'static str; 6] = ["l", "a", "v", "la", "lv", "av"];

    /// Whether `modality` is in the set.
    pub fn contains(&self, modality: Modality) -> bool {
        match modality {
            Modality::Text => self.text,
            Modality::Audio => self.audio,
            Modality::Vision => self.vision,
        }
    }

    /// One modality.
    pub fn of(modality: Modality) -> Self {
        Self {
            text: modality == Modality::Text,
            audio: modality == Modality::Audio,
            vision: modality == Modality::Vision,
        }
    }
}

order_as_text!(MissingSet);

impl fmt::Display for MissingSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut here = Modality::ALL.into_iter().filter(|m| self.contains(*m));
        here.try_for_each(|modality| f.write_str(modality.letter()))
    }
}

impl FromStr for MissingSet {
    type Err = CaseError;

    fn from_str(s: &str) -> Result<Self, CaseError> {
        let mut set = MissingSet {
            text: false,
            audio: false,
            vision: false,
        };
        for letter in s.chars() {
            let slot = match letter {
                'l' => &mut set.text,
                'a' => &mut set.audio,
                'v' => &mut set.vision,
                _ => return Err(CaseError::Set(s.to_owned())),
            };
            if std::mem::replace(slot, true) {
                return Err(CaseError::Set(s.to_owned()));
            }
        }
        // All three missing leaves nothing to predict from; none missing is r=0.
        match s.len() {
            1 | 2 => Ok(set),
            _ => Err(CaseError::Set(s.to_owned())),
        }
    }
}
