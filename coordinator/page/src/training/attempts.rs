//! Attempts at a job, and what its program wrote.

use super::known::Known;
use crate::{
    layout::table,
    written::{between, bytes, chain, time},
};
use halfheard_shared::text::plain;
use halfheard_store::trainings::AttemptRow;
use maud::{Markup, html};

/// The most attempts that are shown, the last ones.
const MOST: usize = 50;
/// What is said about each.
const COLUMNS: [&str; 7] = [
    "Granted",
    "Worker",
    "Device",
    "Version",
    "From epoch",
    "Lasted",
    "How it ended",
];
/// The most lines of output that are shown, the last ones.
const LINES: usize = 200;

pub(super) fn section(known: &Known) -> Markup {
    let hidden = known.attempts.len().saturating_sub(MOST);
    let rows = html! {
        @for attempt in &known.attempts[hidden..] { (row(known, attempt)) }
    };
    html! {
        section aria-labelledby="attempts" {
            h2 id="attempts" { "Attempts" }
            @if known.attempts.is_empty() {
                p class="muted" { "No worker has it yet." }
            } @else {
                @if hidden > 0 {
                    p { "The last " (MOST) " of " (known.attempts.len()) "." }
                }
                (table("Who had this job, and how that ended.", &COLUMNS, &rows))
            }
        }
    }
}

fn row(known: &Known, attempt: &AttemptRow) -> Markup {
    html! {
        tr {
            th scope="row" { (time(attempt.granted)) }
            td {
                (known.worker_link(&attempt.worker))
                span class="muted" { " on " (plain(&attempt.host)) }
            }
            td {
                (plain(&attempt.device))
                @if let Some(peak) = attempt.peak_memory.filter(|peak| *peak > 0) {
                    span class="muted" { ", at most " (bytes(peak.unsigned_abs())) }
                }
            }
            td { (plain(&attempt.version)) }
            td { @if let Some(epoch) = attempt.resumed_after_epoch { (epoch + 1) } }
            td {
                @if let (Some(started), Some(ended)) = (attempt.started, attempt.ended) {
                    (between(started, ended))
                }
            }
            td {
                @match attempt.outcome {
                    Some(outcome) => (outcome.as_str().replace('_', " ")),
                    None if attempt.started.is_some() => "running",
                    None => "queued",
                }
                @if let Some(kind) = &attempt.failure_kind {
                    " (" (plain(kind).replace('_', " ")) ")"
                }
                (chain(&attempt.errors))
            }
        }
    }
}

/// The end of what an external program wrote.
pub(super) fn logs(known: &Known) -> Markup {
    let Some((attempt, output)) = &known.output else {
        return html! {};
    };
    // Programs go back to the start of a line to draw progress bars.
    let text = output.tail.replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LINES);
    let cut = from > 0 || output.bytes > output.tail.len() as u64;
    html! {
        section aria-labelledby="logs" {
            h2 id="logs" { "Output of the program" }
            p {
                "What attempt " (attempt.short()) " wrote to standard error"
                @if cut {
                    ": the last " (lines.len() - from) " lines of " (bytes(output.bytes)) ". "
                    code { "coord logs " (known.training.job.short()) " --all" } " prints all of it"
                }
                "."
            }
            pre tabindex="0" aria-labelledby="logs" {
                @for line in &lines[from..] { (plain(line)) "\n" }
            }
        }
    }
}
