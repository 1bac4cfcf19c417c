//! Writing what a batch came to: one statement per table.

use super::{
    Batch,
    rows::{
        AttemptColumns, CheckpointColumns, CheckpointRow, EpochColumns, EpochRow,
        EvaluationColumns, EvaluationRow, JobColumns, JobRow, PredictionColumns, PredictionRow,
        ValueColumns, ValueRow,
    },
};
use crate::{
    JobKind, JobState, StoreError, give_up::fail_evaluations, job::AttemptOutcome, lifecycle::Job,
};
use chrono::{DateTime, Utc};
use halfheard_shared::wire::ResultBody;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

/// Declined attempts that are kept per job.
const DECLINED_KEPT: i64 = 50;

impl Batch<'_> {
    /// Writes everything; returns how many jobs became ready.
    pub(super) async fn write(
        mut self,
        tx: &mut Transaction<'_, Postgres>,
    ) -> Result<u64, StoreError> {
        self.write_attempts(tx).await?;
        self.write_lost_attempts(tx).await?;
        let retried = self.write_jobs(tx).await?;
        self.write_epochs(tx).await?;
        self.write_checkpoints(tx).await?;
        self.write_evaluations(tx).await?;
        self.write_conflicts(tx).await?;

        let trained = |state: JobState| -> Vec<Uuid> {
            self.jobs
                .values()
                .filter(|(_, job)| job.kind == JobKind::Train && job.state == state)
                .map(|(_, job)| job.id.0)
                .collect()
        };
        let failed = trained(JobState::Failed);
        if !failed.is_empty() {
            fail_evaluations(tx, &failed).await?;
        }
        let done = trained(JobState::Done);
        let mut released = 0;
        if !done.is_empty() {
            // An evaluation that failed without a publication failed with its training job.
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

    async fn write_attempts(
        &mut self,
        tx: &mut Transaction<'_, Postgres>,
    ) -> Result<(), StoreError> {
        if self.attempts.is_empty() {
            return Ok(());
        }
        let attempts = std::mem::take(&mut self.attempts);
        let declined: Vec<Uuid> = attempts
            .values()
            .filter(|row| row.is_declined())
            .map(|row| row.job)
            .collect();
        let rows: AttemptColumns = attempts.into_values().collect();
        let outcomes: Vec<Option<&str>> = rows
            .outcome
            .iter()
            .map(|outcome| outcome.map(AttemptOutcome::as_str))
            .collect();
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
            &rows.id,
            &rows.job,
            &rows.publication,
            &rows.delivery as &[Option<i64>],
            &rows.worker,
            &rows.host,
            &rows.device,
            &rows.version,
            &rows.started as &[Option<DateTime<Utc>>],
            &rows.resumed_after_epoch as &[Option<i32>],
            &rows.ended as &[Option<DateTime<Utc>>],
            &outcomes as &[Option<&str>],
            &rows.failure_kind as &[Option<&str>],
            &rows.errors,
            &rows.epochs as &[Option<i32>],
            &rows.seconds as &[Option<f64>],
            &rows.processor,
        )
        .execute(&mut **tx)
        .await?;
        if !declined.is_empty() {
            delete_old_declined(tx, &declined).await?;
        }
        Ok(())
    }

    /// Marks as lost the open attempts at a job at which another attempt has begun.
    async fn write_lost_attempts(
        &self,
        tx: &mut Transaction<'_, Postgres>,
    ) -> Result<(), StoreError> {
        if self.superseded.is_empty() {
            return Ok(());
        }
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
        Ok(())
    }

    /// Returns how many jobs became ready for a retry.
    async fn write_jobs(&self, tx: &mut Transaction<'_, Postgres>) -> Result<u64, StoreError> {
        let changed: Vec<(&Job, &Job)> = self
            .jobs
            .values()
            .filter(|(before, after)| before != after)
            .map(|(before, after)| (before, after))
            .collect();
        // Two statements, because the trigger runs for every row of one that sets `state`: only rows
        // whose state changes are worth that.
        for state_changes in [false, true] {
            let rows: JobColumns = changed
                .iter()
                .filter(|(before, after)| (before.state != after.state) == state_changes)
                .map(|(_, after)| JobRow::from(*after))
                .collect();
            if rows.id.is_empty() {
                continue;
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
                &rows.id,
                &rows.state as &[&str],
                &rows.publication,
                &rows.failures,
                &rows.attempt as &[Option<Uuid>],
                &rows.outcome as &[Option<Vec<u8>>],
                &rows.started as &[Option<DateTime<Utc>>],
                &rows.finished as &[Option<DateTime<Utc>>],
                &rows.last_error as &[Option<String>],
                &rows.delay,
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
        let rows: EpochColumns = self
            .epochs
            .iter()
            .filter_map(|message| match &message.body {
                ResultBody::Epoch(log) => Some(EpochRow::new(message.job, message.attempt, log)),
                _ => None,
            })
            .collect();
        if rows.job.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "INSERT INTO epoch_log (job, epoch, attempt, losses, metrics, train_seconds,
                                    eval_seconds, best_for)
             SELECT i.job, i.epoch, i.attempt, i.losses, i.metrics, i.train_seconds,
                    i.eval_seconds, ARRAY(SELECT jsonb_array_elements_text(i.best))
             FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::jsonb[], $5::jsonb[],
                         $6::float8[], $7::float8[], $8::jsonb[])
                  AS i (job, epoch, attempt, losses, metrics, train_seconds, eval_seconds, best)
             ON CONFLICT (job, epoch) DO NOTHING",
            &rows.job,
            &rows.epoch,
            &rows.attempt,
            &rows.losses,
            &rows.metrics,
            &rows.train_seconds,
            &rows.eval_seconds,
            &rows.best_for,
        )
        .execute(&mut **tx)
        .await?;
        super::conflicts::write_epoch_conflicts(tx, &rows).await
    }

    async fn write_checkpoints(
        &self,
        tx: &mut Transaction<'_, Postgres>,
    ) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        for message in &self.results {
            if let ResultBody::Trained { checkpoints, .. } = &message.body {
                let row = |c| CheckpointRow::new(message.job, message.attempt, c);
                rows.extend(checkpoints.iter().map(row));
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let rows: CheckpointColumns = rows.into_iter().collect();
        sqlx::query!(
            "INSERT INTO checkpoint (job, criterion, epoch, blake3, bytes, attempt)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::text[],
                                  $5::bigint[], $6::uuid[])
             ON CONFLICT (job, criterion) DO NOTHING",
            &rows.job,
            &rows.criterion,
            &rows.epoch,
            &rows.blake3,
            &rows.bytes,
            &rows.attempt,
        )
        .execute(&mut **tx)
        .await?;
        Ok(())
    }

    async fn write_evaluations(
        &self,
        tx: &mut Transaction<'_, Postgres>,
    ) -> Result<(), StoreError> {
        let (mut predicted, mut evaluated, mut measured) = (Vec::new(), Vec::new(), Vec::new());
        for message in &self.results {
            if let ResultBody::Evaluated {
                results,
                predictions,
                ..
            } = &message.body
            {
                for (number, vector) in predictions.iter().enumerate() {
                    predicted.push(PredictionRow::new(message.job, number, vector));
                }
                for result in results {
                    evaluated.push(EvaluationRow::new(message.job, message.attempt, result));
                    measured.extend(ValueRow::of(message.job, result));
                }
            }
        }
        if evaluated.is_empty() && predicted.is_empty() {
            return Ok(());
        }
        let predictions: PredictionColumns = predicted.into_iter().collect();
        let evaluations: EvaluationColumns = evaluated.into_iter().collect();
        let values: ValueColumns = measured.into_iter().collect();
        sqlx::query!(
            "INSERT INTO prediction (job, number, samples, data)
             SELECT * FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::bytea[])
             ON CONFLICT DO NOTHING",
            &predictions.job,
            &predictions.number,
            &predictions.samples,
            &predictions.data,
        )
        .execute(&mut **tx)
        .await?;
        sqlx::query!(
            "INSERT INTO evaluation (job, criterion, epoch, prediction, attempt)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::integer[],
                                  $5::uuid[])
             ON CONFLICT DO NOTHING",
            &evaluations.job,
            &evaluations.criterion,
            &evaluations.epoch,
            &evaluations.prediction,
            &evaluations.attempt,
        )
        .execute(&mut **tx)
        .await?;
        sqlx::query!(
            "INSERT INTO result (job, criterion, metric, value)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::float8[])
             ON CONFLICT DO NOTHING",
            &values.job,
            &values.criterion,
            &values.metric,
            &values.value as &[Option<f64>],
        )
        .execute(&mut **tx)
        .await?;
        Ok(())
    }
}

/// Deletes the oldest declined attempts beyond [`DECLINED_KEPT`]: a job may circulate for days until
/// somebody supplies what the workers lack. An attempt with epochs stays, because they refer to it.
async fn delete_old_declined(
    tx: &mut Transaction<'_, Postgres>,
    jobs: &[Uuid],
) -> Result<(), StoreError> {
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
        jobs,
        DECLINED_KEPT
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
