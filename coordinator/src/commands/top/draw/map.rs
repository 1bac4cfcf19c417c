//! One sweep as a map.

use super::{
    parts::{Look, fit, lines, list_and_details, mark, window, worded, wrapped},
    sweeps::standing,
};
use crate::commands::top::{
    map::{self, CELL, Map},
    state::State,
};
use halfheard_shared::text::plain;
use halfheard_store::{JobState, live::MapCell};
use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, look: Look) {
    let Some(line) = state.chosen() else {
        return wrapped(frame, area, vec![Line::raw("no sweep is chosen")]);
    };
    let (symbol, word, _) = standing(line);
    let title = format!(
        "{}  {symbol} {word}  {}/{} jobs, {} failed",
        plain(&line.row.name),
        line.jobs.done,
        line.jobs.total(),
        line.jobs.failed
    );
    let title = Line::styled(fit(&title, area.width.into()), look.chosen());
    let Some(map) = state.map() else {
        return lines(frame, area, vec![title, Line::raw("reading ...")]);
    };
    if map.rows.is_empty() {
        let text = "this sweep has no training jobs";
        return lines(frame, area, vec![title, Line::raw(text)]);
    }
    let (top, details) = list_and_details(area, 5);
    let mut rows = vec![title];
    rows.extend(table(
        map,
        state.cell,
        (top.width, top.height.saturating_sub(1)),
        look,
    ));
    lines(frame, top, rows);
    if details.height > 0 {
        let (row, column) = state.cell;
        let mut text = vec![Line::raw("")];
        if let Some(cell) = map.cell(row, column) {
            text.push(Line::raw(describe(cell)));
        }
        text.push(Line::styled(map::legend(), look.faint()));
        wrapped(frame, details, text);
    }
}

/// The rows of the map that fit.
fn table(
    map: &Map,
    chosen: (usize, usize),
    (width, height): (u16, u16),
    look: Look,
) -> Vec<Line<'static>> {
    let width = usize::from(width);
    let label = map.label(width);
    let columns = window(map.columns.len(), chosen.1, map.fitting(width));
    let visible = window(
        map.rows.len(),
        chosen.0,
        usize::from(height).saturating_sub(2).max(1),
    );
    let heading = map.heading(&columns, label);
    let mut lines: Vec<Line<'static>> = heading
        .into_iter()
        .map(|line| Line::styled(line, look.faint()))
        .collect();
    for row in visible {
        let name = format!("{}{}", mark(row == chosen.0), fit(&map.rows[row], label));
        let mut spans = vec![Span::raw(name)];
        for column in columns.clone() {
            let is_chosen = (row, column) == chosen;
            let (text, style) = match map.cell(row, column) {
                Some(cell) => (map::short(cell), look.state(map::state(cell))),
                None => (String::new(), look.faint()),
            };
            let style = if is_chosen {
                style.patch(look.chosen())
            } else {
                style
            };
            let text = format!("{}{}", mark(is_chosen), fit(&text, CELL - 1));
            spans.push(Span::styled(text, style));
        }
        lines.push(Line::from(spans));
    }
    lines
}

fn describe(cell: &MapCell) -> String {
    let model = match cell.variant.as_str() {
        "" => cell.method.clone(),
        variant => format!("{}/{variant}", cell.method),
    };
    let mut text = plain(&format!(
        "{model} on {}, seed {} ({}): training {}",
        cell.dataset,
        cell.seed,
        cell.job.short(),
        worded(cell.training)
    ));
    if let Some(epoch) = cell.epoch.filter(|_| cell.training != JobState::Done) {
        text.push_str(&format!(", epoch {epoch}"));
    }
    if cell.expected > 0 {
        text.push_str(&format!(", evaluated {}/{}", cell.done, cell.expected));
    }
    if cell.failed > 0 {
        text.push_str(&format!(", {} failed", cell.failed));
    }
    if let Some(value) = cell.value {
        text.push_str(&format!(", mean MAE {value:.4}"));
    }
    text
}
