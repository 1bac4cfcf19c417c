//! Taking in what workers report: one transaction for a batch of messages.
//!
//! Jobs and attempts that the batch concerns are read and locked, [`crate::lifecycle`] decides
//! what the messages mean, and everything is written with one statement a table.

use super::{JobKind, JobState, Store, StoreError, types::AttemptOutcome};
use crate::lifecycle::{Attempt, Digest, Effect, Job, Nonsense, RetryPolicy};
use chrono::{DateTime, Utc};
use missbench_shared::{
    ids::{AttemptId, JobId},
    wire::{FailureKind, ResultBody, ResultMessage},
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

    /// Gives up a job whose result the database does not take, and the evaluations that wait for
    /// it: publishing it again would bring the same result.
    pub async fn fail_untakable(&self, job: JobId, reason: &str) -> Result<(), StoreError> {
        let mut tx = self.pool().begin().await?;
        sqlx::query!(
            "UPDATE job SET state = 'failed', last_error = $2, finished = now()
             WHERE id = $1 AND state IN ('ready', 'queued', 'running')",
            job.0,
            clean(reason)
        )
        .execute(&mut *tx)
        .await?;
        fail_evaluations(&mut tx, &[job.0]).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Marks evaluations failed whose training failed.
async fn fail_evaluations(tx: &mut PgConnection, trains: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE job SET state = 'failed', finished = now(),
                        last_error = 'its training failed: ' || coalesce(t.last_error, 'see its attempts')
         FROM job t
         WHERE t.id = ANY($1) AND t.state = 'failed'
           AND job.train_job = t.id AND job.state = 'blocked'",
        trains
    )
    .execute(tx)
    .await?;
    Ok(())
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

    /// Writes everything; returns how many jobs became ready.
    async fn write(self, tx: &mut Transaction<'_, Postgres>) -> Result<u64, StoreError> {
        self.write_attempts(tx).await?;
        let retried = self.write_jobs(tx).await?;
        self.write_epochs(tx).await?;
        self.write_checkpoints(tx).await?;
        self.write_evaluations(tx).await?;
        self.write_conflicts(tx).await?;

        let trains = |state: JobState| -> Vec<Uuid> {
            self.jobs
                .values()
                .filter(|(_, job)| job.kind == JobKind::Train && job.state == state)
                .map(|(_, job)| job.id.0)
                .collect()
        };
        let failed = trains(JobState::Failed);
        if !failed.is_empty() {
            fail_evaluations(tx, &failed).await?;
        }
        let done = trains(JobState::Done);
        let mut released = 0;
        if !done.is_empty() {
            // An evaluation that failed and was never published failed with its training.
            released = sqlx::query!(
                "UPDATE job SET state = 'ready', last_error = NULL, finished = NULL
                 WHERE train_job = ANY($1)
                   AND (state = 'blocked' OR (state = 'failed' AND publication = 0))",
                &done
            )
            .execute(&mut **tx)
            .await?
            .rows_affected();
        }
        Ok(retried + released)
    }

    async fn write_attempts(&self, tx: &mut Transaction<'_, Postgres>) -> Result<(), StoreError> {
        if self.attempts.is_empty() {
            return Ok(());
        }
        let drafts: Vec<&Draft> = self.attempts.values().collect();
        macro_rules! column {
            ($value:expr) => {
                drafts.iter().map($value).collect::<Vec<_>>()
            };
        }
        sqlx::query!(
            "INSERT INTO attempt AS a (id, job, publication, delivery, worker, host, device,
                                       version, started, resumed_after_epoch, ended, outcome,
                                       failure_kind, errors, epochs, seconds)
             SELECT i.id, i.job, i.publication, i.delivery, i.worker, i.host, i.device,
                    i.version, i.started, i.resumed, i.ended, i.outcome::attempt_outcome,
                    i.failure_kind, ARRAY(SELECT jsonb_array_elements_text(i.errors)),
                    i.epochs, i.seconds
             FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::bigint[], $5::text[],
                         $6::text[], $7::text[], $8::text[], $9::timestamptz[], $10::integer[],
                         $11::timestamptz[], $12::text[], $13::text[], $14::jsonb[],
                         $15::integer[], $16::float8[])
                  AS i (id, job, publication, delivery, worker, host, device, version, started,
                        resumed, ended, outcome, failure_kind, errors, epochs, seconds)
             ON CONFLICT (id) DO UPDATE SET
                 delivery = coalesce(a.delivery, EXCLUDED.delivery),
                 started = coalesce(a.started, EXCLUDED.started),
                 resumed_after_epoch = coalesce(a.resumed_after_epoch, EXCLUDED.resumed_after_epoch),
                 ended = CASE WHEN a.outcome = 'lost' THEN coalesce(EXCLUDED.ended, a.ended)
                              ELSE coalesce(a.ended, EXCLUDED.ended) END,
                 outcome = coalesce(EXCLUDED.outcome, a.outcome),
                 failure_kind = coalesce(a.failure_kind, EXCLUDED.failure_kind),
                 errors = CASE WHEN a.errors = '{}' THEN EXCLUDED.errors ELSE a.errors END,
                 epochs = coalesce(a.epochs, EXCLUDED.epochs),
                 seconds = coalesce(a.seconds, EXCLUDED.seconds)",
            &column!(|d| d.attempt.id.0),
            &column!(|d| d.job.0),
            &column!(|d| d.publication),
            &column!(|d| d.delivery) as &[Option<i64>],
            &column!(|d| d.worker.clone()),
            &column!(|d| d.host.clone()),
            &column!(|d| d.device.clone()),
            &column!(|d| d.version.clone()),
            &column!(|d| d.started) as &[Option<DateTime<Utc>>],
            &column!(|d| d.resumed) as &[Option<i32>],
            &column!(|d| d.ended) as &[Option<DateTime<Utc>>],
            &column!(|d| d.attempt.outcome.map(|o| o.as_str().to_owned())) as &[Option<String>],
            &column!(|d| d.failure_kind.map(str::to_owned)) as &[Option<String>],
            &column!(|d| d.errors.clone()),
            &column!(|d| d.epochs) as &[Option<i32>],
            &column!(|d| d.seconds) as &[Option<f64>],
        )
        .execute(&mut **tx)
        .await?;
        if !self.superseded.is_empty() {
            let (jobs, attempts): (Vec<Uuid>, Vec<Uuid>) = self
                .superseded
                .iter()
                .map(|(job, attempt)| (job.0, attempt.0))
                .unzip();
            sqlx::query!(
                "UPDATE attempt SET outcome = 'lost', ended = now()
                 FROM unnest($1::uuid[], $2::uuid[]) AS s (job, attempt)
                 WHERE attempt.job = s.job AND attempt.id <> ALL ($2)
                   AND attempt.outcome IS NULL",
                &jobs,
                &attempts
            )
            .execute(&mut **tx)
            .await?;
        }
        Ok(())
    }

    /// Returns how many jobs are to be tried again.
    async fn write_jobs(&self, tx: &mut Transaction<'_, Postgres>) -> Result<u64, StoreError> {
        let changed: Vec<(&Job, &Job)> = self
            .jobs
            .values()
            .filter(|(before, after)| before != after)
            .map(|(before, after)| (before, after))
            .collect();
        // The trigger is asked only about rows whose state changes.
        for state_changes in [false, true] {
            let jobs: Vec<&Job> = changed
                .iter()
                .filter(|(before, after)| (before.state != after.state) == state_changes)
                .map(|(_, after)| *after)
                .collect();
            if jobs.is_empty() {
                continue;
            }
            macro_rules! column {
                ($value:expr) => {
                    jobs.iter().map($value).collect::<Vec<_>>()
                };
            }
            sqlx::query!(
                "UPDATE job SET
                     state = i.state::job_state, publication = i.publication,
                     failures = i.failures, attempt = i.attempt, outcome = i.outcome,
                     started = i.started, finished = i.finished, last_error = i.last_error,
                     not_before = CASE WHEN i.delay > 0 THEN now() + make_interval(secs => i.delay)
                                       ELSE job.not_before END
                 FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::integer[], $5::uuid[],
                             $6::bytea[], $7::timestamptz[], $8::timestamptz[], $9::text[],
                             $10::float8[])
                      AS i (id, state, publication, failures, attempt, outcome, started, finished,
                            last_error, delay)
                 WHERE job.id = i.id",
                &column!(|j| j.id.0),
                &column!(|j| j.state.as_str().to_owned()),
                &column!(|j| j.publication),
                &column!(|j| j.failures),
                &column!(|j| j.attempt.map(|attempt| attempt.0)) as &[Option<Uuid>],
                &column!(|j| j.outcome.map(|digest| digest.to_vec())) as &[Option<Vec<u8>>],
                &column!(|j| j.started) as &[Option<DateTime<Utc>>],
                &column!(|j| j.finished) as &[Option<DateTime<Utc>>],
                &column!(|j| j.last_error.as_deref().map(clean)) as &[Option<String>],
                &column!(|j| j.delay.as_secs_f64()),
            )
            .execute(&mut **tx)
            .await?;
        }
        Ok(changed
            .iter()
            .filter(|(_, after)| after.state == JobState::Ready)
            .count() as u64)
    }

    async fn write_epochs(&self, tx: &mut Transaction<'_, Postgres>) -> Result<(), StoreError> {
        let logs: Vec<_> = self
            .epochs
            .iter()
            .filter_map(|message| match &message.body {
                ResultBody::Epoch(log) => Some((message.job, message.attempt, log)),
                _ => None,
            })
            .collect();
        if logs.is_empty() {
            return Ok(());
        }
        macro_rules! column {
            ($value:expr) => {
                logs.iter().map($value).collect::<Vec<_>>()
            };
        }
        let jobs = column!(|(job, _, _)| job.0);
        let epochs = column!(|(_, _, log)| int(log.epoch));
        let attempts = column!(|(_, attempt, _)| attempt.0);
        let losses = column!(|(_, _, log)| json(&log.losses));
        let metrics = column!(|(_, _, log)| json(&log.metrics));
        let best = column!(|(_, _, log)| json(&log.best_for));
        sqlx::query!(
            "INSERT INTO epoch_log (job, epoch, attempt, losses, metrics, train_seconds,
                                    eval_seconds, best_for)
             SELECT i.job, i.epoch, i.attempt, i.losses, i.metrics, i.train_seconds,
                    i.eval_seconds, ARRAY(SELECT jsonb_array_elements_text(i.best))
             FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::jsonb[], $5::jsonb[],
                         $6::float8[], $7::float8[], $8::jsonb[])
                  AS i (job, epoch, attempt, losses, metrics, train_seconds, eval_seconds, best)
             ON CONFLICT (job, epoch) DO NOTHING",
            &jobs,
            &epochs,
            &attempts,
            &losses,
            &metrics,
            &column!(|(_, _, log)| log.train_seconds),
            &column!(|(_, _, log)| log.eval_seconds),
            &best,
        )
        .execute(&mut **tx)
        .await?;
        // An epoch that was trained twice must have come out the same twice.
        sqlx::query!(
            "INSERT INTO conflict (job, attempt, what, kept, refused, content)
             SELECT i.job, i.attempt, 'epoch ' || i.epoch,
                    substr(sha256(convert_to(e.losses::text || e.metrics::text, 'UTF8')), 1, 16),
                    substr(sha256(convert_to(i.losses::text || i.metrics::text, 'UTF8')), 1, 16),
                    jsonb_build_object('losses', i.losses, 'metrics', i.metrics)
             FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::jsonb[], $5::jsonb[])
                  AS i (job, epoch, attempt, losses, metrics)
             JOIN epoch_log e USING (job, epoch)
             WHERE e.losses <> i.losses OR e.metrics <> i.metrics
             ON CONFLICT DO NOTHING",
            &jobs,
            &epochs,
            &attempts,
            &losses,
            &metrics,
        )
        .execute(&mut **tx)
        .await?;
        Ok(())
    }

    async fn write_checkpoints(
        &self,
        tx: &mut Transaction<'_, Postgres>,
    ) -> Result<(), StoreError> {
        let rows: Vec<_> = self
            .results
            .iter()
            .filter_map(|message| match &message.body {
                ResultBody::Trained { checkpoints, .. } => Some((message, checkpoints)),
                _ => None,
            })
            .flat_map(|(message, checkpoints)| checkpoints.iter().map(move |c| (message, c)))
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        macro_rules! column {
            ($value:expr) => {
                rows.iter().map($value).collect::<Vec<_>>()
            };
        }
        sqlx::query!(
            "INSERT INTO checkpoint (job, criterion, epoch, blake3, bytes, attempt)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::text[],
                                  $5::bigint[], $6::uuid[])
             ON CONFLICT (job, criterion) DO NOTHING",
            &column!(|(m, _)| m.job.0),
            &column!(|(_, c)| c.criterion.clone()),
            &column!(|(_, c)| int(c.epoch)),
            &column!(|(_, c)| c.blake3.clone()),
            &column!(|(_, c)| i64::try_from(c.bytes).unwrap_or(i64::MAX)),
            &column!(|(m, _)| m.attempt.0),
        )
        .execute(&mut **tx)
        .await?;
        Ok(())
    }

    async fn write_evaluations(
        &self,
        tx: &mut Transaction<'_, Postgres>,
    ) -> Result<(), StoreError> {
        let mut predictions = Columns4::default();
        let mut evaluations = Columns5::default();
        let mut values: (Vec<Uuid>, Vec<String>, Vec<String>, Vec<Option<f64>>) =
            Default::default();
        for message in &self.results {
            let ResultBody::Evaluated {
                results,
                predictions: vectors,
            } = &message.body
            else {
                continue;
            };
            for (number, vector) in vectors.iter().enumerate() {
                predictions.0.push(message.job.0);
                predictions
                    .1
                    .push(i32::try_from(number).unwrap_or(i32::MAX));
                predictions
                    .2
                    .push(i32::try_from(vector.len()).unwrap_or(i32::MAX));
                predictions.3.push(
                    vector
                        .iter()
                        .flat_map(|value| value.to_le_bytes())
                        .collect(),
                );
            }
            for result in results {
                evaluations.0.push(message.job.0);
                evaluations.1.push(result.criterion.clone());
                evaluations.2.push(int(result.epoch));
                evaluations.3.push(int(result.predictions));
                evaluations.4.push(message.attempt.0);
                for (metric, value) in &result.metrics {
                    values.0.push(message.job.0);
                    values.1.push(result.criterion.clone());
                    values.2.push(metric.clone());
                    // An undefined metric is NULL; it is never NaN.
                    values.3.push(value.filter(|value| value.is_finite()));
                }
            }
        }
        if evaluations.0.is_empty() && predictions.0.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "INSERT INTO prediction (job, number, samples, data)
             SELECT * FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::bytea[])
             ON CONFLICT DO NOTHING",
            &predictions.0,
            &predictions.1,
            &predictions.2,
            &predictions.3,
        )
        .execute(&mut **tx)
        .await?;
        sqlx::query!(
            "INSERT INTO evaluation (job, criterion, epoch, prediction, attempt)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::integer[],
                                  $5::uuid[])
             ON CONFLICT DO NOTHING",
            &evaluations.0,
            &evaluations.1,
            &evaluations.2,
            &evaluations.3,
            &evaluations.4,
        )
        .execute(&mut **tx)
        .await?;
        sqlx::query!(
            "INSERT INTO result (job, criterion, metric, value)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::float8[])
             ON CONFLICT DO NOTHING",
            &values.0,
            &values.1,
            &values.2,
            &values.3 as &[Option<f64>],
        )
        .execute(&mut **tx)
        .await?;
        Ok(())
    }

    async fn write_conflicts(&self, tx: &mut Transaction<'_, Postgres>) -> Result<(), StoreError> {
        for (message, kept, refused) in &self.conflicts {
            let (what, content) = match &message.body {
                ResultBody::Trained {
                    checkpoints,
                    epochs,
                    ..
                } => (
                    "trained",
                    serde_json::json!({ "checkpoints": checkpoints, "epochs": epochs }),
                ),
                ResultBody::Evaluated { results, .. } => {
                    ("evaluated", serde_json::json!({ "results": results }))
                }
                _ => continue,
            };
            tracing::warn!(job = %message.job, attempt = %message.attempt, what,
                "a result differs from the one that stands; it is kept as a conflict");
            sqlx::query!(
                "INSERT INTO conflict (job, attempt, what, kept, refused, content)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                message.job.0,
                message.attempt.0,
                what,
                kept.as_slice(),
                refused.as_slice(),
                content
            )
            .execute(&mut **tx)
            .await?;
        }
        Ok(())
    }
}

/// Columns of the table prediction.
type Columns4 = (Vec<Uuid>, Vec<i32>, Vec<i32>, Vec<Vec<u8>>);
/// Columns of the table evaluation.
type Columns5 = (Vec<Uuid>, Vec<String>, Vec<i32>, Vec<i32>, Vec<Uuid>);

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
            ResultBody::Evaluated { .. } | ResultBody::Noop => {}
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

fn json<T: serde::Serialize>(value: &T) -> serde_json::Value {
    // Maps of strings to numbers and lists of strings always have a JSON form.
    serde_json::to_value(value).unwrap_or_default()
}
