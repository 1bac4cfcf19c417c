//! What the page may change, if its server lets it. The guard has checked that, and that the request comes
//! from the page's own forms.

use crate::{Page, did::Did, error::PageError, visit::Visit};
use axum::{
    Form, Router,
    extract::{Path, State},
    response::Redirect,
    routing::post,
};
use halfheard_shared::{
    ids::{JobId, SweepId},
    text::valid_worker,
};
use halfheard_store::{
    JobState, StoreError, SweepState, control::Reopen, drained::HOST, sweeps::SweepRow,
    terms::Terms,
};
use serde::Deserialize;

/// How a person behind a page without names is recorded.
const NOBODY: &str = "page";

pub(crate) fn routes() -> Router<Page> {
    Router::new()
        .route("/sweeps/{sweep}/pause", post(pause))
        .route("/sweeps/{sweep}/resume", post(resume))
        .route("/sweeps/{sweep}/cancel", post(cancel))
        .route("/sweeps/{sweep}/retry", post(retry))
        .route("/sweeps/{sweep}/priority", post(priority))
        .route("/jobs/{job}/retry", post(retry_job))
        .route("/workers/{worker}/drain", post(drain))
        .route("/workers/{worker}/undrain", post(undrain))
}

type Answer = Result<Redirect, PageError>;

async fn pause(State(page): State<Page>, Path(id): Path<SweepId>) -> Answer {
    find(&page, id).await?;
    let paused = page.store.pause(id, None).await?.is_some();
    let did = if paused { Did::Paused } else { Did::Nothing };
    Ok(back(&page, "sweep", &id, &format!("/sweeps/{id}"), did).await)
}

async fn resume(State(page): State<Page>, Path(id): Path<SweepId>) -> Answer {
    find(&page, id).await?;
    let resumed = page.store.resume(id).await?;
    let did = if resumed { Did::Resumed } else { Did::Nothing };
    Ok(back(&page, "sweep", &id, &format!("/sweeps/{id}"), did).await)
}

async fn cancel(State(page): State<Page>, Path(id): Path<SweepId>) -> Answer {
    find(&page, id).await?;
    let did = Did::Cancelled(page.store.cancel(id).await?.jobs);
    Ok(back(&page, "sweep", &id, &format!("/sweeps/{id}"), did).await)
}

/// Retries failed jobs; a cancelled sweep goes on, as with `coord retry`.
async fn retry(State(page): State<Page>, Path(id): Path<SweepId>) -> Answer {
    let cancelled = find(&page, id).await?.state == SweepState::Cancelled;
    let which = match cancelled {
        true => Reopen::Both,
        false => Reopen::Failed,
    };
    let reopened = page.store.reopen(id, which).await?.total();
    let did = match reopened {
        // Of what was cancelled, all results had arrived.
        0 if cancelled => Did::Resumed,
        jobs => Did::Retried(jobs.unsigned_abs()),
    };
    Ok(back(&page, "sweep", &id, &format!("/sweeps/{id}"), did).await)
}

#[derive(Deserialize)]
struct Priority {
    priority: String,
}

async fn priority(
    State(page): State<Page>,
    Path(id): Path<SweepId>,
    Form(form): Form<Priority>,
) -> Answer {
    find(&page, id).await?;
    let priority = form.priority.trim().parse().ok();
    let priority = priority.filter(|priority| (-1000..=1000).contains(priority));
    let priority: i32 = priority.ok_or_else(|| {
        PageError::BadRequest("a priority is a whole number from -1000 to 1000".to_owned())
    })?;
    let (before, after) = page
        .store
        .set_terms(id, &Terms::with_priority(priority))
        .await?;
    let did = match before == after {
        true => Did::Nothing,
        false => Did::Priority(priority),
    };
    Ok(back(&page, "sweep", &id, &format!("/sweeps/{id}"), did).await)
}

/// Retries a failed job, and an evaluation whose training job failed with that.
async fn retry_job(State(page): State<Page>, Path(id): Path<JobId>) -> Answer {
    let home = page.store.job_home(id).await?;
    let home = home.ok_or_else(|| StoreError::NoJob(id.to_string()))?;
    if home.sweep_state == SweepState::Cancelled {
        let refused = "its sweep is cancelled: continue the sweep instead";
        return Err(PageError::BadRequest(refused.to_owned()));
    }
    let again = match home.training_state {
        JobState::Failed => home.training,
        _ => id,
    };
    let reopened = page.store.reopen(home.sweep, Reopen::One(again)).await?;
    let did = Did::Retried(reopened.total().unsigned_abs());
    let shown = format!("/trainings/{}", home.training);
    Ok(back(&page, "job", &id, &shown, did).await)
}

#[derive(Deserialize)]
struct Drain {
    /// Takes back what the worker has.
    #[serde(default)]
    now: Option<String>,
}

async fn drain(
    State(page): State<Page>,
    Path(worker): Path<String>,
    Form(form): Form<Drain>,
) -> Answer {
    let worker = worker_name(&worker)?;
    let by = Visit::current().user;
    let new = page
        .store
        .drain(worker, by.as_deref().unwrap_or(NOBODY))
        .await?;
    let did = match form.now {
        Some(_) => Did::TakenBack(page.store.take_back(worker).await?),
        None if new => Did::Drained,
        None => Did::Nothing,
    };
    Ok(back(&page, "worker", &worker, "/workers", did).await)
}

async fn undrain(State(page): State<Page>, Path(worker): Path<String>) -> Answer {
    let worker = worker_name(&worker)?;
    let did = match page.store.undrain(worker).await? {
        true => Did::Undrained,
        false => Did::Nothing,
    };
    Ok(back(&page, "worker", &worker, "/workers", did).await)
}

/// A name of a slot, of a worker, or of a machine after `host:`.
fn worker_name(name: &str) -> Result<&str, PageError> {
    let machine = name.strip_prefix(HOST);
    let plain = |name: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !name.is_empty() && name.len() <= 253 && name.chars().all(known)
    };
    match machine.map_or_else(|| valid_worker(name), plain) {
        true => Ok(name),
        false => Err(PageError::BadRequest(
            "this is not the name of a worker".to_owned(),
        )),
    }
}

async fn find(page: &Page, id: SweepId) -> Result<SweepRow, PageError> {
    let sweeps = page.store.sweeps().await?;
    let found = sweeps.into_iter().find(|sweep| sweep.id == id);
    Ok(found.ok_or_else(|| StoreError::NoSweep(id.to_string()))?)
}

/// Logs who did what, and leads back to a page that says it.
async fn back(
    page: &Page,
    what: &'static str,
    id: &(impl std::fmt::Display + Sync),
    to: &str,
    did: Did,
) -> Redirect {
    let user = Visit::current().user;
    let user = user.as_deref().unwrap_or(NOBODY);
    tracing::info!(user, %id, did = did.key(), what, "changed through the page");
    page.board.forget().await;
    page.maps.forget();
    page.failed.forget().await;
    Redirect::to(&format!("{to}?did={}", did.key()))
}
