//! One sweep in a few lines.

use crate::{board::Estimate, marks};
use chrono::{DateTime, Duration as Span, Local};
use halfheard_progress::format_duration;
use halfheard_shared::text::{count, plain};
use halfheard_store::{
    SweepState,
    board::{BoardRow, Cost, RECENT},
};
use maud::{Markup, html};
use std::time::Duration;

/// One sweep with what is known of it.
pub(crate) struct Summary<'a> {
    /// Its rows, counted.
    pub(crate) row: &'a BoardRow,
    /// What it costs and when it ends.
    pub(crate) estimate: Estimate,
    /// How many workers do a job of it.
    pub(crate) workers: usize,
}

impl Summary<'_> {
    /// As one of a list, with a link to its map.
    pub(crate) fn card(&self, control: bool) -> Markup {
        let sweep = &self.row.sweep;
        html! {
            h2 { a href={ "/sweeps/" (sweep.id) } { (plain(&sweep.name)) } }
            (self.progress())
            (self.facts())
            @if control { (buttons(self.row)) }
        }
    }

    /// State, bar and counts.
    pub(crate) fn progress(&self) -> Markup {
        let BoardRow {
            sweep, progress, ..
        } = self.row;
        let jobs = progress.progress;
        let (done, all) = (jobs.done, jobs.total());
        let share = percent(done, all);
        html! {
            p class="line" {
                (marks::sweep_state(sweep.state, progress.finished, jobs.failed))
                " "
                progress value=(done) max=(all.max(1)) aria-label="Jobs done" { (share) " %" }
                " "
                span class="num" { (share) " %, " (done) " of " (jobs_of(all)) }
            }
            @if let Some(because) = &sweep.stopped_because {
                p class="message bad" { "Paused by the coordinator: " (plain(because)) }
            }
        }
    }

    /// The facts, as pairs of name and value.
    pub(crate) fn facts(&self) -> Markup {
        let BoardRow {
            sweep, progress, ..
        } = self.row;
        let jobs = progress.progress;
        html! {
            dl class="facts" {
                @if progress.train_jobs > 0 {
                    (fact("Trained", html! { (progress.train_done) " of " (progress.train_jobs) }))
                }
                @if progress.eval_jobs > 0 {
                    (fact("Evaluated", html! { (progress.eval_done) " of " (progress.eval_jobs) }))
                }
                (fact("Failed", html! {
                    @if jobs.failed == 0 { "0" } @else {
                        a class="state failed" href={ "/sweeps/" (sweep.id) "/failures" } {
                            "✗ " (jobs.failed)
                        }
                    }
                }))
                @if !progress.finished {
                    (fact("At work", html! {
                        (count(self.workers, "worker")) ", " (jobs.running) " running, "
                        (jobs.queued) " queued, " (jobs.ready) " ready"
                    }))
                    (fact("Rate", html! { (self.rate()) }))
                    (fact("Ends", self.ends()))
                }
                (fact("Cost", html! { (self.cost()) }))
                (fact("Priority", html! {
                    (sweep.terms.priority)
                    @if let Some(limit) = sweep.terms.max_running { ", at most " (limit) " at once" }
                }))
                @if !sweep.terms.owner.is_empty() {
                    (fact("Owner", html! { (plain(&sweep.terms.owner)) }))
                }
                (fact("Submitted", time(sweep.created.into())))
            }
        }
    }

    /// `12 jobs a minute`.
    fn rate(&self) -> String {
        let age = (Local::now() - DateTime::<Local>::from(self.row.sweep.created)).num_seconds();
        let seconds = age.clamp(60, RECENT.into()) as f64;
        let a_minute = self.row.recent as f64 * 60.0 / seconds;
        match self.row.recent {
            0 => format!("no job done in the last {:.0} min", (seconds / 60.0).ceil()),
            _ if a_minute < 1.0 => format!("{:.1} jobs an hour", a_minute * 60.0),
            _ => format!("{a_minute:.1} jobs a minute"),
        }
    }

    /// `between 14:10 and 15:30`.
    fn ends(&self) -> Markup {
        let known = self.estimate.ending.zip(self.estimate.at);
        let Some((ending, at)) = known else {
            return html! {
                @match self.row.sweep.state {
                    SweepState::Paused => "not while it is paused",
                    _ if self.workers == 0 => "unknown: no worker does a job of it",
                    _ => "unknown until jobs of each kind are done",
                }
            };
        };
        let ending = ending.after(at.elapsed());
        let when = |left: Duration| Span::from_std(left).map(|left| Local::now() + left).ok();
        html! {
            @match (when(ending.low), when(ending.high)) {
                (Some(low), Some(high)) => { "between " (clock(low)) " and " (clock(high)) }
                _ => "in years",
            }
            " " span class="muted" { "(about " (format_duration(ending.left)) " left)" }
        }
    }

    /// `1.2 GPU h so far, about 3.4 in all`.
    fn cost(&self) -> String {
        let Cost { gpu, cpu } = self.estimate.cost;
        let (so_far, unit) = match gpu > 0.0 {
            true => (gpu, "GPU h"),
            false => (cpu, "CPU worker h"),
        };
        let mut text = format!("{} {unit} so far", hours(so_far));
        if gpu > 0.0 && cpu > 0.0 {
            text.push_str(&format!(" and {} CPU worker h", hours(cpu)));
        }
        if let Some(ending) = self.estimate.ending {
            text.push_str(&format!(", about {} in all", hours(so_far + ending.work)));
        }
        text
    }
}

/// The forms that change a sweep, for a page that may.
pub(crate) fn buttons(row: &BoardRow) -> Markup {
    let sweep = &row.sweep;
    let to = |what: &str| format!("/sweeps/{}/{what}", sweep.id);
    html! {
        div class="buttons" {
            @if !row.progress.finished && sweep.state == SweepState::Running {
                form method="post" action=(to("pause")) { button { "Pause" } }
            }
            @if sweep.state == SweepState::Paused {
                form method="post" action=(to("resume")) { button { "Resume" } }
            }
            @if row.progress.progress.failed > 0 || sweep.state == SweepState::Cancelled {
                form method="post" action=(to("retry")) {
                    button {
                        @if sweep.state == SweepState::Cancelled { "Continue" } @else { "Retry failed jobs" }
                    }
                }
            }
            form method="post" action=(to("priority")) {
                label { "Priority "
                    input type="number" name="priority" value=(sweep.terms.priority) step="1"
                        min="-1000" max="1000" required;
                }
                " " button { "Set" }
            }
            @if !row.progress.finished {
                a class="button" href=(to("cancel")) { "Cancel…" }
            }
        }
    }
}

fn fact(name: &str, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// A time, with the machine-readable form beside it.
fn time(time: DateTime<Local>) -> Markup {
    html! { time datetime=(time.to_rfc3339()) { (time.format("%Y-%m-%d %H:%M")) } }
}

/// The time of day of the coordinator, with the day unless it is today.
fn clock(time: DateTime<Local>) -> Markup {
    let form = match time.date_naive() == Local::now().date_naive() {
        true => "%H:%M",
        false => "%a %-d %b %H:%M",
    };
    html! { time datetime=(time.to_rfc3339()) { (time.format(form)) } }
}

fn jobs_of(all: i64) -> String {
    count(usize::try_from(all).unwrap_or(0), "job")
}

/// Whole percent, 100 only when all are done.
fn percent(done: i64, all: i64) -> i64 {
    match all {
        0 => 100,
        all => done * 100 / all,
    }
}

fn hours(seconds: f64) -> String {
    let hours = seconds / 3600.0;
    match hours {
        ..0.0995 => format!("{hours:.2}"),
        ..9.95 => format!("{hours:.1}"),
        _ => format!("{hours:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_hours_are_short() {
        assert_eq!(percent(999, 1000), 99);
        assert_eq!(percent(0, 0), 100);
        assert_eq!(hours(3.6 * 36.0), "0.04");
        assert_eq!(hours(3600.0 * 2.34), "2.3");
        assert_eq!(hours(3600.0 * 234.0), "234");
    }
}
