//! The database's own types in Rust.

use halfheard_shared::broker::{Queue, SweepControl};
use std::fmt;

macro_rules! display_as_in_sql {
    ($type:ty { $($variant:ident => $text:literal),+ $(,)? }) => {
        impl $type {
            /// As the database writes it.
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
    /// Measures the path itself.
    Noop,
}

display_as_in_sql!(JobKind { Train => "train", Eval => "eval", Noop => "noop" });

impl JobKind {
    /// The queue that carries it.
    pub fn queue(self) -> Queue {
        match self {
            JobKind::Train => Queue::Train,
            JobKind::Eval | JobKind::Noop => Queue::Eval,
        }
    }
}

/// Where a job stands. What may follow what is in the table `job_transition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type, serde::Serialize)]
#[sqlx(type_name = "job_state", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// An evaluation whose model is not trained.
    Blocked,
    /// To be published.
    Ready,
    /// Published.
    Queued,
    /// A worker has begun.
    Running,
    /// Its result is here.
    Done,
    /// Given up.
    Failed,
    /// Its sweep was cancelled.
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

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "attempt_outcome", rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// It delivered a result.
    Done,
    /// It ended with an error.
    Failed,
    /// Its worker was told to leave.
    HandedBack,
    /// Another attempt began before it said how it ended.
    Lost,
}

display_as_in_sql!(AttemptOutcome {
    Done => "done",
    Failed => "failed",
    HandedBack => "handed_back",
    Lost => "lost",
});

/// What the operator wants of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type, serde::Serialize)]
#[sqlx(type_name = "sweep_state", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum SweepState {
    /// Go on.
    Running,
    /// Start nothing new.
    Paused,
    /// Stop.
    Cancelled,
}

display_as_in_sql!(SweepState {
    Running => "running",
    Paused => "paused",
    Cancelled => "cancelled",
});

impl From<SweepState> for SweepControl {
    fn from(state: SweepState) -> Self {
        match state {
            SweepState::Running => SweepControl::Running,
            SweepState::Paused => SweepControl::Paused,
            SweepState::Cancelled => SweepControl::Cancelled,
        }
    }
}
