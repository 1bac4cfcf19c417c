//! Whether work advances: a worker's progress as the leader hears of it, by the leader's own clock.
//!
//! A worker that is well advances at least once in a tick. The leader takes the work away when it has
//! heard of the same progress for longer than the patience, which is several ticks.

use crate::{bug::Bug, explore::Protocol};
use stateright::{Model, Property};

/// Ticks for which the work may stand.
const PATIENCE: u8 = 4;
/// Ticks after which a leader that is stopped or hears nothing has lost the lead.
const LEAD: u8 = 2;
/// The work is done after so much progress.
const DONE: u8 = 8;
/// Ticks after which hung work is taken away: the patience and two heartbeats.
const NOTICED: u8 = PATIENCE + 3;

/// The worker's progress, and what the leader knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    progress: u8,
    hung: bool,
    /// It has advanced in this tick.
    advanced: bool,
    /// The broker is away: no heartbeat is sent.
    silent: bool,
    /// The leader is stopped: heartbeats wait for it.
    stopped: bool,
    /// Ticks since the leader worked and could hear.
    away: u8,
    /// The oldest heartbeat that waits for the leader.
    queue: Option<u8>,
    /// The progress that the leader knows, and for how many ticks it has known it.
    known: Option<(u8, u8)>,
    /// A heartbeat was heard in this tick.
    heard: bool,
    faults: u8,
    stalled: bool,
    /// Ticks since the work hung or the last fault ended, whichever is later.
    unnoticed: u8,
}

/// A step, a fault, or its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// The work advances.
    Advance,
    /// The worker sends a heartbeat.
    Beat,
    /// The leader hears the oldest heartbeat.
    Hear,
    /// The leader's timer.
    Timer,
    /// The work hangs.
    Hang,
    /// The broker stops, or starts.
    Broker(bool),
    /// The leader is stopped, or goes on.
    Leader(bool),
    /// Time passes.
    Tick,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Stall {
    /// How many outages happen.
    pub faults: u8,
    /// The rule that is left out.
    pub bug: Option<Bug>,
}

impl Stall {
    fn hear(&self, state: &mut State) {
        let Some(progress) = state.queue.take() else {
            return;
        };
        state.heard = true;
        match state.known {
            Some((known, age)) if known == progress => {
                let stalls = age > PATIENCE && self.bug != Some(Bug::NeverStalls);
                state.stalled |= stalls;
            }
            _ => state.known = Some((progress, 0)),
        }
    }

    fn tick(&self, state: &mut State) {
        state.advanced = false;
        state.heard = false;
        let works = !state.silent && !state.stopped;
        state.away = if works {
            0
        } else {
            (state.away + 1).min(LEAD + 1)
        };
        if let Some((_, age)) = &mut state.known {
            *age = (*age + 1).min(PATIENCE + 1);
        }
        if state.away > LEAD && self.bug != Some(Bug::AgesOutliveLead) {
            state.known = None;
            state.queue = None;
        }
        if state.hung && works {
            state.unnoticed = (state.unnoticed + 1).min(NOTICED + 1);
        }
    }

    fn may_tick(state: &State) -> bool {
        let works = state.hung || state.advanced;
        let heard = state.silent || state.stopped || (state.heard && state.queue.is_none());
        works && heard
    }
}

impl Model for Stall {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            progress: 0,
            hung: false,
            advanced: false,
            silent: false,
            stopped: false,
            away: 0,
            queue: None,
            known: None,
            heard: false,
            faults: self.faults,
            stalled: false,
            unnoticed: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.stalled || state.progress == DONE {
            return;
        }
        if !state.hung {
            actions.push(Action::Advance);
            actions.push(Action::Hang);
        }
        if !state.silent {
            actions.push(Action::Beat);
        }
        if !state.stopped && state.queue.is_some() {
            actions.push(Action::Hear);
        }
        if self.bug == Some(Bug::StallsByTimer) && !state.stopped {
            actions.push(Action::Timer);
        }
        if state.silent {
            actions.push(Action::Broker(true));
        }
        if state.stopped {
            actions.push(Action::Leader(true));
        }
        if state.faults > 0 && !state.silent && !state.stopped {
            actions.push(Action::Broker(false));
            actions.push(Action::Leader(false));
        }
        if Self::may_tick(state) {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        match action {
            Action::Advance => {
                next.progress += 1;
                next.advanced = true;
            }
            Action::Beat => {
                next.queue.get_or_insert(next.progress);
            }
            Action::Hear => self.hear(&mut next),
            Action::Timer => {
                next.stalled |= next.known.is_some_and(|(_, age)| age > PATIENCE);
            }
            Action::Hang => next.hung = true,
            Action::Broker(found) => {
                next.silent = !found;
                next.unnoticed = 0;
            }
            Action::Leader(found) => {
                next.stopped = !found;
                next.unnoticed = 0;
            }
            Action::Tick => self.tick(&mut next),
        }
        if self.is_fault(&action) && action != Action::Hang {
            next.faults -= 1;
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "work that advances is not taken away",
                |_, state: &State| !state.stalled || state.hung,
            ),
            Property::always("work that hangs is taken away", |_, state: &State| {
                state.unnoticed <= NOTICED
            }),
        ]
    }
}

impl Protocol for Stall {
    fn name(&self) -> String {
        format!("stall, 1 worker, {} outages", self.faults)
    }

    fn is_fault(&self, action: &Action) -> bool {
        matches!(
            action,
            Action::Hang | Action::Broker(false) | Action::Leader(false)
        )
    }

    fn is_finished(&self, state: &State) -> bool {
        state.stalled || state.progress == DONE
    }
}
