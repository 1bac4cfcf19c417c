//! What a worker's message means for its job, decided in memory, without a database.
//!
//! Messages are delivered at least once, and may be late or out of order. The rules that keep the
//! counts right:
//!
//! * A publication is *current* while its job is queued or running with that number, or ready with a
//!   smaller one (the worker was faster than the dispatcher marked the job queued). Only messages about
//!   a current publication change the state of a job; others are recorded and no more.
//! * The first result of a job counts, whoever sent it and whatever state the job is in. The same
//!   result again changes nothing; a different one is a conflict.
//! * An attempt fails at most once.
//! * A worker's own fault is not a failure of the job: the job is published again, uncounted. But a job
//!   at which several devices break is considered the cause.
//! * Permanent errors are not retried. Training is bit-exact, so a loss that is not finite, or any other
//!   error of shapes or numbers, would only recur.
//!
//! The state machine of a job is [`Job::apply`] for what workers report, together with the `UPDATE`
//! statements of this crate for what the coordinator and operators do. Table `job_transition` is its
//! guard: a trigger refuses every other transition, whoever attempts it.

use crate::job::{AttemptOutcome, JobKind, JobState};
use chrono::{DateTime, TimeDelta, Utc};
use halfheard_shared::{
    ids::{AttemptId, JobId},
    wire::{self, FailureKind, FaultKind, ResultBody, ResultMessage, WireError},
};
use std::time::Duration;

/// Devices that may break at one job before that counts as the job's failure: a device breaks now and
/// then, but hardly three at the same job by chance.
const MAX_BROKEN_DEVICES: i64 = 2;

/// First 16 bytes of the BLAKE3 hash of a result.
pub type Digest = [u8; 16];

/// How often a job is attempted, and how long a retry is delayed.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Failed attempts after which the job fails.
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
    /// The delay after `failures` failed attempts.
    pub fn delay_after(&self, failures: i32) -> Duration {
        let quadruplings = u32::try_from(failures - 1).unwrap_or(0).min(6);
        self.delay * 4_u32.pow(quadruplings)
    }
}

/// The part of a job that messages affect.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Primary key.
    pub id: JobId,
    /// Training, evaluation or no-op.
    pub kind: JobKind,
    /// Its state.
    pub state: JobState,
    /// Number of its last known publication.
    pub publication: i32,
    /// Failed attempts.
    pub failures: i32,
    /// Attempts that ended with a broken device; they do not count as failures.
    pub broken_devices: i64,
    /// The attempt that began last.
    pub attempt: Option<AttemptId>,
    /// The hash of its first result.
    pub outcome: Option<Digest>,
    /// Start of the first attempt.
    pub started: Option<DateTime<Utc>>,
    /// End of the job.
    pub finished: Option<DateTime<Utc>>,
    /// The last failure.
    pub last_error: Option<String>,
    /// Delay of a retry, from now.
    pub delay: Duration,
}

/// The part of an attempt that messages affect.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Primary key.
    pub id: AttemptId,
    /// How it ended, if it did.
    pub outcome: Option<AttemptOutcome>,
}

/// What to do besides writing the job and the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Mark the other open attempts at this job as lost.
    OthersLost,
    /// Write the result: it is the first one.
    Store(Digest),
    /// Record a conflict: the result differs from the first one.
    Conflict {
        /// The first result.
        kept: Digest,
        /// This result.
        refused: Digest,
    },
}

/// Why a message was rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectedMessage {
    /// For example the result of a training job for an evaluation job.
    #[error("a job of kind {job} cannot send `{result}`")]
    WrongKind {
        /// The job's kind.
        job: JobKind,
        /// The kind of message.
        result: &'static str,
    },
    /// A result that refers to predictions it does not contain.
    #[error("criterion `{criterion}` refers to prediction {number} of {count}")]
    NoPrediction {
        /// The criterion.
        criterion: String,
        /// The index.
        number: u32,
        /// How many predictions the result has.
        count: usize,
    },
    /// It cannot be encoded, and so not be hashed.
    #[error("{0}")]
    NotEncodable(String),
}

impl From<WireError> for RejectedMessage {
    fn from(error: WireError) -> Self {
        RejectedMessage::NotEncodable(error.to_string())
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

    /// Applies one message, which `attempt` sent at `at`: changes the job and the attempt, and returns
    /// what else to do.
    ///
    /// # Errors
    ///
    /// The message contradicts the job or itself.
    #[expect(
        clippy::too_many_lines,
        reason = "the state machine reads in one place: one arm per message"
    )]
    pub fn apply(
        &mut self,
        attempt: &mut Attempt,
        message: &ResultMessage,
        at: DateTime<Utc>,
        retry: &RetryPolicy,
    ) -> Result<Effect, RejectedMessage> {
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
                    return Err(RejectedMessage::NoPrediction {
                        criterion: result.criterion.clone(),
                        number: result.predictions,
                        count: predictions.len(),
                    });
                }
                let digest = digest(&message.body)?;
                if self.outcome.is_none() {
                    // Cases are evaluated together: this one began within their common attempt.
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
                let permanent = match failure.kind {
                    FailureKind::Permanent | FailureKind::NonFinite => true,
                    FailureKind::Retryable | FailureKind::Crashed => false,
                };
                self.retry_or_fail(permanent, at, retry);
                Ok(Effect::Nothing)
            }
            ResultBody::HandedBack { .. } => {
                if !open {
                    return Ok(Effect::Nothing);
                }
                attempt.outcome = Some(AttemptOutcome::HandedBack);
                let is_latest = self.attempt.is_none_or(|last| last == attempt.id);
                if self.is_current(publication) && is_latest {
                    // The broker still has the message and will redeliver it.
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
                let is_latest = self.attempt.is_none_or(|last| last == attempt.id);
                if !self.is_current(publication) || !is_latest {
                    return Ok(Effect::Nothing);
                }
                self.publication = publication;
                if fault.kind == FaultKind::Device {
                    self.broken_devices += 1;
                }
                if fault.kind == FaultKind::Device && self.broken_devices > MAX_BROKEN_DEVICES {
                    self.failures += 1;
                    self.last_error = Some(format!(
                        "{} devices broke at this job: {}",
                        self.broken_devices,
                        fault.chain.join(": ")
                    ));
                    self.retry_or_fail(false, at, retry);
                } else {
                    // The worker removed the message from the queue: publish it for another worker.
                    self.state = JobState::Ready;
                }
                Ok(Effect::Nothing)
            }
        }
    }

    /// After a counted failure: ready after a delay, or failed.
    fn retry_or_fail(&mut self, permanent: bool, at: DateTime<Utc>, retry: &RetryPolicy) {
        if permanent || self.failures >= retry.attempts {
            self.state = JobState::Failed;
            self.finished = Some(at);
        } else {
            self.state = JobState::Ready;
            self.delay = retry.delay_after(self.failures);
        }
    }

    fn expect(&self, kind: JobKind, result: &'static str) -> Result<(), RejectedMessage> {
        if self.kind == kind {
            Ok(())
        } else {
            Err(RejectedMessage::WrongKind {
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
        // An attempt marked lost may still report; it does not become the latest again.
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

/// When work began that took `seconds` and ended at `at`.
pub fn began(at: DateTime<Utc>, seconds: f64) -> DateTime<Utc> {
    // No evaluation takes a week; what is not a number counts as 0.
    let seconds = if seconds.is_finite() {
        seconds.clamp(0.0, 604_800.0)
    } else {
        0.0
    };
    at - TimeDelta::microseconds((seconds * 1e6) as i64)
}

/// The hash of a result, without the seconds it took.
fn digest(body: &ResultBody) -> Result<Digest, RejectedMessage> {
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
