//! States as a symbol, a word and a class: readable without color.

use halfheard_store::{JobState, SweepState};
use maud::{Markup, html};

/// The symbol of a job's state.
pub(crate) fn symbol(state: JobState) -> &'static str {
    match state {
        JobState::Blocked => "·",
        JobState::Ready => "○",
        JobState::Queued => "◔",
        JobState::Running => "▶",
        JobState::Done => "✓",
        JobState::Failed => "✗",
        JobState::Cancelled => "–",
    }
}

/// A job's state: symbol and word.
pub(crate) fn job_state(state: JobState) -> Markup {
    html! {
        span class={ "state " (state) } { span aria-hidden="true" { (symbol(state)) } " " (state) }
    }
}

/// A sweep's state: what the operator wants, or that nothing is left to do.
pub(crate) fn sweep_state(state: SweepState, finished: bool, failed: i64) -> Markup {
    let (class, symbol, word) = match (state, finished) {
        (SweepState::Cancelled, _) => ("cancelled", "–", "cancelled"),
        (_, true) if failed > 0 => ("failed", "✗", "finished with failures"),
        (_, true) => ("done", "✓", "finished"),
        (SweepState::Paused, false) => ("queued", "‖", "paused"),
        (SweepState::Running, false) => ("running", "▶", "running"),
    };
    html! {
        span class={ "state " (class) } { span aria-hidden="true" { (symbol) } " " (word) }
    }
}
