//! All tables and figures of a sweep.

use super::{
    figures,
    made::{Drawn, Made, Offered},
    tables::{self, applicable, content, downloads, heading, missing},
};
use crate::{
    Page,
    error::PageError,
    layout::{Section, Tab, shell, tabs},
};
use axum::{
    Extension,
    extract::{Path, State},
};
use halfheard_analysis::tables::{TableRequest, Which};
use halfheard_results::tables::{Table, layout::Scope};
use halfheard_shared::{
    results::{JobOutcome, Results},
    text::plain,
};
use halfheard_store::sweeps::SweepRow;
use maud::{Markup, html};
use std::{sync::Arc, time::Duration};

/// How long the page waits for figures that are still being drawn: images follow by themselves.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A table of the list; the heavy ones are made when they are opened.
struct Listed {
    which: Which,
    table: Option<Arc<Table>>,
}

pub(super) async fn show(
    State(page): State<Page>,
    Extension(made): Extension<Arc<Made>>,
    Path(sweep): Path<String>,
) -> Result<Markup, PageError> {
    let sweep = page.store.find_sweep(&sweep).await?;
    let results = made.results(&page, sweep.id).await?;
    let listed = listed(&page, &made, &sweep, &results).await?;
    let drawn = drawn(&page, &made, &sweep, Offered::of(&results)).await;
    let title = format!("Results, {}", plain(&sweep.name));
    let main = html! {
        h1 { "Results of " (plain(&sweep.name)) }
        (tabs(sweep.id, Tab::Results))
        (progress(&results))
        section aria-labelledby="tables" {
            h2 id="tables" { "Tables" }
            (list(&sweep, &listed))
            @for table in listed.iter().filter_map(overall) { (content(table)) }
        }
        section aria-labelledby="figures" {
            h2 id="figures" { "Figures" }
            @for (figure, drawn) in &drawn { (figures::shown(&sweep, &results, figure, drawn.as_ref())) }
        }
    };
    Ok(shell(&page, Section::Sweeps, &title, &main))
}

/// The table if it is shown on this page too: those of means over cases.
fn overall(listed: &Listed) -> Option<&Table> {
    let layout = listed.which.layout()?;
    (layout.scope == Scope::Overall).then_some(())?;
    listed.table.as_deref()
}

fn progress(results: &Results) -> Markup {
    let evaluations = || results.jobs.iter().filter(|job| job.case.is_some());
    let done = evaluations()
        .filter(|job| job.outcome == JobOutcome::Done)
        .count();
    html! {
        p {
            (done) " of " (evaluations().count()) " evaluations are done. Best values are bold, second \
             best underlined; … is not available yet, – undefined."
        }
    }
}

/// The tables that say something about the sweep.
async fn listed(
    page: &Page,
    made: &Made,
    sweep: &SweepRow,
    results: &Results,
) -> Result<Vec<Listed>, PageError> {
    let paper = applicable(results).into_iter().map(Which::Paper);
    let mut listed = Vec::new();
    for which in paper.chain(Which::OWN) {
        let table = match which {
            // Its bootstrap takes seconds.
            Which::Robustness => None,
            which => Some(made.table(page, sweep.id, TableRequest::of(which)).await?),
        };
        if table.as_ref().is_none_or(|table| !table.blocks.is_empty()) {
            listed.push(Listed { which, table });
        }
    }
    Ok(listed)
}

fn list(sweep: &SweepRow, listed: &[Listed]) -> Markup {
    html! {
        div class="scroll" {
            table {
                caption { "Every table of the report." }
                thead {
                    tr {
                        th scope="col" { "Table" }
                        th scope="col" { "What is missing" }
                        th scope="col" { "Files" }
                    }
                }
                tbody {
                    @for Listed { which, table } in listed {
                        tr {
                            th scope="row" {
                                a href={ "/sweeps/" (sweep.id) "/tables/" (which) } {
                                    @match table {
                                        Some(table) => (heading(table)),
                                        None => "Robustness: what is left at high missing rates",
                                    }
                                }
                            }
                            td {
                                @match table {
                                    Some(table) => (missing(table)),
                                    None => "Computed when it is opened, which may take some seconds.",
                                }
                            }
                            td { (downloads(sweep, *which, &tables::Asked::default())) }
                        }
                    }
                }
            }
        }
    }
}

/// The figures, drawn as far as they are ready in time.
async fn drawn(
    page: &Page,
    made: &Arc<Made>,
    sweep: &SweepRow,
    offered: Vec<Offered>,
) -> Vec<(Offered, Option<Drawn>)> {
    let id = sweep.id;
    let tasks: Vec<_> = offered
        .into_iter()
        .map(|figure| {
            let (page, made, own) = (page.clone(), Arc::clone(made), figure.clone());
            // Goes on when this page has been sent.
            let task = tokio::spawn(async move { made.figure(&page, id, &own).await });
            (figure, task)
        })
        .collect();
    let until = tokio::time::Instant::now() + PATIENCE;
    let mut drawn = Vec::new();
    for (figure, task) in tasks {
        let outcome = match tokio::time::timeout_at(until, task).await {
            Ok(Ok(Ok(drawn))) => Some(drawn),
            // One figure that cannot be read leaves the others.
            Ok(Ok(Err(error))) => Some(Err(halfheard_shared::error::chain(&error))),
            Ok(Err(_)) | Err(_) => None,
        };
        drawn.push((figure, outcome));
    }
    drawn
}
