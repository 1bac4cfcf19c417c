//! What a protocol says of a dataset: the range of its labels, its language, its classes. The three
//! built-in ones are definitions, too; users can write others for their own datasets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The largest absolute value of a label: single precision keeps six digits.
pub const MAX_LABEL: f64 = 1e6;

/// Maximum number of classes that an accuracy can have.
pub const MAX_CLASSES: usize = 21;

/// Maximum number of accuracies that a definition can ask for.
pub const MAX_ACCURACIES: usize = 8;

/// A protocol of your own, as specs and `coord data import` have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DefinitionSpec {
    /// The smallest and the largest label: `[-1.0, 1.0]`, `[0, 5]`.
    pub label_range: [f64; 2],
    /// The language of the texts, which chooses the text encoder: `en`, `zh`.
    pub language: String,
    /// Which accuracies are measured: by how many classes, `[2, 3, 5]`, or by the edges between
    /// them, `[2, [-0.5, 0.5]]`.
    #[schemars(length(min = 1, max = 8))]
    pub classes: Vec<ClassesSpec>,
    /// How labels fall into classes: `rounded` (as MOSI's) or `intervals` (as SIMS'); if left out,
    /// `rounded` where the range runs between whole numbers that are 4 to 20 apart.
    #[serde(default)]
    pub rule: Option<Rule>,
    /// Whether there are labels for text, audio and vision alone, as SIMS has them.
    #[serde(default)]
    pub unimodal: bool,
}

/// The classes of one accuracy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "a number of classes, or a list of the edges between them"
)]
pub enum ClassesSpec {
    /// This many, by the rule.
    Count(u32),
    /// One more than there are edges, rising; each edge belongs to the class below it.
    Edges(Vec<f64>),
}

/// How labels and predictions fall into classes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// As on MOSI and MOSEI: clipped to the middle so many whole numbers, then rounded half to
    /// even. Two classes are measured without neutral labels and with them among the positive ones.
    Rounded,
    /// As on SIMS: clipped to the range, then separated by edges, each of which belongs to the
    /// class below it. Two classes have neutral labels among the negative ones.
    Intervals,
}

impl Rule {
    /// As in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Rounded => "rounded",
            Rule::Intervals => "intervals",
        }
    }
}

impl std::str::FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Rule::Rounded, Rule::Intervals]
            .into_iter()
            .find(|rule| rule.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a rule: write rounded or intervals"))
    }
}

/// A protocol with everything filled in: what dataset files, jobs and the database carry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// The smallest and the largest label.
    pub label_range: [f64; 2],
    /// The language of the texts.
    pub language: String,
    /// How labels fall into classes.
    pub rule: Rule,
    /// The accuracies, fewest classes first.
    pub classes: Vec<Classes>,
    /// Whether there are labels for text, audio and vision alone.
    pub unimodal: bool,
}

/// The classes of one accuracy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Classes {
    /// Their number.
    pub count: u32,
    /// The edges between them, rising; none where the rule rounds.
    pub edges: Vec<f64>,
}

/// Why a definition cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{key}: {what}")]
pub struct DefinitionError {
    /// Which of its keys is wrong.
    pub key: &'static str,
    /// What is wrong, and what to do.
    pub what: String,
}

fn wrong<T>(key: &'static str, what: impl Into<String>) -> Result<T, DefinitionError> {
    let what = what.into();
    Err(DefinitionError { key, what })
}

/// The edges of SIMS for so many classes of labels in ±1 (MMSA `utils/metricsTop.py`).
fn usual_edges(count: u32) -> Option<&'static [f64]> {
    match count {
        2 => Some(&[0.0]),
        3 => Some(&[-0.1, 0.1]),
        5 => Some(&[-0.7, -0.1, 0.1, 0.7]),
        _ => None,
    }
}

impl DefinitionSpec {
    /// Checks it and fills in the defaults.
    ///
    /// # Errors
    ///
    /// What is invalid, by key.
    pub fn resolve(&self) -> Result<Definition, DefinitionError> {
        let range = self.label_range;
        check_range(range)?;
        let rule = self.rule.unwrap_or_else(|| usual_rule(range));
        if self.classes.is_empty() {
            return wrong("classes", "empty: write how many, such as `[2, 3, 5]`");
        }
        let mut classes = self
            .classes
            .iter()
            .map(|classes| match classes {
                ClassesSpec::Count(count) => counted(range, rule, *count),
                ClassesSpec::Edges(_) if rule == Rule::Rounded => wrong(
                    "classes",
                    "edges need `rule = \"intervals\"`: whole numbers have none",
                ),
                ClassesSpec::Edges(edges) => Ok(Classes {
                    count: u32::try_from(edges.len().saturating_add(1)).unwrap_or(u32::MAX),
                    edges: edges.clone(),
                }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        classes.sort_by_key(|classes| classes.count);
        let definition = Definition {
            label_range: range,
            language: self.language.clone(),
            rule,
            classes,
            unimodal: self.unimodal,
        };
        definition.check()?;
        Ok(definition)
    }
}

fn check_range([low, high]: [f64; 2]) -> Result<(), DefinitionError> {
    let key = "label_range";
    if !low.is_finite() || !high.is_finite() || low.abs().max(high.abs()) > MAX_LABEL {
        return wrong(key, format!("{low} to {high} is not within ±{MAX_LABEL}"));
    }
    if low >= high {
        return wrong(
            key,
            format!("it runs from {low} to {high}: write the smaller number first"),
        );
    }
    // Labels are single precision: the classes between must be more than its last digit apart.
    if high - low < 1e-3 * low.abs().max(high.abs()).max(1.0) {
        return wrong(
            key,
            format!("{low} to {high} is too narrow: scale the labels"),
        );
    }
    Ok(())
}

/// `rounded` where the range runs between whole numbers that are neither near nor far apart.
fn usual_rule([low, high]: [f64; 2]) -> Rule {
    let whole = low.fract() == 0.0 && high.fract() == 0.0;
    if whole && (4.0..=20.0).contains(&(high - low)) {
        Rule::Rounded
    } else {
        Rule::Intervals
    }
}

/// This many classes by the rule.
fn counted([low, high]: [f64; 2], rule: Rule, count: u32) -> Result<Classes, DefinitionError> {
    let edges = match rule {
        // Whether they can be rounded to is checked with the rest.
        Rule::Rounded => Vec::new(),
        Rule::Intervals => {
            let (middle, half) = (f64::midpoint(low, high), (high - low) / 2.0);
            let Some(edges) = usual_edges(count) else {
                return wrong(
                    "classes",
                    format!(
                        "no default edges for {count} classes (there are for 2, 3 and 5): \
                         write the edges between them instead, rising, as a list in the list"
                    ),
                );
            };
            edges.iter().map(|edge| middle + half * edge).collect()
        }
    };
    Ok(Classes { count, edges })
}

impl Definition {
    /// Checks one that was filled in elsewhere: a dataset file, a message, the database.
    ///
    /// # Errors
    ///
    /// What is invalid, by key.
    pub fn check(&self) -> Result<(), DefinitionError> {
        check_range(self.label_range)?;
        let tag = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if self.language.is_empty() || self.language.len() > 16 || !self.language.chars().all(tag) {
            return wrong(
                "language",
                format!(
                    "`{}` is not a language: write 1 to 16 letters, as in `[encoders.zh]`",
                    self.language.escape_debug()
                ),
            );
        }
        let key = "classes";
        if self.classes.is_empty() || self.classes.len() > MAX_ACCURACIES {
            return wrong(key, format!("there must be 1 to {MAX_ACCURACIES} of them"));
        }
        for pair in self.classes.windows(2) {
            if pair[0].count >= pair[1].count {
                return wrong(
                    key,
                    format!("{} classes are listed twice: remove one", pair[1].count),
                );
            }
        }
        self.classes
            .iter()
            .try_for_each(|classes| self.check_classes(classes))
    }

    fn check_classes(&self, classes: &Classes) -> Result<(), DefinitionError> {
        let key = "classes";
        let count = classes.count;
        if !(2..=MAX_CLASSES as u32).contains(&count) {
            return wrong(
                key,
                format!("an accuracy has 2 to {MAX_CLASSES} classes, not {count}"),
            );
        }
        let [low, high] = self.label_range;
        match self.rule {
            Rule::Rounded => {
                let whole = low.fract() == 0.0 && high.fract() == 0.0;
                if !whole || !classes.edges.is_empty() {
                    return wrong(
                        "rule",
                        format!(
                            "labels from {low} to {high} cannot be rounded to classes: write \
                             `rule = \"intervals\"`"
                        ),
                    );
                }
                // As many whole numbers as the range has, less the same number at either end.
                let all = high - low + 1.0;
                let left = all - f64::from(count);
                if count > 2 && (left < 0.0 || left % 2.0 != 0.0) {
                    let possible: Vec<String> = (3..=MAX_CLASSES as u32)
                        .filter(|n| f64::from(*n) <= all && (all - f64::from(*n)) % 2.0 == 0.0)
                        .map(|n| n.to_string())
                        .collect();
                    return wrong(
                        key,
                        format!(
                            "labels from {low} to {high} cannot be rounded to {count} classes: \
                             there can be 2{}{}; for others write `rule = \"intervals\"`",
                            if possible.is_empty() { "" } else { ", " },
                            possible.join(", ")
                        ),
                    );
                }
            }
            Rule::Intervals => {
                let edges = &classes.edges;
                let inside = |edge: &f64| low < *edge && *edge < high;
                let rising = edges
                    .windows(2)
                    .all(|pair| (pair[0] as f32) < (pair[1] as f32));
                if edges.len() + 1 != count as usize || !edges.iter().all(inside) || !rising {
                    return wrong(
                        key,
                        format!(
                            "the edges of {count} classes must be {} rising numbers between {low} \
                             and {high}, not {edges:?}",
                            count - 1
                        ),
                    );
                }
            }
        }
        Ok(())
    }

    /// The differences from `other`, one line each: this value, the other value.
    pub fn differences(&self, other: &Definition) -> Vec<String> {
        let mut found = Vec::new();
        let mut differs = |key: &str, here: &dyn fmt::Display, there: &dyn fmt::Display| {
            let (here, there) = (here.to_string(), there.to_string());
            if here != there {
                found.push(format!("{key} {here}, not {there}"));
            }
        };
        let range = |d: &Definition| format!("[{}, {}]", d.label_range[0], d.label_range[1]);
        differs("label_range", &range(self), &range(other));
        differs("language", &self.language, &other.language);
        differs("rule", &self.rule.as_str(), &other.rule.as_str());
        differs("classes", &self.written_classes(), &other.written_classes());
        differs("unimodal", &self.unimodal, &other.unimodal);
        found
    }

    /// As a spec writes the classes: `[2, 3, [-0.5, 0.5]]`.
    pub fn written_classes(&self) -> String {
        let written: Vec<String> = self
            .classes
            .iter()
            .map(|classes| {
                let usual = counted(self.label_range, self.rule, classes.count);
                if usual.is_ok_and(|usual| usual == *classes) {
                    classes.count.to_string()
                } else {
                    format!("{:?}", classes.edges)
                }
            })
            .collect();
        format!("[{}]", written.join(", "))
    }
}

impl fmt::Display for Definition {
    /// On one line, for people: `labels -1 to 1, zh, classes [2, 3, 5] by intervals`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, high] = self.label_range;
        write!(
            f,
            "labels {low} to {high}, {}, classes {} {}",
            self.language,
            self.written_classes(),
            self.rule.as_str()
        )?;
        if self.unimodal {
            f.write_str(", with labels of single modalities")?;
        }
        Ok(())
    }
}
