//! What becomes of feature values that are not finite.

use halfheard_shared::dataset::{Kind, NotFinite, Split};
use std::fmt;

/// What is done with audio and vision values that are not finite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NonFinite {
    /// What the dataset's own loader does; anything else is refused.
    #[default]
    Reference,
    /// All are set to 0.
    Zero,
    /// All are refused.
    Refuse,
}

impl NonFinite {
    /// The name on the command line and in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Zero => "zero",
            Self::Refuse => "refuse",
        }
    }
}

/// Whose loader is the reference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reference {
    /// MMSA's `data_loader.py`, for MOSI, MOSEI and SIMS: `-inf` in audio becomes 0.
    #[default]
    Mmsa,
    /// `data/load_data.py` of ch-sims-v2: `-inf` in audio and vision becomes 0.
    SimsV2,
}

impl Reference {
    /// Samples of (train, valid, test) that the published dataset has, where that is known: the
    /// paper's, and for SIMS v2 the training samples with labels (its `config_regression.py`).
    pub fn sizes(self, kind: Kind) -> [Option<usize>; 3] {
        match self {
            Self::Mmsa => kind
                .paper_sizes()
                .map_or([None; 3], |sizes| sizes.map(Some)),
            Self::SimsV2 => [Some(2722), None, None],
        }
    }

    /// What the sizes are those of, in words.
    pub(super) fn of(self, kind: Kind) -> String {
        match self {
            Self::Mmsa => format!("the paper's {kind}"),
            Self::SimsV2 => "CH-SIMS v2 (with labels)".to_owned(),
        }
    }

    /// Whether this loader sets `value` of `field` to 0.
    pub(super) fn zeroes(self, field: &str, value: f32) -> bool {
        value == f32::NEG_INFINITY && (self == Self::SimsV2 || field == "audio")
    }
}

/// Where the first value stands that cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The sample's index in its split, from 0.
    pub sample: usize,
    /// The step, from 0.
    pub step: usize,
    /// The feature, from 0.
    pub feature: usize,
    /// The value as it stands in the file.
    pub value: f64,
}

/// The values of one field of one split that are refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// Which split.
    pub split: Split,
    /// Which field.
    pub field: &'static str,
    /// How many of each kind.
    pub counts: NotFinite,
    /// The first of them.
    pub first: Place,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place {
            sample,
            step,
            feature,
            value,
        } = self.first;
        write!(
            f,
            "split {}: `{}`, sample {sample}: {} at step {step}, feature {feature}",
            self.split,
            self.field,
            Shown(value)
        )?;
        if self.counts.total() > 1 {
            write!(
                f,
                ", the first of {} ({})",
                self.counts.total(),
                self.counts
            )?;
        }
        Ok(())
    }
}

/// A value that is not finite in single precision.
struct Shown(f64);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_finite() {
            write!(f, "{:e} (too large for float32)", self.0)
        } else {
            write!(f, "{}", self.0)
        }
    }
}

/// Everything of a file that is refused.
#[derive(Debug, Clone, PartialEq)]
pub struct AllRefused(pub Vec<Refused>);

impl fmt::Display for AllRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, refused) in self.0.iter().enumerate() {
            write!(f, "{}{refused}", if at == 0 { "" } else { "; " })?;
        }
        f.write_str(
            ". Features must be finite: set such values to 0 with --nonfinite zero (the counts are kept in the manifest), repair the file, or leave the samples out",
        )
    }
}

/// Counts one value that is not finite as single precision; `exact` is what the file has.
pub(super) fn count(counts: &mut NotFinite, exact: f64) {
    if exact.is_nan() {
        counts.nan += 1;
    } else if exact.is_finite() {
        counts.too_large += 1;
    } else if exact < 0.0 {
        counts.neg_inf += 1;
    } else {
        counts.pos_inf += 1;
    }
}
