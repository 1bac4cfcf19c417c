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
//!
//! Which state may follow which is the database's own rule (table `job_transition`).

use crate::store::types::{AttemptOutcome, JobKind, JobState};
use chrono::{DateTime, Utc};
use missbench_shared::{
    ids::{AttemptId, JobId},
    wire::{self, FailureKind, ResultBody, ResultMessage, WireError},
};
use std::time::Duration;

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
                if failure.kind == FailureKind::Permanent || self.failures >= retry.attempts {
                    self.state = JobState::Failed;
                    self.finished = Some(at);
                } else {
                    self.state = JobState::Ready;
                    self.delay = retry.delay_after(self.failures);
                }
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
        } => wire::encode(&(results, predictions))?,
        _ => Vec::new(),
    };
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use missbench_shared::{
        ids::SweepId,
        wire::{CheckpointRef, Failure, WorkerInfo},
    };
    use proptest::prelude::*;

    fn job(kind: JobKind) -> Job {
        Job {
            id: JobId::derive(&[b"job"]),
            kind,
            state: JobState::Queued,
            publication: 1,
            failures: 0,
            attempt: None,
            outcome: None,
            started: None,
            finished: None,
            last_error: None,
            delay: Duration::ZERO,
        }
    }

    fn attempt(name: &str) -> Attempt {
        Attempt {
            id: AttemptId::derive(&[name.as_bytes()]),
            outcome: None,
        }
    }

    fn message(attempt: &Attempt, publication: u32, body: ResultBody) -> ResultMessage {
        ResultMessage {
            sweep: SweepId::derive(&[b"sweep"]),
            job: JobId::derive(&[b"job"]),
            attempt: attempt.id,
            publication,
            worker: WorkerInfo {
                name: "w".into(),
                host: "h".into(),
                device: "cpu".into(),
                version: "0".into(),
                processor: String::new(),
            },
            at_ms: 0,
            body,
        }
    }

    fn take(job: &mut Job, attempt: &mut Attempt, publication: u32, body: ResultBody) -> Effect {
        let message = message(attempt, publication, body);
        job.take(attempt, &message, Utc::now(), &RetryPolicy::default())
            .unwrap()
    }

    fn started() -> ResultBody {
        ResultBody::Started {
            delivery: 1,
            resumed_after_epoch: 0,
        }
    }

    fn failed(kind: FailureKind) -> ResultBody {
        ResultBody::Failed(Failure {
            chain: vec!["outer".into(), "inner".into()],
            kind,
        })
    }

    fn trained(hash: &str, seconds: f64) -> ResultBody {
        ResultBody::Trained {
            checkpoints: vec![CheckpointRef {
                criterion: "mae".into(),
                epoch: 1,
                blake3: hash.into(),
                bytes: 1,
            }],
            epochs: 3,
            seconds,
        }
    }

    #[test]
    fn the_first_result_stands() {
        let (mut job, mut a, mut b) = (job(JobKind::Train), attempt("a"), attempt("b"));
        assert_eq!(take(&mut job, &mut a, 1, started()), Effect::Nothing);
        assert!(matches!(
            take(&mut job, &mut a, 1, trained("x", 1.0)),
            Effect::Store(_)
        ));
        assert_eq!(job.state, JobState::Done);
        let settled = job.clone();
        // The same weights in another time are the same result.
        assert_eq!(
            take(&mut job, &mut b, 1, trained("x", 2.0)),
            Effect::Nothing
        );
        assert!(matches!(
            take(&mut job, &mut b, 1, trained("y", 2.0)),
            Effect::Conflict { .. }
        ));
        assert_eq!(job, settled);
    }

    #[test]
    fn three_failures_and_no_fourth() {
        let mut job = job(JobKind::Train);
        let delays: Vec<Duration> = (1..=3)
            .map(|publication| {
                let mut attempt = attempt(&format!("a{publication}"));
                take(&mut job, &mut attempt, publication, started());
                take(
                    &mut job,
                    &mut attempt,
                    publication,
                    failed(FailureKind::Retryable),
                );
                assert_eq!(job.state == JobState::Failed, publication == 3);
                // The same again, and late: nothing.
                let before = job.clone();
                take(
                    &mut job,
                    &mut attempt,
                    publication,
                    failed(FailureKind::Retryable),
                );
                assert_eq!(job, before);
                job.delay
            })
            .collect();
        assert_eq!(job.state, JobState::Failed);
        assert_eq!(job.failures, 3);
        assert_eq!(job.last_error.as_deref(), Some("outer: inner"));
        assert!(delays[0] < delays[1], "{delays:?}");
    }

    #[test]
    fn a_permanent_failure_is_the_last() {
        let (mut job, mut a) = (job(JobKind::Eval), attempt("a"));
        assert_eq!(
            take(&mut job, &mut a, 1, failed(FailureKind::Permanent)),
            Effect::Nothing
        );
        assert_eq!(job.state, JobState::Failed);
    }

    #[test]
    fn a_worker_may_be_faster_than_the_dispatcher() {
        let (mut job, mut a) = (job(JobKind::Train), attempt("a"));
        job.state = JobState::Ready;
        job.publication = 0;
        take(&mut job, &mut a, 1, failed(FailureKind::Retryable));
        assert_eq!(
            (job.state, job.publication, job.failures),
            (JobState::Ready, 1, 1)
        );
        // Another attempt at the same publication does not count again: the second publication
        // is the one that is due.
        let mut b = attempt("b");
        take(&mut job, &mut b, 1, failed(FailureKind::Retryable));
        assert_eq!(job.failures, 1);
        assert_eq!(b.outcome, Some(AttemptOutcome::Failed));
    }

    #[test]
    fn handed_back_only_by_who_has_it() {
        let (mut job, mut a, mut b) = (job(JobKind::Train), attempt("a"), attempt("b"));
        assert_eq!(take(&mut job, &mut a, 1, started()), Effect::Nothing);
        assert_eq!(take(&mut job, &mut b, 1, started()), Effect::OthersLost);
        take(
            &mut job,
            &mut a,
            1,
            ResultBody::HandedBack { after_epoch: 1 },
        );
        assert_eq!(job.state, JobState::Running, "b has it");
        take(
            &mut job,
            &mut b,
            1,
            ResultBody::HandedBack { after_epoch: 2 },
        );
        assert_eq!(job.state, JobState::Queued);
    }

    #[test]
    fn a_cancelled_job_keeps_its_state_and_its_result() {
        let (mut job, mut a) = (job(JobKind::Train), attempt("a"));
        job.state = JobState::Cancelled;
        assert!(matches!(
            take(&mut job, &mut a, 1, trained("x", 1.0)),
            Effect::Store(_)
        ));
        assert_eq!(job.state, JobState::Cancelled);
    }

    #[test]
    fn nonsense_is_refused() {
        let mut job = job(JobKind::Eval);
        let mut a = attempt("a");
        let message = message(&a, 1, trained("x", 1.0));
        let error = job
            .take(&mut a, &message, Utc::now(), &RetryPolicy::default())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "a job of kind eval cannot send `trained`"
        );
    }

    proptest! {
        /// Whatever the order and however often messages come: a job with a result is done, it
        /// has the first result, and failures never exceed the attempts that failed.
        #[test]
        fn order_and_repetition_do_not_matter(
            sequence in proptest::collection::vec((0_usize..3, 0_usize..5, 1_u32..4), 1..40)
        ) {
            let mut job = job(JobKind::Train);
            let mut attempts = [attempt("a"), attempt("b"), attempt("c")];
            let mut first: Option<Digest> = None;
            for (who, what, publication) in sequence {
                let body = match what {
                    0 => started(),
                    1 => failed(FailureKind::Retryable),
                    2 => ResultBody::HandedBack { after_epoch: 0 },
                    3 => trained("x", 1.0),
                    _ => trained("y", 1.0),
                };
                if let Effect::Store(digest) = take(&mut job, &mut attempts[who], publication, body) {
                    prop_assert!(first.is_none(), "stored twice");
                    first = Some(digest);
                }
                prop_assert_eq!(job.outcome, first);
                if first.is_some() {
                    prop_assert_eq!(job.state, JobState::Done);
                }
                prop_assert!(job.failures as usize <= attempts.len());
            }
        }
    }
}
