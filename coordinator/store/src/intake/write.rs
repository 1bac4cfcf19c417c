//! Writing what a batch came to: one statement a table.

use super::{Batch, Draft, clean, int};
use crate::{
    JobKind, JobState, StoreError, give_up::fail_evaluations, lifecycle::Job, types::AttemptOutcome,
};
use chrono::{DateTime, Utc};
use halfheard_shared::wire::{ResultBody, ResultMessage};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

/// Attempts at one job that ended with a fault of their worker: so many are kept.
const DECLINED_KEPT: i64 = 50;

/// Columns of the table prediction.
type Columns4 = (Vec<Uuid>, Vec<i32>, Vec<i32>, Vec<Vec<u8>>);
/// Columns of the table evaluation.
type Columns5 = (Vec<Uuid>, Vec<String>, Vec<i32>, Vec<i32>, Vec<Uuid>);

impl Batch<'_> {
    /// Writes everything; returns how many jobs became ready.
    pub(super) async fn write(self, tx: &mut Transaction<'_, Postgres>) -> Result<u64, StoreError> {
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
                                       failure_kind, errors, epochs, seconds, processor)
             SELECT i.id, i.job, i.publication, i.delivery, i.worker, i.host, i.device,
                    i.version, i.started, i.resumed, i.ended, i.outcome::attempt_outcome,
                    i.failure_kind, ARRAY(SELECT jsonb_array_elements_text(i.errors)),
                    i.epochs, i.seconds, i.processor
             FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::bigint[], $5::text[],
                         $6::text[], $7::text[], $8::text[], $9::timestamptz[], $10::integer[],
                         $11::timestamptz[], $12::text[], $13::text[], $14::jsonb[],
                         $15::integer[], $16::float8[], $17::text[])
                  AS i (id, job, publication, delivery, worker, host, device, version, started,
                        resumed, ended, outcome, failure_kind, errors, epochs, seconds, processor)
             ON CONFLICT (id) DO UPDATE SET
                 delivery = coalesce(a.delivery, EXCLUDED.delivery),
                 started = greatest(a.started, EXCLUDED.started),
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
            &column!(|d| d.processor.clone()),
        )
        .execute(&mut **tx)
        .await?;
        self.forget_declined(tx).await?;
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

    /// Of jobs that workers declined, forgets the oldest such attempts of very many: a job may go
    /// round for days until somebody brings what the workers lack. Those that trained stay, because
    /// their epochs are theirs.
    async fn forget_declined(&self, tx: &mut Transaction<'_, Postgres>) -> Result<(), StoreError> {
        let declined = |draft: &&Draft| {
            draft.attempt.outcome == Some(AttemptOutcome::HandedBack)
                && draft.failure_kind.is_some()
        };
        let jobs: Vec<Uuid> = self
            .attempts
            .values()
            .filter(declined)
            .map(|draft| draft.job.0)
            .collect();
        if jobs.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "DELETE FROM attempt WHERE id IN (
                 SELECT id FROM (
                     SELECT a.id, row_number() OVER (PARTITION BY a.job
                                                     ORDER BY a.publication DESC, a.id) AS place
                     FROM attempt a
                     WHERE a.job = ANY($1) AND a.outcome = 'handed_back'
                       AND a.failure_kind IS NOT NULL
                 ) d
                 WHERE d.place > $2
                   AND NOT EXISTS (SELECT FROM epoch_log e WHERE e.attempt = d.id)
                   AND NOT EXISTS (SELECT FROM job j WHERE j.attempt = d.id))",
            &jobs,
            DECLINED_KEPT
        )
        .execute(&mut **tx)
        .await?;
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
        // An epoch that was trained twice must have come out the same twice, if on the same kind of
        // processor.
        sqlx::query!(
            "INSERT INTO other_processor (job, what, processor, attempt, digest, content)
             SELECT i.job, 'epoch ' || i.epoch, a.processor, i.attempt,
                    substr(sha256(convert_to(i.losses::text || i.metrics::text, 'UTF8')), 1, 16),
                    jsonb_build_object('losses', i.losses, 'metrics', i.metrics)
             FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::jsonb[], $5::jsonb[])
                  AS i (job, epoch, attempt, losses, metrics)
             JOIN epoch_log e USING (job, epoch)
             JOIN attempt a ON a.id = i.attempt
             JOIN attempt b ON b.id = e.attempt
             WHERE (e.losses <> i.losses OR e.metrics <> i.metrics)
               AND a.processor <> b.processor AND a.processor <> '' AND b.processor <> ''
             ON CONFLICT DO NOTHING",
            &jobs,
            &epochs,
            &attempts,
            &losses,
            &metrics,
        )
        .execute(&mut **tx)
        .await?;
        sqlx::query!(
            "INSERT INTO conflict (job, attempt, what, kept, refused, content)
             SELECT i.job, i.attempt, 'epoch ' || i.epoch, coalesce(o.digest, d.stands), d.came,
                    jsonb_build_object('losses', i.losses, 'metrics', i.metrics)
             FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::jsonb[], $5::jsonb[])
                  AS i (job, epoch, attempt, losses, metrics)
             JOIN epoch_log e USING (job, epoch)
             JOIN attempt a ON a.id = i.attempt
             LEFT JOIN other_processor o ON o.job = i.job AND o.what = 'epoch ' || i.epoch
                                        AND o.processor = a.processor
             CROSS JOIN LATERAL (SELECT
                 substr(sha256(convert_to(e.losses::text || e.metrics::text, 'UTF8')), 1, 16),
                 substr(sha256(convert_to(i.losses::text || i.metrics::text, 'UTF8')), 1, 16)
             ) AS d (stands, came)
             WHERE (e.losses <> i.losses OR e.metrics <> i.metrics)
               AND o.digest IS DISTINCT FROM d.came
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
                ..
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
            let mut kept = kept.to_vec();
            match self.on_other(tx, message, what, refused, &content).await? {
                Other::Same => {}
                Other::First => continue,
                Other::Again(digest) if digest == refused => continue,
                Other::Again(digest) => kept = digest,
            }
            tracing::warn!(job = %message.job, attempt = %message.attempt, what,
                "a result differs from the one that stands; it is kept as a conflict");
            sqlx::query!(
                "INSERT INTO conflict (job, attempt, what, kept, refused, content)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                message.job.0,
                message.attempt.0,
                what,
                kept,
                refused.as_slice(),
                content
            )
            .execute(&mut **tx)
            .await?;
        }
        Ok(())
    }

    /// Compares the kind of processor of a result with that of the one that stands, from which it
    /// differs, and keeps it where it is the first of another kind.
    async fn on_other(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        message: &ResultMessage,
        what: &str,
        digest: &[u8],
        content: &serde_json::Value,
    ) -> Result<Other, StoreError> {
        let processor = clean(&message.worker.processor);
        let standing = sqlx::query_scalar!(
            "SELECT a.processor FROM attempt a
             WHERE a.id = coalesce((SELECT attempt FROM checkpoint WHERE job = $1 LIMIT 1),
                                   (SELECT attempt FROM evaluation WHERE job = $1 LIMIT 1))",
            message.job.0
        )
        .fetch_optional(&mut **tx)
        .await?
        .unwrap_or_default();
        if standing == processor || standing.is_empty() || processor.is_empty() {
            return Ok(Other::Same);
        }
        let first = sqlx::query!(
            "INSERT INTO other_processor (job, what, processor, attempt, digest, content)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
            message.job.0,
            what,
            processor,
            message.attempt.0,
            digest,
            content
        )
        .execute(&mut **tx)
        .await?;
        if first.rows_affected() > 0 {
            tracing::info!(job = %message.job, attempt = %message.attempt, what, processor, standing,
                "a result of another kind of processor differs, as it may");
            return Ok(Other::First);
        }
        let earlier = sqlx::query_scalar!(
            "SELECT digest FROM other_processor WHERE job = $1 AND what = $2 AND processor = $3",
            message.job.0,
            what,
            processor
        )
        .fetch_one(&mut **tx)
        .await?;
        Ok(Other::Again(earlier))
    }
}

/// How a result that differs from the one that stands is to be compared.
enum Other {
    /// It is of the same kind of processor, or one of the two is not known.
    Same,
    /// It is the first of its kind.
    First,
    /// It is not: the first had this hash.
    Again(Vec<u8>),
}

fn json<T: serde::Serialize>(value: &T) -> serde_json::Value {
    // Maps of strings to numbers and lists of strings always have a JSON form.
    serde_json::to_value(value).unwrap_or_default()
}
