//! One training: what it is, its curves, attempts, logs and checkpoints, and what its model can do.

mod attempts;
mod cases;
mod chart;
mod curves;
mod facts;
mod known;

use crate::{
    Page,
    error::PageError,
    layout::{Section, shell, table},
    marks::job_state,
    written::{between, chain, model, time},
};
use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse as _, Redirect, Response},
    routing::get,
};
use halfheard_progress::describe_worker;
use halfheard_shared::text::plain;
use halfheard_store::{JobKind, JobState, trainings::Training};
use known::Known;
use maud::{Markup, html};

pub(crate) fn routes() -> Router<Page> {
    Router::new().route("/trainings/{job}", get(show))
}

async fn show(State(page): State<Page>, Path(job): Path<String>) -> Result<Response, PageError> {
    let job = page.store.find_job(&job).await?.id;
    let training = page.store.training(job).await?;
    if let Some(train) = training.train_job {
        return Ok(Redirect::to(&format!("/trainings/{train}#cases")).into_response());
    }
    let title = title(&training);
    let known = Known::load(&page, training).await?;
    let main = body(&page, &known, &title);
    Ok(shell(&page, Section::Sweeps, &title, &main).into_response())
}

/// `lnln/no-dmc on mosi, seed 1111`.
fn title(training: &Training) -> String {
    if training.kind == JobKind::Noop {
        return format!("No-op job {}", training.job.short());
    }
    let model = model(&training.method, &training.variant);
    format!(
        "{model} on {}, seed {}",
        plain(&training.dataset),
        training.seed
    )
}

fn body(page: &Page, known: &Known, title: &str) -> Markup {
    let training = &known.training;
    html! {
        h1 { (title) }
        (state(known))
        @if training.state == JobState::Failed && page.access.control {
            form method="post" action={ "/jobs/" (training.job) "/retry" } {
                button type="submit" { "Retry this job" }
            }
        }
        (sweeps(known))
        (facts::section(known))
        @if training.kind == JobKind::Train {
            (curves::section(known))
            (cases::section(known))
        }
        (attempts::section(known))
        (attempts::logs(known))
        @if training.kind == JobKind::Train { (checkpoints(known)) }
    }
}

/// How it stands, and for how long.
fn state(known: &Known) -> Markup {
    let training = &known.training;
    html! {
        p {
            (job_state(training.state))
            @match (training.started, training.finished) {
                (Some(started), Some(finished)) => {
                    ", begun " (time(started)) ", ended after " (between(started, finished))
                }
                (Some(started), None) => { ", begun " (time(started)) }
                (None, _) => {}
            }
            @if let Some(retried) = training.retried_at { ", tried again after " (time(retried)) }
            @if training.failures > 0 { ", failed attempts: " (training.failures) }
            @if training.losses > 0 { ", attempts lost in a row: " (training.losses) }
            "."
        }
        @if let Some(worker) = &known.worker {
            p {
                "Now on " (known.worker_link(&worker.worker.name)) ": " (describe_worker(worker)) "."
            }
        }
        @if let (Some(error), false) = (&training.last_error, training.state == JobState::Done) {
            p { "The last error:" }
            (chain(std::slice::from_ref(error)))
        }
    }
}

fn sweeps(known: &Known) -> Markup {
    html! {
        p {
            "Asked for by "
            @if known.sweeps.is_empty() { "no sweep any more" }
            @for (number, sweep) in known.sweeps.iter().enumerate() {
                @if number > 0 { ", " }
                a href={ "/sweeps/" (sweep.sweep) } { (plain(&sweep.name)) }
            }
            ". Other seeds: "
            @if known.siblings.is_empty() { "none" }
            @for (number, sibling) in known.siblings.iter().enumerate() {
                @if number > 0 { ", " }
                a href={ "/trainings/" (sibling.job) } { (sibling.seed) }
                " (" (sibling.state) ")"
            }
            "."
        }
    }
}

fn checkpoints(known: &Known) -> Markup {
    let columns = ["Criterion", "Epoch", "Size", "BLAKE3"];
    let rows = html! {
        @for checkpoint in &known.checkpoints {
            tr {
                th scope="row" { (plain(&checkpoint.criterion)) }
                td { (checkpoint.epoch) }
                td { (crate::written::bytes(checkpoint.bytes.max(0).unsigned_abs())) }
                td { code { (plain(&checkpoint.blake3)) } }
            }
        }
    };
    html! {
        section aria-labelledby="checkpoints" {
            h2 id="checkpoints" { "Checkpoints" }
            @if known.checkpoints.is_empty() {
                p class="muted" { "None is stored before the training is done." }
            } @else {
                (table("The best weights by each selection criterion.", &columns, &rows))
            }
        }
    }
}
