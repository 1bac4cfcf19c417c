//! Finds what is wrong or suspect in results, by computation: in the paper's tables
//! ([`published`]) and in a sweep ([`sweep()`]).
//!
//! A rule is a function from [`Cell`]s to [`Finding`]s; it names no method, no table and no value.
//! The errata that the authors and we know of are never consulted by a rule: they only label what
//! was found, and a test asks whether each was found without being told.

pub mod carry;
pub mod cell;
pub mod classes;
pub mod f1;
mod known;
pub mod means;
pub mod published;
pub mod range;
pub mod render;
pub mod repeated;
pub mod same;
pub mod spread;
pub mod sweep;
pub mod trend;

pub use cell::{Cell, Place};
pub use published::published;
pub use sweep::{collapsed, sweep};

use serde::Serialize;

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A value that its metric cannot have.
    OutOfRange,
    /// An F1 that no prediction can have at that accuracy.
    ImpossibleF1,
    /// A mean that does not follow from its details.
    Mean,
    /// The same number in two tables, with two values.
    SameNumber,
    /// A column or a row that stands in another place, too.
    Repeated,
    /// A value far off the line through its neighbours.
    Trend,
    /// A coarser accuracy below the finer one that it contains.
    Nested,
    /// A spread over seeds out of proportion to the others of its row.
    Spread,
    /// All answers are of one class.
    OneClass,
    /// No better than always answering the most frequent class.
    Majority,
    /// A stored metric that the stored predictions do not have.
    WrongResult,
    /// Two seeds that predict the same, bit by bit.
    SameSeeds,
    /// Predictions that hardly vary.
    Collapsed,
    /// A job that came out differently when it was done again.
    Conflict,
    /// Splits of other sizes than the published ones.
    SplitSize,
    /// Checkpoints chosen on the test split.
    TestSelection,
    /// Jobs that failed, are not done, or are not there.
    Incomplete,
}

impl Rule {
    /// All of them.
    pub const ALL: &'static [Rule] = &[
        Rule::OutOfRange,
        Rule::ImpossibleF1,
        Rule::Mean,
        Rule::SameNumber,
        Rule::Repeated,
        Rule::Trend,
        Rule::Nested,
        Rule::Spread,
        Rule::OneClass,
        Rule::Majority,
        Rule::WrongResult,
        Rule::SameSeeds,
        Rule::Collapsed,
        Rule::Conflict,
        Rule::SplitSize,
        Rule::TestSelection,
        Rule::Incomplete,
    ];

    /// As in JSON and on the terminal.
    pub fn id(self) -> &'static str {
        match self {
            Rule::OutOfRange => "out-of-range",
            Rule::ImpossibleF1 => "impossible-f1",
            Rule::Mean => "mean",
            Rule::SameNumber => "same-number",
            Rule::Repeated => "repeated",
            Rule::Trend => "trend",
            Rule::Nested => "nested",
            Rule::Spread => "spread",
            Rule::OneClass => "one-class",
            Rule::Majority => "majority",
            Rule::WrongResult => "wrong-result",
            Rule::SameSeeds => "same-seeds",
            Rule::Collapsed => "collapsed",
            Rule::Conflict => "conflict",
            Rule::SplitSize => "split-size",
            Rule::TestSelection => "test-selection",
            Rule::Incomplete => "incomplete",
        }
    }

    /// Why one should care.
    pub fn why(self) -> &'static str {
        match self {
            Rule::OutOfRange => "whatever it is, it is not this metric",
            Rule::ImpossibleF1 => {
                "the F1 is of something else than the predictions that the accuracy is of; methods \
                 cannot be compared by it"
            }
            Rule::Mean => "one of them was not computed from what is printed",
            Rule::SameNumber => "one of the two is wrong, and a reader cannot tell which",
            Rule::Repeated => {
                "measurements of different things do not agree in every digit: one of them was \
                 copied, or what should differ had no effect"
            }
            Rule::Trend => "a misprint, or an evaluation of something else; means over it are off",
            Rule::Nested => {
                "of one and the same prediction this cannot be; it needs another checkpoint for \
                 each metric, or a column in the wrong place"
            }
            Rule::Spread => "a standard deviation over something else than seeds",
            Rule::OneClass => "the accuracy is the share of a class: it says nothing of the model",
            Rule::Majority => "an answer that looks at nothing would be as good",
            Rule::WrongResult => {
                "it was changed after it was measured, or measured by a program that does it \
                 differently"
            }
            Rule::SameSeeds => {
                "the seed had no effect, or one training counts twice: the spread over seeds is too \
                 small"
            }
            Rule::Collapsed => {
                "what it scores is the shape of the dataset: at high missing rates accuracy looks \
                 better than the model is"
            }
            Rule::Conflict => {
                "the same job should give the same bits; another device or version, or something \
                 that is not drawn from the seed"
            }
            Rule::SplitSize => "its numbers cannot be compared with the published ones",
            Rule::TestSelection => {
                "results are better than on data never seen; as in the paper, and only to be \
                 compared with it"
            }
            Rule::Incomplete => "means rest on less than the spec asks for",
        }
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot be right.
    Error,
    /// It is hardly right, or makes a result doubtful.
    Warning,
    /// It may be right, and one should know it.
    Note,
}

impl Severity {
    /// As in JSON and on the terminal.
    pub fn id(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// Something wrong or suspect.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// By which rule.
    pub rule: Rule,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in a sentence without the place.
    pub what: String,
    /// The numbers it is about.
    pub places: Vec<Place>,
    /// Numbers that are not wrong by themselves but rest on these: means over them, and the same
    /// means in other tables.
    pub carried: Vec<Place>,
    /// The numbers in words, one or a few a line: printed, computed, possible.
    pub numbers: Vec<String>,
    /// Of the published tables: the errata that speak of any of its numbers, in words; empty where
    /// none does. `None` where there are no errata to compare with.
    pub known: Option<Vec<String>>,
}

impl Finding {
    /// One without numbers that rest on it, and not compared with the errata.
    pub fn new(
        rule: Rule,
        severity: Severity,
        what: impl Into<String>,
        places: Vec<Place>,
        numbers: Vec<String>,
    ) -> Self {
        Self {
            rule,
            severity,
            what: what.into(),
            places,
            carried: Vec::new(),
            numbers,
            known: None,
        }
    }

    /// Where, in a few words: `Table 9, MOSEI, TETFN, Acc-7 (10 numbers)`.
    pub fn place(&self) -> String {
        cell::summary(&self.places)
    }

    /// Whether it is more than a note.
    pub fn counts(&self) -> bool {
        self.severity < Severity::Note
    }
}

/// The worst first, then in the order of rules and places.
fn sort(findings: &mut [Finding]) {
    findings.sort_by(|a, b| {
        (a.severity, a.rule, &a.places)
            .partial_cmp(&(b.severity, b.rule, &b.places))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
}
