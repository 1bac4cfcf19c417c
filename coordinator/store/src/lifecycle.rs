//! What a worker's report or silence means for its job, decided in memory, without a database.
//!
//! Reports arrive at least once, and may be late or out of order. The rules that keep the counts right:
//!
//! * A job is *held* by the attempt that its row names while it is queued or running. Only a report of
//!   that attempt changes the state of a job; others are recorded and no more.
//! * A result is the exception: the first one counts, whoever sent it and whatever state the job is in.
//!   The same result again changes nothing; a different one is a conflict.
//! * An attempt ends once.
//! * A worker's own fault is not a failure of the job, which is granted again, uncounted. But a job at
//!   which the devices of several workers break is considered the cause.
//! * An attempt that ends without a word counts against its job only if it had begun and not advanced:
//!   a training that gets further each time is never given up.
//! * Permanent errors are not retried. Training is bit-exact, so a loss that is not finite, or any other
//!   error of shapes or numbers, would only recur.
//!
//! The state machine of a job is [`Job::apply`] for what workers report and [`Job::lose`] for their
//! silence, together with the `UPDATE` statements of this crate for what the coordinator and operators
//! do. Table `job_transition` is its guard: a trigger refuses every other transition, whoever attempts it.

use crate::{
    job::{AttemptOutcome, JobKind, JobState},
    text::{bounded, causes},
};
use chrono::{DateTime, TimeDelta, Utc};
use halfheard_shared::{
    ids::{AttemptId, JobId},
    wire::{self, Failure, FailureKind, FaultKind, ResultBody, WireError},
};
use std::time::Duration;

/// Workers whose device may break at one job before that counts as the job's failure: a device breaks
/// now and then, but hardly three at the same job by chance.
const MAX_BROKEN_DEVICES: i64 = 2;
/// Most characters of [`Job::last_error`].
const LAST_ERROR: usize = 4000;
/// Why a training fails whose weights cannot be had again.
const OTHER_WEIGHTS: &str = "its checkpoints were missing, and training it again gave other weights than those that its evaluations used";

/// First 16 bytes of the BLAKE3 hash of a result.
pub type Digest = [u8; 16];

/// How often a job is attempted, and how long a retry is delayed.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Failed attempts after which the job fails.
    pub attempts: i32,
    /// The delay after the first failure; each further one is four times as long.
    pub delay: Duration,
    /// Attempts in a row that ended without a word and without progress, after which the job fails.
    pub losses: i32,
    /// The most device memory that a live worker has, in bytes: a job that ran out of memory waits for
    /// more only if somebody has it. 0 if unknown.
    pub largest: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            delay: Duration::from_secs(5),
            losses: 5,
            largest: 0,
        }
    }
}

impl RetryPolicy {
    /// The delay of a job that was declined, and before that as often as this in the last minutes: nobody
    /// may be able to do it, and then it must not keep a worker from jobs that it can do. By default 1 s,
    /// then twice as long each time, up to 60 s.
    fn delay_after_declines(&self, before: i64) -> Duration {
        let doublings = u32::try_from(before).unwrap_or_default().min(6);
        (self.delay / 5 * 2_u32.pow(doublings)).min(self.delay * 12)
    }

    /// The delay after `failures` failed attempts.
    pub fn delay_after(&self, failures: i32) -> Duration {
        let quadruplings = u32::try_from(failures - 1).unwrap_or(0).min(6);
        self.delay * 4_u32.pow(quadruplings)
    }
}

/// The part of a job that reports affect.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Primary key.
    pub id: JobId,
    /// Training, evaluation or no-op.
    pub kind: JobKind,
    /// Its state.
    pub state: JobState,
    /// The attempt that was granted last.
    pub attempt: Option<AttemptId>,
    /// Failed attempts.
    pub failures: i32,
    /// Attempts that ended without a word since the job last advanced.
    pub losses: i32,
    /// Other workers than the reporting one whose device broke at this job.
    pub broken_devices: i64,
    /// How often it was declined in the last minutes.
    pub declines: i64,
    /// The hash of its first result.
    pub outcome: Option<Digest>,
    /// Of a training: whether a result of one of its evaluations is stored.
    pub evaluated: bool,
    /// Start of the first attempt.
    pub started: Option<DateTime<Utc>>,
    /// End of the job.
    pub finished: Option<DateTime<Utc>>,
    /// The last failure.
    pub last_error: Option<String>,
    /// Bytes of memory that a device needs at least.
    pub min_memory: i64,
    /// Delay of a retry, from now.
    pub delay: Duration,
}

/// The part of an attempt that reports affect.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Primary key.
    pub id: AttemptId,
    /// How it ended, if it did.
    pub outcome: Option<AttemptOutcome>,
    /// Whether the report of its start has arrived.
    pub begun: bool,
    /// Whether it stored a state beyond the one that it began from.
    pub advanced: bool,
    /// Whether its result no longer counts.
    pub void: bool,
    /// Bytes of its device's memory; 0 if unknown.
    pub memory: i64,
}

/// What to do besides writing the job and the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Write the result: it is the first one.
    Store(Digest),
    /// Record a conflict: the result differs from the first one.
    Conflict {
        /// The first result.
        kept: Digest,
        /// This result.
        refused: Digest,
    },
    /// Record a conflict, and write the result in place of the first one, whose weights are lost and
    /// were never used.
    Replace {
        /// The first result.
        old: Digest,
        /// This result.
        new: Digest,
    },
}

/// Why a report was rejected.
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
    /// A kind of failure that only the coordinator can find.
    #[error("a worker cannot report a failure of kind `{0}`")]
    WrongFailure(&'static str),
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
    /// Whether `attempt` has the job.
    pub fn is_held_by(&self, attempt: &Attempt) -> bool {
        self.state.is_leased() && self.attempt == Some(attempt.id) && attempt.outcome.is_none()
    }

    /// Applies one report of `attempt`, which arrived at `at`: changes the job and the attempt, and
    /// returns what else to do.
    ///
    /// # Errors
    ///
    /// The report contradicts the job. Nothing is changed.
    pub fn apply(
        &mut self,
        attempt: &mut Attempt,
        report: &ResultBody,
        at: DateTime<Utc>,
        policy: &RetryPolicy,
    ) -> Result<Effect, RejectedMessage> {
        let held = self.is_held_by(attempt);
        match report {
            ResultBody::Started { .. } => self.begin(attempt, held, at),
            // It is kept beside the attempt, and says nothing of the job.
            ResultBody::Output { .. } => {}
            ResultBody::Epoch(_) => {
                self.expect(JobKind::Train, "epoch")?;
                self.begin(attempt, held, at);
            }
            ResultBody::Trained { .. } => {
                self.expect(JobKind::Train, "trained")?;
                return Ok(self.finish(attempt, held, digest(report)?, at));
            }
            ResultBody::Evaluated { seconds, .. } => {
                self.expect(JobKind::Eval, "evaluated")?;
                let digest = digest(report)?;
                if self.outcome.is_none() && !attempt.void {
                    // Cases are evaluated together: this one began within their common attempt.
                    self.started = self.started.max(Some(began(at, *seconds)));
                }
                return Ok(self.finish(attempt, held, digest, at));
            }
            ResultBody::Noop => {
                self.expect(JobKind::Noop, "noop")?;
                return Ok(self.finish(attempt, held, [0; 16], at));
            }
            ResultBody::Failed(failure) => {
                if let FailureKind::Crashed | FailureKind::Invalid = failure.kind {
                    return Err(RejectedMessage::WrongFailure(label(failure.kind)));
                }
                if end(attempt, AttemptOutcome::Failed) && held {
                    self.fail(attempt, failure, at, policy);
                }
            }
            ResultBody::HandedBack { .. } => {
                if end(attempt, AttemptOutcome::HandedBack) && held {
                    self.state = JobState::Ready;
                }
            }
            ResultBody::Declined { fault, .. } => {
                if !end(attempt, AttemptOutcome::HandedBack) || !held {
                    return Ok(Effect::Nothing);
                }
                self.state = JobState::Ready;
                self.delay = policy.delay_after_declines(self.declines);
                if fault.kind == FaultKind::Device && self.broken_devices >= MAX_BROKEN_DEVICES {
                    let broken = format!(
                        "the devices of {} workers broke at this job",
                        self.broken_devices + 1
                    );
                    let failure = Failure {
                        chain: std::iter::once(broken).chain(fault.chain.clone()).collect(),
                        kind: FailureKind::Retryable,
                    };
                    self.fail(attempt, &failure, at, policy);
                }
            }
        }
        Ok(Effect::Nothing)
    }

    /// Ends an attempt whose final report was rejected for `reason`, as failed. Returns whether it was
    /// open.
    pub fn reject(
        &mut self,
        attempt: &mut Attempt,
        reason: &str,
        at: DateTime<Utc>,
        policy: &RetryPolicy,
    ) -> bool {
        let held = self.is_held_by(attempt);
        let ended = end(attempt, AttemptOutcome::Failed);
        if ended && held {
            let failure = Failure {
                chain: vec!["its report was rejected".to_owned(), reason.to_owned()],
                kind: FailureKind::Invalid,
            };
            self.fail(attempt, &failure, at, policy);
        }
        ended
    }

    /// Ends an attempt that has the job without its word: its worker was not heard
    /// ([`AttemptOutcome::Lost`]), or its work did not advance ([`AttemptOutcome::Stalled`], which shows
    /// that it had begun). Returns whether that was one too many, and the job failed. Nothing happens if
    /// the attempt does not have the job.
    pub fn lose(
        &mut self,
        attempt: &mut Attempt,
        how: AttemptOutcome,
        at: DateTime<Utc>,
        policy: &RetryPolicy,
    ) -> bool {
        if !self.is_held_by(attempt) {
            return false;
        }
        attempt.outcome = Some(how);
        if attempt.advanced {
            self.losses = 0;
        } else if attempt.begun || how == AttemptOutcome::Stalled {
            self.losses += 1;
        }
        let gave_up = self.losses >= policy.losses;
        if gave_up {
            self.state = JobState::Failed;
            self.finished = Some(at);
            self.last_error = Some(format!(
                "{} attempts in a row ended without a word and without progress: their workers crashed or hung",
                self.losses
            ));
        } else {
            self.state = JobState::Ready;
        }
        gave_up
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

    fn begin(&mut self, attempt: &mut Attempt, held: bool, at: DateTime<Utc>) {
        attempt.begun = true;
        if held {
            self.state = JobState::Running;
            self.started.get_or_insert(at);
        }
    }

    /// Counts a failure of an attempt that had the job: ready after a delay, or failed.
    fn fail(
        &mut self,
        attempt: &Attempt,
        failure: &Failure,
        at: DateTime<Utc>,
        policy: &RetryPolicy,
    ) {
        self.failures += 1;
        self.last_error = Some(bounded(&causes(&failure.chain).join(": "), LAST_ERROR));
        let permanent = match failure.kind {
            FailureKind::Permanent | FailureKind::NonFinite => true,
            FailureKind::Retryable
            | FailureKind::OutOfMemory
            | FailureKind::Crashed
            | FailureKind::Invalid => false,
        };
        if permanent || self.failures >= policy.attempts {
            self.state = JobState::Failed;
            self.finished = Some(at);
            return;
        }
        self.state = JobState::Ready;
        let memory = u64::try_from(attempt.memory).unwrap_or(0);
        if failure.kind == FailureKind::OutOfMemory && memory > 0 && policy.largest > memory {
            // Somebody has more, and need not wait.
            self.min_memory = self.min_memory.max(attempt.memory.saturating_add(1));
        } else {
            self.delay = policy.delay_after(self.failures);
        }
    }

    fn finish(
        &mut self,
        attempt: &mut Attempt,
        held: bool,
        digest: Digest,
        at: DateTime<Utc>,
    ) -> Effect {
        // Said again: it counted then. The job may be on its way to be done again since.
        let again = attempt.outcome == Some(AttemptOutcome::Done);
        if attempt.void && !again {
            return Effect::Nothing;
        }
        attempt.outcome = Some(AttemptOutcome::Done);
        let effect = match self.outcome {
            None => Effect::Store(digest),
            Some(kept) if kept == digest => Effect::Nothing,
            Some(kept) => Effect::Conflict {
                kept,
                refused: digest,
            },
        };
        if again {
            return effect;
        }
        self.outcome.get_or_insert(digest);
        if matches!(self.state, JobState::Done | JobState::Cancelled) {
            return effect;
        }
        // A training that has a result and is not done is being done again, for its checkpoints.
        match effect {
            Effect::Conflict { kept, refused } if self.kind == JobKind::Train => {
                if !self.evaluated {
                    self.outcome = Some(digest);
                    self.done(at);
                    return Effect::Replace {
                        old: kept,
                        new: refused,
                    };
                }
                if held {
                    self.failures += 1;
                    self.last_error = Some(OTHER_WEIGHTS.to_owned());
                    self.state = JobState::Failed;
                    self.finished = Some(at);
                }
            }
            _ => self.done(at),
        }
        effect
    }

    fn done(&mut self, at: DateTime<Utc>) {
        self.state = JobState::Done;
        self.started.get_or_insert(at);
        self.finished = Some(at);
    }
}

/// Ends an attempt as its worker says. Returns whether it had not ended by a word of its worker before:
/// one that was given up as lost may still report.
fn end(attempt: &mut Attempt, outcome: AttemptOutcome) -> bool {
    let open = matches!(
        attempt.outcome,
        None | Some(AttemptOutcome::Lost | AttemptOutcome::Stalled)
    );
    if open {
        attempt.outcome = Some(outcome);
    }
    open
}

/// A kind of failure as the database has it.
pub(crate) fn label(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Permanent => "permanent",
        FailureKind::Retryable => "retryable",
        FailureKind::NonFinite => "non_finite",
        FailureKind::Crashed => "crashed",
        FailureKind::OutOfMemory => "out_of_memory",
        FailureKind::Invalid => "invalid",
    }
}

/// Whether a report is the last one of its attempt.
pub(crate) fn is_final(report: &ResultBody) -> bool {
    !matches!(report, ResultBody::Started { .. } | ResultBody::Epoch(_))
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

/// The hash of a result, without the seconds it took and the memory it used. It does not depend on the
/// version of the wire format, which is the first byte: a result of the next release is the same.
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
    let content = bytes.get(1..).unwrap_or_default();
    digest.copy_from_slice(&blake3::hash(content).as_bytes()[..16]);
    Ok(digest)
}

#[cfg(test)]
mod tests;
