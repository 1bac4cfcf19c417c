//! Writing what a batch came to: one statement per table.

use super::{
    Batch, IngestSummary,
    rows::{
        AttemptColumns, CheckpointColumns, CheckpointRow, EpochColumns, EpochRow,
        EvaluationColumns, EvaluationRow, OutputColumns, PredictionColumns, PredictionRow,
        ValueColumns, ValueRow,
    },
};
use crate::{
    JobKind, JobState, StoreError,
    give_up::{fail_evaluations, release_evaluations},
    job::AttemptOutcome,
    job_rows::{end_attempts, write_jobs},
};
use chrono::{DateTime, Utc};
use halfheard_shared::wire::ResultBody;
use sqlx::PgConnection;
use uuid::Uuid;

/// Declined attempts that are kept per job.
const DECLINED_KEPT: i64 = 50;

impl Batch<'_> {
    /// Writes everything; returns what it came to.
    pub(super) async fn write(
        mut self,
        tx: &mut PgConnection,
    ) -> Result<IngestSummary, StoreError> {
        self.write_attempts(tx).await?;
        self.write_outputs(tx).await?;
        self.revoke_attempts(tx).await?;
        let retried = write_jobs(tx, &self.jobs).await?;
        self.write_epochs(tx).await?;
        // Before the weights that they are compared with are replaced.
        self.write_conflicts(tx).await?;
        self.void_evaluations(tx).await?;
        self.write_checkpoints(tx).await?;
        self.write_evaluations(tx).await?;

        let trained = |state: JobState| -> Vec<Uuid> {
            self.jobs
                .values()
                .map(|job| &job.after)
                .filter(|job| job.kind == JobKind::Train && job.state == state)
                .map(|job| job.id.0)
                .collect()
        };
        fail_evaluations(tx, &trained(JobState::Failed)).await?;
        // A statement of its own behind the lock on the training: it sees the evaluations that a
        // submission, which takes the same lock, has added meanwhile.
        let released = release_evaluations(tx, &trained(JobState::Done)).await?;
        let mut summary = self.summary;
        summary.ready = retried + released;
        summary.ended.sort_unstable();
        summary.ended.dedup();
        summary.missing.sort_unstable();
        summary.missing.dedup();
        Ok(summary)
    }

    async fn write_attempts(&mut self, tx: &mut PgConnection) -> Result<(), StoreError> {
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
            "UPDATE attempt a SET
                 processor = CASE WHEN i.processor = '' THEN a.processor ELSE i.processor END,
                 started = greatest(a.started, i.started),
                 resumed_after_epoch = coalesce(i.resumed, a.resumed_after_epoch),
                 ended = coalesce(i.ended, a.ended),
                 outcome = coalesce(i.outcome::attempt_outcome, a.outcome),
                 failure_kind = CASE WHEN i.outcome IS NULL THEN a.failure_kind
                                     ELSE i.failure_kind END,
                 errors = CASE WHEN i.outcome IS NULL THEN a.errors
                               ELSE ARRAY(SELECT jsonb_array_elements_text(i.errors)) END,
                 epochs = coalesce(i.epochs, a.epochs),
                 seconds = coalesce(i.seconds, a.seconds),
                 peak_memory = coalesce(i.peak_memory, a.peak_memory)
             FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::integer[],
                         $5::timestamptz[], $6::text[], $7::text[], $8::jsonb[], $9::integer[],
                         $10::float8[], $11::bigint[])
                  AS i (id, processor, started, resumed, ended, outcome, failure_kind, errors,
                        epochs, seconds, peak_memory)
             WHERE a.id = i.id",
            &rows.id,
            &rows.processor,
            &rows.started as &[Option<DateTime<Utc>>],
            &rows.resumed_after_epoch as &[Option<i32>],
            &rows.ended as &[Option<DateTime<Utc>>],
            &outcomes as &[Option<&str>],
            &rows.failure_kind as &[Option<&str>],
            &rows.errors,
            &rows.epochs as &[Option<i32>],
            &rows.seconds as &[Option<f64>],
            &rows.peak_memory as &[Option<i64>],
        )
        .execute(&mut *tx)
        .await?;
        if !declined.is_empty() {
            delete_old_declined(tx, &declined).await?;
        }
        Ok(())
    }

    /// Keeps what programs wrote, the last report of an attempt for all before.
    async fn write_outputs(&mut self, tx: &mut PgConnection) -> Result<(), StoreError> {
        if self.outputs.is_empty() {
            return Ok(());
        }
        let outputs = std::mem::take(&mut self.outputs);
        let rows: OutputColumns = outputs.into_values().collect();
        // Not of an attempt that was just deleted as one of too many that were declined.
        sqlx::query!(
            "INSERT INTO attempt_output (attempt, tail, bytes, stored)
             SELECT i.attempt, i.tail, i.bytes, i.stored
             FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::boolean[])
                  AS i (attempt, tail, bytes, stored)
             JOIN attempt a ON a.id = i.attempt
             ON CONFLICT (attempt) DO UPDATE
             SET tail = excluded.tail, bytes = excluded.bytes, stored = excluded.stored",
            &rows.attempt,
            &rows.tail,
            &rows.bytes,
            &rows.stored
        )
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Ends the attempts at jobs that another attempt has done, and tells of them.
    async fn revoke_attempts(&mut self, tx: &mut PgConnection) -> Result<(), StoreError> {
        let mut revoked = Vec::new();
        for job in self.jobs.values() {
            if job.before.state.is_leased()
                && job.after.state == JobState::Done
                && let Some(attempt) = job.before.attempt
            {
                // Its own end is written already, and stays.
                revoked.push(attempt.0);
                self.summary.ended.push((job.worker.clone(), attempt));
            }
        }
        end_attempts(tx, &revoked, AttemptOutcome::Revoked).await
    }

    /// Makes way for the weights that replace others: evaluations of those no longer count.
    async fn void_evaluations(&self, tx: &mut PgConnection) -> Result<(), StoreError> {
        if self.replaced.is_empty() {
            return Ok(());
        }
        let trains: Vec<Uuid> = self.replaced.iter().map(|train| train.0).collect();
        sqlx::query!("DELETE FROM checkpoint WHERE job = ANY($1)", &trains)
            .execute(&mut *tx)
            .await?;
        sqlx::query!(
            "UPDATE attempt SET void = true FROM job j
             WHERE j.train_job = ANY($1) AND attempt.job = j.id
               AND attempt.outcome IS DISTINCT FROM 'done'",
            &trains
        )
        .execute(tx)
        .await?;
        Ok(())
    }

    async fn write_epochs(&self, tx: &mut PgConnection) -> Result<(), StoreError> {
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
        .execute(&mut *tx)
        .await?;
        super::conflicts::write_epoch_conflicts(tx, &rows).await
    }

    async fn write_checkpoints(&self, tx: &mut PgConnection) -> Result<(), StoreError> {
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
        .execute(&mut *tx)
        .await?;
        Ok(())
    }

    async fn write_evaluations(&self, tx: &mut PgConnection) -> Result<(), StoreError> {
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
        .execute(&mut *tx)
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
        .execute(&mut *tx)
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
        .execute(&mut *tx)
        .await?;
        Ok(())
    }
}

/// Deletes the oldest declined attempts beyond [`DECLINED_KEPT`]: a job may circulate for days until
/// somebody supplies what the workers lack. An attempt with epochs stays, because they refer to it.
async fn delete_old_declined(tx: &mut PgConnection, jobs: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query!(
        "DELETE FROM attempt WHERE id IN (
             SELECT id FROM (
                 SELECT a.id, row_number() OVER (PARTITION BY a.job
                                                 ORDER BY a.granted DESC, a.id) AS place
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
    .execute(&mut *tx)
    .await?;
    Ok(())
}
