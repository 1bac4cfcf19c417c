//! All sweeps: how far each is, when it ends, what it costs.

mod summary;

use crate::{
    Page,
    board::works_for,
    error::PageError,
    layout::{Section, shell},
};
use axum::{Router, extract::State, routing::get};
use maud::{Markup, html};

pub(crate) use summary::{Summary, buttons};

pub(crate) fn routes() -> Router<Page> {
    Router::new().route("/", get(sweeps))
}

async fn sweeps(State(page): State<Page>) -> Result<Markup, PageError> {
    let (rows, estimates) = page.board.load(&page.store, &page.heartbeats).await?;
    let workers = page.heartbeats.heard();
    let summaries = rows.iter().map(|row| Summary {
        row,
        estimate: estimates.get(&row.sweep.id).copied().unwrap_or_default(),
        workers: workers
            .iter()
            .filter(|worker| works_for(worker, row.sweep.id))
            .count(),
    });
    let busy = workers
        .iter()
        .filter(|worker| worker.doing.is_some())
        .count();
    let main = html! {
        h1 { "Sweeps" }
        p class="muted" {
            @match workers.len() {
                0 => { "No worker is heard." }
                heard => { "Busy workers: " (busy) " of " (heard) "." }
            }
            " " a href="/workers" { "What they do" }
        }
        @if rows.is_empty() {
            p { "No sweep was submitted yet: " code { "coord submit SPEC" } }
        }
        ul class="cards" {
            @for summary in summaries {
                li class="card" data-key=(summary.row.sweep.id) { (summary.card(page.access.control)) }
            }
        }
    };
    Ok(shell(&page, Section::Sweeps, "Sweeps", &main))
}
