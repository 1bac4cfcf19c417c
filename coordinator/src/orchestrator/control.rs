//! Control of sweeps: cancelling, pausing, resuming and retrying, each in the rows and on the broker
//! together.
//!
//! The rows say what is true; the bucket `SWEEPS` repeats it for workers. Whoever changes a row
//! tells the broker at once, and whoever leads looks at the rows every second and tells what has
//! not been told ([`follow`]): a command needs no broker. Telling holds the sweep's row, so that two
//! who tell at the same time do not end with what is out of date.

use crate::{
    orchestrator::reconcile::{self, ReconcileError, ask},
    orchestrator::serve::ServeOptions,
    orchestrator::trouble::Trouble,
};
use halfheard_shared::retry::Backoff;
use halfheard_shared::{
    broker::{Broker, BrokerSettings, JOBS, SweepControl},
    ids::SweepId,
};
use halfheard_store::{
    JobKind, JobState, Store, StoreError, SweepState,
    control::{JobRow, Reopen, id_digits},
    sweeps::SweepRow,
};
use std::{collections::HashMap, time::Duration};
use tokio_util::sync::CancellationToken;

/// How often whoever leads looks what is wanted of the sweeps.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a command tries to reach the broker.
const TELL_WAIT: Duration = Duration::from_secs(10);

/// Why a sweep or a job cannot be retried.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A cancelled sweep, of which only failed jobs were to be retried.
    #[error(
        "sweep `{0}` is cancelled: none of its jobs runs; `coord retry` of the whole sweep, without --job and --failed, lets it go on"
    )]
    Cancelled(String),
    /// No id.
    #[error("`{0}` is no job's id: give its hexadecimal digits, at least the first four")]
    NoId(String),
    /// No such job.
    #[error("no job of sweep `{sweep}` has an id that begins with `{id}`: {HINT}")]
    NoJob {
        /// What was asked for.
        id: String,
        /// The sweep.
        sweep: String,
    },
    /// Several.
    #[error("several jobs have ids that begin with `{0}`: give more of the id")]
    Ambiguous(String),
    /// It is done.
    #[error("job {0} is done: its result stands, and is not computed a second time")]
    Done(String),
    /// It has not come to an end.
    #[error("job {job} has not failed: it is {state}")]
    Open {
        /// The job.
        job: String,
        /// Where it stands.
        state: JobState,
    },
    /// It failed because its training did.
    #[error(
        "job {job} cannot run before its training, which failed: retry that one, --job {training}"
    )]
    TrainingFailed {
        /// The job.
        job: String,
        /// Its training.
        training: String,
    },
}

const HINT: &str = "`coord status SWEEP --json` lists what failed";

/// What is to be retried.
#[derive(Clone, Debug)]
pub enum What {
    /// All jobs that were given up, and the cancelled ones of a cancelled sweep.
    All,
    /// Jobs that were given up.
    Failed,
    /// One job, by the beginning of its id.
    Job(String),
}

/// Sets jobs of a sweep going again. The broker has to be told ([`tell`]).
///
/// # Errors
///
/// What was asked for cannot be retried, and why; the database's.
pub async fn retry(store: &Store, sweep: &SweepRow, what: &What) -> Result<Reopened, RetryError> {
    let which = match what {
        What::All => Reopen::Both,
        What::Failed => Reopen::Failed,
        What::Job(id) => Reopen::One(retriable(store, sweep, id).await?.id),
    };
    if which != Reopen::Both && sweep.state == SweepState::Cancelled {
        return Err(RetryError::Cancelled(sweep.name.clone()));
    }
    Ok(store.reopen(sweep.id, which).await?)
}

async fn retriable(store: &Store, sweep: &SweepRow, id: &str) -> Result<JobRow, RetryError> {
    let digits = id_digits(id).ok_or_else(|| RetryError::NoId(id.to_owned()))?;
    let mut found = store.jobs_by_prefix(sweep.id, &digits).await?;
    if found.len() > 1 {
        return Err(RetryError::Ambiguous(id.to_owned()));
    }
    let job = found.pop().ok_or_else(|| RetryError::NoJob {
        id: id.to_owned(),
        sweep: sweep.name.clone(),
    })?;
    let name = job.id.to_string();
    match (job.state, job.training) {
        (JobState::Done, _) => Err(RetryError::Done(name)),
        (JobState::Cancelled, _) => Err(RetryError::Cancelled(sweep.name.clone())),
        (JobState::Failed, Some((training, JobState::Failed))) if job.kind == JobKind::Eval => {
            Err(RetryError::TrainingFailed {
                job: name,
                training: training.to_string(),
            })
        }
        (JobState::Failed, _) => Ok(job),
        (state, _) => Err(RetryError::Open { job: name, state }),
    }
}

/// Tells the broker what the sweep's row says. Jobs of a sweep that is to stand still leave the
/// queues: they would fill the window and keep other sweeps waiting.
///
/// # Errors
///
/// The database's or the broker's; then it is told later by whoever leads.
pub async fn tell(store: &Store, broker: &Broker, sweep: SweepId) -> Result<(), ReconcileError> {
    let bucket = broker.sweeps().await?;
    let key = sweep.to_string();
    let held = store.lock_sweep(sweep).await?;
    let state = held.as_ref().map_or(SweepState::Running, |held| held.state);
    if state == SweepState::Running {
        // No entry means running.
        bucket.purge(&key).await.map_err(ask)?;
    } else {
        let jobs = broker.jetstream().get_stream(JOBS).await.map_err(ask)?;
        reconcile::purge(&jobs, sweep).await?;
        if state == SweepState::Paused {
            // What a worker has begun goes on; should that worker die, the job is found to be lost.
            store.unqueue(sweep).await?;
        }
        // Last: an entry says that everything above is done.
        let value = SweepControl::from(state).to_string();
        bucket.put(&key, value.into()).await.map_err(ask)?;
    }
    if let Some(held) = held {
        held.release().await?;
    }
    tracing::info!(%sweep, %state, "the broker knows");
    Ok(())
}

/// [`tell`] for a command: within a few seconds or not at all. `Err` says why the broker does not
/// know yet; whoever leads will tell it.
pub async fn tell_soon(
    store: &Store,
    broker: &BrokerSettings,
    sweep: SweepId,
) -> Result<(), String> {
    let telling = async {
        let broker = broker.connect().await.map_err(|error| error.to_string())?;
        tell(store, &broker, sweep)
            .await
            .map_err(|error| error.to_string())
    };
    tokio::time::timeout(TELL_WAIT, telling)
        .await
        .unwrap_or_else(|_| Err("the broker does not answer".to_owned()))
}

/// Tells the broker until `stop` what operators want of their sweeps, about as soon as the rows say
/// so.
pub async fn follow(
    store: &Store,
    broker: &Broker,
    options: &ServeOptions,
    stop: &CancellationToken,
) {
    let mut known: Option<HashMap<SweepId, SweepState>> = None;
    let mut backoff = Backoff::default();
    let mut trouble = Trouble::new("workers are not told what is wanted of the sweeps");
    loop {
        let pause = tokio::select! {
            () = stop.cancelled() => return,
            outcome = catch_up(store, broker, &mut known) => match outcome {
                Ok(()) => {
                    trouble.over();
                    backoff.reset();
                    LOOK_EVERY.min(options.reconcile_every)
                }
                Err(error) => {
                    trouble.met(&error, 0);
                    backoff.pause()
                }
            },
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Tells what has changed since it was `known`; nothing is known at first.
async fn catch_up(
    store: &Store,
    broker: &Broker,
    known: &mut Option<HashMap<SweepId, SweepState>>,
) -> Result<(), ReconcileError> {
    let wanted: HashMap<SweepId, SweepState> = store.paused_or_cancelled().await?.into_iter().collect();
    match known {
        None => reconcile::control(store, broker).await?,
        Some(known) => {
            let changed = wanted
                .iter()
                .filter(|(sweep, state)| known.get(sweep) != Some(state))
                .map(|(&sweep, _)| sweep)
                .chain(
                    known
                        .keys()
                        .copied()
                        .filter(|sweep| !wanted.contains_key(sweep)),
                );
            for sweep in changed {
                tell(store, broker, sweep).await?;
            }
        }
    }
    *known = Some(wanted);
    Ok(())
}
