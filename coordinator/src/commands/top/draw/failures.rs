//! The chosen sweep's failures by cause, the chosen one with its errors and what to do.

use super::parts::{Look, fit, lines, mark, window, wrapped};
use crate::commands::top::state::State;
use halfheard_progress::failures::jobs;
use halfheard_shared::text::plain;
use halfheard_store::JobState;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::Line,
};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, look: Look) {
    let Some(line) = state.chosen() else {
        return wrapped(frame, area, vec![Line::raw("no sweep is chosen")]);
    };
    let title = format!("failures of {} by cause", plain(&line.row.name));
    let title = Line::styled(fit(&title, area.width.into()), look.chosen());
    let Some(groups) = state.failures() else {
        return lines(frame, area, vec![title, Line::raw("reading ...")]);
    };
    if groups.is_empty() {
        return lines(frame, area, vec![title, Line::raw("✓ none")]);
    }
    let most = u16::try_from(groups.len() + 1).unwrap_or(u16::MAX);
    let [list, details] = Layout::vertical([
        Constraint::Max(most.min(area.height / 3 + 1)),
        Constraint::Min(1),
    ])
    .areas(area);
    let mut rows = vec![title];
    let height = usize::from(list.height).saturating_sub(1);
    for index in window(groups.len(), state.failure, height) {
        let group = &groups[index];
        let (symbol, style) = match group.given_up {
            true => ('✗', look.state(JobState::Failed)),
            false => ('◔', look.state(JobState::Queued)),
        };
        let text = format!(
            "{}{symbol} {}: {}",
            mark(index == state.failure),
            jobs(group.all_jobs()),
            group.cause
        );
        rows.push(Line::styled(fit(&text, area.width.into()), style));
    }
    lines(frame, list, rows);
    if let Some(group) = groups.get(state.failure) {
        let mut text = vec![Line::raw("")];
        text.extend(group.describe().lines().map(|line| Line::raw(plain(line))));
        text.push(Line::raw(""));
        text.push(Line::raw(group.advice()));
        wrapped(frame, details, text);
    }
}
