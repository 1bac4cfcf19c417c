//! What keys and events change.

use super::scene::{beat, doing, job_id, now, picture, state, sweep_id};
use crate::commands::top::{
    state::{Action, Dialog, Quit, State, Tab},
    update::{Event, update},
};
use chrono::TimeDelta;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use halfheard_store::SweepState;
use serde_json::Value;

fn press(state: &mut State, code: KeyCode) -> Option<Action> {
    let key = KeyEvent::new(code, KeyModifiers::NONE);
    update(state, Event::Key(key), now())
}

fn types(state: &mut State, keys: &str) -> Option<Action> {
    keys.chars()
        .fold(None, |_, key| press(state, KeyCode::Char(key)))
}

fn asked(state: &State) -> &str {
    match &state.dialog {
        Some(Dialog::Question { text, .. }) => text,
        other => panic!("nothing is asked: {other:?}, note {:?}", state.note),
    }
}

#[test]
fn tabs_and_cursors_follow_the_keys() {
    let mut state = state();
    assert_eq!(
        (state.tab, state.sweep),
        (Tab::Sweeps, Some(sweep_id("demo")))
    );
    types(&mut state, "jk");
    assert_eq!(state.sweep, Some(sweep_id("demo")));
    press(&mut state, KeyCode::Enter);
    assert_eq!(state.tab, Tab::Map);
    types(&mut state, "jjjjjjlllllllllh");
    assert_eq!(state.cell, (2, 4), "at the edges it stays");
    types(&mut state, "kkk");
    press(&mut state, KeyCode::Enter);
    assert_eq!(
        (state.tab, state.job),
        (Tab::Training, Some(job_id("almt", "mosi", 1112)))
    );
    press(&mut state, KeyCode::Esc);
    assert_eq!(state.tab, Tab::Map);
    press(&mut state, KeyCode::Tab);
    assert_eq!(state.tab, Tab::Workers);
    press(&mut state, KeyCode::Enter);
    assert_eq!(
        (state.tab, state.job),
        (Tab::Training, Some(job_id("almt", "mosei", 1112)))
    );
    types(&mut state, "j");
    assert_eq!(
        state.job,
        Some(job_id("almt", "mosei", 1113)),
        "the next seed"
    );
    types(&mut state, "5");
    press(&mut state, KeyCode::Enter);
    assert_eq!(
        (state.tab, state.job),
        (Tab::Training, Some(job_id("almt", "mosei", 1111)))
    );
    press(&mut state, KeyCode::BackTab);
    assert_eq!(state.tab, Tab::Workers);
    types(&mut state, "q");
    assert_eq!(state.quit, Some(Quit::Asked));
}

#[test]
fn nothing_changes_unless_yes_is_pressed() {
    let sweep = sweep_id("demo");
    let cases: [(&str, Action); 4] = [
        ("p", Action::Pause(sweep)),
        ("R", Action::Retry(sweep, None)),
        ("++-+", Action::Priority(sweep, 2)),
        ("-", Action::Priority(sweep, -1)),
    ];
    for (keys, action) in cases {
        let mut state = state();
        assert_eq!(types(&mut state, keys), None, "{keys}");
        assert!(asked(&state).contains("demo ("), "{}", asked(&state));
        // A key that answers nothing leaves the question.
        assert_eq!(types(&mut state, "x"), None);
        assert_eq!(types(&mut state, "y"), Some(action.clone()));
        assert!(state.dialog.is_none());
        types(&mut state, keys);
        assert_eq!(types(&mut state, "ny"), None, "after no, yes means nothing");
    }
}

#[test]
fn what_makes_no_sense_is_said_instead_of_asked() {
    let mut state = state();
    types(&mut state, "r");
    assert!(state.dialog.is_none());
    assert!(state.note.as_ref().unwrap().0.contains("is not paused"));
    types(&mut state, "j");
    types(&mut state, "p");
    assert!(state.note.as_ref().unwrap().0.contains("already paused"));
    types(&mut state, "R");
    assert!(state.note.as_ref().unwrap().0.contains("has failed"));
    types(&mut state, "r");
    assert!(asked(&state).starts_with("Resume a-name"));
    types(&mut state, "n");
    state.picture.sweeps[1].row.state = SweepState::Cancelled;
    types(&mut state, "p");
    assert!(state.note.as_ref().unwrap().0.contains("R continues it"));
    types(&mut state, "d");
    assert!(state.note.as_ref().unwrap().0.contains("workers tab"));
}

#[test]
fn failed_training_job_is_retried_alone() {
    let mut state = state();
    types(&mut state, "2R");
    let job = job_id("almt", "mosei", 1111);
    assert!(asked(&state).contains(&job.short()));
    let retried = Action::Retry(sweep_id("demo"), Some(job));
    assert_eq!(types(&mut state, "y"), Some(retried));
    // Of another cell, all that failed of the sweep.
    types(&mut state, "lR");
    assert_eq!(
        types(&mut state, "y"),
        Some(Action::Retry(sweep_id("demo"), None))
    );
}

#[test]
fn workers_are_drained_and_let_go_by_the_name_that_drains_them() {
    let mut state = state();
    types(&mut state, "3d");
    let slot = || "gpu7-12-0".to_owned();
    let drain = |at_once| Action::Drain {
        worker: slot(),
        at_once,
    };
    assert_eq!(types(&mut state, "y"), Some(drain(false)));
    types(&mut state, "D");
    assert_eq!(types(&mut state, "y"), Some(drain(true)));
    types(&mut state, "jjjd");
    assert!(
        asked(&state).contains("gpu9-4-0 is drained"),
        "{}",
        asked(&state)
    );
    assert_eq!(
        types(&mut state, "y"),
        Some(Action::Undrain("gpu9-4".to_owned()))
    );
    let mut drained = picture();
    drained.drained[0].worker = slot();
    update(&mut state, Event::Loaded(Box::new(drained)), now());
    types(&mut state, "kkkd");
    assert_eq!(types(&mut state, "y"), Some(Action::Undrain(slot())));
}

#[test]
fn outage_keeps_what_was_known_and_ends_with_the_next_answer() {
    let mut state = state();
    let later = now() + TimeDelta::seconds(30);
    update(&mut state, Event::NoDatabase("refused".to_owned()), now());
    update(&mut state, Event::NoDatabase("refused".to_owned()), later);
    let outage = state.database.clone().unwrap();
    assert_eq!((outage.since, state.now), (now(), later));
    assert_eq!(state.picture.sweeps.len(), 3);
    update(&mut state, Event::Loaded(Box::new(picture())), later);
    assert!(state.database.is_none());
    update(&mut state, Event::NoBroker("refused".to_owned()), later);
    assert_eq!(state.workers.len(), 4, "who lived is still shown");
    update(&mut state, Event::Workers(Vec::new()), later);
    assert!(state.broker.is_none() && state.workers.is_empty());
}

#[test]
fn sweep_that_is_gone_gives_way_to_the_newest() {
    let mut state = state();
    types(&mut state, "jj");
    assert_eq!(state.sweep, Some(state.picture.sweeps[2].row.id));
    let mut fewer = picture();
    fewer.sweeps.truncate(1);
    update(&mut state, Event::Loaded(Box::new(fewer)), now());
    assert_eq!(state.sweep, Some(sweep_id("demo")));
}

#[test]
fn pace_is_measured_between_heartbeats_of_one_job() {
    let mut state = state();
    let pace = |state: &State| state.paces["gpu7-12-0"].per_second;
    assert_eq!(pace(&state), None, "one heartbeat says nothing");
    let mut next = beat("gpu7-12-0", doing(60), Value::Null);
    next.at_ms += 4000;
    update(&mut state, Event::Workers(vec![next.clone()]), now());
    assert_eq!(pace(&state), Some(5.0));
    // The same heartbeat again.
    update(&mut state, Event::Workers(vec![next]), now());
    assert_eq!(pace(&state), Some(5.0));
}

#[test]
fn note_fades_and_interrupts_end_it() {
    let mut state = state();
    update(
        &mut state,
        Event::Done(Err("no such sweep".to_owned())),
        now(),
    );
    assert_eq!(state.note.as_ref().unwrap().0, "failed: no such sweep");
    update(&mut state, Event::Tick, now() + TimeDelta::seconds(30));
    assert!(state.note.is_none());
    let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    types(&mut state, "?");
    update(&mut state, Event::Key(key), now());
    assert_eq!(state.quit, Some(Quit::Interrupted), "also over a dialog");
}
