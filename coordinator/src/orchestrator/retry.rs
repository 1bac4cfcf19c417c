//! Retrying: which jobs of a sweep may run again.

use halfheard_shared::error::Hint;
use halfheard_store::{
    JobCounts, JobKind, JobState, Store, StoreError, SweepState,
    control::{JobRow, Reopen, id_digits},
    sweeps::SweepRow,
};

/// Why a sweep or a job cannot be retried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RetryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("sweep `{0}` is cancelled")]
    SweepCancelled(String),
    #[error("invalid job id `{0}`")]
    InvalidId(String),
    #[error("no job of sweep `{sweep}` has an id that begins with `{id}`")]
    UnknownJob { id: String, sweep: String },
    #[error("several jobs have ids that begin with `{0}`")]
    Ambiguous(String),
    #[error("job {0} is done; results are not computed twice")]
    Done(String),
    #[error("job {job} has not failed: it is {state}")]
    Open { job: String, state: JobState },
    #[error("job {job} cannot run before its training job {training}, which failed")]
    TrainingFailed { job: String, training: String },
}

impl Hint for RetryError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::SweepCancelled(_) => {
                "retry the whole sweep with `coord retry`, without --job and --failed".to_owned()
            }
            Self::InvalidId(_) => "pass hexadecimal digits, at least the first four".to_owned(),
            Self::UnknownJob { .. } => {
                "list failed jobs with `coord status SWEEP --json`".to_owned()
            }
            Self::Ambiguous(_) => "pass more digits of the id".to_owned(),
            Self::TrainingFailed { training, .. } => format!("retry it: --job {training}"),
            Self::Store(error) => return error.hint(),
            Self::Done(_) | Self::Open { .. } => return None,
        })
    }
}

/// Which jobs to retry.
#[derive(Clone, Debug)]
pub(crate) enum Selection {
    /// All failed jobs, and the cancelled ones of a cancelled sweep.
    All,
    /// Failed jobs.
    Failed,
    /// One job, by a prefix of its id.
    Job(String),
}

/// Makes jobs of a sweep run again.
///
/// # Errors
///
/// The selected jobs cannot be retried; the database fails.
pub(crate) async fn retry(
    store: &Store,
    sweep: &SweepRow,
    selection: &Selection,
) -> Result<JobCounts, RetryError> {
    let which = match selection {
        Selection::All => Reopen::Both,
        Selection::Failed => Reopen::Failed,
        Selection::Job(id) => Reopen::One(retriable(store, sweep, id).await?.id),
    };
    if which != Reopen::Both && sweep.state == SweepState::Cancelled {
        return Err(RetryError::SweepCancelled(sweep.name.clone()));
    }
    Ok(store.reopen(sweep.id, which).await?)
}

async fn retriable(store: &Store, sweep: &SweepRow, id: &str) -> Result<JobRow, RetryError> {
    let digits = id_digits(id).ok_or_else(|| RetryError::InvalidId(id.to_owned()))?;
    let mut found = store.jobs_by_prefix(sweep.id, &digits).await?;
    if found.len() > 1 {
        return Err(RetryError::Ambiguous(id.to_owned()));
    }
    let job = found.pop().ok_or_else(|| RetryError::UnknownJob {
        id: id.to_owned(),
        sweep: sweep.name.clone(),
    })?;
    let name = job.id.to_string();
    match (job.state, job.train_job) {
        (JobState::Done, _) => Err(RetryError::Done(name)),
        (JobState::Cancelled, _) => Err(RetryError::SweepCancelled(sweep.name.clone())),
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
