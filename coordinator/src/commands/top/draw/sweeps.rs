//! All sweeps, and the chosen one in detail.

use super::parts::{Look, fit, lines, list_and_details, mark, window, wrapped};
use crate::commands::top::state::{State, SweepLine};
use halfheard_progress::format_duration;
use halfheard_shared::text::plain;
use halfheard_store::{JobState, SweepState};
use ratatui::{Frame, layout::Rect, text::Line};

/// The columns of a bar.
const BAR: usize = 10;

/// What the operator wants, or that nothing is left: symbol and word.
pub(super) fn standing(line: &SweepLine) -> (char, &'static str, JobState) {
    match (line.row.state, line.jobs.open()) {
        (SweepState::Cancelled, _) => ('–', "cancelled", JobState::Cancelled),
        (_, 0) if line.jobs.failed > 0 => ('✗', "finished with failures", JobState::Failed),
        (_, 0) => ('✓', "finished", JobState::Done),
        (SweepState::Paused, _) => ('‖', "paused", JobState::Queued),
        (SweepState::Running, _) => ('▶', "running", JobState::Running),
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, look: Look) {
    let sweeps = &state.picture.sweeps;
    if sweeps.is_empty() {
        let text = "no sweeps yet; `coord submit SPEC` or `coord run SPEC` makes one";
        return wrapped(frame, area, vec![Line::raw(text)]);
    }
    let (list, details) = list_and_details(area, 6);
    let chosen = sweeps
        .iter()
        .position(|line| Some(line.row.id) == state.sweep);
    let wide = area.width >= 70;
    let mut rows = vec![Line::styled(heading(area.width, wide), look.faint())];
    let height = usize::from(list.height).saturating_sub(1);
    for index in window(sweeps.len(), chosen.unwrap_or(0), height) {
        let is_chosen = Some(index) == chosen;
        let text = row(&sweeps[index], is_chosen, area.width, wide);
        let style = look.state(standing(&sweeps[index]).2);
        let style = if is_chosen {
            style.patch(look.chosen())
        } else {
            style
        };
        rows.push(Line::styled(text, style));
    }
    lines(frame, list, rows);
    if details.height > 0
        && let Some(line) = state.chosen()
    {
        wrapped(frame, details, detail(state, line));
    }
}

/// The columns that the name may take.
fn name_width(width: u16, wide: bool) -> usize {
    usize::from(width)
        .saturating_sub(if wide { 54 } else { 18 })
        .max(4)
}

fn heading(width: u16, wide: bool) -> String {
    let name = fit("sweep", name_width(width, wide));
    match wide {
        true => format!(
            "   {name} {:<BAR$} {:>15} {:>7} {:>7} {:>6}",
            "", "done", "running", "failed", "prio"
        ),
        false => format!("   {name} {:>5} {:>6}", "done", "failed"),
    }
}

fn row(line: &SweepLine, chosen: bool, width: u16, wide: bool) -> String {
    let jobs = &line.jobs;
    let share = (jobs.done + jobs.failed) as f64 / jobs.total().max(1) as f64;
    let begin = format!(
        "{}{} {}",
        mark(chosen),
        standing(line).0,
        fit(&line.row.name, name_width(width, wide))
    );
    if !wide {
        return format!(
            "{begin} {:>4.0}% {:>6}",
            (share * 100.0).floor(),
            jobs.failed
        );
    }
    let full = (share * BAR as f64).floor() as usize;
    format!(
        "{begin} {}{} {:>15} {:>7} {:>7} {:>6}",
        "█".repeat(full),
        "░".repeat(BAR - full.min(BAR)),
        format!("{}/{}", jobs.done, jobs.total()),
        jobs.running,
        jobs.failed,
        line.row.terms.priority
    )
}

fn detail(state: &State, line: &SweepLine) -> Vec<Line<'static>> {
    let (row, jobs) = (&line.row, &line.jobs);
    let (symbol, word, _) = standing(line);
    let because = row.stopped_because.as_deref().map(plain);
    let because = because.map_or_else(String::new, |because| format!(" ({because})"));
    let mut text = vec![
        String::new(),
        format!(
            "{} ({})  {symbol} {word}{because}",
            plain(&row.name),
            row.id.short()
        ),
    ];
    let outlook = state
        .picture
        .outlook
        .filter(|outlook| outlook.sweep == row.id);
    if let Some(outlook) = outlook {
        let (trained, evaluated) = (outlook.trained, outlook.evaluated);
        text.push(format!(
            "trained {}/{}, evaluated {}/{}, {} waiting",
            trained.0,
            trained.1,
            evaluated.0,
            evaluated.1,
            jobs.blocked + jobs.ready + jobs.queued
        ));
        if let Some(left) = outlook.left {
            text.push(format!("about {} left", format_duration(left)));
        }
    }
    let owner = match row.terms.owner.as_str() {
        "" => String::new(),
        owner => format!(" by {}", plain(owner)),
    };
    let at = row.created.format("%Y-%m-%d %H:%M UTC");
    text.push(format!(
        "submitted {at}{owner}, priority {}",
        row.terms.priority
    ));
    text.into_iter().map(Line::raw).collect()
}
