//! Drawings at two sizes, with color and without.

use super::scene::{now, state, sweep_id};
use crate::commands::top::{
    draw::{Look, draw},
    state::{Action, Dialog, State, Tab},
    update::{Event, update},
};
use chrono::TimeDelta;
use ratatui::{Terminal, backend::TestBackend, style::Color};

fn drawn(state: &State, (width, height): (u16, u16), color: bool) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(frame, state, Look { color }))
        .unwrap();
    terminal.backend().clone()
}

#[test]
fn every_tab_matches_its_snapshots() {
    let mut state = state();
    state.cell = (1, 5);
    for tab in Tab::ALL {
        state.tab = tab;
        for size in [(80, 24), (40, 20)] {
            let name = format!("{}_{}x{}", tab.name(), size.0, size.1);
            insta::assert_snapshot!(name, drawn(&state, size, false));
        }
    }
}

#[test]
fn dialogs_and_outages_match_their_snapshots() {
    let mut state = state();
    state.dialog = Some(Dialog::Help);
    insta::assert_snapshot!("help_80x24", drawn(&state, (80, 24), false));
    insta::assert_snapshot!("help_40x20", drawn(&state, (40, 20), false));
    state.dialog = Some(Dialog::Question {
        text: "Pause demo (3f2a91c0)? Jobs in progress continue, no others start.".to_owned(),
        action: Action::Pause(sweep_id("demo")),
    });
    let later = now() + TimeDelta::seconds(75);
    update(
        &mut state,
        Event::NoDatabase("connection\nrefused".to_owned()),
        now(),
    );
    update(
        &mut state,
        Event::NoDatabase("connection\nrefused".to_owned()),
        later,
    );
    update(
        &mut state,
        Event::NoBroker("it does not answer".to_owned()),
        later,
    );
    insta::assert_snapshot!("question_80x24", drawn(&state, (80, 24), false));
    insta::assert_snapshot!("question_40x20", drawn(&state, (40, 20), false));
}

/// Nothing but color and emphasis may tell states apart for nobody.
#[test]
fn without_color_the_same_is_said() {
    let mut state = state();
    for tab in Tab::ALL {
        state.tab = tab;
        let (plain, colored) = (
            drawn(&state, (80, 24), false),
            drawn(&state, (80, 24), true),
        );
        let text = |backend: &TestBackend| backend.to_string();
        assert_eq!(text(&plain), text(&colored), "{}", tab.name());
        let colors = |backend: &TestBackend| {
            let cells = backend.buffer().content().iter();
            cells
                .filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
                .count()
        };
        assert_eq!(colors(&plain), 0, "{}", tab.name());
        let some = tab == Tab::Training || colors(&colored) > 0;
        assert!(some, "{} has no color", tab.name());
    }
}

#[test]
fn any_size_and_an_empty_installation_are_drawn() {
    let empty = State::new(None, now());
    let mut full = state();
    for tab in Tab::ALL {
        for state in [&mut full, &mut empty.clone()] {
            state.tab = tab;
            for size in [(1, 1), (2, 3), (9, 40), (200, 4), (300, 90)] {
                for dialog in [None, Some(Dialog::Help)] {
                    state.dialog = dialog;
                    drawn(state, size, true);
                }
            }
        }
    }
    let shown = drawn(&full, (80, 24), true).to_string();
    assert!(!shown.contains(['\x1b', '\x07']), "{shown}");
}
