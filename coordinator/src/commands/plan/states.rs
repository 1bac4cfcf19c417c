//! The states of a planned sweep's jobs, whichever sweep asked for them first.

use crate::{
    config::{Origin, Settings},
    local::{Database, Servers},
    submission::Loaded,
};
use halfheard_shared::{
    error::chain,
    ids::{JobId, SweepId},
    matrix,
};
use halfheard_store::{
    JobState, Store, StoreError, gc::Measured, status::KnownJob, timings::Timing,
};
use std::{collections::HashMap, time::Duration};

/// How long to wait for the database before the plan is made without it.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The same, if the private database must be started first.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// What the database knows of a sweep.
pub(super) struct Known {
    submitted: bool,
    jobs: HashMap<JobId, KnownJob>,
    /// The names of all sweeps.
    names: HashMap<SweepId, String>,
    /// What earlier jobs took.
    measured: Vec<Measured>,
    /// The same by what they computed and on which device.
    timings: Vec<Timing>,
}

/// What is known of a sweep's jobs.
pub(super) enum States {
    /// The sweep has no id yet: synthetic datasets are still to be created.
    Pending,
    /// No database is configured, and `coord run` has left none in the data folder.
    NoDatabase,
    /// What the database knows.
    Known(Known),
    /// The database cannot be read.
    Unknown(String),
}

impl States {
    /// Returns whether the sweep was submitted.
    pub(super) fn is_submitted(&self) -> bool {
        matches!(self, Self::Known(known) if known.submitted)
    }

    /// Returns a job that exists, for this sweep or another.
    pub(super) fn get(&self, job: JobId) -> Option<KnownJob> {
        match self {
            Self::Known(known) => known.jobs.get(&job).copied(),
            _ => None,
        }
    }

    pub(super) fn is_done(&self, job: JobId) -> bool {
        self.get(job).is_some_and(|job| job.state == JobState::Done)
    }

    /// Returns the name of a sweep.
    pub(super) fn name(&self, sweep: SweepId) -> Option<&str> {
        match self {
            Self::Known(known) => known.names.get(&sweep).map(String::as_str),
            _ => None,
        }
    }

    /// Returns what earlier jobs took.
    pub(super) fn measured(&self) -> &[Measured] {
        match self {
            Self::Known(known) => &known.measured,
            _ => &[],
        }
    }

    /// Returns what earlier jobs took, by what they computed and on which device.
    pub(super) fn timings(&self) -> &[Timing] {
        match self {
            Self::Known(known) => &known.timings,
            _ => &[],
        }
    }

    /// Returns the state of a job as text.
    pub(super) fn of(&self, job: JobId) -> String {
        match self {
            Self::Known(_) => self
                .get(job)
                .map_or_else(|| "new".to_owned(), |job| job.state.to_string()),
            Self::Pending | Self::NoDatabase => "new".to_owned(),
            Self::Unknown(_) => "unknown".to_owned(),
        }
    }
}

/// Loads the states of a sweep's jobs from the configured database, or from the private one.
pub(super) async fn load(settings: &Settings, loaded: &Loaded, sweep: SweepId) -> States {
    let private = settings.database_origin == Origin::Default;
    if private && !Servers::exists(&settings.data_dir) {
        return States::NoDatabase;
    }
    let timeout = if private { START_TIMEOUT } else { TIMEOUT };
    // Only for the connection: a large sweep takes a while to read.
    let database = match tokio::time::timeout(timeout, Database::open(settings)).await {
        Ok(Ok(database)) => database,
        Ok(Err(error)) => return States::Unknown(chain(error.as_ref())),
        Err(_) => return States::Unknown("the database does not answer".to_owned()),
    };
    let known = look(&database, loaded, sweep).await;
    database.close().await;
    known.map_or_else(|error| States::Unknown(chain(&error)), States::Known)
}

async fn look(store: &Store, loaded: &Loaded, sweep: SweepId) -> Result<Known, StoreError> {
    let planned = matrix::expand(loaded.resolved.clone(), None);
    let sweeps = store.sweeps().await?;
    Ok(Known {
        submitted: store.is_submitted(sweep).await?,
        jobs: store.job_states(planned.map(|job| job.id)).await?,
        names: sweeps.into_iter().map(|row| (row.id, row.name)).collect(),
        measured: store.measured().await?,
        timings: store.timings().await?,
    })
}
