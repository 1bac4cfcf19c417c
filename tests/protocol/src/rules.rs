//! What the models decide about one job: the rules of `lifecycle` in the coordinator's store, on states
//! of a few bytes. A test compares the two for every combination.

use crate::{
    bug::Bug,
    table::{self, State},
};

/// Failed attempts after which a job fails.
pub const MAX_FAILURES: u8 = 3;
/// Attempts that may be lost in a row without progress.
pub const MAX_LOSSES: u8 = 5;

/// The row of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    /// Its state.
    pub state: State,
    /// The attempt that was granted last; it has the job while it is queued or running.
    pub attempt: Option<u8>,
    /// Attempts that failed by the job's own fault.
    pub failures: u8,
    /// Attempts that were lost since the job last advanced.
    pub losses: u8,
    /// The hash of the first result.
    pub outcome: Option<u8>,
    /// Whether it is a training job.
    pub trains: bool,
    /// Of a training: whether a result of one of its evaluations is stored.
    pub evaluated: bool,
    /// A transition was attempted that the database refuses.
    pub refused: Option<(State, State)>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It delivered a result.
    Done,
    /// It failed by the job's own fault.
    Failed,
    /// Its worker gave the job back.
    HandedBack,
    /// It ended without a word, or did not advance.
    Lost,
    /// The job was cancelled, or its training must be done again.
    Revoked,
}

/// The row of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Attempt {
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    /// The report of its start has arrived.
    pub begun: bool,
    /// It stored a state beyond the one that it began from.
    pub advanced: bool,
    /// Its result no longer counts.
    pub void: bool,
}

/// A report of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Report {
    /// It began.
    Started,
    /// A result with this hash.
    Result(u8),
    /// It failed by the job's own fault.
    Failed,
    /// Its worker gave the job back.
    HandedBack,
}

/// What a report does besides changing the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// The result is written.
    Store,
    /// The result differs from the first one.
    Conflict,
    /// The result is written in place of the first one, which nobody has used: attempts at evaluations of
    /// that are void.
    Replace,
}

impl Job {
    /// A job in this state that nobody has.
    pub fn new(state: State) -> Self {
        Self {
            state,
            attempt: None,
            failures: 0,
            losses: 0,
            outcome: None,
            trains: false,
            evaluated: false,
            refused: None,
        }
    }

    /// Goes to another state, if the database lets it.
    pub fn go(&mut self, after: State) {
        if self.state == after {
            return;
        }
        if table::take(self.state, after) {
            self.state = after;
        } else {
            self.refused.get_or_insert((self.state, after));
        }
    }

    /// The attempt that has the job now.
    pub fn leased(&self) -> Option<u8> {
        match self.state {
            State::Queued | State::Running => self.attempt,
            _ => None,
        }
    }

    /// Grants it to an attempt.
    pub fn grant(&mut self, attempt: u8) {
        self.go(State::Queued);
        self.attempt = Some(attempt);
    }

    /// Applies a report of the attempt with this number.
    pub fn apply(
        &mut self,
        number: u8,
        attempt: &mut Attempt,
        report: Report,
        bug: Option<Bug>,
    ) -> Effect {
        let has_it = self.leased() == Some(number) && attempt.outcome.is_none();
        let stale_counts = bug == Some(Bug::StaleReportsCount);
        let counts = has_it || (stale_counts && self.leased().is_some());
        let open = matches!(attempt.outcome, None | Some(Outcome::Lost)) || stale_counts;
        match report {
            Report::Started => {
                attempt.begun = true;
                if counts {
                    self.go(State::Running);
                }
                return Effect::Nothing;
            }
            Report::Result(hash) => return self.finish(has_it, attempt, hash, bug),
            _ if !open => return Effect::Nothing,
            Report::Failed => attempt.outcome = Some(Outcome::Failed),
            Report::HandedBack => attempt.outcome = Some(Outcome::HandedBack),
        }
        if counts && (report == Report::Failed || bug == Some(Bug::HandBackCounts)) {
            self.fail();
        } else if counts {
            self.go(State::Ready);
        }
        Effect::Nothing
    }

    fn fail(&mut self) {
        self.failures += 1;
        self.go(if self.failures >= MAX_FAILURES {
            State::Failed
        } else {
            State::Ready
        });
    }

    fn finish(
        &mut self,
        has_it: bool,
        attempt: &mut Attempt,
        hash: u8,
        bug: Option<Bug>,
    ) -> Effect {
        let again = attempt.outcome == Some(Outcome::Done);
        if (attempt.void && !again) || (bug == Some(Bug::LateResultsIgnored) && !has_it) {
            return Effect::Nothing;
        }
        attempt.outcome = Some(Outcome::Done);
        let conflict = self.outcome.is_some_and(|kept| kept != hash);
        let effect = match self.outcome {
            None => Effect::Store,
            Some(_) if bug == Some(Bug::EveryResultStored) => Effect::Store,
            Some(_) if conflict => Effect::Conflict,
            Some(_) => Effect::Nothing,
        };
        if again && bug != Some(Bug::DoubleRevives) {
            return effect;
        }
        self.outcome.get_or_insert(hash);
        if matches!(self.state, State::Done | State::Cancelled) {
            return effect;
        }
        // A training that has a result and is not done is being done again, for its checkpoints.
        if conflict && self.trains {
            if !self.evaluated || bug == Some(Bug::ReplacesUsedWeights) {
                self.outcome = Some(hash);
                self.go(State::Done);
                return Effect::Replace;
            }
            if has_it {
                self.failures += 1;
                self.go(State::Failed);
            }
        } else {
            self.go(State::Done);
        }
        effect
    }

    /// Ends the attempt that has the job, which was lost.
    pub fn lose(&mut self, attempt: &mut Attempt, bug: Option<Bug>) {
        attempt.outcome = Some(Outcome::Lost);
        if attempt.advanced {
            self.losses = 0;
        } else if attempt.begun && bug != Some(Bug::LossesUncounted) {
            self.losses += 1;
        }
        self.go(if self.losses >= MAX_LOSSES {
            State::Failed
        } else {
            State::Ready
        });
    }
}
