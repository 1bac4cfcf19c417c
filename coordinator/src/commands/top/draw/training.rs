//! A training job: one curve of it beside those of other seeds, and its attempts.

use super::parts::{Look, fit, lines, mark, window, worded};
use crate::commands::top::{
    curves::{range, sparkline},
    map::symbol,
    state::{State, TrainingView},
};
use halfheard_shared::text::plain;
use halfheard_store::trainings::AttemptRow;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::Line,
};

/// The most attempts that are shown: the last ones.
const ATTEMPTS: usize = 4;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, look: Look) {
    let view = state.picture.training.as_ref();
    let Some(view) = view.filter(|view| state.job.is_none_or(|job| is_of(view, job))) else {
        let text = match state.job {
            Some(_) => "reading ...",
            None => "no training job; choose one on the map",
        };
        return lines(frame, area, vec![Line::raw(text)]);
    };
    let attempts = attempts(view, area.width, look);
    let [top, below] = Layout::vertical([
        Constraint::Min(4),
        Constraint::Length(u16::try_from(attempts.len()).unwrap_or(u16::MAX)),
    ])
    .areas(area);
    let mut text = heading(view, state.curve, area.width, look);
    let room = usize::from(top.height).saturating_sub(text.len());
    text.extend(seeds(view, state.curve, (area.width, room), look));
    lines(frame, top, text);
    lines(frame, below, attempts);
}

/// Whether a job is shown here: of an evaluation, its model is.
fn is_of(view: &TrainingView, job: halfheard_shared::ids::JobId) -> bool {
    view.training.job == job || !view.seeds.iter().any(|seed| seed.job == job)
}

fn heading(view: &TrainingView, curve: usize, width: u16, look: Look) -> Vec<Line<'static>> {
    let training = &view.training;
    let model = match training.variant.as_str() {
        "" => training.method.clone(),
        variant => format!("{}/{variant}", training.method),
    };
    let title = format!(
        "{model} on {}, seed {} ({})  {}",
        training.dataset,
        training.seed,
        training.job.short(),
        worded(training.state)
    );
    let names = view.curves();
    let named: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(index, name)| match index == curve {
            true => format!("[{}]", plain(name)),
            false => format!(" {} ", plain(name)),
        })
        .collect();
    // The chosen one is to be seen.
    let before: usize = named
        .iter()
        .take(curve + 1)
        .map(|name| name.chars().count())
        .sum();
    let skipped = before.saturating_sub(usize::from(width));
    let named: String = named.concat().chars().skip(skipped).collect();
    vec![
        Line::styled(fit(&title, width.into()), look.chosen()),
        Line::raw(named),
        Line::raw(""),
    ]
}

/// A curve for each seed, all on the same scale.
fn seeds(
    view: &TrainingView,
    curve: usize,
    (width, height): (u16, usize),
    look: Look,
) -> Vec<Line<'static>> {
    let names = view.curves();
    let Some(curve) = names.get(curve.min(names.len().saturating_sub(1))) else {
        return vec![Line::raw("no epoch is trained yet")];
    };
    let all: Vec<Vec<Option<f64>>> = view
        .seeds
        .iter()
        .map(|seed| view.values(seed.job, curve))
        .collect();
    let Some(scale) = range(all.iter().flatten()) else {
        return vec![Line::raw("no finite value yet")];
    };
    let own = view
        .seeds
        .iter()
        .position(|seed| seed.job == view.training.job)
        .unwrap_or(0);
    let epochs = all.iter().map(Vec::len).max().unwrap_or(0);
    let columns = usize::from(width).saturating_sub(30).max(8);
    let mut text = Vec::new();
    for index in window(view.seeds.len(), own, height.saturating_sub(2)) {
        let (seed, values) = (&view.seeds[index], &all[index]);
        let last = values.iter().rev().flatten().next();
        let last = last.map_or_else(|| "-".to_owned(), |last| format!("{last:.4}"));
        let line = format!(
            "{}{} seed {:<8} {:>9} {}",
            mark(index == own),
            symbol(seed.state),
            seed.seed,
            last,
            sparkline(values, scale, epochs.div_ceil(columns))
        );
        let style = look.state(seed.state);
        text.push(match index == own {
            true => Line::styled(line, style.patch(look.chosen())),
            false => Line::styled(line, style),
        });
    }
    let legend = format!(
        "   from {:.4} to {:.4}; at most {epochs} epochs",
        scale.0, scale.1
    );
    text.push(Line::styled(legend, look.faint()));
    text
}

fn attempts(view: &TrainingView, width: u16, look: Look) -> Vec<Line<'static>> {
    let hidden = view.attempts.len().saturating_sub(ATTEMPTS);
    let heading = match hidden {
        0 => "attempts".to_owned(),
        hidden => format!(
            "attempts ({hidden} earlier ones: coord logs {})",
            view.training.job.short()
        ),
    };
    let mut text = vec![Line::styled(heading, look.faint())];
    if view.attempts.is_empty() {
        text.push(Line::raw("  no worker has begun it"));
    }
    for attempt in view.attempts.iter().skip(hidden) {
        text.push(Line::raw(fit(&describe(attempt), width.into())));
    }
    text
}

fn describe(attempt: &AttemptRow) -> String {
    let began = attempt
        .started
        .unwrap_or(attempt.granted)
        .format("%m-%d %H:%M:%S");
    let outcome = match attempt.outcome {
        Some(outcome) => outcome.to_string().replace('_', " "),
        None => "running".to_owned(),
    };
    let error = attempt.errors.last().map(|error| format!(": {error}"));
    format!(
        "  {began} {}  {outcome}{}",
        attempt.worker,
        error.unwrap_or_default()
    )
}
