//! What `coord top` shows: everything that a drawing depends on.

use super::map::Map;
use chrono::{DateTime, Utc};
use halfheard_progress::failures::FailureGroup;
use halfheard_shared::{
    ids::{JobId, SweepId},
    wire::Heartbeat,
};
use halfheard_store::{
    drained::Drained,
    sweeps::{Progress, SweepRow},
    trainings::{AttemptRow, EpochRow, Sibling, Training},
};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    /// All sweeps.
    Sweeps,
    /// The chosen sweep's models by datasets and seeds.
    Map,
    /// Live workers.
    Workers,
    /// The curves of a training job and of the same with other seeds.
    Training,
    /// The chosen sweep's failures by cause.
    Failures,
}

impl Tab {
    /// All, in their order.
    pub(super) const ALL: [Self; 5] = [
        Self::Sweeps,
        Self::Map,
        Self::Workers,
        Self::Training,
        Self::Failures,
    ];

    /// Its word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sweeps => "sweeps",
            Self::Map => "map",
            Self::Workers => "workers",
            Self::Training => "training",
            Self::Failures => "failures",
        }
    }

    /// The one `steps` further.
    pub(super) fn step(self, steps: usize) -> Self {
        let at = Self::ALL.iter().position(|&tab| tab == self).unwrap_or(0);
        Self::ALL[(at + steps) % Self::ALL.len()]
    }
}

/// A sweep in the list.
#[derive(Clone, Debug)]
pub(super) struct SweepLine {
    pub(super) row: SweepRow,
    pub(super) jobs: Progress,
}

/// How far the chosen sweep is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outlook {
    pub(super) sweep: SweepId,
    /// Training jobs that are done, and all.
    pub(super) trained: (i64, i64),
    /// Evaluation jobs that are done, and all.
    pub(super) evaluated: (i64, i64),
    /// The time left, if there is a forecast.
    pub(super) left: Option<Duration>,
}

/// A training job, its attempts, and its curves beside those of other seeds.
#[derive(Clone, Debug)]
pub(super) struct TrainingView {
    pub(super) training: Training,
    pub(super) attempts: Vec<AttemptRow>,
    /// Itself and the same training with other seeds, by seed.
    pub(super) seeds: Vec<Sibling>,
    /// Of all of these.
    pub(super) epochs: Vec<EpochRow>,
}

impl TrainingView {
    /// The names of its curves: losses, the total first, then metrics of the selection split.
    pub(super) fn curves(&self) -> Vec<String> {
        let mut names: BTreeMap<(u8, String), ()> = BTreeMap::new();
        for epoch in &self.epochs {
            for name in epoch.losses.keys() {
                match name.as_str() {
                    "loss" => names.insert((0, name.clone()), ()),
                    part => names.insert((2, format!("loss {part}")), ()),
                };
            }
            for name in epoch.metrics.keys() {
                names.insert((1, name.clone()), ());
            }
        }
        names.into_keys().map(|(_, name)| name).collect()
    }

    /// A curve of one of the jobs, by epoch from 1.
    pub(super) fn values(&self, job: JobId, curve: &str) -> Vec<Option<f64>> {
        let mut values = Vec::new();
        for row in self.epochs.iter().filter(|row| row.job == job) {
            let value = match curve.strip_prefix("loss ") {
                Some(part) => row.losses.get(part),
                None if curve == "loss" => row.losses.get(curve),
                None => row.metrics.get(curve),
            };
            let at = usize::try_from(row.epoch.max(1) - 1).unwrap_or_default();
            if values.len() <= at {
                values.resize(at + 1, None);
            }
            values[at] = value.copied().flatten();
        }
        values
    }
}

/// What was read from the database at one moment; what was not asked for is missing.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture {
    pub(super) sweeps: Vec<SweepLine>,
    pub(super) outlook: Option<Outlook>,
    pub(super) map: Option<(SweepId, Map)>,
    pub(super) drained: Vec<Drained>,
    pub(super) since: HashMap<String, DateTime<Utc>>,
    pub(super) training: Option<TrainingView>,
    pub(super) failures: Option<(SweepId, Vec<FailureGroup>)>,
}

/// What is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) tab: Tab,
    pub(super) sweep: Option<SweepId>,
    pub(super) job: Option<JobId>,
}

/// What the operator may have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Pause(SweepId),
    Resume(SweepId),
    /// All that failed of a sweep, or one job of it.
    Retry(SweepId, Option<JobId>),
    Priority(SweepId, i32),
    Drain {
        worker: String,
        at_once: bool,
    },
    Undrain(String),
}

/// What lies over the rest and takes the keys.
#[derive(Clone, Debug)]
pub(super) enum Dialog {
    Help,
    Question { text: String, action: Action },
}

/// Something that cannot be reached.
#[derive(Clone, Debug)]
pub(super) struct Outage {
    pub(super) since: DateTime<Utc>,
    pub(super) error: String,
}

/// Steps per second of a worker, from its heartbeats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) job: JobId,
    pub(super) steps: u64,
    /// By the worker's clock.
    pub(super) at_ms: u64,
    pub(super) per_second: Option<f64>,
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quit {
    Asked,
    Interrupted,
}

/// Everything that a drawing depends on.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) tab: Tab,
    pub(super) sweep: Option<SweepId>,
    pub(super) job: Option<JobId>,
    pub(super) picture: Picture,
    pub(super) workers: Vec<Heartbeat>,
    pub(super) paces: HashMap<String, Pace>,
    /// Row and column on the map.
    pub(super) cell: (usize, usize),
    /// The name of the chosen worker.
    pub(super) worker: Option<String>,
    /// Which curve is shown.
    pub(super) curve: usize,
    pub(super) failure: usize,
    pub(super) dialog: Option<Dialog>,
    /// What was done last, or why not, and when.
    pub(super) note: Option<(String, DateTime<Utc>)>,
    pub(super) database: Option<Outage>,
    pub(super) broker: Option<Outage>,
    /// When the database was read last.
    pub(super) loaded: Option<DateTime<Utc>>,
    pub(super) now: DateTime<Utc>,
    pub(super) quit: Option<Quit>,
}

impl State {
    /// Before anything is known.
    pub(super) fn new(sweep: Option<SweepId>, now: DateTime<Utc>) -> Self {
        Self {
            tab: match sweep {
                Some(_) => Tab::Map,
                None => Tab::Sweeps,
            },
            sweep,
            job: None,
            picture: Picture::default(),
            workers: Vec::new(),
            paces: HashMap::new(),
            cell: (0, 0),
            worker: None,
            curve: 0,
            failure: 0,
            dialog: None,
            note: None,
            database: None,
            broker: None,
            loaded: None,
            now,
            quit: None,
        }
    }

    /// What is to be read for it.
    pub(super) fn wish(&self) -> Wish {
        Wish {
            tab: self.tab,
            sweep: self.sweep,
            job: self.job,
        }
    }

    /// The chosen sweep.
    pub(super) fn chosen(&self) -> Option<&SweepLine> {
        let sweep = self.sweep?;
        self.picture.sweeps.iter().find(|line| line.row.id == sweep)
    }

    /// The map of the chosen sweep.
    pub(super) fn map(&self) -> Option<&Map> {
        let (sweep, map) = self.picture.map.as_ref()?;
        (Some(*sweep) == self.sweep).then_some(map)
    }

    /// The failures of the chosen sweep.
    pub(super) fn failures(&self) -> Option<&[FailureGroup]> {
        let (sweep, failures) = self.picture.failures.as_ref()?;
        (Some(*sweep) == self.sweep).then_some(failures.as_slice())
    }

    /// The chosen worker's place in the list.
    pub(super) fn worker_at(&self) -> usize {
        let name = self.worker.as_deref();
        let at = |beat: &Heartbeat| Some(beat.worker.name.as_str()) == name;
        self.workers.iter().position(at).unwrap_or(0)
    }

    /// The names under which a worker is drained.
    pub(super) fn drained(&self, beat: &Heartbeat) -> Vec<&Drained> {
        let drained = self.picture.drained.iter();
        drained.filter(|name| name.covers(&beat.worker)).collect()
    }
}
