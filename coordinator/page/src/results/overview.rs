//! All tables and figures of a sweep.

use super::{
    figures,
    made::{Drawn, Made, Read},
    offered::Offered,
    tables::{self, content, downloads, heading, missing},
};
use crate::{
    Page,
    error::PageError,
    layout::{Section, Tab, shell, table, tabs},
};
use axum::{
    Extension,
    extract::{Path, State},
    http::header,
    response::{IntoResponse as _, Response},
};
use halfheard_analysis::tables::{TableRequest, Which};
use halfheard_results::tables::{Table, layout::Scope};
use halfheard_shared::{
    error::chain,
    ids::SweepId,
    results::{JobOutcome, JobTally, Results},
    text::plain,
};
use halfheard_store::sweeps::SweepRow;
use maud::{Markup, html};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// How long the page waits for results that are still being read, and for figures that are drawn for the
/// first time.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long it waits for figures that can be shown as they were before.
const QUICK: Duration = Duration::from_millis(50);
/// Seconds after which a browser asks again for what was not ready in time.
const AGAIN: &str = "2";

/// A table of the list; the heavy ones are made when they are opened.
struct Listed {
    which: Which,
    table: Option<Arc<Table>>,
}

pub(super) async fn show(
    State(page): State<Page>,
    Extension(made): Extension<Arc<Made>>,
    Path(sweep): Path<String>,
) -> Result<Response, PageError> {
    let sweep = page.store.find_sweep(&sweep).await?;
    let until = Instant::now() + PATIENCE;
    let task = tokio::spawn({
        let (page, made, id) = (page.clone(), Arc::clone(&made), sweep.id);
        // Goes on when this page has been sent.
        async move {
            let read = made.results(&page, id).await?;
            let listed = listed(&page, &made, id, &read).await?;
            Ok::<_, PageError>((read, listed))
        }
    });
    let title = format!("Results, {}", plain(&sweep.name));
    let Ok(done) = tokio::time::timeout_at(until, task).await else {
        let main = html! {
            h1 { "Results of " (plain(&sweep.name)) }
            (tabs(sweep.id, Tab::Results))
            p role="status" { "The results of this sweep are being read. This page shows them in a moment." }
        };
        let shell = shell(&page, Section::Sweeps, &title, &main);
        return Ok(([(header::REFRESH, AGAIN)], shell).into_response());
    };
    let (read, listed) = done.map_err(anyhow::Error::from)??;
    let drawn = drawn(&page, &made, sweep.id, &read, until).await;
    let main = html! {
        h1 { "Results of " (plain(&sweep.name)) }
        (tabs(sweep.id, Tab::Results))
        (progress(&read))
        section aria-labelledby="tables" {
            h2 id="tables" { "Tables" }
            (list(&sweep, &listed))
            @for table in listed.iter().filter_map(overall) { (content(table)) }
        }
        section aria-labelledby="figures" {
            h2 id="figures" { "Figures" }
            @for (figure, drawn) in &drawn { (figures::shown(&sweep, &read, figure, drawn.as_ref())) }
        }
    };
    Ok(shell(&page, Section::Sweeps, &title, &main).into_response())
}

/// The table if it is shown on this page too: those of means over cases.
fn overall(listed: &Listed) -> Option<&Table> {
    let layout = listed.which.layout()?;
    (layout.scope == Scope::Overall).then_some(())?;
    listed.table.as_deref()
}

fn progress(results: &Results) -> Markup {
    let evaluations = || results.evaluations(|_, _| true);
    let done = JobTally::with(evaluations(), JobOutcome::Done);
    let all = JobTally::all(evaluations());
    html! {
        p {
            (done) " of " (all) " evaluations are done. Best values are bold, second \
             best underlined; … is not available yet, – undefined."
        }
    }
}

/// The tables that say something about the sweep.
async fn listed(
    page: &Page,
    made: &Made,
    sweep: SweepId,
    read: &Read,
) -> Result<Vec<Listed>, PageError> {
    let paper = read.layouts.iter().copied().map(Which::Paper);
    let mut listed = Vec::new();
    for which in paper.chain(Which::OWN) {
        let table = match which {
            // Its bootstrap takes seconds.
            Which::Robustness => None,
            which => {
                let table = made.table(page, sweep, read, TableRequest::of(which));
                Some(table.await?)
            }
        };
        if table.as_ref().is_none_or(|table| !table.blocks.is_empty()) {
            listed.push(Listed { which, table });
        }
    }
    Ok(listed)
}

fn list(sweep: &SweepRow, listed: &[Listed]) -> Markup {
    let rows = html! {
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
    };
    let columns = ["Table", "What is missing", "Files"];
    table("Every table of the report.", &columns, &rows)
}

/// The figures, drawn as far as they are ready in time; the images of others follow by themselves.
async fn drawn(
    page: &Page,
    made: &Arc<Made>,
    sweep: SweepId,
    read: &Arc<Read>,
    until: Instant,
) -> Vec<(Offered, Option<Drawn>)> {
    let tasks: Vec<_> = read
        .figures
        .iter()
        .map(|figure| {
            let last = made.last_figure(sweep, figure);
            let (page, made, read) = (page.clone(), Arc::clone(made), Arc::clone(read));
            let own = figure.clone();
            // Goes on when this page has been sent.
            let task = tokio::spawn(async move { made.figure(&page, sweep, &read, &own).await });
            (figure.clone(), last, task)
        })
        .collect();
    let soon = until.min(Instant::now() + QUICK);
    let mut drawn = Vec::new();
    for (figure, last, task) in tasks {
        let until = if last.is_some() { soon } else { until };
        let outcome = match tokio::time::timeout_at(until, task).await {
            Ok(Ok(Ok(drawn))) => Some(drawn),
            // One figure that cannot be read leaves the others.
            Ok(Ok(Err(error))) => Some(Err(chain(&error))),
            Ok(Err(_)) | Err(_) => last,
        };
        drawn.push((figure, outcome));
    }
    drawn
}
