//! The frame: tabs above, what can be done below, outages, and dialogs over everything.

use super::{
    failures, map,
    parts::{Look, fit},
    sweeps, training, workers,
};
use crate::commands::top::state::{Dialog, Outage, State, Tab};
use halfheard_progress::format_duration;
use halfheard_shared::text::plain;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Wrap},
};
use std::time::Duration;

const HELP: &str = "\
1-5, tab    sweeps, map, workers, training, failures
arrows hjkl choose; in training: another seed, another curve
enter       open what is chosen; esc goes back
p  r        pause the sweep, resume it
R           run failed jobs again
+  -        raise or lower the priority
d  D        drain the worker; D takes its jobs back
            (d again lets it work)
q  ctrl-c   quit; nothing stops with it

Whatever changes something asks first: y or n.
On a telephone: the page of coord serve --http.
In a script: coord status --json.";

/// Draws everything.
pub(in crate::commands::top) fn draw(frame: &mut Frame<'_>, state: &State, look: Look) {
    let outages = outages(state);
    let [tabs, banner, body, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(u16::try_from(outages.len()).unwrap_or(u16::MAX)),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(tab_line(state.tab, tabs.width, look), tabs);
    let alarms: Vec<Line<'_>> = outages
        .iter()
        .map(|text| Line::styled(fit(text, banner.width.into()), look.alarm()))
        .collect();
    frame.render_widget(Paragraph::new(alarms), banner);
    match state.tab {
        _ if state.loaded.is_none() => waiting(frame, body, state),
        Tab::Sweeps => sweeps::draw(frame, body, state, look),
        Tab::Map => map::draw(frame, body, state, look),
        Tab::Workers => workers::draw(frame, body, state, look),
        Tab::Training => training::draw(frame, body, state, look),
        Tab::Failures => failures::draw(frame, body, state, look),
    }
    frame.render_widget(key_line(state, keys.width, look), keys);
    match &state.dialog {
        Some(Dialog::Help) => dialog(frame, "help (any key closes it)", HELP),
        Some(Dialog::Question { text, .. }) => {
            dialog(frame, "sure?", &format!("{text}\n\ny yes   n no"));
        }
        None => {}
    }
}

fn tab_line(shown: Tab, width: u16, look: Look) -> Line<'static> {
    let numbered = width >= 60;
    let mut spans = Vec::new();
    for (index, tab) in Tab::ALL.into_iter().enumerate() {
        let number = if numbered {
            format!("{} ", index + 1)
        } else {
            String::new()
        };
        let name = format!("{number}{}", tab.name());
        spans.push(match (tab == shown, numbered) {
            (true, _) => Span::styled(format!("[{name}]"), look.chosen()),
            (false, true) => Span::raw(format!(" {name} ")),
            (false, false) => Span::raw(format!(" {name}")),
        });
    }
    Line::from(spans)
}

/// One line for each server that cannot be reached.
fn outages(state: &State) -> Vec<String> {
    let line = |what: &str, outage: &Outage| {
        let lasts = (state.now - outage.since).to_std().unwrap_or_default();
        format!(
            "! {what} for {}: {}",
            format_duration(Duration::from_secs(lasts.as_secs())),
            plain(&outage.error)
        )
    };
    let mut lines = Vec::new();
    if let Some(outage) = &state.database {
        lines.push(line("database unreachable", outage));
        if let Some(loaded) = state.loaded {
            let at = loaded.format("%H:%M:%S UTC");
            lines.push(format!("! shown is what was known at {at}; trying again"));
        }
    }
    if let Some(outage) = &state.broker {
        lines.push(line("workers unknown", outage));
    }
    lines
}

fn waiting(frame: &mut Frame<'_>, area: Rect, state: &State) {
    if state.database.is_none() {
        frame.render_widget(Paragraph::new("reading the database ..."), area);
    }
}

fn key_line(state: &State, width: u16, look: Look) -> Line<'static> {
    if let Some((note, _)) = &state.note {
        return Line::styled(fit(note, width.into()), look.chosen());
    }
    let keys = match (state.tab, width >= 60) {
        (_, false) => "tab ↑↓ enter  p r R + -  ? help  q quit",
        (Tab::Workers, true) => {
            "tab next  ↑↓ choose  enter its training  d drain  D at once  ? help  q quit"
        }
        (Tab::Training, true) => "tab next  ↑↓ seed  ←→ curve  esc map  R retry  ? help  q quit",
        (_, true) => "tab next  ↑↓ choose  enter open  p pause  r resume  R retry  ? help  q quit",
    };
    Line::styled(keys, look.faint())
}

/// A box over the middle.
fn dialog(frame: &mut Frame<'_>, title: &str, text: &str) {
    let all = frame.area();
    let longest = text.lines().map(|line| line.chars().count()).max();
    let width = u16::try_from(longest.unwrap_or(0).max(title.len()) + 4).unwrap_or(u16::MAX);
    let width = width.min(all.width.min(64));
    let within = usize::from(width.saturating_sub(4)).max(1);
    // An upper bound: words may leave room at the end of a line.
    let rows: usize = text
        .lines()
        .map(|line| (line.chars().count() + within / 3).div_ceil(within).max(1))
        .sum();
    let height = u16::try_from(rows + 2).unwrap_or(u16::MAX).min(all.height);
    let area = Rect {
        x: all.x + (all.width - width) / 2,
        y: all.y + (all.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, area);
    let block = Block::bordered()
        .title(format!(" {title} "))
        .padding(ratatui::widgets::Padding::horizontal(1));
    let text = Paragraph::new(text.to_owned()).wrap(Wrap { trim: false });
    frame.render_widget(text.block(block), area);
}
