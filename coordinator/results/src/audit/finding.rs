//! What the audit finds.

use super::{Place, cell};
use serde::Serialize;

/// The rule behind a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A value outside the range of its metric.
    OutOfRange,
    /// An F1 that no prediction can have at that accuracy.
    ImpossibleF1,
    /// A mean that does not follow from its details.
    Mean,
    /// The same number in two tables, with different values.
    SameNumber,
    /// A column or a row that occurs twice.
    Repeated,
    /// Values of one row, one column further in a related row.
    Shifted,
    /// Numbers that another paper prints, too.
    OtherPaper,
    /// A value far off the line through its neighbors.
    Trend,
    /// A coarser accuracy below the finer one that it includes.
    Nested,
    /// A spread over seeds out of proportion to the others of its row.
    Spread,
    /// Rows nearer to each other than their spread over seeds allows.
    TooClose,
    /// All predictions are of one class.
    OneClass,
    /// Not better than always predicting the most frequent class.
    Majority,
    /// Cases with the same numbers.
    NoEffect,
    /// A stored metric that does not match the stored predictions.
    WrongResult,
    /// Two seeds with bitwise equal predictions.
    SameSeeds,
    /// Predictions that hardly vary.
    Collapsed,
    /// A job with different results in two attempts.
    Conflict,
    /// Results of several versions of the program, devices, numerics or kinds of machines.
    MixedBuilds,
    /// Splits with other sizes than published.
    SplitSize,
    /// Checkpoints selected on the test split.
    TestSelection,
    /// Jobs that failed, are unfinished, or are missing.
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
        Rule::Shifted,
        Rule::OtherPaper,
        Rule::Trend,
        Rule::Nested,
        Rule::Spread,
        Rule::TooClose,
        Rule::OneClass,
        Rule::Majority,
        Rule::NoEffect,
        Rule::WrongResult,
        Rule::SameSeeds,
        Rule::Collapsed,
        Rule::Conflict,
        Rule::MixedBuilds,
        Rule::SplitSize,
        Rule::TestSelection,
        Rule::Incomplete,
    ];

    /// The id in JSON and on the terminal.
    pub fn id(self) -> &'static str {
        match self {
            Rule::OutOfRange => "out-of-range",
            Rule::ImpossibleF1 => "impossible-f1",
            Rule::Mean => "mean",
            Rule::SameNumber => "same-number",
            Rule::Repeated => "repeated",
            Rule::Shifted => "shifted",
            Rule::OtherPaper => "other-paper",
            Rule::Trend => "trend",
            Rule::Nested => "nested",
            Rule::Spread => "spread",
            Rule::TooClose => "too-close",
            Rule::OneClass => "one-class",
            Rule::Majority => "majority",
            Rule::NoEffect => "no-effect",
            Rule::WrongResult => "wrong-result",
            Rule::SameSeeds => "same-seeds",
            Rule::Collapsed => "collapsed",
            Rule::Conflict => "conflict",
            Rule::MixedBuilds => "mixed-builds",
            Rule::SplitSize => "split-size",
            Rule::TestSelection => "test-selection",
            Rule::Incomplete => "incomplete",
        }
    }

    /// Why a finding of this rule matters.
    pub fn why(self) -> &'static str {
        match self {
            Rule::OutOfRange => "whatever it is, it is not this metric",
            Rule::ImpossibleF1 => {
                "the F1 and the accuracy are not of the same predictions; methods cannot be compared \
                 by it"
            }
            Rule::Mean => "one of them was not computed from the printed numbers",
            Rule::SameNumber => "one of the two is wrong, and a reader cannot tell which",
            Rule::Repeated => {
                "different measurements do not agree in every digit: one was copied, or a difference \
                 in settings had no effect"
            }
            Rule::Shifted => {
                "columns were mixed up: one of the two rows has values of another metric"
            }
            Rule::OtherPaper => {
                "numbers that were taken over were not measured under this protocol, and two papers that \
                 agree are one measurement"
            }
            Rule::Trend => "a misprint, or an evaluation of something else; means over it are off",
            Rule::Nested => {
                "the same predictions cannot have both; it takes a different checkpoint for each \
                 metric, or a misplaced column"
            }
            Rule::Spread => "the standard deviation is probably not over seeds",
            Rule::TooClose => {
                "they are probably of one training, evaluated twice: not two models that were trained \
                 differently"
            }
            Rule::OneClass => {
                "the accuracy is the share of a class: it says nothing about the model"
            }
            Rule::Majority => "a constant prediction would be as good",
            Rule::NoEffect => {
                "the model does not use what differs between the cases, or one evaluation stands for \
                 both"
            }
            Rule::WrongResult => {
                "it was changed after the measurement, or measured by a program that computes it \
                 differently"
            }
            Rule::SameSeeds => {
                "the seed had no effect, or one training run counts twice: the spread over seeds is \
                 too small"
            }
            Rule::Collapsed => {
                "its score reflects the class distribution: at high missing rates accuracy looks \
                 better than the model is"
            }
            Rule::Conflict => {
                "the same job should give the same bits; the cause is another device or version, or \
                 randomness that does not depend on the seed"
            }
            Rule::MixedBuilds => {
                "differences between models may be differences between programs or machines"
            }
            Rule::SplitSize => "its numbers are not comparable with the published ones",
            Rule::TestSelection => {
                "results are better than on unseen data; as in the paper, and comparable only with \
                 it"
            }
            Rule::Incomplete => "means are over fewer results than the spec asks for",
        }
    }
}

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot be right.
    Error,
    /// It is probably wrong, or makes a result doubtful.
    Warning,
    /// It may be right, but is worth knowing.
    Note,
}

impl Severity {
    /// The id in JSON and on the terminal.
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
    /// The rule.
    pub rule: Rule,
    /// The severity.
    pub severity: Severity,
    /// What is wrong, without the place.
    pub what: String,
    /// The numbers concerned.
    pub places: Vec<Place>,
    /// Numbers that depend on these: means over them, and the same means in other tables.
    pub carried: Vec<Place>,
    /// The evidence, line by line: numbers as printed, computed, possible.
    pub numbers: Vec<String>,
    /// For published tables: the errata about any of its numbers. `None` for a sweep, which has no
    /// errata.
    pub known: Option<Vec<String>>,
}

impl Finding {
    /// A finding without dependent numbers and errata.
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

    /// A short description of the places: `Table 9, MOSEI, TETFN, Acc-7`.
    pub fn place(&self) -> String {
        cell::summary(&self.places)
    }

    /// Whether it is more severe than a note.
    pub fn counts(&self) -> bool {
        self.severity < Severity::Note
    }
}

/// Sorts by severity, then by rule and place.
pub(super) fn sort(findings: &mut [Finding]) {
    findings.sort_by(|a, b| {
        (a.severity, a.rule, &a.places)
            .partial_cmp(&(b.severity, b.rule, &b.places))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
}
