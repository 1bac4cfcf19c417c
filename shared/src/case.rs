//! A case: one way of damaging the test split.

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

/// A set of modalities that are wholly missing, written with the letters `l`, `a`, `v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MissingSet {
    /// Language is missing.
    pub text: bool,
    /// Audio is missing.
    pub audio: bool,
    /// Vision is missing.
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
}

impl fmt::Display for MissingSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (here, letter) in [(self.text, "l"), (self.audio, "a"), (self.vision, "v")] {
            if here {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// An invalid case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaseError {
    /// A rate outside 0 to 1 or finer than a thousandth.
    #[error("`{0}` is not a missing rate: give a number from 0 to 1 with at most three decimals")]
    Rate(String),
    /// A set with an unknown or repeated letter, or an empty one.
    #[error("`{0}` is not a set of modalities: give one or two of l (text), a (audio), v (vision)")]
    Set(String),
    /// Neither `r=...` nor `missing=...`.
    #[error("`{0}` is not a case: write `r=0.3` or `missing=la`")]
    Form(String),
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

/// A missing rate in thousandths: equal rates compare and hash equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rate(u16);

impl Rate {
    /// From a number in `[0, 1]` with at most three decimals.
    pub fn new(rate: f64) -> Result<Self, CaseError> {
        let thousandths = rate * 1000.0;
        let whole = thousandths.round();
        if !(0.0..=1000.0).contains(&whole) || (thousandths - whole).abs() > 1e-6 {
            return Err(CaseError::Rate(rate.to_string()));
        }
        Ok(Self(whole as u16))
    }

    /// In thousandths, 0 to 1000.
    pub fn thousandths(self) -> u16 {
        self.0
    }

    /// From thousandths, 0 to 1000; more is taken as 1000.
    pub fn from_thousandths(thousandths: u16) -> Self {
        Self(thousandths.min(1000))
    }

    /// The rate as the nearest double to its decimal form (0.3, not 0.30000000000000004).
    pub fn value(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

/// One way of damaging the test split. Its text form, `r=0.3` or `missing=la`, is what tables,
/// the database and command lines use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Case {
    /// Every step of every modality is erased with this probability.
    Rate(Rate),
    /// These modalities are erased wholly, the others are complete.
    Missing(MissingSet),
}

impl Case {
    /// The erasure rate that this case gives `modality`.
    pub fn rate_of(&self, modality: Modality) -> f64 {
        match self {
            Case::Rate(rate) => rate.value(),
            Case::Missing(set) => f64::from(u8::from(set.contains(modality))),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Case::Rate(rate) => write!(f, "r={rate}"),
            Case::Missing(set) => write!(f, "missing={set}"),
        }
    }
}

impl FromStr for Case {
    type Err = CaseError;

    fn from_str(s: &str) -> Result<Self, CaseError> {
        if let Some(rate) = s.strip_prefix("r=") {
            let number = rate.parse().map_err(|_| CaseError::Rate(rate.to_owned()))?;
            Ok(Case::Rate(Rate::new(number)?))
        } else if let Some(set) = s.strip_prefix("missing=") {
            Ok(Case::Missing(set.parse()?))
        } else {
            Err(CaseError::Form(s.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for text in ["r=0", "r=0.3", "r=0.9", "r=1", "missing=l", "missing=av"] {
            assert_eq!(text.parse::<Case>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn invalid_case_is_rejected() {
        for text in [
            "0.3",
            "r=1.1",
            "r=-0.1",
            "r=0.12345",
            "r=NaN",
            "missing=",
            "missing=lav",
            "missing=ll",
            "missing=x",
        ] {
            assert!(text.parse::<Case>().is_err(), "{text}");
        }
    }

    #[test]
    fn missing_set_erases_only_its_modalities() {
        let case: Case = "missing=la".parse().unwrap();
        assert_eq!(case.rate_of(Modality::Text), 1.0);
        assert_eq!(case.rate_of(Modality::Audio), 1.0);
        assert_eq!(case.rate_of(Modality::Vision), 0.0);
    }
}
