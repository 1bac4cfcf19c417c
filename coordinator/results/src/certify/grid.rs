//! A certificate as small tables of text, which the terminal, Markdown and HTML print.

use super::{Certificate, Certified, Verdict};
use crate::tables::{ColumnMetric, layout};
use halfheard_shared::{benchmark::Benchmark, published, results::Model, text::count};
use std::collections::BTreeMap;

/// Rows of text below a heading.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// The title.
    pub title: String,
    /// The headings of the columns.
    pub headings: Vec<String>,
    /// The rows, as wide as the headings.
    pub rows: Vec<Vec<String>>,
    /// Whether a page hides it until it is opened.
    pub folded: bool,
}

impl Grid {
    fn new(title: impl Into<String>, headings: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self {
            title: title.into(),
            headings: headings
                .iter()
                .map(|heading| (*heading).to_owned())
                .collect(),
            rows,
            folded: false,
        }
    }
}

/// One line that says what was tested and how.
pub(crate) fn rule(certificate: &Certificate) -> String {
    format!(
        "Two one-sided tests at the level {}, with bounds of {} published standard deviations over \
         seeds: reproduced within the bounds, different where the difference is significant and not \
         within them.",
        certificate.level, certificate.options.factor
    )
}

/// One line that says how many of the tests may err.
pub(crate) fn chance(certificate: &Certificate) -> String {
    let (tested, different) = (certificate.tested(), certificate.count(Verdict::Different));
    if tested == 0 {
        return "No number was tested.".to_owned();
    }
    let chance = (tested as f64 * certificate.level).floor() as usize;
    format!(
        "{} tested, {different} different. Of as many numbers that are the paper's, up to {chance} \
         would be called different by chance.",
        count(tested, "number")
    )
}

/// Verdicts by table and by method, the different numbers, and the reasons of what was not tested.
pub(crate) fn overview(certificate: &Certificate) -> Vec<Grid> {
    let mut grids = vec![
        by(certificate, "Table", |n| {
            (usize::from(n.table), n.table.to_string())
        }),
        by(certificate, "Method", |n| {
            (
                layout::method_order(n.method),
                layout::label(&Model::new(n.method, "")),
            )
        }),
    ];
    let of = |verdict| {
        certificate
            .numbers
            .iter()
            .filter(move |n| n.verdict == verdict)
    };
    let different: Vec<&Certified> = of(Verdict::Different).collect();
    if !different.is_empty() {
        grids.push(listing("Different", &different));
    }
    let mut reasons: BTreeMap<(Verdict, &str), usize> = BTreeMap::new();
    for verdict in [
        Verdict::TooFewSeeds,
        Verdict::NotComparable,
        Verdict::NotMeasured,
    ] {
        for number in of(verdict) {
            // What an erratum says follows, and differs from number to number.
            let reason = number
                .reason
                .split_once(": ")
                .map_or(&*number.reason, |(what, _)| what);
            *reasons.entry((verdict, reason)).or_default() += 1;
        }
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|((verdict, _), count)| (*verdict, std::cmp::Reverse(*count)));
    if !reasons.is_empty() {
        let rows = reasons.into_iter().map(|((verdict, reason), count)| {
            vec![verdict.text(), count.to_string(), reason.to_owned()]
        });
        grids.push(Grid::new(
            "Reasons of the other verdicts",
            &["verdict", "numbers", "reason"],
            rows.collect(),
        ));
    }
    grids
}

/// Every number, one grid a table.
pub(crate) fn details(certificate: &Certificate) -> Vec<Grid> {
    let mut tables: BTreeMap<u8, Vec<&Certified>> = BTreeMap::new();
    for number in &certificate.numbers {
        tables.entry(number.table).or_default().push(number);
    }
    let grid = |(table, numbers): (u8, Vec<&Certified>)| Grid {
        folded: true,
        ..listing(&format!("Table {table}"), &numbers)
    };
    tables.into_iter().map(grid).collect()
}

/// Counts by a key, which has a place and a name.
fn by(
    certificate: &Certificate,
    heading: &'static str,
    key: impl Fn(&Certified) -> (usize, String),
) -> Grid {
    let mut groups: BTreeMap<(usize, String), Vec<Verdict>> = BTreeMap::new();
    for number in &certificate.numbers {
        groups.entry(key(number)).or_default().push(number.verdict);
    }
    let row = |name: String, verdicts: &[Verdict]| {
        let count = |verdict| {
            verdicts
                .iter()
                .filter(|own| **own == verdict)
                .count()
                .to_string()
        };
        let mut row = vec![name, verdicts.len().to_string()];
        row.extend(Verdict::ALL.map(count));
        row
    };
    let all: Vec<Verdict> = groups.values().flatten().copied().collect();
    let mut rows: Vec<Vec<String>> = groups
        .into_iter()
        .map(|((_, name), verdicts)| row(name, &verdicts))
        .collect();
    rows.push(row("all".to_owned(), &all));
    let names = Verdict::ALL.map(Verdict::text);
    let mut headings = vec![heading, "numbers"];
    headings.extend(names.iter().map(String::as_str));
    Grid::new(
        format!("Verdicts by {}", heading.to_lowercase()),
        &headings,
        rows,
    )
}

/// Numbers in the unit and with the decimals of the paper.
fn listing(title: &str, numbers: &[&Certified]) -> Grid {
    let headings = [
        "address",
        "printed",
        "measured",
        "seeds",
        "difference",
        "90 % interval",
        "bound",
        "verdict",
        "reason",
    ];
    Grid::new(
        title,
        &headings,
        numbers.iter().map(|number| row(number)).collect(),
    )
}

fn row(number: &Certified) -> Vec<String> {
    let dataset: Option<Benchmark> = number.dataset.parse().ok();
    let unit = ColumnMetric {
        id: number.metric.to_owned(),
        higher_is_better: true,
        percent: dataset.is_some_and(|dataset| published::percent(dataset, number.metric)),
    };
    let print = |value: f64| unit.print(value);
    let evidence = number.evidence.as_ref();
    let tost = evidence.and_then(|evidence| evidence.tost);
    let text = |text: Option<String>| text.unwrap_or_default();
    vec![
        number.address.clone(),
        number.printed.to_owned(),
        text(evidence.map(|e| match e.std {
            Some(std) => format!("{}±{}", print(e.measured), print(std)),
            None => print(e.measured),
        })),
        text(evidence.map(|e| e.seeds.to_string())),
        text(tost.map(|t| print(t.difference))),
        text(tost.map(|t| format!("{} to {}", print(t.low), print(t.high)))),
        text(evidence.map(|e| print(e.bound))),
        number.verdict.text(),
        number.reason.clone(),
    ]
}
