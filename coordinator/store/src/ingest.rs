//! Ingest: what workers report goes into the database, one transaction per batch of messages.
//!
//! The jobs and attempts that a batch concerns are locked and read, what contradicts them is rejected,
//! [`crate::lifecycle`] decides what the rest means, and everything is written with one statement per
//! table. Times are the database's: the clocks of workers do not matter.

mod check;
mod conflicts;
mod rows;
mod write;

use crate::{
    JobKind, JobState, Store, StoreError,
    grants::read_configs,
    job::AttemptOutcome,
    job_rows::{KnownAttempt, LockedJob, distinct, lock_jobs, read_attempts},
    lifecycle::{Digest, Effect, RetryPolicy, is_final, label},
    retry::retry_rollback,
    text::{NAME, bounded},
};
use check::Expected;
use halfheard_shared::{
    ids::{AttemptId, JobId},
    wire::{FaultKind, ResultBody, ResultMessage},
};
use rows::{AttemptRow, OutputRow};
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use uuid::Uuid;

/// Bytes of a dead letter that are kept.
const DEAD_LETTER_BYTES: usize = 64 * 1024;
/// Dead letters that are kept.
const DEAD_LETTERS: i64 = 1000;
/// Most characters of a dead letter's reason.
const REASON: usize = 2000;

/// What a batch changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngestSummary {
    /// Jobs that became ready: retries, and evaluations whose model is now trained.
    pub ready: u64,
    /// Rejected messages: their index in the batch, and why.
    pub rejected: Vec<(usize, String)>,
    /// Attempts that are settled, with their workers: they reported their end, or their jobs were done
    /// by others.
    pub ended: Vec<(String, AttemptId)>,
    /// Training jobs whose checkpoints a worker did not find.
    pub missing: Vec<JobId>,
    /// The kinds of the jobs whose results were stored.
    pub stored: Vec<JobKind>,
    /// Why jobs are to be tried again: the kind of failure, or `handed_back`, `declined`.
    pub retried: Vec<&'static str>,
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
    /// The database's; [`StoreError::Deposed`]. A rejected message is not an error.
    pub async fn ingest(
        &self,
        messages: &[ResultMessage],
        policy: &RetryPolicy,
    ) -> Result<IngestSummary, StoreError> {
        if messages.is_empty() {
            return Ok(IngestSummary::default());
        }
        retry_rollback(|| async {
            let mut tx = self.begin().await?;
            let mut batch = Batch::load(&mut tx, messages).await?;
            for (index, message) in messages.iter().enumerate() {
                if let Err(reason) = batch.apply(message, policy) {
                    batch.summary.rejected.push((index, reason));
                }
            }
            let summary = batch.write(&mut tx).await?;
            tx.commit().await?;
            Ok(summary)
        })
        .await
    }

    /// Keeps a message that cannot be stored, and deletes the oldest beyond the last thousand.
    ///
    /// # Errors
    ///
    /// The database's; [`StoreError::Deposed`].
    pub async fn store_dead_letter(&self, letter: &DeadLetter<'_>) -> Result<(), StoreError> {
        let end = letter.payload.len().min(DEAD_LETTER_BYTES);
        let mut tx = self.begin().await?;
        let id = sqlx::query_scalar!(
            "INSERT INTO dead_letter (subject, sequence, reason, payload)
             VALUES ($1, $2, $3, $4) RETURNING id",
            bounded(letter.subject, REASON),
            i64::try_from(letter.sequence).unwrap_or(i64::MAX),
            bounded(letter.reason, REASON),
            &letter.payload[..end]
        )
        .fetch_one(&mut *tx)
        .await?;
        sqlx::query!("DELETE FROM dead_letter WHERE id <= $1", id - DEAD_LETTERS)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }
}

/// Everything that one batch reads and writes.
struct Batch<'a> {
    jobs: BTreeMap<JobId, LockedJob>,
    known: HashMap<AttemptId, KnownAttempt>,
    /// Workers whose device broke at a job.
    broken: HashMap<JobId, HashSet<String>>,
    /// How often jobs that are declined were declined in the last minutes.
    declines: HashMap<JobId, i64>,
    /// What the reports of a config's jobs must be like.
    expected: HashMap<Uuid, Result<Expected, String>>,
    attempts: BTreeMap<AttemptId, AttemptRow>,
    epochs: Vec<&'a ResultMessage>,
    results: Vec<&'a ResultMessage>,
    conflicts: Vec<(&'a ResultMessage, Digest, Digest)>,
    /// The last that each attempt said of its program's output.
    outputs: BTreeMap<AttemptId, OutputRow>,
    /// Trainings whose weights are replaced.
    replaced: BTreeSet<JobId>,
    summary: IngestSummary,
}

impl<'a> Batch<'a> {
    async fn load(tx: &mut PgConnection, messages: &[ResultMessage]) -> Result<Self, StoreError> {
        let ids = distinct(messages.iter().map(|message| message.job.0));
        let mut jobs = lock_jobs(tx, &ids).await?;
        load_evaluated(tx, &mut jobs).await?;
        let attempts = distinct(messages.iter().map(|message| message.attempt.0));
        let known = read_attempts(tx, &attempts).await?;
        let broken = load_broken(tx, messages).await?;
        let declines = load_declines(tx, messages).await?;
        let configs = distinct(
            messages
                .iter()
                .filter(|message| check::needs_config(&message.body))
                .filter_map(|message| jobs.get(&message.job)?.config),
        );
        let expected = load_expected(tx, &configs).await?;
        Ok(Self {
            jobs,
            known,
            broken,
            declines,
            expected,
            attempts: BTreeMap::new(),
            epochs: Vec::new(),
            results: Vec::new(),
            conflicts: Vec::new(),
            outputs: BTreeMap::new(),
            replaced: BTreeSet::new(),
            summary: IngestSummary::default(),
        })
    }

    /// Applies one message; an error says why it was rejected.
    fn apply(&mut self, message: &'a ResultMessage, policy: &RetryPolicy) -> Result<(), String> {
        let job = self
            .jobs
            .get_mut(&message.job)
            .ok_or_else(|| format!("no job has the id {}", message.job))?;
        let known = self
            .known
            .get_mut(&message.attempt)
            .ok_or_else(|| format!("attempt {} was never granted", message.attempt))?;
        if known.job != message.job {
            return Err(format!("attempt {} is at another job", message.attempt));
        }
        if known.worker != bounded(&message.worker.name, NAME) {
            return Err(format!(
                "attempt {} was granted to worker {}",
                message.attempt, known.worker
            ));
        }
        let broken = self.broken.entry(message.job).or_default();
        job.after.broken_devices = (broken.len() - usize::from(broken.contains(&known.worker)))
            .try_into()
            .unwrap_or(i64::MAX);
        job.after.declines = self.declines.get(&message.job).copied().unwrap_or_default();
        let (now, before, state) = (job.now, known.attempt.clone(), job.after.state);
        let applied = check::report(message, job, &self.expected).and_then(|()| {
            job.after
                .apply(&mut known.attempt, &message.body, now, policy)
                .map_err(|rejected| rejected.to_string())
        });
        (job.after.broken_devices, job.after.declines) = (0, 0);
        if is_final(&message.body) {
            let ended = (known.worker.clone(), message.attempt);
            self.summary.ended.push(ended);
        }
        let effect = match applied {
            Ok(effect) => effect,
            Err(reason) => {
                // Its worker will say nothing else of it.
                if is_final(&message.body)
                    && job.after.reject(&mut known.attempt, &reason, now, policy)
                {
                    let row = self
                        .attempts
                        .entry(message.attempt)
                        .or_insert_with(|| AttemptRow::new(message));
                    row.reject(&reason, now);
                }
                return Err(reason);
            }
        };
        if job.after.state == JobState::Ready && state != JobState::Ready {
            self.summary.retried.extend(why_again(&message.body));
        }
        // What an attempt resumed from is only in the report of its start, which may come after an epoch's.
        if before != known.attempt || matches!(message.body, ResultBody::Started { .. }) {
            let row = self
                .attempts
                .entry(message.attempt)
                .or_insert_with(|| AttemptRow::new(message));
            row.update(message, &before, &known.attempt, now);
        }
        if let ResultBody::Declined { fault, .. } = &message.body {
            match fault.kind {
                FaultKind::Device => {
                    broken.insert(known.worker.clone());
                }
                FaultKind::Checkpoint => self.summary.missing.extend(job.train),
                _ => {}
            }
        }
        self.note(message, effect);
        Ok(())
    }

    /// Notes what is to be written beside jobs and attempts.
    fn note(&mut self, message: &'a ResultMessage, effect: Effect) {
        if matches!(message.body, ResultBody::Epoch(_)) {
            self.epochs.push(message);
        }
        if let Some(row) = OutputRow::of(message) {
            self.outputs.insert(message.attempt, row);
        }
        match effect {
            Effect::Nothing => {}
            Effect::Store(_) => {
                self.results.push(message);
                let job = self.jobs.get(&message.job);
                self.summary.stored.extend(job.map(|job| job.before.kind));
                // Its training cannot have other weights any more.
                if let Some(train) = self.jobs.get(&message.job).and_then(|job| job.train)
                    && let Some(train) = self.jobs.get_mut(&train)
                {
                    train.after.evaluated = true;
                }
            }
            Effect::Conflict { kept, refused } => self.conflicts.push((message, kept, refused)),
            Effect::Replace { old, new } => {
                self.conflicts.push((message, old, new));
                self.results.push(message);
                self.replaced.insert(message.job);
                for known in self.known.values_mut() {
                    let train = self.jobs.get(&known.job).and_then(|job| job.train);
                    if train == Some(message.job)
                        && known.attempt.outcome != Some(AttemptOutcome::Done)
                    {
                        known.attempt.void = true;
                    }
                }
            }
        }
    }
}

/// Why a job is tried again after this report, if it ends an attempt without a result.
fn why_again(body: &ResultBody) -> Option<&'static str> {
    match body {
        ResultBody::Failed(failure) => Some(label(failure.kind)),
        ResultBody::HandedBack { .. } => Some("handed_back"),
        ResultBody::Declined { .. } => Some("declined"),
        _ => None,
    }
}

/// Finds out which trainings, of those that are being done again, have evaluations with results.
async fn load_evaluated(
    tx: &mut PgConnection,
    jobs: &mut BTreeMap<JobId, LockedJob>,
) -> Result<(), StoreError> {
    let again: Vec<Uuid> = jobs
        .values()
        .map(|job| &job.before)
        .filter(|job| {
            job.kind == JobKind::Train && job.outcome.is_some() && job.state != JobState::Done
        })
        .map(|job| job.id.0)
        .collect();
    if again.is_empty() {
        return Ok(());
    }
    let evaluated = sqlx::query_scalar!(
        r#"SELECT DISTINCT train_job AS "train_job!" FROM job
           WHERE train_job = ANY($1) AND outcome IS NOT NULL"#,
        &again
    )
    .fetch_all(tx)
    .await?;
    for train in evaluated {
        if let Some(job) = jobs.get_mut(&JobId(train)) {
            job.before.evaluated = true;
            job.after.evaluated = true;
        }
    }
    Ok(())
}

/// The workers whose devices broke at the jobs of which the batch reports another one.
async fn load_broken(
    tx: &mut PgConnection,
    messages: &[ResultMessage],
) -> Result<HashMap<JobId, HashSet<String>>, StoreError> {
    let jobs = distinct(
        messages
            .iter()
            .filter(|message| {
                matches!(&message.body, ResultBody::Declined { fault, .. }
                         if fault.kind == FaultKind::Device)
            })
            .map(|message| message.job.0),
    );
    let mut broken: HashMap<JobId, HashSet<String>> = HashMap::new();
    if jobs.is_empty() {
        return Ok(broken);
    }
    for row in sqlx::query!(
        "SELECT DISTINCT job, worker FROM attempt WHERE job = ANY($1) AND failure_kind = $2",
        &jobs,
        FaultKind::Device.as_str()
    )
    .fetch_all(tx)
    .await?
    {
        broken.entry(JobId(row.job)).or_default().insert(row.worker);
    }
    Ok(broken)
}

/// What the reports of these configs' jobs must be like, or why that is unknown.
async fn load_expected(
    tx: &mut PgConnection,
    configs: &[Uuid],
) -> Result<HashMap<Uuid, Result<Expected, String>>, StoreError> {
    if configs.is_empty() {
        return Ok(HashMap::new());
    }
    let specs = read_configs(tx, configs).await?;
    let files: Vec<String> = specs
        .values()
        .flatten()
        .map(|spec| spec.data.blake3.clone())
        .collect();
    let samples: HashMap<String, i32> = sqlx::query!(
        "SELECT blake3, test_samples FROM dataset WHERE blake3 = ANY($1)",
        &files
    )
    .fetch_all(tx)
    .await?
    .into_iter()
    .map(|row| (row.blake3, row.test_samples))
    .collect();
    Ok(specs
        .into_iter()
        .map(|(id, spec)| {
            let expected = spec.map(|spec| Expected::new(&spec, samples.get(&spec.data.blake3)));
            (id, expected)
        })
        .collect())
}

/// A number from the wire, where numbers are small; one too large counts as the largest.
fn int<T: TryInto<i32>>(number: T) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}

/// How often the jobs that are declined were declined in the last ten minutes.
async fn load_declines(
    tx: &mut PgConnection,
    messages: &[ResultMessage],
) -> Result<HashMap<JobId, i64>, StoreError> {
    let jobs: Vec<Uuid> = messages
        .iter()
        .filter(|message| matches!(message.body, ResultBody::Declined { .. }))
        .map(|message| message.job.0)
        .collect();
    if jobs.is_empty() {
        return Ok(HashMap::new());
    }
    Ok(sqlx::query!(
        r#"SELECT job, count(*) AS "times!" FROM attempt
           WHERE job = ANY($1) AND outcome = 'handed_back' AND failure_kind IS NOT NULL
             AND ended > now() - interval '10 minutes'
           GROUP BY job"#,
        &jobs
    )
    .fetch_all(tx)
    .await?
    .into_iter()
    .map(|row| (JobId(row.job), row.times))
    .collect())
}
