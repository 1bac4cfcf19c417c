//! The paper's numbers and their errata: read from `schemas/published.csv` and `schemas/errata.csv`,
//! which the program carries, and loaded into the database with the migrations.

use crate::benchmark::Benchmark;
use std::sync::LazyLock;

/// The numbers: file name under `schemas/`, and content.
pub const NUMBERS: (&str, &str) = ("published.csv", include_str!("../../schemas/published.csv"));
/// The errata: file name and content.
pub const ERRATA: (&str, &str) = ("errata.csv", include_str!("../../schemas/errata.csv"));

/// A number in the paper.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    /// The table, 2 to 14.
    pub table: u8,
    /// The dataset.
    pub dataset: Benchmark,
    /// The method's id.
    pub method: &'static str,
    /// The variant's id, in Tables 4 to 7; empty for the method itself.
    pub variant: &'static str,
    /// `r=0.3`, `missing=la`, `r=mean` or `missing=mean`.
    pub case: &'static str,
    /// The metric's id.
    pub metric: &'static str,
    /// The printed digits: in percent where the paper prints percent.
    pub printed: &'static str,
    /// The value in the unit of results: a fraction where the paper prints percent.
    pub value: f64,
    /// The standard deviation in Table 8, in the unit of results.
    pub std: Option<f64>,
}

/// An erratum: what is wrong with some numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Erratum {
    /// The table.
    pub table: u8,
    /// The dataset.
    pub dataset: Benchmark,
    /// The method's id.
    pub method: &'static str,
    /// The variant's id; `None` for the method and all its variants.
    pub variant: Option<&'static str>,
    /// The case; `None` for all.
    pub case: Option<&'static str>,
    /// The metric's id; `None` for all.
    pub metric: Option<&'static str>,
    /// The kind.
    pub kind: ErratumKind,
    /// The source: `corrigendum`, `repeated` or `computed`.
    pub source: &'static str,
    /// The reason.
    pub why: &'static str,
}

/// How a published number is wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ErratumKind {
    /// Another value is right, in the unit of results.
    Corrected(f64),
    /// The authors withdrew it, or it cannot be right: left out of comparisons.
    Retracted,
    /// An F1 computed with labels and predictions swapped.
    LabelsSwapped,
}

impl ErratumKind {
    /// The id in the files and the database.
    pub fn id(self) -> &'static str {
        match self {
            ErratumKind::Corrected(_) => "corrected",
            ErratumKind::Retracted => "retracted",
            ErratumKind::LabelsSwapped => "labels_swapped",
        }
    }
}

impl Erratum {
    /// Whether it is about `number`.
    pub fn covers(&self, number: &Number) -> bool {
        self.table == number.table
            && self.dataset == number.dataset
            && self.method == number.method
            && self.variant.is_none_or(|variant| variant == number.variant)
            && self.case.is_none_or(|case| case == number.case)
            && self.metric.is_none_or(|metric| metric == number.metric)
    }
}

impl Number {
    /// The erratum about this number.
    pub fn erratum(&self) -> Option<&'static Erratum> {
        errata().iter().find(|erratum| erratum.covers(self))
    }

    /// The number of printed decimals.
    pub fn decimals(&self) -> usize {
        let (_, behind) = self.printed.split_once('.').unwrap_or_default();
        behind.len()
    }
}

/// Every number of Tables 2 to 14, in the paper's order.
pub fn numbers() -> &'static [Number] {
    static PARSED: LazyLock<Vec<Number>> = LazyLock::new(|| rows(NUMBERS.1, number));
    &PARSED
}

/// All errata.
pub fn errata() -> &'static [Erratum] {
    static PARSED: LazyLock<Vec<Erratum>> = LazyLock::new(|| rows(ERRATA.1, erratum));
    &PARSED
}

/// Whether tables print `metric` of `dataset` in percent.
pub fn percent(dataset: Benchmark, metric: &str) -> bool {
    let known = dataset.metrics().iter().find(|m| m.id == metric);
    known.is_some_and(|metric| metric.percent)
}

/// Reads the lines of a file. They have no quotes, and a test reads every line: the files are well-formed.
fn rows<T>(text: &'static str, read: impl Fn(&[&'static str]) -> Option<T>) -> Vec<T> {
    let lines = text.lines().skip(1);
    lines
        .filter_map(|line| read(&line.split(',').collect::<Vec<_>>()))
        .collect()
}

/// From the printed unit to that of results.
fn unit(dataset: Benchmark, metric: &str, printed: &str) -> Option<f64> {
    // By the decimal text: 34.26 % is the number nearest to 0.3426.
    if percent(dataset, metric) {
        format!("{printed}e-2").parse().ok()
    } else {
        printed.parse().ok()
    }
}

fn number(fields: &[&'static str]) -> Option<Number> {
    let &[table, dataset, method, variant, case, metric, printed, std] = fields else {
        return None;
    };
    let dataset: Benchmark = dataset.parse().ok()?;
    Some(Number {
        table: table.parse().ok()?,
        dataset,
        method,
        variant,
        case,
        metric,
        printed,
        value: unit(dataset, metric, printed)?,
        std: unit(dataset, metric, std),
    })
}

fn erratum(fields: &[&'static str]) -> Option<Erratum> {
    // The last field is a sentence.
    let [
        table,
        dataset,
        method,
        variant,
        case,
        metric,
        kind,
        corrected,
        source,
        ..,
    ] = fields
    else {
        return None;
    };
    let line = fields.get(9)?;
    let dataset: Benchmark = dataset.parse().ok()?;
    let given = |text: &'static str| (!text.is_empty()).then_some(text);
    Some(Erratum {
        table: table.parse().ok()?,
        dataset,
        method,
        variant: match *variant {
            "*" => None,
            one => Some(one),
        },
        case: given(case),
        metric: given(metric),
        kind: match *kind {
            "corrected" => ErratumKind::Corrected(unit(dataset, metric, corrected)?),
            "retracted" => ErratumKind::Retracted,
            "labels_swapped" => ErratumKind::LabelsSwapped,
            _ => return None,
        },
        source,
        why: line,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods;

    #[test]
    fn every_line_is_parsed() {
        assert_eq!(numbers().len(), NUMBERS.1.lines().count() - 1);
        assert_eq!(numbers().len(), 3506);
        assert_eq!(errata().len(), ERRATA.1.lines().count() - 1);
        for line in ERRATA.1.lines() {
            assert_eq!(line.split(',').count(), 10, "{line}");
        }
    }

    #[test]
    fn every_number_has_a_known_method_variant_and_metric() {
        for number in numbers() {
            let method = methods::find(number.method).unwrap();
            assert!(
                number.variant.is_empty() || method.variants.contains_key(number.variant),
                "{number:?}"
            );
            assert!(
                number
                    .dataset
                    .metrics()
                    .iter()
                    .any(|metric| metric.id == number.metric),
                "{number:?}"
            );
        }
    }

    #[test]
    fn every_erratum_matches_numbers_and_no_number_matches_two() {
        for erratum in errata() {
            assert!(
                numbers().iter().any(|number| erratum.covers(number)),
                "{erratum:?}"
            );
        }
        for number in numbers() {
            let count = errata().iter().filter(|e| e.covers(number)).count();
            assert!(count <= 1, "{number:?}");
        }
    }

    /// Compares with the source file, if available.
    #[test]
    fn numbers_equal_those_of_the_paper() {
        let shared = std::env::var("HALFHEARD_SHARED").unwrap_or_else(|_| "../shared".into());
        let shared = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .join(shared)
            .join("paper/published.csv");
        let Ok(text) = std::fs::read_to_string(&shared) else {
            eprintln!("skipped: no {}", shared.display());
            return;
        };
        let mut of_paper: Vec<(String, String, String)> = Vec::new();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            let end = fields.len();
            of_paper.push((
                format!("{} {} {}", fields[0], fields[1], fields[2].to_lowercase()),
                fields[end - 3].to_owned(),
                format!("{} {}", fields[end - 2], fields[end - 1]),
            ));
        }
        let mut ours: Vec<(String, String, String)> = Vec::new();
        for line in NUMBERS.1.lines().skip(1) {
            let f: Vec<&str> = line.split(',').collect();
            ours.push((
                format!("{} {} {}", f[0], f[1], f[2]),
                f[5].to_owned(),
                format!("{} {}", f[6], f[7]),
            ));
        }
        assert_eq!(ours, of_paper);
    }
}
