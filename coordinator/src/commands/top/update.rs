//! What an event changes. Pure: what is to be done with the database is returned.

use super::state::{
    Action, Dialog, Outage, Pace, Picture, Quit, State, SweepLine, Tab, TrainingView,
};
use chrono::{DateTime, TimeDelta, Utc};
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use halfheard_shared::{
    ids::JobId,
    text::{count, plain},
    wire::{Doing, Heartbeat},
};
use halfheard_store::{JobState, SweepState};
use std::collections::HashMap;

/// How long a note stays, in seconds.
const NOTE: i64 = 8;

/// Something that happened.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Key(KeyEvent),
    /// The database was read.
    Loaded(Box<Picture>),
    /// The broker was asked who lives.
    Workers(Vec<Heartbeat>),
    /// The database does not answer, for this reason.
    NoDatabase(String),
    /// The broker does not answer, for this reason.
    NoBroker(String),
    /// What an action did, or why it failed.
    Done(Result<String, String>),
    /// SIGTERM or SIGINT.
    Interrupt,
    /// Nothing but that time passes.
    Tick,
}

/// Changes the state by an event at a time. Returns what the operator confirmed.
pub(super) fn update(state: &mut State, event: Event, now: DateTime<Utc>) -> Option<Action> {
    state.now = now;
    let over = |at: &DateTime<Utc>| now - *at > TimeDelta::seconds(NOTE);
    if state.note.as_ref().is_some_and(|(_, at)| over(at)) {
        state.note = None;
    }
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => return press(state, key),
        Event::Loaded(picture) => {
            state.database = None;
            state.loaded = Some(now);
            load(state, *picture);
        }
        Event::Workers(workers) => {
            state.broker = None;
            state.paces = paces(&state.paces, &workers);
            state.workers = workers;
        }
        Event::NoDatabase(error) => lost(&mut state.database, error, now),
        Event::NoBroker(error) => lost(&mut state.broker, error, now),
        Event::Done(Ok(text)) => state.note = Some((text, now)),
        Event::Done(Err(text)) => state.note = Some((format!("failed: {text}"), now)),
        Event::Interrupt => state.quit = Some(Quit::Interrupted),
        Event::Key(_) | Event::Tick => {}
    }
    None
}

fn lost(outage: &mut Option<Outage>, error: String, now: DateTime<Utc>) {
    let since = outage.as_ref().map_or(now, |outage| outage.since);
    *outage = Some(Outage { since, error });
}

/// Takes what was read; what was not asked for this time stays as it was.
fn load(state: &mut State, mut picture: Picture) {
    let old = std::mem::take(&mut state.picture);
    picture.outlook = picture.outlook.or(old.outlook);
    picture.map = picture.map.or(old.map);
    picture.training = picture.training.or(old.training);
    picture.failures = picture.failures.or(old.failures);
    if picture.since.is_empty() {
        picture.since = old.since;
    }
    state.picture = picture;
    let exists = state.chosen().is_some();
    if !exists {
        // The newest; one that was deleted takes its map with it.
        state.sweep = state.picture.sweeps.first().map(|line| line.row.id);
    }
    if let Some(map) = state.map() {
        let (rows, columns) = (map.rows.len(), map.columns.len());
        let (row, column) = state.cell;
        state.cell = (
            row.min(rows.saturating_sub(1)),
            column.min(columns.saturating_sub(1)),
        );
    }
    let failures = state.failures().map_or(0, <[_]>::len);
    state.failure = state.failure.min(failures.saturating_sub(1));
    if state.tab == Tab::Training && state.job.is_none() {
        let training = state.picture.training.as_ref();
        state.job = training.map(|view| view.training.job);
    }
}

/// Steps of training since its beginning.
fn steps(doing: &Doing) -> u64 {
    u64::from(doing.epoch.saturating_sub(1)) * u64::from(doing.steps) + u64::from(doing.step)
}

/// The paces of workers, from the heartbeats before and now.
fn paces(old: &HashMap<String, Pace>, beats: &[Heartbeat]) -> HashMap<String, Pace> {
    let paced = beats.iter().filter_map(|beat| {
        let doing = beat.doing.as_ref().filter(|doing| doing.epoch > 0)?;
        let (steps, at_ms) = (steps(doing), beat.at_ms);
        let before = old
            .get(&beat.worker.name)
            .filter(|pace| pace.job == doing.job);
        let per_second = match before {
            // The same heartbeat as before, or one of a process that started over.
            Some(pace) if at_ms <= pace.at_ms || steps < pace.steps => {
                return Some((beat.worker.name.clone(), *pace));
            }
            Some(pace) => Some((steps - pace.steps) as f64 * 1000.0 / (at_ms - pace.at_ms) as f64),
            None => None,
        };
        let pace = Pace {
            job: doing.job,
            steps,
            at_ms,
            per_second,
        };
        Some((beat.worker.name.clone(), pace))
    });
    paced.collect()
}

fn press(state: &mut State, key: KeyEvent) -> Option<Action> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        if key.code == KeyCode::Char('c') {
            state.quit = Some(Quit::Interrupted);
        }
        return None;
    }
    match state.dialog.take() {
        Some(Dialog::Help) => return None,
        Some(Dialog::Question { text, action }) => return answer(state, key.code, text, action),
        None => {}
    }
    match key.code {
        KeyCode::Char('q') => state.quit = Some(Quit::Asked),
        KeyCode::Char('?') => state.dialog = Some(Dialog::Help),
        KeyCode::Tab => show(state, state.tab.step(1)),
        KeyCode::BackTab => show(state, state.tab.step(Tab::ALL.len() - 1)),
        KeyCode::Char(digit @ '1'..='5') => {
            show(state, Tab::ALL[digit as usize - '1' as usize]);
        }
        KeyCode::Down | KeyCode::Char('j') => step(state, 1, 0),
        KeyCode::Up | KeyCode::Char('k') => step(state, -1, 0),
        KeyCode::Right | KeyCode::Char('l') => step(state, 0, 1),
        KeyCode::Left | KeyCode::Char('h') => step(state, 0, -1),
        KeyCode::Enter => enter(state),
        KeyCode::Esc | KeyCode::Backspace => back(state),
        KeyCode::Char('p') => ask_state(state, SweepState::Paused),
        KeyCode::Char('r') => ask_state(state, SweepState::Running),
        KeyCode::Char('R') => ask_retry(state),
        KeyCode::Char('+' | '=') => ask_priority(state, 1),
        KeyCode::Char('-') => ask_priority(state, -1),
        KeyCode::Char('d') => ask_drain(state, false),
        KeyCode::Char('D') => ask_drain(state, true),
        _ => {}
    }
    None
}

/// An answer to a question. What is neither yes nor no leaves it open.
fn answer(state: &mut State, code: KeyCode, text: String, action: Action) -> Option<Action> {
    match (code, &action) {
        (KeyCode::Char('y' | 'Y'), _) => return Some(action),
        (KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc, _) => {
            state.note = Some(("nothing changed".to_owned(), state.now));
        }
        (KeyCode::Char('+' | '='), &Action::Priority(_, to)) => priority(state, to, 1),
        (KeyCode::Char('-'), &Action::Priority(_, to)) => priority(state, to, -1),
        _ => state.dialog = Some(Dialog::Question { text, action }),
    }
    None
}

fn show(state: &mut State, tab: Tab) {
    if tab == Tab::Training
        && state.tab == Tab::Map
        && let Some(job) = cell_job(state)
    {
        state.job = Some(job);
    }
    state.tab = tab;
}

fn cell_job(state: &State) -> Option<JobId> {
    let (row, column) = state.cell;
    state.map()?.cell(row, column).map(|cell| cell.job)
}

fn moved(at: usize, by: isize, len: usize) -> usize {
    at.saturating_add_signed(by).min(len.saturating_sub(1))
}

fn step(state: &mut State, down: isize, right: isize) {
    match state.tab {
        Tab::Sweeps => {
            let sweeps = &state.picture.sweeps;
            let is_chosen = |line: &SweepLine| Some(line.row.id) == state.sweep;
            let at = sweeps.iter().position(is_chosen).unwrap_or(0);
            let chosen = sweeps.get(moved(at, down, sweeps.len()));
            let chosen = chosen.map(|line| line.row.id);
            if chosen != state.sweep {
                state.sweep = chosen;
                state.job = None;
                state.cell = (0, 0);
                state.failure = 0;
            }
        }
        Tab::Map => {
            if let Some(map) = state.map() {
                let (row, column) = state.cell;
                let cell = (
                    moved(row, down, map.rows.len()),
                    moved(column, right, map.columns.len()),
                );
                state.cell = cell;
            }
        }
        Tab::Workers => {
            let at = moved(state.worker_at(), down, state.workers.len());
            state.worker = state.workers.get(at).map(|beat| beat.worker.name.clone());
        }
        Tab::Training => {
            if let Some(view) = &state.picture.training {
                state.curve = moved(state.curve, right, view.curves().len());
                if down != 0 {
                    state.job = neighbor(view, state.job, down);
                }
            }
        }
        Tab::Failures => {
            let failures = state.failures().map_or(0, <[_]>::len);
            state.failure = moved(state.failure, down, failures);
        }
    }
}

/// The same training with the next seed.
fn neighbor(view: &TrainingView, job: Option<JobId>, down: isize) -> Option<JobId> {
    let at = view.seeds.iter().position(|seed| Some(seed.job) == job);
    let next = moved(at.unwrap_or(0), down, view.seeds.len());
    view.seeds.get(next).map(|seed| seed.job).or(job)
}

fn enter(state: &mut State) {
    match state.tab {
        Tab::Sweeps => state.tab = Tab::Map,
        Tab::Map => show(state, Tab::Training),
        Tab::Workers => {
            let beat = state.workers.get(state.worker_at());
            match beat.and_then(|beat| beat.doing.as_ref()) {
                Some(doing) => {
                    state.job = Some(doing.job);
                    state.tab = Tab::Training;
                }
                None => say(state, "this worker has no job".to_owned()),
            }
        }
        Tab::Training => {}
        Tab::Failures => {
            let group = state
                .failures()
                .and_then(|groups| groups.get(state.failure));
            let example = group.and_then(|group| group.example_jobs.first().copied());
            if let Some(job) = example {
                state.job = Some(job);
                state.tab = Tab::Training;
            }
        }
    }
}

fn back(state: &mut State) {
    state.tab = match state.tab {
        Tab::Training => Tab::Map,
        _ => Tab::Sweeps,
    };
}

fn say(state: &mut State, text: String) {
    state.note = Some((text, state.now));
}

fn ask(state: &mut State, text: String, action: Action) {
    state.dialog = Some(Dialog::Question { text, action });
}

/// The sweep that a key is about, or a note that there is none.
fn subject(state: &mut State) -> Option<(SweepLine, String)> {
    let Some(line) = state.chosen().cloned() else {
        say(state, "no sweep is chosen".to_owned());
        return None;
    };
    let name = format!("{} ({})", plain(&line.row.name), line.row.id.short());
    Some((line, name))
}

fn ask_state(state: &mut State, wanted: SweepState) {
    let Some((line, name)) = subject(state) else {
        return;
    };
    match (wanted, line.row.state) {
        (_, SweepState::Cancelled) => {
            say(state, format!("{name} is cancelled; R continues it"));
        }
        (SweepState::Paused, SweepState::Paused) => say(state, format!("{name} is already paused")),
        (SweepState::Paused, _) => {
            let text = format!("Pause {name}? Jobs in progress continue, no others start.");
            ask(state, text, Action::Pause(line.row.id));
        }
        (_, SweepState::Paused) => {
            ask(
                state,
                format!("Resume {name}?"),
                Action::Resume(line.row.id),
            );
        }
        _ => say(state, format!("{name} is not paused")),
    }
}

/// The chosen training job, if it failed.
fn failed_job(state: &State) -> Option<JobId> {
    let (job, training) = match state.tab {
        Tab::Map => {
            let (row, column) = state.cell;
            let cell = state.map()?.cell(row, column)?;
            (cell.job, cell.training)
        }
        Tab::Training => {
            let training = &state.picture.training.as_ref()?.training;
            (training.job, training.state)
        }
        _ => return None,
    };
    (training == JobState::Failed).then_some(job)
}

fn ask_retry(state: &mut State) {
    let Some((line, name)) = subject(state) else {
        return;
    };
    if let Some(job) = failed_job(state) {
        let text = format!(
            "Run the failed training job {} again, and the evaluations of its model?",
            job.short()
        );
        return ask(state, text, Action::Retry(line.row.id, Some(job)));
    }
    let jobs = match line.row.state {
        SweepState::Cancelled => line.jobs.failed + line.jobs.cancelled,
        _ => line.jobs.failed,
    };
    if jobs == 0 {
        return say(state, format!("no job of {name} has failed"));
    }
    let jobs = count(jobs.unsigned_abs() as usize, "job");
    let text = format!("Run {jobs} of {name} again?");
    ask(state, text, Action::Retry(line.row.id, None));
}

fn ask_priority(state: &mut State, by: i32) {
    if let Some(at) = state.chosen().map(|line| line.row.terms.priority) {
        priority(state, at, by);
    }
}

fn priority(state: &mut State, from: i32, by: i32) {
    let Some((line, name)) = subject(state) else {
        return;
    };
    let to = from.saturating_add(by);
    let text = format!(
        "Set the priority of {name} to {to} (it is {})? + and - change it.",
        line.row.terms.priority
    );
    ask(state, text, Action::Priority(line.row.id, to));
}

fn ask_drain(state: &mut State, at_once: bool) {
    if state.tab != Tab::Workers {
        return say(state, "choose a worker on the workers tab".to_owned());
    }
    let Some(beat) = state.workers.get(state.worker_at()) else {
        return say(state, "no worker is chosen".to_owned());
    };
    let worker = beat.worker.name.clone();
    let names: Vec<String> = state
        .drained(beat)
        .into_iter()
        .map(|name| name.worker.clone())
        .collect();
    if names.contains(&worker) && !at_once {
        let text = format!("Let {worker} work again?");
        return ask(state, text, Action::Undrain(worker));
    }
    if let Some(other) = names.iter().find(|name| **name != worker) {
        let text = format!("Let {other} work again, under which {worker} is drained?");
        return ask(state, text, Action::Undrain(other.clone()));
    }
    let what = match at_once {
        true => "its jobs are saved and go to others",
        false => "it finishes what it has and takes no more",
    };
    let text = format!("Drain {worker}: {what}?");
    ask(state, text, Action::Drain { worker, at_once });
}
