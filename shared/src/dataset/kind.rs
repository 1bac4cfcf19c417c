//! Which of the field's datasets a file follows, and its splits.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The dataset whose protocol a file follows: it decides labels, classes, metrics and families.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// CMU-MOSI: English, labels in [-3, 3].
    Mosi,
    /// CMU-MOSEI: English, labels in [-3, 3].
    Mosei,
    /// CH-SIMS: Chinese, labels in [-1, 1], with a label for each modality alone.
    Sims,
}

/// A name that is no dataset's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no dataset protocol: give mosi, mosei or sims")]
pub struct UnknownKind(pub String);

impl Kind {
    /// All of them, in the paper's order.
    pub const ALL: [Kind; 3] = [Kind::Mosi, Kind::Mosei, Kind::Sims];

    /// The name in specs, tables and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Mosi => "mosi",
            Kind::Mosei => "mosei",
            Kind::Sims => "sims",
        }
    }

    /// The largest absolute label.
    pub fn label_limit(self) -> f32 {
        match self {
            Kind::Mosi | Kind::Mosei => 3.0,
            Kind::Sims => 1.0,
        }
    }

    /// Whether the protocol has labels for each modality alone.
    pub fn has_unimodal_labels(self) -> bool {
        self == Kind::Sims
    }

    /// Samples of (train, valid, test) that the paper uses.
    pub fn paper_sizes(self) -> [usize; 3] {
        match self {
            Kind::Mosi => [1284, 229, 686],
            Kind::Mosei => [16326, 1871, 4659],
            Kind::Sims => [1368, 456, 457],
        }
    }

    /// Names of the classes that labels fall into, most negative first: seven for MOSI and MOSEI,
    /// five for SIMS.
    pub fn classes(self) -> &'static [&'static str] {
        match self {
            Kind::Mosi | Kind::Mosei => &["-3", "-2", "-1", "0", "1", "2", "3"],
            Kind::Sims => &[
                "negative",
                "weakly negative",
                "neutral",
                "weakly positive",
                "positive",
            ],
        }
    }

    /// The class of a label, an index into [`Kind::classes`].
    ///
    /// MOSI and MOSEI round half to even after clipping; SIMS has the borders -0.7, -0.1, 0.1 and
    /// 0.7, each belonging to the class below it (MMSA, `metricsTop.py`).
    pub fn class_of(self, label: f32) -> usize {
        let clipped = label.clamp(-self.label_limit(), self.label_limit());
        match self {
            Kind::Mosi | Kind::Mosei => (clipped.round_ties_even() + 3.0) as usize,
            Kind::Sims => [-0.7, -0.1, 0.1, 0.7]
                .iter()
                .filter(|&&border| clipped > border)
                .count(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(s: &str) -> Result<Self, UnknownKind> {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == s)
            .ok_or_else(|| UnknownKind(s.to_owned()))
    }
}

/// One of a dataset's three splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// For training.
    Train,
    /// For selecting checkpoints.
    Valid,
    /// For the tables.
    Test,
}

impl Split {
    /// All three, in the order of the file.
    pub const ALL: [Split; 3] = [Split::Train, Split::Valid, Split::Test];

    /// The name in files: the first part of a tensor's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Valid => "valid",
            Split::Test => "test",
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
