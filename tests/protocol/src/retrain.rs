//! A training and two evaluations of its weights: checkpoints that go missing, weights that come out
//! otherwise, cancelled evaluations, and reports that arrive late or again.
//!
//! Leases and time are the matter of another model: here an attempt may be lost at any time, and its
//! worker may go on and report.

use crate::{
    bug::Bug,
    explore::Protocol,
    rules::{Attempt, Effect, Job, MAX_FAILURES, Outcome, Report},
    table::State::{self as Of, Blocked, Cancelled, Done, Failed, Queued, Ready, Running},
};
use stateright::{Model, Property};

/// The training.
const TRAIN: usize = 0;
/// It and its evaluations.
const JOBS: usize = 3;
/// Attempts at one job that a worker still knows.
const ATTEMPTS: usize = 2;

/// An attempt, its row, and its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Work {
    row: Attempt,
    /// Of an evaluation: the weights that it has read.
    weights: u8,
    /// What its worker has to report.
    report: Option<Report>,
}

/// How many faults of each kind may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Faults {
    /// The store loses all checkpoints.
    pub wiped: u8,
    /// An attempt is lost, and its worker goes on.
    pub lost: u8,
    /// A training gives other weights.
    pub differs: u8,
    /// An attempt at the training fails.
    pub failure: u8,
    /// An operator cancels, asks again or retries.
    pub operator: u8,
}

/// Everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    jobs: [Job; JOBS],
    works: [[Option<Work>; ATTEMPTS]; JOBS],
    /// Which weights the artifact store has, one bit each.
    stored: u8,
    faults: Faults,
    /// The training was done by a report that had counted before.
    revived: bool,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// The leader grants a job.
    Grant(usize),
    /// The worker begins; an evaluation reads its checkpoint, or declines.
    Begin(usize, usize),
    /// The attempt ends at the worker.
    End(usize, usize, Report),
    /// Its report is ingested, perhaps again.
    Ingest(usize, usize),
    /// Its worker is told that it is settled or not its own.
    Release(usize, usize),
    /// Its lease ends.
    Lose(usize, usize),
    /// All checkpoints are gone.
    Wipe,
    /// No sweep asks for the job any more.
    Cancel(usize),
    /// A sweep asks for it again.
    Reopen(usize),
    /// An operator retries the training and what failed with it.
    Retry,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Retrain {
    /// The faults that happen at most.
    pub faults: Faults,
    /// The rule that is left out.
    pub bug: Option<Bug>,
}

impl Retrain {
    fn begin(&self, state: &mut State, job: usize, number: usize) {
        let weights = state.jobs[TRAIN].outcome.unwrap_or(0);
        let missing = job != TRAIN && state.stored & (1 << weights) == 0;
        let Some(work) = &mut state.works[job][number] else {
            return;
        };
        if !missing {
            work.weights = weights;
            state.jobs[job].apply(number as u8, &mut work.row, Report::Started, self.bug);
            return;
        }
        let had_it = state.jobs[job].leased() == Some(number as u8);
        state.jobs[job].apply(number as u8, &mut work.row, Report::HandedBack, self.bug);
        work.report = Some(Report::HandedBack);
        if had_it && state.jobs[TRAIN].state == Done {
            self.send_back(state);
        }
    }

    /// The training is to be done again.
    fn send_back(&self, state: &mut State) {
        state.jobs[TRAIN].go(Ready);
        state.jobs[TRAIN].failures = 0;
        if self.bug == Some(Bug::EvaluationsStay) {
            return;
        }
        for job in TRAIN + 1..JOBS {
            if matches!(state.jobs[job].state, Ready | Queued | Running) {
                Self::revoke(state, job);
                state.jobs[job].go(Blocked);
                state.jobs[job].failures = 0;
            }
        }
    }

    /// Ends the attempt that has the job.
    fn revoke(state: &mut State, job: usize) {
        if let Some(number) = state.jobs[job].leased()
            && let Some(work) = &mut state.works[job][usize::from(number)]
        {
            work.row.outcome = work.row.outcome.or(Some(Outcome::Revoked));
        }
    }

    fn ingest(&self, state: &mut State, job: usize, number: usize) {
        let Some(work) = &mut state.works[job][number] else {
            return;
        };
        let Some(report) = work.report else { return };
        let before = state.jobs[job];
        let again = work.row.outcome == Some(Outcome::Done);
        let effect = state.jobs[job].apply(number as u8, &mut work.row, report, self.bug);
        state.revived |= again && before.state != state.jobs[job].state;
        if before.leased().is_some() && state.jobs[job].state == Done {
            let mut other = *state;
            other.jobs[job] = before;
            Self::revoke(&mut other, job);
            state.works = other.works;
        }
        if job != TRAIN {
            state.jobs[TRAIN].evaluated |= state.jobs[job].outcome.is_some();
            return;
        }
        if effect == Effect::Replace && self.bug != Some(Bug::NothingIsVoid) {
            for work in state.works[TRAIN + 1..].iter_mut().flatten().flatten() {
                work.row.void |= work.row.outcome != Some(Outcome::Done);
            }
        }
        for job in TRAIN + 1..JOBS {
            let evaluation = state.jobs[job];
            match state.jobs[TRAIN].state {
                Done if evaluation.state == Blocked => state.jobs[job].go(Ready),
                // It had failed with its training only.
                Done if evaluation.state == Failed && evaluation.failures == 0 => {
                    state.jobs[job].go(Ready);
                }
                Failed if evaluation.state == Blocked => state.jobs[job].go(Failed),
                _ => {}
            }
        }
    }

    fn operate(state: &mut State, action: Action) {
        match action {
            Action::Cancel(job) => {
                Self::revoke(state, job);
                state.jobs[job].go(Cancelled);
            }
            Action::Reopen(job) if state.jobs[job].outcome.is_some() => state.jobs[job].go(Done),
            Action::Reopen(job) => {
                state.jobs[job].go(Blocked);
                match state.jobs[TRAIN].state {
                    Done => state.jobs[job].go(Ready),
                    Failed => state.jobs[job].go(Failed),
                    _ => {}
                }
            }
            Action::Retry => {
                state.jobs[TRAIN].failures = 0;
                state.jobs[TRAIN].go(Ready);
                for job in TRAIN + 1..JOBS {
                    if state.jobs[job].state == Failed {
                        state.jobs[job].go(Blocked);
                    }
                }
            }
            _ => {}
        }
    }

    fn work_steps(&self, state: &State, job: usize, number: usize, actions: &mut Vec<Action>) {
        let Some(work) = &state.works[job][number] else {
            return;
        };
        let has_it = state.jobs[job].leased() == Some(number as u8);
        if has_it && state.faults.lost > 0 {
            actions.push(Action::Lose(job, number));
        }
        if !has_it {
            actions.push(Action::Release(job, number));
        }
        if work.report.is_some() {
            actions.push(Action::Ingest(job, number));
        } else if !work.row.begun {
            actions.push(Action::Begin(job, number));
        } else if job == TRAIN {
            actions.push(Action::End(job, number, Report::Result(0)));
            if state.faults.differs > 0 {
                actions.push(Action::End(job, number, Report::Result(1)));
            }
            if state.faults.failure > 0 {
                actions.push(Action::End(job, number, Report::Failed));
            }
        } else {
            actions.push(Action::End(job, number, Report::Result(work.weights)));
        }
    }

    fn operator_steps(state: &State, actions: &mut Vec<Action>) {
        for job in TRAIN + 1..JOBS {
            match state.jobs[job].state {
                Blocked | Ready | Queued | Running => actions.push(Action::Cancel(job)),
                Cancelled => actions.push(Action::Reopen(job)),
                Done | Failed => {}
            }
        }
        if state.jobs[TRAIN].state == Failed {
            actions.push(Action::Retry);
        }
    }

    fn pay(faults: &mut Faults, action: &Action) -> bool {
        let left = match action {
            Action::Wipe => &mut faults.wiped,
            Action::Lose(..) => &mut faults.lost,
            Action::End(TRAIN, _, Report::Result(1)) => &mut faults.differs,
            Action::End(TRAIN, _, Report::Failed) => &mut faults.failure,
            Action::Cancel(_) | Action::Reopen(_) | Action::Retry => &mut faults.operator,
            _ => return false,
        };
        *left = left.saturating_sub(1);
        true
    }
}

impl Model for Retrain {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut train = Job::new(Ready);
        train.trains = true;
        train.failures = MAX_FAILURES - 1;
        vec![State {
            jobs: [train, Job::new(Blocked), Job::new(Blocked)],
            works: [[None; ATTEMPTS]; JOBS],
            stored: 0,
            faults: self.faults,
            revived: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for job in 0..JOBS {
            if state.jobs[job].state == Ready && state.works[job].contains(&None) {
                actions.push(Action::Grant(job));
            }
            for number in 0..ATTEMPTS {
                self.work_steps(state, job, number, actions);
            }
        }
        if state.faults.wiped > 0 && state.stored != 0 {
            actions.push(Action::Wipe);
        }
        if state.faults.operator > 0 {
            Self::operator_steps(state, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        Self::pay(&mut next.faults, &action);
        match action {
            Action::Grant(job) => {
                let free = next.works[job].iter().position(Option::is_none)?;
                next.jobs[job].grant(free as u8);
                next.works[job][free] = Some(Work {
                    row: Attempt::default(),
                    weights: 0,
                    report: None,
                });
            }
            Action::Begin(job, number) => self.begin(&mut next, job, number),
            Action::End(job, number, report) => {
                if let (TRAIN, Report::Result(hash)) = (job, report) {
                    next.stored |= 1 << hash;
                }
                next.works[job][number].as_mut()?.report = Some(report);
            }
            Action::Ingest(job, number) => self.ingest(&mut next, job, number),
            Action::Release(job, number) => next.works[job][number] = None,
            Action::Lose(job, number) => {
                let work = next.works[job][number].as_mut()?;
                next.jobs[job].lose(&mut work.row, self.bug);
            }
            Action::Wipe => next.stored = 0,
            operator => Self::operate(&mut next, operator),
        }
        for job in &mut next.jobs {
            job.attempt = job.leased();
            job.losses = 0;
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "the database allows every transition",
                |_, state: &State| state.jobs.iter().all(|job| job.refused.is_none()),
            ),
            Property::always(
                "results are of the weights that are kept",
                |_, state: &State| {
                    let results = state.jobs[TRAIN + 1..].iter().filter_map(|job| job.outcome);
                    results
                        .into_iter()
                        .all(|weights| state.jobs[TRAIN].outcome == Some(weights))
                },
            ),
            Property::always(
                "a repeated report does not end a training",
                |_, state: &State| !state.revived,
            ),
            Property::always(
                "only evaluations of a done training are granted",
                |_, state: &State| {
                    let open = |job: &Job| matches!(job.state, Ready | Queued | Running);
                    state.jobs[TRAIN].state == Done || !state.jobs[TRAIN + 1..].iter().any(open)
                },
            ),
        ]
    }
}

impl Protocol for Retrain {
    fn name(&self) -> String {
        format!("retraining, 1 training, 2 evaluations, {:?}", self.faults)
    }

    fn is_fault(&self, action: &Action) -> bool {
        let none = Faults {
            wiped: 0,
            lost: 0,
            differs: 0,
            failure: 0,
            operator: 0,
        };
        Self::pay(&mut { none }, action)
    }

    fn is_finished(&self, state: &State) -> bool {
        let ended = |job: &Job| matches!(job.state, Of::Done | Of::Failed | Of::Cancelled);
        state.jobs.iter().all(ended)
    }
}
