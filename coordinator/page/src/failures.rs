//! Failures, grouped by cause: what happened, where, and what to do about it.

use crate::{
    Page,
    error::PageError,
    failed::OfSweep,
    layout::{Section, Tab, shell, table, tabs},
    written::{chain, time},
};
use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use halfheard_progress::failures::FailureGroup;
use halfheard_shared::{
    ids::SweepId,
    text::{count, plain, valid_worker},
};
use halfheard_store::{dead_letters::DeadLetter, sweeps::SweepRow, worker_tallies::DeclinedRow};
use maud::{Markup, html};

/// What is said about declined jobs.
const DECLINED_CAPTION: &str = "Unfinished jobs that were declined, by worker and fault.";
const DECLINED_COLUMNS: [&str; 5] = ["Worker", "Fault", "Attempts", "Last", "Error"];

pub(crate) fn routes() -> Router<Page> {
    Router::new()
        .route("/failures", get(all))
        .route("/sweeps/{sweep}/failures", get(of_sweep))
}

async fn of_sweep(
    State(page): State<Page>,
    Path(sweep): Path<String>,
) -> Result<Markup, PageError> {
    let SweepRow { id, name, .. } = page.store.find_sweep(&sweep).await?;
    let failed = page.failed.of_sweep(&page.store, id).await?;
    let OfSweep { groups, declined } = &*failed;
    let title = format!("Failures, {}", plain(&name));
    let main = html! {
        h1 { "Failures of " (plain(&name)) }
        (tabs(id, Tab::Failures))
        @if groups.is_empty() { p { "Nothing has failed." } }
        (causes(groups, "h2"))
        (retry(&page, id, groups))
        (declined_section(declined))
    };
    Ok(shell(&page, Section::Sweeps, &title, &main))
}

async fn all(State(page): State<Page>) -> Result<Markup, PageError> {
    let failed = page.failed.of_all(&page.store).await?;
    let main = html! {
        h1 { "Failures" }
        @if failed.sweeps.is_empty() { p { "Nothing has failed in any sweep." } }
        @for (sweep, groups) in &failed.sweeps {
            section {
                h2 { a href={ "/sweeps/" (sweep.sweep) "/failures" } { (plain(&sweep.name)) } }
                (causes(groups, "h3"))
                (retry(&page, sweep.sweep, groups))
            }
        }
        @if failed.hidden > 0 { p { "And " (count(failed.hidden, "older sweep")) " with failures." } }
        (declined_section(&failed.declined))
        (dead(&failed.letters))
    };
    Ok(shell(&page, Section::Failures, "Failures", &main))
}

/// One article per cause, headed by `level`.
fn causes(groups: &[FailureGroup], level: &'static str) -> Markup {
    html! { @for group in groups { (cause(group, level)) } }
}

fn cause(group: &FailureGroup, level: &'static str) -> Markup {
    let jobs = |jobs: i64, noun: &str| count(usize::try_from(jobs).unwrap_or_default(), noun);
    let title = html! {
        span class={ "state " (if group.given_up { "failed" } else { "queued" }) } {
            span aria-hidden="true" { (if group.given_up { "✗" } else { "↻" }) } " "
            (jobs(group.all_jobs(), "job"))
        }
        ": " (plain(&group.cause))
    };
    html! {
        article class="failure" {
            @if level == "h2" { h2 { (title) } } @else { h3 { (title) } }
            p {
                (if group.given_up { "Failed for good" } else { "Will be tried again" })
                @if !group.kind.is_empty() { " (" (plain(&group.kind).replace('_', " ")) ")" }
                ": " (jobs(group.jobs, "job")) ", " (jobs(group.attempts, "attempt"))
                @if group.evaluations_not_begun > 0 {
                    ". " (jobs(group.evaluations_not_begun, "evaluation job"))
                    " of these models could not start"
                }
                "."
            }
            (chain(&group.errors))
            p { strong { "What to do: " } (group.advice()) }
            (examples(group))
            @if !group.workers.is_empty() {
                p {
                    "On "
                    @for (number, worker) in group.workers.iter().enumerate() {
                        @if number > 0 { ", " }
                        (worker_link(worker))
                    }
                    "."
                }
            }
        }
    }
}

fn examples(group: &FailureGroup) -> Markup {
    let more = group.jobs - group.examples.len() as i64;
    html! {
        ul {
            @for (number, example) in group.examples.iter().enumerate() {
                li {
                    @match group.example_jobs.get(number) {
                        Some(job) => a href={ "/trainings/" (job) } { (plain(example)) },
                        None => (plain(example)),
                    }
                }
            }
            @if more > 0 { li { "and " (more) " more" } }
        }
    }
}

fn worker_link(worker: &str) -> Markup {
    html! {
        @if valid_worker(worker) { a href={ "/workers?filter=" (worker) } { (worker) } }
        @else { (plain(worker)) }
    }
}

/// The form that runs again what was given up, or how to do so.
fn retry(page: &Page, sweep: SweepId, groups: &[FailureGroup]) -> Markup {
    let jobs: i64 = groups
        .iter()
        .filter(|group| group.given_up)
        .map(FailureGroup::all_jobs)
        .sum();
    html! {
        @if jobs > 0 {
            @if page.access.control {
                form method="post" action={ "/sweeps/" (sweep) "/retry" } {
                    button type="submit" {
                        "Retry " (count(usize::try_from(jobs).unwrap_or_default(), "failed job"))
                    }
                }
            } @else {
                p { "To run the failed jobs again: " code { "coord retry " (sweep.short()) } }
            }
        }
    }
}

fn declined_section(declined: &[DeclinedRow]) -> Markup {
    let rows = html! {
        @for row in declined {
            tr {
                th scope="row" {
                    (worker_link(&row.worker))
                    span class="muted" { " on " (plain(&row.host)) }
                }
                td { (plain(&row.fault).replace('_', " ")) }
                td { (row.attempts) }
                td { @if let Some(last) = row.last { (time(last)) } }
                td {
                    (chain(&row.errors))
                    a href={ "/trainings/" (row.job) } { "one of the jobs" }
                }
            }
        }
    };
    html! {
        @if !declined.is_empty() {
            section aria-labelledby="declined" {
                h2 id="declined" { "Declined by workers" }
                p {
                    "These workers handed jobs back for a fault of their own. That counts against no job: \
                     others may take them. What a worker lacks is to be put right on its machine."
                }
                (table(DECLINED_CAPTION, &DECLINED_COLUMNS, &rows))
            }
        }
    }
}

fn dead(letters: &[DeadLetter]) -> Markup {
    let caption = format!("The last {} dead letters.", letters.len());
    let rows = html! {
        @for letter in letters {
            tr {
                th scope="row" { (time(letter.received)) }
                td { code { (plain(&letter.subject)) } }
                td { (letter.sequence) }
                td { (plain(&letter.reason)) }
            }
        }
    };
    html! {
        @if !letters.is_empty() {
            section aria-labelledby="dead" {
                h2 id="dead" { "Dead letters" }
                p {
                    "Messages that were refused or could not be stored, the newest first. "
                    code { "coord dead-letters" } " shows what they hold."
                }
                (table(&caption, &["Received", "Subject", "Number", "Reason"], &rows))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_is_told_with_jobs_workers_and_advice_whatever_it_holds() {
        let job = halfheard_shared::ids::JobId::derive(&[b"j"]);
        let group = FailureGroup {
            cause: "<img src=x onerror=alert(1)>\u{202e}".to_owned(),
            errors: vec![
                "outer".to_owned(),
                "<img src=x onerror=alert(1)>\u{202e}".to_owned(),
            ],
            kind: "out_of_memory".to_owned(),
            given_up: true,
            jobs: 3,
            attempts: 9,
            evaluations_not_begun: 48,
            examples: vec!["train <b> on mosi, seed 1".to_owned()],
            example_jobs: vec![job],
            workers: vec!["gpu-0".to_owned(), "\"><script>".to_owned()],
        };
        let html = causes(&[group], "h3").into_string();
        for part in [
            "51 jobs</span>: &lt;img src=x onerror=alert(1)&gt;\u{fffd}",
            "Failed for good (out of memory): 3 jobs, 9 attempts. 48 evaluation jobs",
            "caused by: </span>&lt;img",
            "more memory",
            &format!("<a href=\"/trainings/{job}\">train &lt;b&gt; on mosi, seed 1</a>"),
            "and 2 more",
            "<a href=\"/workers?filter=gpu-0\">gpu-0</a>",
            "&quot;&gt;&lt;script&gt;",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
        assert!(!html.contains("<img") && !html.contains("<script") && !html.contains('\u{202e}'));
    }
}
