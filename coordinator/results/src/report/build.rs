//! Composes a report.

use super::{Image, Item, Report, Section, certificate, provenance};
use crate::{
    audit::{self, Finding},
    figures::{self, DrawError, Figure, Kind, Request, png},
    statistics::bootstrap::{BootstrapOptions, BootstrapSamples},
    tables::{
        Table, comparison, derived,
        layout::{LAYOUTS, Layout, Rows, Scope},
        paper,
    },
};
use chrono::{DateTime, Utc};
use halfheard_shared::{
    benchmark::Benchmark,
    case::Case,
    results::{JobOutcome, JobTally, Model, Results},
    text::count,
};
use std::collections::BTreeSet;

/// Why a report cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A diagram that cannot be drawn.
    #[error(transparent)]
    Draw(#[from] DrawError),
    /// A figure that cannot be rendered.
    #[error(transparent)]
    Png(#[from] png::PngError),
}

/// What a report is built of beside the sweep's results.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The resampled metrics.
    pub samples: BootstrapSamples,
    /// How they were resampled.
    pub options: BootstrapOptions,
    /// The findings of the sweep's audit.
    pub findings: Vec<Finding>,
    /// The [`figures`], or why the sweep does not have one.
    pub figures: Vec<(Kind, Result<Figure, String>)>,
}

/// The figures of a report: the paper's, and confusion matrices on custom datasets.
pub fn figures(results: &Results) -> Vec<(Kind, Request)> {
    let custom = results.trained_datasets().into_iter();
    let custom = custom.filter(|dataset| matches!(dataset, Benchmark::Own(_)));
    let kinds = Kind::PAPER.into_iter().chain(custom.map(Kind::Confusion));
    let request = |kind| Request {
        published: kind == Kind::Curves,
        ..Request::default()
    };
    kinds.map(|kind| (kind, request(kind))).collect()
}

/// Composes the report of a sweep, and renders its figures.
///
/// # Errors
///
/// A figure that cannot be drawn or rendered.
pub fn build(results: &Results, parts: Parts) -> Result<Report, ReportError> {
    let sweep = &results.sweep;
    let (overall, details) = tables(results, &parts);
    let mut drawings = Vec::new();
    for (kind, figure) in parts.figures {
        drawings.push(match figure {
            Ok(figure) => Item::Figure(image(figure)?),
            Err(reason) => Item::Text(format!("Figure {} is missing: {reason}.", kind.id())),
        });
    }
    let audits = vec![
        Item::Findings {
            subject: format!("this sweep, {}", sweep.name),
            findings: parts.findings,
        },
        Item::Findings {
            subject: "the published Tables 2 to 14".to_owned(),
            findings: audit::published(),
        },
    ];
    let section = |id, title, items| Section { id, title, items };
    let mut sections = vec![
        section("results", "Results", overall),
        section(
            "beyond",
            "Beyond the paper",
            beyond(results, &parts.samples)?,
        ),
        section("figures", "Figures", drawings),
        section(
            "details",
            "Each missing rate, each set of modalities",
            details,
        ),
        section(
            "certificate",
            certificate::TITLE,
            certificate::items(results),
        ),
        section("audit", "Audit", audits),
        section("provenance", "Provenance", provenance(results)),
    ];
    sections.retain(|section| !section.items.is_empty());
    Ok(Report {
        sweep: sweep.name.clone(),
        id: sweep.id.to_string(),
        summary: summary(results),
        sections,
    })
}

fn summary(results: &Results) -> Vec<String> {
    let tallies: Vec<&JobTally> = results.evaluations(|_, _| true).collect();
    let models: BTreeSet<&Model> = tallies.iter().map(|tally| &tally.model).collect();
    let datasets: BTreeSet<Benchmark> = tallies.iter().map(|tally| tally.dataset).collect();
    let cases: BTreeSet<Case> = tallies.iter().filter_map(|tally| tally.case).collect();
    let sweep = &results.sweep;
    vec![
        format!(
            "{}, {}, {}, {} of missing data: {} of {} evaluations are done.",
            count(models.len(), "model"),
            count(datasets.len(), "dataset"),
            count(results.seeds(|_, _| true), "seed"),
            count(cases.len(), "case"),
            JobTally::with(tallies.iter().copied(), JobOutcome::Done),
            JobTally::all(tallies.iter().copied())
        ),
        format!(
            "Submitted on {} as sweep {}. Accuracies and F1 are in percent. Best values are bold, \
             second best underlined; … is not available yet, – undefined. Published numbers are \
             those of the paper's Tables 2 to 14, corrected where errata (†) have the right value.",
            DateTime::<Utc>::from(sweep.created).format("%Y-%m-%d %H:%M UTC"),
            sweep.id
        ),
    ]
}

/// The paper's tables: those of means, and those of single cases.
fn tables(results: &Results, parts: &Parts) -> (Vec<Item>, Vec<Item>) {
    let (mut overall, mut details) = (Vec::new(), Vec::new());
    let on_test = results.chosen_on_test();
    for &layout in LAYOUTS {
        let mut table = paper::table(results, layout, !layout.spread);
        comparison::published(&mut table, &results.cells, layout);
        if !layout.spread {
            comparison::intervals(&mut table, &parts.samples, layout, parts.options);
        }
        if let Some(on_test) = &on_test {
            let on_test = paper::table(on_test, layout, !layout.spread);
            comparison::optimism(&mut table, &on_test);
        }
        if worth_printing(&table, layout) {
            match layout.scope {
                Scope::Overall => overall.push(Item::Table(table)),
                Scope::Details => details.push(Item::Table(table)),
            }
        }
    }
    if overall.is_empty() && details.is_empty() {
        overall.push(Item::Text("This sweep has no results yet.".to_owned()));
    }
    (overall, details)
}

/// A table of ablations needs more than the complete model.
fn worth_printing(table: &Table, layout: Layout) -> bool {
    let rows = || table.blocks.iter().flat_map(|block| &block.rows);
    let any = rows().any(|row| row.cells.iter().flatten().any(|v| v.completed > 0));
    let ablates = match layout.rows {
        Rows::Methods => true,
        Rows::Listed if layout.spread => true,
        Rows::Listed | Rows::Weights => rows().any(|row| !row.model.variant.is_empty()),
    };
    any && ablates
}

/// Laziness, robustness, ranks.
fn beyond(results: &Results, samples: &BootstrapSamples) -> Result<Vec<Item>, ReportError> {
    let measurements = derived::measurements(&results.cells);
    let tables = [
        derived::laziness(&results.cells),
        derived::robustness_table(samples),
        derived::ranks_table(&measurements),
    ];
    let tables = tables.into_iter().filter(|table| !table.blocks.is_empty());
    let mut items: Vec<Item> = tables.map(Item::Table).collect();
    if let Some(figure) = figures::rank_diagram(&measurements)? {
        items.push(Item::Figure(image(figure)?));
    }
    Ok(items)
}

/// Renders a figure, and joins its texts.
fn image(figure: Figure) -> Result<Image, ReportError> {
    let (name, number) = match figure.kind {
        Kind::Ranks => ("ranks".to_owned(), String::new()),
        Kind::Confusion(Benchmark::Own(_)) | Kind::ConfusionOfOne => {
            // The title ends with the name of the dataset, which is unique.
            let name = figure.title.rsplit(' ').next().unwrap_or_default();
            (format!("figure-confusion-{name}"), String::new())
        }
        kind => (
            format!("figure-{}", kind.id()),
            format!("Figure {}.", kind.id()),
        ),
    };
    let caption = [&[figure.title, figure.caption], &figure.notes[..]].concat();
    Ok(Image {
        name,
        number,
        caption: sentences(&caption),
        png: png::render(&figure.svg, png::SCALE)?,
        svg: figure.svg,
    })
}

/// Joins parts to sentences with a capital and a full stop.
fn sentences(parts: &[String]) -> String {
    let mut text = String::new();
    for part in parts
        .iter()
        .map(|part| part.trim())
        .filter(|part| !part.is_empty())
    {
        if !text.is_empty() {
            text.push(' ');
        }
        let mut letters = part.chars();
        text.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        text.push_str(letters.as_str());
        if !part.ends_with(['.', '!', '?']) {
            text.push('.');
        }
    }
    text
}

/// What produced the results, and the spec.
fn provenance(results: &Results) -> Vec<Item> {
    let sweep = &results.sweep;
    let mut facts = vec![
        ("sweep".to_owned(), format!("{} ({})", sweep.name, sweep.id)),
        (
            "report by".to_owned(),
            format!("coord {}", env!("CARGO_PKG_VERSION")),
        ),
    ];
    facts.extend(provenance::facts(results));
    let mut items = vec![Item::Facts(facts)];
    if !sweep.spec.trim().is_empty() {
        items.push(Item::File {
            title: "The spec".to_owned(),
            text: sweep.spec.clone(),
        });
    }
    items
}
