//! A case: one way of damaging the test split.

use serde::{Deserialize, Serialize, Serializer};
use std::{cmp::Ordering, fmt, str::FromStr};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Case {
    /// Every step of every modality is erased with this probability.
    Rate(Rate),
    /// These modalities are erased wholly, the others are complete.
    Missing(MissingSet),
}

/// The two kinds of cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CaseKind {
    /// A set of missing modalities.
    Missing,
    /// A missing rate.
    Rate,
}

impl CaseKind {
    /// As in the text form of a case and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            CaseKind::Rate => "r",
            CaseKind::Missing => "missing",
        }
    }
}

/// One case, or the mean over all cases of a kind: `r=0.3`, `r=mean`, `missing=mean`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CaseOrMean {
    /// One case.
    Case(Case),
    /// The mean over all cases of the kind.
    Mean(CaseKind),
}

impl CaseOrMean {
    /// The kind of the case, or of the cases.
    pub fn kind(self) -> CaseKind {
        match self {
            CaseOrMean::Case(case) => case.kind(),
            CaseOrMean::Mean(kind) => kind,
        }
    }

    /// The case, unless it is a mean.
    pub fn case(self) -> Option<Case> {
        match self {
            CaseOrMean::Case(case) => Some(case),
            CaseOrMean::Mean(_) => None,
        }
    }

    /// The missing rate of a case that is one.
    pub fn rate(self) -> Option<Rate> {
        match self {
            CaseOrMean::Case(Case::Rate(rate)) => Some(rate),
            _ => None,
        }
    }
}

impl From<Case> for CaseOrMean {
    fn from(case: Case) -> Self {
        CaseOrMean::Case(case)
    }
}

impl fmt::Display for CaseOrMean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CaseOrMean::Case(case) => case.fmt(f),
            CaseOrMean::Mean(kind) => write!(f, "{}=mean", kind.as_str()),
        }
    }
}

impl FromStr for CaseOrMean {
    type Err = CaseError;

    fn from_str(s: &str) -> Result<Self, CaseError> {
        match s {
            "r=mean" => Ok(CaseOrMean::Mean(CaseKind::Rate)),
            "missing=mean" => Ok(CaseOrMean::Mean(CaseKind::Missing)),
            case => Ok(CaseOrMean::Case(case.parse()?)),
        }
    }
}

impl Serialize for CaseOrMean {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A key that sorts as the text form does: sets before rates, then by letters and by number. The
/// database and everything printed are in this order.
type TextOrder = ([u8; 3], u16);

impl MissingSet {
    fn text_order(self) -> TextOrder {
        let mut letters = [0; 3];
        let present = [(self.text, b'l'), (self.audio, b'a'), (self.vision, b'v')];
        let present = present.into_iter().filter(|(is, _)| *is);
        for (slot, (_, letter)) in letters.iter_mut().zip(present) {
            *slot = letter;
        }
        (letters, 0)
    }
}

impl Case {
    fn text_order(self) -> TextOrder {
        match self {
            Case::Missing(set) => set.text_order(),
            Case::Rate(rate) => ([u8::MAX; 3], rate.thousandths()),
        }
    }
}

impl CaseOrMean {
    fn text_order(self) -> TextOrder {
        match self {
            CaseOrMean::Case(case) => case.text_order(),
            CaseOrMean::Mean(CaseKind::Missing) => (*b"mea", 0),
            CaseOrMean::Mean(CaseKind::Rate) => ([u8::MAX; 3], u16::MAX),
        }
    }
}

macro_rules! order_as_text {
    ($($type:ty),+) => {$(
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                self.text_order().cmp(&other.text_order())
            }
        }

        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
    )+};
}

order_as_text!(MissingSet, Case, CaseOrMean);

impl Case {
    /// Whether it is a missing rate or a set of missing modalities.
    pub fn kind(&self) -> CaseKind {
        match self {
            Case::Rate(_) => CaseKind::Rate,
            Case::Missing(_) => CaseKind::Missing,
        }
    }

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
    fn order_is_that_of_the_text_form() {
        let texts = [
            "missing=a",
            "missing=av",
            "missing=l",
            "missing=la",
            "missing=lv",
            "missing=mean",
            "missing=v",
            "r=0",
            "r=0.05",
            "r=0.3",
            "r=0.95",
            "r=1",
            "r=mean",
        ];
        let mut cases: Vec<CaseOrMean> = texts.iter().rev().map(|t| t.parse().unwrap()).collect();
        cases.sort();
        let sorted: Vec<String> = cases.iter().map(ToString::to_string).collect();
        assert_eq!(sorted, texts);
    }

    #[test]
    fn refuses_what_is_no_case() {
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
