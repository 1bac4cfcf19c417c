//! What happened.

use chrono::{DateTime, Utc};
use halfheard_shared::{ids::SweepId, text::plain};
use halfheard_store::{notifications::Activity, sweeps::Progress};
use serde::Serialize;

/// A kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// No job of a sweep is open any more.
    SweepFinished,
    /// Jobs are ready and nothing happens.
    SweepStalled,
    /// More jobs failed than the sweep allows.
    SweepPaused,
    /// A worker takes no jobs for a fault of its own.
    WorkerSitsOut,
    /// Messages of workers were refused.
    DeadLetters,
}

impl Kind {
    /// As the database and JSON have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::SweepFinished => "sweep_finished",
            Self::SweepStalled => "sweep_stalled",
            Self::SweepPaused => "sweep_paused",
            Self::WorkerSitsOut => "worker_sits_out",
            Self::DeadLetters => "dead_letters",
        }
    }
}

/// What happened, as it is told.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Event {
    pub(crate) event: Kind,
    /// When it was found, by the database's clock.
    pub(crate) at: DateTime<Utc>,
    /// All of it for people, in one line.
    pub(crate) text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sweep: Option<Sweep>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) worker: Option<String>,
    /// Why, where there is a reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Which event of its kind it is.
    #[serde(skip)]
    pub(crate) key: String,
}

/// The sweep that an event is about.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sweep {
    pub(crate) id: SweepId,
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) created: DateTime<Utc>,
    pub(crate) finished: Option<DateTime<Utc>>,
    /// By state.
    pub(crate) jobs: Progress,
    /// How long workers were busy with its jobs, in hours.
    pub(crate) worker_hours: f64,
    /// What failed, most frequent first.
    pub(crate) failures: Vec<Failed>,
}

/// Jobs that failed for one reason.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failed {
    pub(crate) jobs: i64,
    /// The error and its causes, outermost first.
    pub(crate) errors: Vec<String>,
}

impl Sweep {
    pub(crate) fn new(activity: &Activity, worker_hours: f64, failures: Vec<Failed>) -> Self {
        Self {
            id: activity.sweep,
            name: plain(&activity.name),
            owner: plain(&activity.owner),
            created: activity.created,
            finished: activity.finished,
            jobs: activity.progress,
            worker_hours,
            failures,
        }
    }

    /// Its name and the beginning of its id.
    pub(crate) fn label(&self) -> String {
        format!("{} ({})", self.name, self.id.short())
    }
}
