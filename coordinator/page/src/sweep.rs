//! One sweep as a map: methods by seeds for each dataset, each cell a training job.

mod grid;
mod metric;

use crate::{
    Page,
    board::works_for,
    error::PageError,
    layout::{Section, Tab, shell, tabs},
    sweeps::{Summary, buttons},
};
use axum::{
    Router,
    extract::{Path, Query, State},
    response::{IntoResponse as _, Redirect, Response},
    routing::get,
};
use grid::{Grid, Progresses};
use halfheard_shared::{ids::SweepId, text::plain};
use halfheard_store::{StoreError, board::BoardRow};
use maud::{Markup, html};
use metric::Shown;
use serde::Deserialize;

pub(crate) fn routes() -> Router<Page> {
    Router::new()
        .route("/sweeps/{sweep}", get(sweep))
        .route("/sweeps/{sweep}/cancel", get(cancel))
}

#[derive(Deserialize)]
struct Asked {
    metric: Option<String>,
}

async fn sweep(
    State(page): State<Page>,
    Path(named): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    let Ok(id) = named.parse::<SweepId>() else {
        // By its name or the beginning of its id, as on the command line.
        let found = page.store.find_sweep(&named).await?;
        return Ok(Redirect::to(&format!("/sweeps/{}", found.id)).into_response());
    };
    let (rows, estimates) = page.board.load(&page.store, &page.heartbeats).await?;
    let row = find(&rows, id)?;
    let shown = Shown::choose(&page.store, asked.metric.as_deref()).await?;
    let map = page
        .maps
        .load(&page.store, id, asked.metric.as_deref(), shown.pairs())
        .await?;
    let workers = page.heartbeats.heard();
    let summary = Summary {
        row,
        estimate: estimates.get(&id).copied().unwrap_or_default(),
        workers: workers
            .iter()
            .filter(|worker| works_for(worker, id))
            .count(),
    };
    let grids = Grid::of(&map.rows);
    let datasets: Vec<&str> = grids.iter().map(|grid| grid.dataset).collect();
    let running = Progresses::of(&workers, id);
    let main = html! {
        h1 { (plain(&row.sweep.name)) }
        (tabs(id, Tab::Map))
        (summary.progress())
        (summary.facts())
        @if page.access.control { (buttons(row)) }
        details id="about" {
            summary { "Protocol and data" }
            ul {
                @for line in &map.protocols { li { (plain(line)) } }
                @for data in &map.data {
                    li {
                        (plain(&data.dataset)) ": BLAKE3 "
                        code { (data.blake3.as_deref().unwrap_or("unknown")) }
                        @if let Some(encoder) = &data.encoder {
                            ", text encoder " code { (encoder) }
                        }
                    }
                }
                li { "sweep " code { (id) } }
            }
        }
        @if !grids.is_empty() { (shown.links(id, &datasets)) (grid::legend()) }
        @for grid in &grids { (grid.table(&shown, &running)) }
    };
    Ok(shell(&page, Section::Sweeps, &row.sweep.name, &main).into_response())
}

/// Asks before a sweep is cancelled: without a script nothing else does.
async fn cancel(State(page): State<Page>, Path(id): Path<SweepId>) -> Result<Markup, PageError> {
    if !page.access.control {
        return Err(PageError::Forbidden("this page is read-only".to_owned()));
    }
    let (rows, _) = page.board.load(&page.store, &page.heartbeats).await?;
    let row = find(&rows, id)?;
    let main = html! {
        h1 { "Cancel " (plain(&row.sweep.name)) "?" }
        p {
            "Its " (row.progress.progress.open()) " unfinished jobs stop, unless another sweep asks for "
            "them. Results stay, and the sweep can be continued later."
        }
        form method="post" action={ "/sweeps/" (id) "/cancel" } class="buttons" {
            button class="danger" { "Cancel the sweep" }
            " "
            a class="button" href={ "/sweeps/" (id) } { "Keep it running" }
        }
    };
    Ok(shell(&page, Section::Sweeps, "Cancel", &main))
}

fn find(rows: &[BoardRow], id: SweepId) -> Result<&BoardRow, PageError> {
    let found = rows.iter().find(|row| row.sweep.id == id);
    Ok(found.ok_or_else(|| StoreError::NoSweep(id.to_string()))?)
}
