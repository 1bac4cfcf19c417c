//! The page of workers as HTML.

use super::{
    Asked,
    row::{Row, Standing},
};
use crate::{
    Page,
    written::{bytes, time},
};
use halfheard_progress::describe_worker;
use halfheard_shared::text::{count, plain, valid_worker};
use halfheard_store::drained::Drained;
use maud::{Markup, html};

/// What is said about all workers.
pub(super) struct Seen {
    pub(super) hosts: usize,
    pub(super) counts: [(Standing, usize); 5],
    /// The most frequent first.
    pub(super) versions: Vec<(String, usize)>,
    /// Drained names of which nobody is heard.
    pub(super) absent: Vec<Drained>,
    /// Why the database says nothing.
    pub(super) problem: Option<String>,
}

/// Which of the pages is shown.
pub(super) struct Pages {
    pub(super) number: usize,
    pub(super) pages: usize,
    pub(super) found: usize,
}

pub(super) fn body(
    page: &Page,
    asked: &Asked,
    seen: &Seen,
    rows: &[&Row<'_>],
    pages: Pages,
) -> Markup {
    let all: usize = seen.counts.iter().map(|(_, number)| number).sum();
    html! {
        h1 { "Workers" }
        @if let Some(problem) = &seen.problem {
            p class="message" { "The database cannot be read, so part is missing here: " (plain(problem)) "." }
        }
        @if all == 0 {
            p {
                "No worker was heard in the last minute. Start one with "
                code { "worker --nats-url …" }
                ", and see "
                code { "coord doctor" }
                " if it should be there."
            }
        } @else {
            (summary(seen, all))
            (search(asked))
            p {
                @if pages.found == all { (count(all, "worker")) } @else {
                    (pages.found) " of " (count(all, "worker"))
                }
                @if pages.pages > 1 { ", page " (pages.number) " of " (pages.pages) }
                "."
            }
            @if !rows.is_empty() { (table(page, rows)) }
            (turn(asked, &pages))
        }
        (absent(page, &seen.absent))
    }
}

/// One line by standing, one by version.
fn summary(seen: &Seen, all: usize) -> Markup {
    html! {
        p {
            (count(all, "worker")) " on " (count(seen.hosts, "machine")) ": "
            @for (number, (standing, workers)) in
                seen.counts.iter().rev().filter(|(_, workers)| *workers > 0).enumerate()
            {
                @if number > 0 { ", " }
                a href={ "/workers?state=" (standing.key()) } { (workers) " " (standing.word()) }
            }
            "."
        }
        @match seen.versions.as_slice() {
            [] => {}
            [(version, _)] => { p class="muted" { "All have version " (plain(version)) "." } }
            several => {
                p {
                    strong { "Versions differ: " }
                    @for (number, (version, workers)) in several.iter().enumerate() {
                        @if number > 0 { ", " }
                        (plain(version)) " (" (workers) ")"
                    }
                    "."
                }
            }
        }
    }
}

fn search(asked: &Asked) -> Markup {
    html! {
        form method="get" action="/workers" role="search" {
            label {
                "Find "
                input type="search" name="filter" value=(plain(&asked.filter))
                    placeholder="name, machine, device, label, job";
            }
            label {
                " State "
                select name="state" {
                    option value="" { "any" }
                    @for standing in Standing::ALL {
                        option value=(standing.key()) selected[standing.key() == asked.state] {
                            (standing.word())
                        }
                    }
                }
            }
            button type="submit" { "Show" }
        }
    }
}

/// Buttons to the pages before and after.
fn turn(asked: &Asked, pages: &Pages) -> Markup {
    html! {
        @if pages.pages > 1 {
            form method="get" action="/workers" {
                input type="hidden" name="filter" value=(plain(&asked.filter));
                input type="hidden" name="state" value=(plain(&asked.state));
                @if pages.number > 1 {
                    button name="page" value=(pages.number - 1) { "Previous page" }
                }
                @if pages.number < pages.pages {
                    button name="page" value=(pages.number + 1) { "Next page" }
                }
            }
        }
    }
}

fn table(page: &Page, rows: &[&Row<'_>]) -> Markup {
    let control = page.access.control;
    html! {
        div class="scroll" {
            table class="workers" {
                caption { "Workers by machine. Attempts are those that ended in the last hour." }
                thead {
                    tr {
                        th scope="col" { "Worker" }
                        th scope="col" { "Now" }
                        th scope="col" { "Pace" }
                        th scope="col" { "Memory" }
                        th scope="col" { "Device" }
                        th scope="col" { "Done, failed" }
                        th scope="col" { "Holds" }
                        th scope="col" { "Version" }
                        @if control { th scope="col" { "Drain" } }
                    }
                }
                @for group in rows.chunk_by(|one, next| one.beat.worker.host == next.beat.worker.host) {
                    tbody {
                        @if let Some(first) = group.first() {
                            tr {
                                th scope="rowgroup" colspan=(if control { 9 } else { 8 }) {
                                    (plain(&first.beat.worker.host))
                                    span class="muted" { ", " (count(group.len(), "worker")) }
                                }
                            }
                        }
                        @for row in group { (line(row, control)) }
                    }
                }
            }
        }
    }
}

fn line(row: &Row<'_>, control: bool) -> Markup {
    let beat = row.beat;
    let (symbol, class) = row.standing.mark();
    html! {
        tr id={ "worker-" (plain(&beat.worker.name)) } {
            th scope="row" {
                (plain(&beat.worker.name))
                @for label in &beat.labels { " " span class="muted" { (plain(label)) } }
            }
            td {
                span class={ "state " (class) } {
                    span aria-hidden="true" { (symbol) } " " (row.standing.word())
                }
                ": "
                @match &beat.doing {
                    Some(doing) => a href={ "/trainings/" (doing.job) } { (describe_worker(beat)) },
                    None => (describe_worker(beat)),
                }
                @if let Some(drained) = &row.drained {
                    span class="muted" {
                        "; drained by " (plain(&drained.by)) " at " (time(drained.since))
                    }
                }
            }
            td { @if let Some(pace) = row.pace { (format!("{pace:.1}")) " /s" } }
            td { (bytes(beat.memory_bytes)) }
            td {
                (plain(&beat.worker.device))
                @if beat.device_memory > 0 { ", " (bytes(beat.device_memory)) }
            }
            td {
                @if let Some(tally) = row.tally {
                    (tally.done) ", " (tally.failed)
                    @if tally.other > 0 { span class="muted" { ", " (tally.other) " otherwise" } }
                }
            }
            td { (beat.holds.len()) }
            td {
                (plain(&beat.worker.version))
                @if row.other_version { " " strong { "(not that of most)" } }
            }
            @if control {
                td {
                    @if let Some(drained) = &row.drained { (undrain(&drained.worker)) }
                    @else { (drain(&beat.worker.name)) }
                }
            }
        }
    }
}

fn drain(worker: &str) -> Markup {
    html! {
        @if valid_worker(worker) {
            form method="post" action={ "/workers/" (worker) "/drain" } {
                button type="submit" aria-label={ "Drain " (worker) } { "Drain" }
            }
        }
    }
}

/// The name may stand for more than one worker.
fn undrain(name: &str) -> Markup {
    let worker = name
        .strip_prefix(halfheard_store::drained::HOST)
        .unwrap_or(name);
    html! {
        @if valid_worker(worker) {
            form method="post" action={ "/workers/" (name) "/undrain" } {
                button type="submit" { "Undrain " (name) }
            }
        }
    }
}

fn absent(page: &Page, absent: &[Drained]) -> Markup {
    html! {
        @if !absent.is_empty() {
            section aria-labelledby="absent" {
                h2 id="absent" { "Drained, and not heard" }
                ul {
                    @for drained in absent {
                        li {
                            (plain(&drained.worker)) ", drained by " (plain(&drained.by)) " at "
                            (time(drained.since))
                            @if page.access.control { " " (undrain(&drained.worker)) }
                        }
                    }
                }
            }
        }
    }
}
