//! The database's enums: kinds and states of jobs, outcomes of attempts, states of sweeps; and numbers
//! of jobs.

use std::fmt;

macro_rules! display_as_in_sql {
    ($type:ty { $($variant:ident => $text:literal),+ $(,)? }) => {
        impl $type {
            /// The label in the database.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

/// What kind of work a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type, serde::Serialize)]
#[sqlx(type_name = "job_kind", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// Trains one model.
    Train,
    /// Evaluates one trained model on one case.
    Eval,
    /// Does nothing: measures the overhead.
    Noop,
}

display_as_in_sql!(JobKind { Train => "train", Eval => "eval", Noop => "noop" });

/// State of a job. Table `job_transition` lists the transitions that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type, serde::Serialize)]
#[sqlx(type_name = "job_state", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Evaluation whose model is not trained.
    Blocked,
    /// Waiting for a worker that asks.
    Ready,
    /// Granted to a worker that has not begun it.
    Queued,
    /// In progress on a worker.
    Running,
    /// Completed: its result is stored.
    Done,
    /// Given up.
    Failed,
    /// No sweep asks for it any more.
    Cancelled,
}

display_as_in_sql!(JobState {
    Blocked => "blocked",
    Ready => "ready",
    Queued => "queued",
    Running => "running",
    Done => "done",
    Failed => "failed",
    Cancelled => "cancelled",
});

impl JobState {
    /// All of them.
    pub const ALL: [JobState; 7] = [
        JobState::Blocked,
        JobState::Ready,
        JobState::Queued,
        JobState::Running,
        JobState::Done,
        JobState::Failed,
        JobState::Cancelled,
    ];

    /// The transitions between states that this crate makes: those of table `job_transition`.
    pub const TRANSITIONS: &[(JobState, JobState)] = {
        use JobState::{Blocked, Cancelled, Done, Failed, Queued, Ready, Running};
        &[
            (Blocked, Ready),
            (Blocked, Failed),
            (Blocked, Done),
            (Blocked, Cancelled),
            (Ready, Queued),
            (Ready, Blocked),
            (Ready, Done),
            (Ready, Failed),
            (Ready, Cancelled),
            (Queued, Running),
            (Queued, Done),
            (Queued, Ready),
            (Queued, Blocked),
            (Queued, Failed),
            (Queued, Cancelled),
            (Running, Done),
            (Running, Ready),
            (Running, Blocked),
            (Running, Failed),
            (Running, Cancelled),
            (Done, Ready),
            (Failed, Done),
            (Failed, Ready),
            (Failed, Blocked),
            (Cancelled, Ready),
            (Cancelled, Blocked),
            (Cancelled, Done),
        ]
    };

    /// Whether a worker has the job.
    pub fn is_leased(self) -> bool {
        matches!(self, JobState::Queued | JobState::Running)
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "attempt_outcome", rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// Delivered a result.
    Done,
    /// Ended with an error.
    Failed,
    /// Its worker shut down, or declined the job for a fault of its own.
    HandedBack,
    /// Its worker was not heard for as long as a lease lasts, or its process was replaced.
    Lost,
    /// Its worker was heard, but the work did not advance.
    Stalled,
    /// The job was taken back: cancelled, or done by another attempt.
    Revoked,
}

display_as_in_sql!(AttemptOutcome {
    Done => "done",
    Failed => "failed",
    HandedBack => "handed_back",
    Lost => "lost",
    Stalled => "stalled",
    Revoked => "revoked",
});

/// What the operator wants a sweep to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type, serde::Serialize)]
#[sqlx(type_name = "sweep_state", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum SweepState {
    /// Run its jobs.
    Running,
    /// Start no further jobs.
    Paused,
    /// Stop for good.
    Cancelled,
}

display_as_in_sql!(SweepState {
    Running => "running",
    Paused => "paused",
    Cancelled => "cancelled",
});

/// How many jobs of each kind a sweep has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct JobCounts {
    /// Training jobs.
    pub train: i64,
    /// Evaluation jobs.
    pub eval: i64,
    /// No-op jobs.
    pub noop: i64,
}

impl JobCounts {
    /// Jobs of all kinds.
    pub fn total(&self) -> i64 {
        self.train + self.eval + self.noop
    }
}

impl std::ops::AddAssign for JobCounts {
    fn add_assign(&mut self, other: Self) {
        self.train += other.train;
        self.eval += other.eval;
        self.noop += other.noop;
    }
}
