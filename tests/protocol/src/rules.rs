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
    /// The job was cancelled.
    Revoked,
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

    /// Applies a report of `attempt`, which ended with `outcome` if it did.
    pub fn apply(
        &mut self,
        attempt: u8,
        outcome: &mut Option<Outcome>,
        report: Report,
        bug: Option<Bug>,
    ) -> Effect {
        let has_it = self.leased() == Some(attempt);
        let counts = has_it || (bug == Some(Bug::StaleReportsCount) && self.leased().is_some());
        match report {
            Report::Started => {
                if counts && outcome.is_none() {
                    self.go(State::Running);
                }
                Effect::Nothing
            }
            Report::Result(hash) => self.finish(has_it, outcome, hash, bug),
            Report::Failed => {
                if outcome.is_none() {
                    *outcome = Some(Outcome::Failed);
                    if counts {
                        self.fail();
                    }
                }
                Effect::Nothing
            }
            Report::HandedBack => {
                if outcome.is_none() || bug == Some(Bug::StaleReportsCount) {
                    *outcome = Some(Outcome::HandedBack);
                    if counts && bug == Some(Bug::HandBackCounts) {
                        self.fail();
                    } else if counts {
                        self.go(State::Ready);
                    }
                }
                Effect::Nothing
            }
        }
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
        outcome: &mut Option<Outcome>,
        hash: u8,
        bug: Option<Bug>,
    ) -> Effect {
        let double = *outcome == Some(Outcome::Done);
        if double && !matches!(bug, Some(Bug::DoubleRevives | Bug::EveryResultStored)) {
            return Effect::Nothing;
        }
        if bug == Some(Bug::LateResultsIgnored) && !has_it {
            return Effect::Nothing;
        }
        *outcome = Some(Outcome::Done);
        match self.outcome {
            Some(kept) if kept != hash && bug != Some(Bug::ReplacesWeights) => {
                // A conflict: what counted before counts. A job that was to deliver the same again fails.
                if has_it {
                    self.go(State::Failed);
                }
                Effect::Conflict
            }
            before => {
                if self.state != State::Cancelled {
                    self.go(State::Done);
                }
                self.outcome = Some(hash);
                if before.is_none() || bug == Some(Bug::EveryResultStored) {
                    Effect::Store
                } else {
                    Effect::Nothing
                }
            }
        }
    }

    /// Ends the attempt that has the job, which was lost or did not advance.
    pub fn lose(&mut self, begun: bool, bug: Option<Bug>) {
        if begun && bug != Some(Bug::LossesUncounted) {
            self.losses += 1;
        }
        self.go(if self.losses >= MAX_LOSSES {
            State::Failed
        } else {
            State::Ready
        });
    }
}
