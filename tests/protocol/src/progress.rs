//! A training whose machine is killed again and again, and one that kills its process itself.
//!
//! Within an attempt, a worker is heard at least once before it first saves its state: it beats every
//! 3 s. Afterwards, heartbeats may be lost.

use crate::{
    bug::Bug,
    explore::Protocol,
    rules::{Attempt, Job, MAX_LOSSES, Report},
    table,
};
use stateright::{Model, Property};

/// States that a training saves before it is done.
const STEPS: u8 = 3;

/// A process at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Work {
    /// The saved state that it began from.
    resumed: u8,
    /// The furthest state that it knows to be saved.
    saved: u8,
    /// It was heard since it began.
    heard: bool,
}

/// The row, the saved state, and the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    job: Job,
    attempt: Attempt,
    /// The column `progress`.
    progress: u8,
    /// The furthest of all times; not a column.
    furthest: u8,
    /// What the artifact store has.
    stored: u8,
    work: Option<Work>,
    started: bool,
    result: bool,
    /// Times that the saved state is lost.
    losses_of_state: u8,
    /// Attempts in a row that did not save anything.
    barren: u8,
    /// Attempts that advanced and were counted as lost all the same, since the losses were last zero.
    unheard: u8,
    /// It was given up though it advanced.
    wronged: bool,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// The leader grants the job.
    Grant,
    /// The worker reads the saved state and begins.
    Begin,
    /// It saves a further state.
    Save,
    /// It is done.
    Finish,
    /// It is heard.
    Beat,
    /// The process dies, and its lease ends after its reports were read.
    Kill,
    /// Its reports are ingested.
    Ingest,
    /// The saved state is lost.
    StateLost,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The training never gets beyond its second state.
    pub poison: bool,
    /// How often the saved state is lost.
    pub losses_of_state: u8,
    /// The rule that is left out.
    pub bug: Option<Bug>,
}

impl Progress {
    fn beat(&self, state: &mut State) {
        let Some(work) = &mut state.work else { return };
        work.heard = true;
        if state.job.leased().is_none() {
            return;
        }
        let within = work.saved > work.resumed;
        let beyond = work.saved > state.progress;
        let (advanced, resets) = match self.bug {
            Some(Bug::ProgressIgnored) => (false, false),
            Some(Bug::FurthestCounts) => {
                let furthest = work.saved > state.furthest;
                (furthest, furthest)
            }
            Some(Bug::OnlyHeardProgress) => (within, within),
            _ => (within, within || beyond),
        };
        state.attempt.advanced |= advanced;
        if work.saved > 0 {
            state.progress = work.saved;
        }
        state.furthest = state.furthest.max(work.saved);
        if resets {
            state.job.losses = 0;
            state.unheard = 0;
        }
    }

    fn kill(&self, state: &mut State) {
        let Some(work) = state.work.take() else {
            return;
        };
        self.ingest(state);
        let begun = state.job.state == table::State::Running;
        if begun {
            state.barren = if work.saved > work.resumed {
                0
            } else {
                (state.barren + 1).min(2 * MAX_LOSSES + 1)
            };
        }
        if state.job.leased().is_some() {
            state.job.lose(&mut state.attempt, self.bug);
        }
        if state.job.losses == 0 {
            state.unheard = 0;
        } else if begun && work.saved > work.resumed {
            state.unheard = (state.unheard + 1).min(MAX_LOSSES);
        }
        // What an attempt saves just before it dies, nobody hears of until the next one begins from it; or
        // at all, if that state is lost and until the next is beyond it.
        let allowed = 1 + 2 * (self.losses_of_state - state.losses_of_state);
        state.wronged |= state.job.state == table::State::Failed && state.unheard > allowed;
    }

    fn ingest(&self, state: &mut State) {
        if std::mem::take(&mut state.started) {
            state
                .job
                .apply(0, &mut state.attempt, Report::Started, self.bug);
        }
        if std::mem::take(&mut state.result) {
            state
                .job
                .apply(0, &mut state.attempt, Report::Result(0), self.bug);
        }
    }
}

impl Model for Progress {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            job: Job::new(table::State::Ready),
            attempt: Attempt::default(),
            progress: 0,
            furthest: 0,
            stored: 0,
            work: None,
            started: false,
            result: false,
            losses_of_state: self.losses_of_state,
            barren: 0,
            unheard: 0,
            wronged: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.job.state == table::State::Ready {
            actions.push(Action::Grant);
        }
        if state.job.state == table::State::Queued && state.work.is_none() {
            actions.push(Action::Begin);
        }
        if state.started || state.result {
            actions.push(Action::Ingest);
        }
        if state.losses_of_state > 0 && state.stored > 0 {
            actions.push(Action::StateLost);
        }
        let Some(work) = &state.work else { return };
        let last = if self.poison { STEPS - 1 } else { STEPS };
        if work.saved < last && work.heard {
            actions.push(Action::Save);
        }
        if work.saved == STEPS && !state.result {
            actions.push(Action::Finish);
        }
        actions.push(Action::Beat);
        actions.push(Action::Kill);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        match action {
            Action::Grant => {
                next.job.grant(0);
                next.attempt = Attempt::default();
            }
            Action::Begin => {
                next.started = true;
                next.work = Some(Work {
                    resumed: next.stored,
                    saved: next.stored,
                    heard: false,
                });
            }
            Action::Save => {
                if let Some(work) = &mut next.work {
                    work.saved += 1;
                    next.stored = work.saved;
                }
            }
            Action::Finish => next.result = true,
            Action::Beat => self.beat(&mut next),
            Action::Kill => self.kill(&mut next),
            Action::Ingest => self.ingest(&mut next),
            Action::StateLost => {
                next.losses_of_state -= 1;
                next.stored = 0;
            }
        }
        if next.job.state == table::State::Done {
            next.work = None;
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "the database allows every transition",
                |_, state: &State| state.job.refused.is_none(),
            ),
            Property::always(
                "a training that advances is not given up",
                |_, state: &State| !state.wronged,
            ),
            Property::always(
                "a training that never advances is given up",
                |_, state: &State| {
                    // The first that is heard of a state that nobody knew of starts the count anew.
                    state.barren <= 2 * MAX_LOSSES
                },
            ),
        ]
    }
}

impl Protocol for Progress {
    fn name(&self) -> String {
        format!(
            "progress of a {} training, {} lost states",
            if self.poison { "poison" } else { "healthy" },
            self.losses_of_state
        )
    }

    fn is_fault(&self, action: &Action) -> bool {
        *action == Action::StateLost || (*action == Action::Kill && !self.poison)
    }

    fn is_finished(&self, state: &State) -> bool {
        matches!(state.job.state, table::State::Done | table::State::Failed)
    }
}
