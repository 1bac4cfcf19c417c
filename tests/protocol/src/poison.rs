//! Evaluations that a worker does together, one of which kills its process.
//!
//! Two are innocent. Their process may also be killed for another reason. Requests, answers and
//! sessions are the matter of another model: here a new process is known to be new once the reports of
//! the old one are read.

use crate::{
    bug::Bug,
    explore::Protocol,
    rules::{Attempt, Job, MAX_LOSSES, Report},
    table,
};
use stateright::{Model, Property};

const JOBS: usize = 3;
/// The job that kills its process.
const POISON: usize = 0;

/// The jobs, what the worker has of them, and reports on their way; each set has a bit for each job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    jobs: [Job; JOBS],
    attempts: [Attempt; JOBS],
    /// Granted to the living process and not finished there.
    granted: u8,
    /// Those it works on, together.
    at_work: u8,
    /// Granted to the process that died.
    orphaned: u8,
    started: u8,
    results: u8,
    /// Times that another reason kills the process.
    kills: u8,
    /// Times that the poison killed it.
    crashes: u8,
    /// Times that others were at work beside it.
    beside: u8,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// The leader grants a job.
    Grant(usize),
    /// The worker begins everything that it has.
    Begin,
    /// An innocent job is evaluated.
    Finish(usize),
    /// The poison kills the process.
    Crash,
    /// Something else kills it.
    Kill,
    /// The report of a start is ingested.
    IngestStarted(usize),
    /// A result is ingested.
    IngestResult(usize),
    /// The leases of the dead process end.
    Replace,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Poison {
    /// How often something else kills the process.
    pub kills: u8,
    /// The rule that is left out.
    pub bug: Option<Bug>,
}

fn jobs(set: u8) -> impl Iterator<Item = usize> {
    (0..JOBS).filter(move |job| set & (1 << job) != 0)
}

impl Poison {
    fn can_grant(&self, state: &State, job: usize) -> bool {
        if state.jobs[job].state != table::State::Ready || state.orphaned != 0 {
            return false;
        }
        let lost = |job: usize| state.jobs[job].losses > 0;
        let joins_lost = jobs(state.granted).any(lost);
        match self.bug {
            Some(Bug::NoAlone) => true,
            Some(Bug::AloneOneWay) => !lost(job) || state.granted == 0,
            _ => !joins_lost && (!lost(job) || state.granted == 0),
        }
    }

    fn can_replace(&self, state: &State) -> bool {
        let waiting = (state.started | state.results) & state.orphaned;
        state.orphaned != 0 && (waiting == 0 || self.bug == Some(Bug::ReplacesBeforeDrain))
    }

    fn step(&self, state: &mut State, action: Action) {
        match action {
            Action::Grant(job) => {
                state.jobs[job].grant(0);
                state.attempts[job] = Attempt::default();
                state.granted |= 1 << job;
            }
            Action::Begin => {
                state.at_work = state.granted;
                state.started |= state.granted;
            }
            Action::Finish(job) => {
                state.at_work &= !(1 << job);
                state.granted &= !(1 << job);
                state.results |= 1 << job;
            }
            Action::Crash => {
                state.crashes += 1;
                if state.at_work != 1 << POISON {
                    state.beside += 1;
                }
                Self::die(state);
            }
            Action::Kill => {
                state.kills -= 1;
                Self::die(state);
            }
            Action::IngestStarted(job) => {
                state.started &= !(1 << job);
                self.ingest(state, job, Report::Started);
            }
            Action::IngestResult(job) => {
                state.results &= !(1 << job);
                self.ingest(state, job, Report::Result(0));
            }
            Action::Replace => {
                for job in jobs(state.orphaned) {
                    if state.jobs[job].leased().is_some() {
                        state.jobs[job].lose(&mut state.attempts[job], self.bug);
                    }
                }
                // What is read later is not about the attempt that has the job.
                state.started &= !state.orphaned;
                state.orphaned = 0;
            }
        }
    }

    fn ingest(&self, state: &mut State, job: usize, report: Report) {
        state.jobs[job].apply(0, &mut state.attempts[job], report, self.bug);
    }

    fn die(state: &mut State) {
        state.orphaned |= state.granted;
        state.granted = 0;
        state.at_work = 0;
    }
}

impl Model for Poison {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            jobs: [Job::new(table::State::Ready); JOBS],
            attempts: [Attempt::default(); JOBS],
            granted: 0,
            at_work: 0,
            orphaned: 0,
            started: 0,
            results: 0,
            kills: self.kills,
            crashes: 0,
            beside: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for job in 0..JOBS {
            if self.can_grant(state, job) {
                actions.push(Action::Grant(job));
            }
            if job != POISON && state.at_work & (1 << job) != 0 {
                actions.push(Action::Finish(job));
            }
        }
        actions.extend(jobs(state.started).map(Action::IngestStarted));
        actions.extend(jobs(state.results).map(Action::IngestResult));
        if state.at_work == 0 && state.granted != 0 {
            actions.push(Action::Begin);
        }
        if state.at_work & (1 << POISON) != 0 {
            actions.push(Action::Crash);
        }
        if state.kills > 0 && state.granted != 0 {
            actions.push(Action::Kill);
        }
        if self.can_replace(state) {
            actions.push(Action::Replace);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        self.step(&mut next, action);
        Some(next)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.crashes <= MAX_LOSSES + 1
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "the database allows every transition",
                |_, state: &State| state.jobs.iter().all(|job| job.refused.is_none()),
            ),
            Property::always("an innocent evaluation never fails", |_, state: &State| {
                let innocent = &state.jobs[POISON + 1..];
                innocent.iter().all(|job| job.state != table::State::Failed)
            }),
            Property::always(
                "a poison job takes others with it once",
                |_, state: &State| state.beside <= 1,
            ),
            Property::always("a poison job is given up", |_, state: &State| {
                state.crashes <= MAX_LOSSES
            }),
        ]
    }
}

impl Protocol for Poison {
    fn name(&self) -> String {
        format!("poison, 3 evaluations, 1 worker, {} kills", self.kills)
    }

    fn is_fault(&self, action: &Action) -> bool {
        *action == Action::Kill
    }

    fn is_finished(&self, state: &State) -> bool {
        state.jobs.iter().enumerate().all(|(number, job)| {
            job.state
                == if number == POISON {
                    table::State::Failed
                } else {
                    table::State::Done
                }
        })
    }
}
