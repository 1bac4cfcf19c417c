//! What the model of a training can do: over missing rates, without modalities, and under other damage,
//! beside the paper's numbers.

use super::{
    chart::{Chart, Line, Look},
    known::{Known, metric_title, printed, scaled},
};
use crate::{marks::job_state, written::chain};
use halfheard_shared::{
    benchmark::Metric,
    case::Case,
    published::{ErratumKind, Number, numbers},
};
use halfheard_store::{JobState, trainings::CaseRow};
use maud::{Markup, html};

/// An evaluation and its case.
type Evaluated<'a> = (Case, &'a CaseRow);

pub(super) fn section(known: &Known) -> Markup {
    let cases: Vec<Evaluated<'_>> = known
        .own_cases()
        .iter()
        .filter_map(|row| Some((row.case_id.parse().ok()?, row)))
        .collect();
    if cases.is_empty() {
        return html! {};
    }
    let (mut rates, others): (Vec<_>, Vec<_>) =
        cases.iter().partition(|(case, _)| case.rate().is_some());
    rates.sort_by_key(|(case, _)| case.rate());
    let (sets, others): (Vec<_>, Vec<_>) = others
        .into_iter()
        .partition(|(case, _)| case.missing().is_some() && case.mask.is_none());
    let done = cases
        .iter()
        .filter(|(_, row)| row.state == JobState::Done)
        .count();
    let published = Published::of(known);
    html! {
        section aria-labelledby="cases" {
            h2 id="cases" { "What the model can do" }
            p {
                (done) " of " (cases.len()) " cases are evaluated."
                @if published.any() {
                    " Published numbers are the paper's means over its seeds, corrected where an \
                     erratum has the right value (†) and left out where they were retracted."
                }
            }
            (failed(&cases))
            @if !rates.is_empty() { (curves(known, &published)) }
            (table(known, &published, "rates", "Each missing rate", &rates))
            (table(known, &published, "sets", "Missing modalities", &sets))
            (table(known, &published, "others", "Other damage", &others))
        }
    }
}

/// Evaluations that failed, with their errors.
fn failed(cases: &[Evaluated<'_>]) -> Markup {
    let failed = cases
        .iter()
        .filter(|(_, row)| row.state == JobState::Failed);
    html! {
        @for (case, row) in failed {
            p { (job_state(row.state)) " " code { (case) } }
            @if let Some(error) = &row.last_error { (chain(std::slice::from_ref(error))) }
        }
    }
}

/// The metrics of the paper's tables, in their order.
fn metrics(known: &Known) -> impl Iterator<Item = &'static Metric> {
    let all = known.dataset.map_or(&[][..], |dataset| dataset.metrics());
    all.iter().filter(|metric| metric.in_paper())
}

/// A metric over missing rates: this seed, other seeds, the paper.
fn curves(known: &Known, published: &Published) -> Markup {
    html! {
        div class="charts" {
            @for metric in metrics(known) {
                (curve(known, published, metric).render())
            }
        }
    }
}

fn curve(known: &Known, published: &Published, metric: &'static Metric) -> Chart {
    let points = |rows: &[CaseRow]| {
        let rate = |row: &CaseRow| Some(row.case_id.parse::<Case>().ok()?.rate()?.value());
        let mut points: Vec<(f64, Option<f64>)> = rows
            .iter()
            .filter_map(|row| {
                let value = row.metrics.get(metric.id).copied().flatten();
                Some((rate(row)?, scaled(value, Some(metric))))
            })
            .collect();
        points.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        points
    };
    let mut lines = Vec::new();
    for (number, sibling) in known.siblings.iter().enumerate() {
        let points = known
            .cases
            .get(&sibling.job)
            .map(|rows| points(rows))
            .unwrap_or_default();
        if points.iter().any(|(_, y)| y.is_some()) {
            lines.push(Line {
                name: format!("seed {}", sibling.seed),
                points,
                look: Look::Other(number),
            });
        }
    }
    let paper = published.curve(metric);
    if !paper.is_empty() {
        lines.push(Line {
            name: "the paper".to_owned(),
            points: paper,
            look: Look::Published,
        });
    }
    lines.push(Line {
        name: format!("seed {} (this one)", known.training.seed),
        points: points(known.own_cases()),
        look: Look::Own,
    });
    let title = metric_title(metric.id, Some(metric));
    Chart {
        id: format!("case-{}", metric.id.replace('_', "-")),
        title: title.clone(),
        x: "missing rate",
        y: title,
        whole: false,
        lines,
        marks: Vec::new(),
    }
}

/// Cases by metrics, with the paper's numbers in parentheses.
fn table(
    known: &Known,
    published: &Published,
    id: &str,
    title: &str,
    cases: &[Evaluated<'_>],
) -> Markup {
    let metrics: Vec<&Metric> = metrics(known).collect();
    html! {
        @if !cases.is_empty() {
            details id={ "table-" (id) } open[id == "sets"] {
                summary { (title) }
                div class="scroll" {
                    table {
                        caption {
                            (title) ": this seed"
                            @if published.any() { ", and the paper's number in parentheses" }
                            "."
                        }
                        thead {
                            tr {
                                th scope="col" { "Case" }
                                th scope="col" { "State" }
                                @for metric in &metrics {
                                    th scope="col" { (metric_title(metric.id, Some(metric))) }
                                }
                            }
                        }
                        tbody {
                            @for (case, row) in cases {
                                tr {
                                    th scope="row" { code { (case) } }
                                    td { (job_state(row.state)) }
                                    @for metric in &metrics { td { (cell(published, case, row, metric)) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn cell(published: &Published, case: &Case, row: &CaseRow, metric: &Metric) -> Markup {
    let paper = published.value(case, metric.id);
    html! {
        @match row.metrics.get(metric.id) {
            Some(value) => (printed(*value, Some(metric))),
            None => "…",
        }
        @if let Some((value, erratum)) = paper {
            span class="muted" {
                " (" (printed(Some(value), Some(metric))) @if erratum { "†" } ")"
            }
        }
    }
}

/// The paper's numbers of one model on one dataset.
struct Published(Vec<(Case, &'static Number)>);

impl Published {
    fn of(known: &Known) -> Self {
        let training = &known.training;
        let dataset = known.dataset.and_then(|dataset| dataset.published());
        let numbers = numbers().iter().filter(|number| {
            Some(number.dataset) == dataset
                && number.method == training.method
                && number.variant == training.variant
        });
        Self(
            numbers
                .filter_map(|number| Some((number.case.parse().ok()?, number)))
                .collect(),
        )
    }

    /// Whether the paper has numbers of single cases.
    fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// What is to be compared with our `metric`, in the unit of results, and whether there is an erratum
    /// about it.
    fn value(&self, case: &Case, metric: &str) -> Option<(f64, bool)> {
        let here = self.0.iter().filter(|(own, _)| own == case);
        here.filter_map(|(_, number)| {
            let kind = number.erratum().map(|erratum| erratum.kind);
            let (compares_with, value) = match kind {
                None => (number.metric.to_owned(), number.value),
                Some(ErratumKind::Corrected(value)) => (number.metric.to_owned(), value),
                Some(ErratumKind::LabelsSwapped) => {
                    (format!("{}_swapped", number.metric), number.value)
                }
                Some(ErratumKind::Retracted) => return None,
            };
            (compares_with == metric).then_some((value, kind.is_some()))
        })
        .next()
    }

    /// A metric over missing rates, in the unit of tables.
    fn curve(&self, metric: &Metric) -> Vec<(f64, Option<f64>)> {
        let mut cases: Vec<&Case> = self.0.iter().map(|(case, _)| case).collect();
        cases.retain(|case| case.rate().is_some());
        cases.sort_by_key(|case| case.rate());
        cases.dedup();
        let point = |case: &Case| {
            let (value, _) = self.value(case, metric.id)?;
            Some((case.rate()?.value(), scaled(Some(value), Some(metric))))
        };
        cases.into_iter().filter_map(point).collect()
    }
}
