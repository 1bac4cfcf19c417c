//! Taking in what workers report: one transaction for a batch of messages.
//!
//! Jobs and attempts that the batch concerns are read and locked, [`crate::lifecycle`] decides
//! what the messages mean, and everything is written with one statement a table.

mod write;

use super::{JobKind, JobState, Store, StoreError, types::AttemptOutcome};
use crate::lifecycle::{Attempt, Digest, Effect, Job, Nonsense, RetryPolicy, began};
use chrono::{DateTime, Utc};
use halfheard_shared::{
    ids::{AttemptId, JobId},
    wire::{FailureKind, FaultKind, ResultBody, ResultMessage},
};
use sqlx::{PgConnection, Postgres, Transaction};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use uuid::Uuid;

/// Bytes of a dead letter that are kept.
const DEAD_LETTER_BYTES: usize = 64 * 1024;
/// Dead letters that are kept.
const DEAD_LETTERS: i64 = 1000;

/// What a batch changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Jobs that became ready: retries, and evaluations whose model is trained.
    pub ready: u64,
    /// Messages that mean nothing, by their place in the batch, and why.
    pub refused: Vec<(usize, String)>,
}

/// A message that cannot be taken in.
#[derive(Clone, Debug)]
pub struct DeadLetter<'a> {
    /// Its subject.
    pub subject: &'a str,
    /// Its place in the stream.
    pub sequence: u64,
    /// Why.
    pub reason: &'a str,
    /// Its content.
    pub payload: &'a [u8],
}

impl Store {
    /// Takes in a batch: all of it or, on an error, nothing.
    pub async fn take_in(
        &self,
        messages: &[ResultMessage],
        retry: &RetryPolicy,
    ) -> Result<Taken, StoreError> {
        let mut tx = self.pool().begin().await?;
        let mut batch = Batch::load(&mut tx, messages).await?;
        let mut taken = Taken::default();
        for (place, message) in messages.iter().enumerate() {
            if let Err(reason) = batch.take(message, retry) {
                taken.refused.push((place, reason));
            }
        }
        taken.ready = batch.write(&mut tx).await?;
        tx.commit().await?;
        Ok(taken)
    }

    /// Keeps a message that could not be taken in, and forgets the oldest of very many.
    pub async fn bury(&self, letter: &DeadLetter<'_>) -> Result<(), StoreError> {
        let end = letter.payload.len().min(DEAD_LETTER_BYTES);
        let id = sqlx::query_scalar!(
            "INSERT INTO dead_letter (subject, sequence, reason, payload)
             VALUES ($1, $2, $3, $4) RETURNING id",
            clean(letter.subject),
            i64::try_from(letter.sequence).unwrap_or(i64::MAX),
            clean(letter.reason),
            &letter.payload[..end]
        )
        .fetch_one(self.pool())
        .await?;
        sqlx::query!("DELETE FROM dead_letter WHERE id <= $1", id - DEAD_LETTERS)
            .execute(self.pool())
            .await?;
        Ok(())
    }
}

/// How many attempts at each job ended with a broken device before this batch; asked only about
/// jobs of which the batch says so again.
async fn broken_devices(
    tx: &mut PgConnection,
    messages: &[ResultMessage],
) -> Result<HashMap<Uuid, i64>, StoreError> {
    let said: Vec<&ResultMessage> = messages
        .iter()
        .filter(|message| {
            matches!(&message.body, ResultBody::Declined { fault, .. }
                     if fault.kind == FaultKind::Device)
        })
        .collect();
    if said.is_empty() {
        return Ok(HashMap::new());
    }
    let jobs: Vec<Uuid> = said.iter().map(|message| message.job.0).collect();
    let kind = FaultKind::Device.as_str();
    Ok(sqlx::query!(
        r#"SELECT job, count(*) AS "count!" FROM attempt
           WHERE job = ANY($1) AND failure_kind = $2 GROUP BY job"#,
        &jobs,
        kind
    )
    .fetch_all(tx)
    .await?
    .into_iter()
    .map(|row| (row.job, row.count))
    .collect())
}

/// What is to be written of one attempt.
struct Draft {
    attempt: Attempt,
    job: JobId,
    publication: i32,
    delivery: Option<i64>,
    worker: String,
    host: String,
    device: String,
    version: String,
    processor: String,
    started: Option<DateTime<Utc>>,
    resumed: Option<i32>,
    ended: Option<DateTime<Utc>>,
    failure_kind: Option<&'static str>,
    errors: serde_json::Value,
    epochs: Option<i32>,
    seconds: Option<f64>,
}

/// Everything one batch reads and writes.
struct Batch<'a> {
    jobs: BTreeMap<JobId, (Job, Job)>,
    known: HashMap<AttemptId, Option<AttemptOutcome>>,
    attempts: BTreeMap<AttemptId, Draft>,
    epochs: Vec<&'a ResultMessage>,
    results: Vec<&'a ResultMessage>,
    conflicts: Vec<(&'a ResultMessage, Digest, Digest)>,
    superseded: Vec<(JobId, AttemptId)>,
}

impl<'a> Batch<'a> {
    async fn load(
        tx: &mut Transaction<'_, Postgres>,
        messages: &[ResultMessage],
    ) -> Result<Self, StoreError> {
        let mut ids: Vec<Uuid> = messages.iter().map(|message| message.job.0).collect();
        ids.sort_unstable();
        ids.dedup();
        let broken = broken_devices(tx, messages).await?;
        let mut jobs = BTreeMap::new();
        for row in sqlx::query!(
            r#"SELECT id, kind AS "kind: JobKind", state AS "state: JobState", publication,
                      failures, attempt, outcome, started, finished, last_error
               FROM job WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE"#,
            &ids
        )
        .fetch_all(&mut **tx)
        .await?
        {
            let job = Job {
                id: JobId(row.id),
                kind: row.kind,
                state: row.state,
                publication: row.publication,
                failures: row.failures,
                broken_devices: broken.get(&row.id).copied().unwrap_or_default(),
                attempt: row.attempt.map(AttemptId),
                outcome: row.outcome.and_then(|bytes| bytes.try_into().ok()),
                started: row.started,
                finished: row.finished,
                last_error: row.last_error,
                delay: Duration::ZERO,
            };
            jobs.insert(job.id, (job.clone(), job));
        }
        let mut ids: Vec<Uuid> = messages.iter().map(|message| message.attempt.0).collect();
        ids.sort_unstable();
        ids.dedup();
        let known = sqlx::query!(
            r#"SELECT id, outcome AS "outcome: AttemptOutcome" FROM attempt WHERE id = ANY($1)"#,
            &ids
        )
        .fetch_all(&mut **tx)
        .await?
        .into_iter()
        .map(|row| (AttemptId(row.id), row.outcome))
        .collect();
        Ok(Self {
            jobs,
            known,
            attempts: BTreeMap::new(),
            epochs: Vec::new(),
            results: Vec::new(),
            conflicts: Vec::new(),
            superseded: Vec::new(),
        })
    }

    fn take(&mut self, message: &'a ResultMessage, retry: &RetryPolicy) -> Result<(), String> {
        let Some((_, job)) = self.jobs.get_mut(&message.job) else {
            return Err(format!("no job has the id {}", message.job));
        };
        let at = i64::try_from(message.at_ms)
            .ok()
            .and_then(DateTime::from_timestamp_millis)
            .unwrap_or_else(Utc::now);
        let mut attempt = match self.attempts.get(&message.attempt) {
            Some(draft) if draft.job != message.job => {
                return Err(format!("attempt {} is at another job", message.attempt));
            }
            Some(draft) => draft.attempt.clone(),
            None => Attempt {
                id: message.attempt,
                outcome: self.known.get(&message.attempt).copied().flatten(),
            },
        };
        let effect = job
            .take(&mut attempt, message, at, retry)
            .map_err(|error: Nonsense| error.to_string())?;
        let draft = self
            .attempts
            .entry(message.attempt)
            .or_insert_with(|| Draft::of(message));
        draft.attempt = attempt;
        draft.note(message, at);
        if matches!(message.body, ResultBody::Epoch(_)) {
            self.epochs.push(message);
        }
        match effect {
            Effect::Nothing => {}
            Effect::OthersLost => self.superseded.push((message.job, message.attempt)),
            Effect::Store(_) => self.results.push(message),
            Effect::Conflict { kept, refused } => self.conflicts.push((message, kept, refused)),
        }
        Ok(())
    }
}

impl Draft {
    fn of(message: &ResultMessage) -> Self {
        Self {
            attempt: Attempt {
                id: message.attempt,
                outcome: None,
            },
            job: message.job,
            publication: int(message.publication),
            delivery: None,
            worker: clean(&message.worker.name),
            host: clean(&message.worker.host),
            device: clean(&message.worker.device),
            version: clean(&message.worker.version),
            processor: clean(&message.worker.processor),
            started: None,
            resumed: None,
            ended: None,
            failure_kind: None,
            errors: serde_json::json!([]),
            epochs: None,
            seconds: None,
        }
    }

    fn note(&mut self, message: &ResultMessage, at: DateTime<Utc>) {
        match &message.body {
            ResultBody::Started {
                delivery,
                resumed_after_epoch,
            } => {
                self.started = Some(at);
                self.delivery = Some(i64::try_from(*delivery).unwrap_or(i64::MAX));
                self.resumed = Some(int(*resumed_after_epoch));
                return;
            }
            ResultBody::Epoch(_) => return,
            ResultBody::Trained {
                epochs, seconds, ..
            } => {
                self.epochs = Some(int(*epochs));
                self.seconds = Some(*seconds).filter(|seconds| seconds.is_finite());
            }
            ResultBody::Failed(failure) => {
                self.failure_kind = Some(match failure.kind {
                    FailureKind::Permanent => "permanent",
                    FailureKind::Retryable => "retryable",
                    FailureKind::NonFinite => "non_finite",
                    FailureKind::Crashed => "crashed",
                });
                let chain: Vec<String> = failure.chain.iter().map(|text| clean(text)).collect();
                self.errors = serde_json::json!(chain);
            }
            ResultBody::HandedBack { after_epoch } => self.epochs = Some(int(*after_epoch)),
            ResultBody::Declined { after_epoch, fault } => {
                self.epochs = Some(int(*after_epoch));
                self.failure_kind = Some(fault.kind.as_str());
                let words = [format!("cannot {}", fault.deed())];
                let chain: Vec<String> = words
                    .iter()
                    .chain(&fault.chain)
                    .map(|text| clean(text))
                    .collect();
                self.errors = serde_json::json!(chain);
            }
            ResultBody::Evaluated { seconds, .. } => {
                self.started = self.started.max(Some(began(at, *seconds)));
                self.seconds = Some(*seconds).filter(|seconds| seconds.is_finite());
            }
            ResultBody::Noop => {}
        }
        self.ended = Some(at);
    }
}

/// Numbers on the wire are small; one that is not is as good as the largest.
fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Postgres' text has no NUL.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
