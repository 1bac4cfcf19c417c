//! A training run as trackers see it.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use std::{collections::BTreeMap, path::PathBuf};

/// How a training job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is at work, or will be again.
    Running,
    /// Completed.
    Done,
    /// Given up.
    Failed,
    /// Cancelled.
    Cancelled,
}

/// A training run with the evaluations of its model.
#[derive(Clone, Debug)]
pub struct Run {
    /// The job's id: 32 hexadecimal digits.
    pub id: String,
    /// `lnln/no-dmc on mosi, seed 1111`.
    pub name: String,
    /// What is trained, without the seed: the runs of a group differ in it alone.
    pub group: String,
    /// How it stands.
    pub status: Status,
    /// When its first attempt began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub finished: Option<DateTime<Utc>>,
    /// Hyper-parameters and protocol, by names with dots.
    pub config: BTreeMap<String, Value>,
    /// Where and from what it was computed.
    pub tags: BTreeMap<String, String>,
    /// Its epochs, in order.
    pub history: Vec<Point>,
    /// What its model came to on the test split: `case/r=0.3/mae`.
    pub summary: BTreeMap<Key, f64>,
}

/// An epoch.
#[derive(Clone, Debug)]
pub struct Point {
    /// From 1.
    pub epoch: i64,
    /// Seconds from the beginning of training to its end, over all attempts.
    pub seconds: f64,
    /// Its losses and metrics; those that are undefined are absent.
    pub values: BTreeMap<Key, f64>,
}

/// The name of a number: the parts of `case/r=0.3/mae`. A part may be any text.
pub type Key = Vec<String>;

/// The sweep of some runs.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// The name in its spec.
    pub name: String,
    /// Who submitted it.
    pub owner: String,
    /// When.
    pub created: DateTime<Utc>,
}

impl Run {
    /// When an epoch ended. Pauses between attempts are left out.
    pub fn at(&self, point: &Point) -> DateTime<Utc> {
        let milliseconds = (point.seconds * 1000.0).clamp(0.0, 1e15) as i64;
        self.started + TimeDelta::milliseconds(milliseconds)
    }
}

/// Why runs cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub struct TrackerError {
    /// The file or folder.
    pub path: PathBuf,
    /// The cause.
    pub source: std::io::Error,
}

/// Adds the path to an error.
pub(super) fn at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> TrackerError {
    |source| TrackerError {
        path: path.into(),
        source,
    }
}
