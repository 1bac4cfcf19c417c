//! The treatment of feature values that are not finite.

use halfheard_shared::dataset::{Kind, NotFinite, Split};
use std::fmt;

/// How audio and vision values that are not finite are treated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NonFinite {
    /// As the dataset's own loader does; anything else is rejected.
    #[default]
    Reference,
    /// All are set to 0.
    Zero,
    /// All are rejected.
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
    /// Numbers of samples (train, valid, test) of the published dataset, if known: the paper's, and for
    /// SIMS v2 the training samples with labels (its `config_regression.py`).
    pub fn sizes(self, kind: Kind) -> [Option<usize>; 3] {
        match self {
            Self::Mmsa => kind
                .paper_sizes()
                .map_or([None; 3], |sizes| sizes.map(Some)),
            Self::SimsV2 => [Some(2722), None, None],
        }
    }

    /// The name of the dataset that has these sizes.
    pub(crate) fn of(self, kind: Kind) -> String {
        match self {
            Self::Mmsa => format!("the paper's {kind}"),
            Self::SimsV2 => "CH-SIMS v2 (with labels)".to_owned(),
        }
    }

    /// Whether this loader sets `value` of `field` to 0.
    pub(crate) fn zeroes(self, field: &str, value: f32) -> bool {
        value == f32::NEG_INFINITY && (self == Self::SimsV2 || field == "audio")
    }
}

/// Where a value that is not finite is.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The sample's index in its split, from 0.
    pub sample: usize,
    /// The step, from 0.
    pub step: usize,
    /// The feature, from 0.
    pub feature: usize,
    /// The value in the file.
    pub value: f64,
}

/// The rejected values of one field of one split.
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

/// All rejected values of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct AllRefused(pub Vec<Refused>);

impl fmt::Display for AllRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, refused) in self.0.iter().enumerate() {
            write!(f, "{}{refused}", if at == 0 { "" } else { "; " })?;
        }
        f.write_str("; features must be finite")
    }
}

/// Counts one value that is not finite in single precision; `exact` is the value in the file.
pub(crate) fn count(counts: &mut NotFinite, exact: f64) {
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
