//! The states of a planned sweep's jobs.

use crate::{
    config::{Origin, Settings},
    local::{Database, Servers},
};
use halfheard_shared::{
    error::chain,
    ids::{JobId, SweepId},
};
use halfheard_store::JobState;
use std::{collections::HashMap, time::Duration};

/// How long to wait for the database before the plan is made without it.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The same, if the private database must be started first.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// What is known of a sweep's jobs.
pub(super) enum States {
    /// The sweep has no id yet: synthetic datasets are still to be created.
    Pending,
    /// No database is configured, and `coord run` has left none in the data folder.
    NoDatabase,
    /// The states of the jobs; empty if the sweep was not submitted.
    Known(HashMap<JobId, JobState>),
    /// The database cannot be read.
    Unknown(String),
}

impl States {
    /// Returns whether the sweep was submitted.
    pub(super) fn is_submitted(&self) -> bool {
        matches!(self, Self::Known(states) if !states.is_empty())
    }

    pub(super) fn is_done(&self, job: JobId) -> bool {
        matches!(self, Self::Known(states) if states.get(&job) == Some(&JobState::Done))
    }

    /// Returns the state of a job as text.
    pub(super) fn of(&self, job: JobId) -> String {
        match self {
            Self::Known(states) => states
                .get(&job)
                .map_or_else(|| "new".to_owned(), ToString::to_string),
            Self::Pending | Self::NoDatabase => "new".to_owned(),
            Self::Unknown(_) => "unknown".to_owned(),
        }
    }
}

/// Loads the states of a sweep's jobs from the configured database, or from the private one.
pub(super) async fn load(settings: &Settings, sweep: SweepId) -> States {
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
    let states = database.job_states(sweep).await;
    database.close().await;
    states.map_or_else(|error| States::Unknown(chain(&error)), States::Known)
}
