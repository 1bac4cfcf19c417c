//! What a worker's message means for its job: decided here, in memory, without a database.
//!
//! Messages come at least once, may come late and out of order. The rules that keep the count
//! right:
//!
//! * A publication is *current* while its job is queued or running with that number, or ready
//!   with a smaller one (the worker was faster than the dispatcher's note). Only what concerns a
//!   current publication moves a job; anything else is only written down.
//! * The first result of a job stands, whoever sent it and whatever state the job is in. The same
//!   again changes nothing; another one is a conflict.
//! * An attempt fails at most once.
//! * A worker's own fault is no failure of the job: the job is published again, uncounted. Only a
//!   job at which one device after the other breaks is taken for what breaks them.
//! * What repeats itself is not tried again: training is exact to the last bit, so that a loss which
//!   is not finite, like any error of shapes or numbers, would only be met again.
//!
//! Which state may follow which is the database's own rule (table `job_transition`).

use crate::types::{AttemptOutcome, JobKind, JobState};
use chrono::{DateTime, TimeDelta, Utc};
use halfheard_shared::{
    ids::{AttemptId, JobId},
    wire::{self, FailureKind, FaultKind, ResultBody, ResultMessage, WireError},
};
use std::time::Duration;

/// Devices that may break at one job before it counts as the job's failure: one breaks by itself
/// now and then, a third one at the same job hardly does.
const BROKEN_DEVICES: i64 = 2;

/// First 16 bytes of the BLAKE3 hash of a result.
pub type Digest = [u8; 16];

/// How often a job is tried, and how long a retry waits.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Failed attempts after which a job is given up.
    pub attempts: i32,
    /// The delay after the first failure; each further one is four times as long.
    pub delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            delay: Duration::from_secs(5),
        }
    }
}

impl RetryPolicy {
    /// The delay after so many failures.
    pub fn delay_after(&self, failures: i32) -> Duration {
        let quadruplings = u32::try_from(failures - 1).unwrap_or(0).min(6);
        self.delay * 4_u32.pow(quadruplings)
    }
}

/// A job as far as messages concern it.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What kind it is.
    pub kind: JobKind,
    /// Where it stands.
    pub state: JobState,
    /// How often it has been published, as far as is known.
    pub publication: i32,
    /// How many attempts failed.
    pub failures: i32,
    /// How many attempts ended with a broken device, uncounted.
    pub broken_devices: i64,
    /// The attempt that began last.
    pub attempt: Option<AttemptId>,
    /// The hash of its first result.
    pub outcome: Option<Digest>,
    /// When its first attempt began.
    pub started: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished: Option<DateTime<Utc>>,
    /// Why it failed last.
    pub last_error: Option<String>,
    /// How long a retry waits from now.
    pub delay: Duration,
}

/// An attempt as far as messages tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// How it ended, if it did.
    pub outcome: Option<AttemptOutcome>,
}

/// What is to be done besides writing job and attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// The attempts at this job that have not ended, other than the one that speaks, are lost.
    OthersLost,
    /// The result is the first one: write it.
    Store(Digest),
    /// The result differs from the one that stands.
    Conflict {
        /// What stands.
        kept: Digest,
        /// What came.
        refused: Digest,
    },
}

/// Why a message means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// The result of a training for an evaluation, or such.
    #[error("a job of kind {job} cannot send `{result}`")]
    WrongKind {
        /// The job's kind.
        job: JobKind,
        /// What came.
        result: &'static str,
    },
    /// A result that points to predictions that are not there.
    #[error("criterion `{criterion}` points to prediction {number} of {count}")]
    NoPrediction {
        /// The criterion.
        criterion: String,
        /// Where it points.
        number: u32,
        /// How many there are.
        count: usize,
    },
    /// It cannot be hashed.
    #[error("{0}")]
    Unwritable(String),
}

impl From<WireError> for Nonsense {
    fn from(error: WireError) -> Self {
        Nonsense::Unwritable(error.to_string())
    }
}

impl Job {
    fn is_current(&self, publication: i32) -> bool {
        match self.state {
            JobState::Queued | JobState::Running => self.publication == publication,
            JobState::Ready => self.publication < publication,
            _ => false,
        }
    }

    /// Takes in one message: changes the job and the attempt that speaks, and says what else is
    /// to be done.
    pub fn take(
        &mut self,
        attempt: &mut Attempt,
        message: &ResultMessage,
        at: DateTime<Utc>,
        retry: &RetryPolicy,
    ) -> Result<Effect, Nonsense> {
        let publication = i32::try_from(message.publication).unwrap_or(i32::MAX);
        let open = matches!(attempt.outcome, None | Some(AttemptOutcome::Lost));
        match &message.body {
            ResultBody::Started { .. } => Ok(self.begin(attempt, publication, open, at)),
            ResultBody::Epoch(_) => {
                self.expect(JobKind::Train, "epoch")?;
                Ok(self.begin(attempt, publication, open, at))
            }
            ResultBody::Trained { .. } => {
                self.expect(JobKind::Train, "trained")?;
                let digest = digest(&message.body)?;
                Ok(self.finish(attempt, publication, digest, at))
            }
            ResultBody::Evaluated {
                results,
                predictions,
                seconds,
            } => {
                self.expect(JobKind::Eval, "evaluated")?;
                if let Some(result) = results
                    .iter()
                    .find(|result| result.predictions as usize >= predictions.len())
                {
                    return Err(Nonsense::NoPrediction {
                        criterion: result.criterion.clone(),
                        number: result.predictions,
                        count: predictions.len(),
                    });
                }
                let digest = digest(&message.body)?;
                if self.outcome.is_none() {
                    // Cases are evaluated together: each one's own time begins within theirs.
                    self.started = self.started.max(Some(began(at, *seconds)));
                }
                Ok(self.finish(attempt, publication, digest, at))
            }
            ResultBody::Noop => {
                self.expect(JobKind::Noop, "noop")?;
                Ok(self.finish(attempt, publication, [0; 16], at))
            }
            ResultBody::Failed(failure) => {
                if !open {
                    return Ok(Effect::Nothing);
                }
                attempt.outcome = Some(AttemptOutcome::Failed);
                if !self.is_current(publication) {
                    return Ok(Effect::Nothing);
                }
                self.publication = publication;
                self.failures += 1;
                self.last_error = Some(failure.chain.join(": "));
                let repeats = match failure.kind {
                    FailureKind::Permanent | FailureKind::NonFinite => true,
                    FailureKind::Retryable | FailureKind::Crashed => false,
                };
                self.try_again(repeats, at, retry);
                Ok(Effect::Nothing)
            }
            ResultBody::HandedBack { .. } => {
                if !open {
                    return Ok(Effect::Nothing);
                }
                attempt.outcome = Some(AttemptOutcome::HandedBack);
                let speaks_last = self.attempt.is_none_or(|last| last == attempt.id);
                if self.is_current(publication) && speaks_last {
                    // The broker still has the message and delivers it again.
                    self.publication = publication;
                    self.state = JobState::Queued;
                }
                Ok(Effect::Nothing)
            }
            ResultBody::Declined { fault, .. } => {
                if !open {
                    return Ok(Effect::Nothing);
                }
                attempt.outcome = Some(AttemptOutcome::HandedBack);
                let speaks_last = self.attempt.is_none_or(|last| last == attempt.id);
                if !self.is_current(publication) || !speaks_last {
                    return Ok(Effect::Nothing);
                }
                self.publication = publication;
                if fault.kind == FaultKind::Device {
                    self.broken_devices += 1;
                }
                if fault.kind == FaultKind::Device && self.broken_devices > BROKEN_DEVICES {
                    self.failures += 1;
                    self.last_error = Some(format!(
                        "{} devices broke at it: {}",
                        self.broken_devices,
                        fault.chain.join(": ")
                    ));
                    self.try_again(false, at, retry);
                } else {
                    // The worker took it off the queue: the next publication is for another one.
                    self.state = JobState::Ready;
                }
                Ok(Effect::Nothing)
            }
        }
    }

    /// After a failure that counts: ready after a while, or given up.
    fn try_again(&mut self, repeats: bool, at: DateTime<Utc>, retry: &RetryPolicy) {
        if repeats || self.failures >= retry.attempts {
            self.state = JobState::Failed;
            self.finished = Some(at);
        } else {
            self.state = JobState::Ready;
            self.delay = retry.delay_after(self.failures);
        }
    }

    fn expect(&self, kind: JobKind, result: &'static str) -> Result<(), Nonsense> {
        if self.kind == kind {
            Ok(())
        } else {
            Err(Nonsense::WrongKind {
                job: self.kind,
                result,
            })
        }
    }

    fn begin(
        &mut self,
        attempt: &Attempt,
        publication: i32,
        open: bool,
        at: DateTime<Utc>,
    ) -> Effect {
        self.started.get_or_insert(at);
        if !open || !self.is_current(publication) {
            return Effect::Nothing;
        }
        self.publication = publication;
        self.state = JobState::Running;
        // An attempt that was taken for lost may still speak; it does not become the last again.
        if self.attempt == Some(attempt.id) || attempt.outcome.is_some() {
            return Effect::Nothing;
        }
        match self.attempt.replace(attempt.id) {
            Some(_) => Effect::OthersLost,
            None => Effect::Nothing,
        }
    }

    fn finish(
        &mut self,
        attempt: &mut Attempt,
        publication: i32,
        digest: Digest,
        at: DateTime<Utc>,
    ) -> Effect {
        attempt.outcome = Some(AttemptOutcome::Done);
        self.started.get_or_insert(at);
        if !matches!(self.state, JobState::Done | JobState::Cancelled) {
            self.state = JobState::Done;
            self.finished = Some(at);
            self.publication = self.publication.max(publication);
        }
        match self.outcome {
            None => {
                self.outcome = Some(digest);
                Effect::Store(digest)
            }
            Some(kept) if kept == digest => Effect::Nothing,
            Some(kept) => Effect::Conflict {
                kept,
                refused: digest,
            },
        }
    }
}

/// When work that took so many seconds until `at` began.
pub fn began(at: DateTime<Utc>, seconds: f64) -> DateTime<Utc> {
    // A week is more than any evaluation takes; a number that is none is no time.
    let seconds = if seconds.is_finite() {
        seconds.clamp(0.0, 604_800.0)
    } else {
        0.0
    };
    at - TimeDelta::microseconds((seconds * 1e6) as i64)
}

/// The hash of what a result says; the seconds it took are not part of it.
fn digest(body: &ResultBody) -> Result<Digest, Nonsense> {
    let bytes = match body {
        ResultBody::Trained {
            checkpoints,
            epochs,
            ..
        } => wire::encode(&(checkpoints, epochs))?,
        ResultBody::Evaluated {
            results,
            predictions,
            ..
        } => wire::encode(&(results, predictions))?,
        _ => Vec::new(),
    };
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
    Ok(digest)
}

#[cfg(test)]
mod tests;
