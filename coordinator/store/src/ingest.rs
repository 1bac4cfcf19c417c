//! Ingest: what workers report goes into the database, one transaction per batch of messages.
//!
//! The jobs and attempts that a batch concerns are read and locked, [`crate::lifecycle`] decides what
//! the messages mean, and everything is written with one statement per table.

mod conflicts;
mod rows;
mod write;

use crate::{
    JobKind, JobState, Store, StoreError,
    job::AttemptOutcome,
    lifecycle::{Attempt, Digest, Effect, Job, RetryPolicy},
    text::without_nul,
};
use chrono::{DateTime, Utc};
use halfheard_shared::{
    ids::{AttemptId, JobId},
    wire::{FaultKind, ResultBody, ResultMessage},
};
use rows::AttemptRow;
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
pub struct IngestSummary {
    /// Jobs that became ready: retries, and evaluations whose model is now trained.
    pub ready: u64,
    /// Rejected messages: their index in the batch, and why.
    pub rejected: Vec<(usize, String)>,
}

/// A message that cannot be stored.
#[derive(Clone, Debug)]
pub struct DeadLetter<'a> {
    /// The subject it came on.
    pub subject: &'a str,
    /// Its sequence number in the stream.
    pub sequence: u64,
    /// Why it was rejected.
    pub reason: &'a str,
    /// Its content.
    pub payload: &'a [u8],
}

impl Store {
    /// Ingests a batch: all of it or, on an error, nothing.
    ///
    /// # Errors
    ///
    /// The database's; a rejected message is not an error.
    pub async fn ingest(
        &self,
        messages: &[ResultMessage],
        retry: &RetryPolicy,
    ) -> Result<IngestSummary, StoreError> {
        let mut tx = self.pool().begin().await?;
        let mut batch = Batch::load(&mut tx, messages).await?;
        let mut summary = IngestSummary::default();
        for (index, message) in messages.iter().enumerate() {
            if let Err(reason) = batch.apply(message, retry) {
                summary.rejected.push((index, reason));
            }
        }
        summary.ready = batch.write(&mut tx).await?;
        tx.commit().await?;
        Ok(summary)
    }

    /// Keeps a message that cannot be stored, and deletes the oldest beyond the last thousand.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn store_dead_letter(&self, letter: &DeadLetter<'_>) -> Result<(), StoreError> {
        let end = letter.payload.len().min(DEAD_LETTER_BYTES);
        let id = sqlx::query_scalar!(
            "INSERT INTO dead_letter (subject, sequence, reason, payload)
             VALUES ($1, $2, $3, $4) RETURNING id",
            without_nul(letter.subject),
            i64::try_from(letter.sequence).unwrap_or(i64::MAX),
            without_nul(letter.reason),
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

/// Everything that one batch reads and writes.
struct Batch<'a> {
    /// Each job before and after.
    jobs: BTreeMap<JobId, (Job, Job)>,
    known_outcomes: HashMap<AttemptId, Option<AttemptOutcome>>,
    attempts: BTreeMap<AttemptId, AttemptRow>,
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
        let broken = broken_devices(tx, messages).await?;
        let mut jobs = BTreeMap::new();
        for row in sqlx::query!(
            r#"SELECT id, kind AS "kind: JobKind", state AS "state: JobState", publication,
                      failures, attempt, outcome, started, finished, last_error
               FROM job WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE"#,
            &distinct(messages, |message| message.job.0)
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
        let known_outcomes = sqlx::query!(
            r#"SELECT id, outcome AS "outcome: AttemptOutcome" FROM attempt WHERE id = ANY($1)"#,
            &distinct(messages, |message| message.attempt.0)
        )
        .fetch_all(&mut **tx)
        .await?
        .into_iter()
        .map(|row| (AttemptId(row.id), row.outcome))
        .collect();
        Ok(Self {
            jobs,
            known_outcomes,
            attempts: BTreeMap::new(),
            epochs: Vec::new(),
            results: Vec::new(),
            conflicts: Vec::new(),
            superseded: Vec::new(),
        })
    }

    /// Applies one message; an error says why it was rejected.
    fn apply(&mut self, message: &'a ResultMessage, retry: &RetryPolicy) -> Result<(), String> {
        let Some((_, job)) = self.jobs.get_mut(&message.job) else {
            return Err(format!("no job has the id {}", message.job));
        };
        let at = i64::try_from(message.at_ms)
            .ok()
            .and_then(DateTime::from_timestamp_millis)
            .unwrap_or_else(Utc::now);
        let outcome = match self.attempts.get(&message.attempt) {
            Some(row) if row.job != message.job.0 => {
                return Err(format!(
                    "attempt {} belongs to another job",
                    message.attempt
                ));
            }
            Some(row) => row.outcome,
            None => self.known_outcomes.get(&message.attempt).copied().flatten(),
        };
        let mut attempt = Attempt {
            id: message.attempt,
            outcome,
        };
        let effect = job
            .apply(&mut attempt, message, at, retry)
            .map_err(|rejected| rejected.to_string())?;
        let row = self
            .attempts
            .entry(message.attempt)
            .or_insert_with(|| AttemptRow::new(message));
        row.outcome = attempt.outcome;
        row.update(message, at);
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

/// The distinct ids of a batch, in order.
fn distinct(messages: &[ResultMessage], id: impl Fn(&ResultMessage) -> Uuid) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = messages.iter().map(id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// How many attempts at each job ended with a broken device before this batch; only for jobs of
/// which the batch reports another one.
async fn broken_devices(
    tx: &mut PgConnection,
    messages: &[ResultMessage],
) -> Result<HashMap<Uuid, i64>, StoreError> {
    let jobs: Vec<Uuid> = messages
        .iter()
        .filter(|message| {
            matches!(&message.body, ResultBody::Declined { fault, .. }
                     if fault.kind == FaultKind::Device)
        })
        .map(|message| message.job.0)
        .collect();
    if jobs.is_empty() {
        return Ok(HashMap::new());
    }
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

/// A number from the wire, where numbers are small; one too large counts as the largest.
fn int<T: TryInto<i32>>(number: T) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}
