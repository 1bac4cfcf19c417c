//! Leases: who has which job and until when, by the database's clock; and what ends one without the
//! worker's word.

use crate::{
    JobState, Store, StoreError,
    give_up::fail_evaluations,
    job::AttemptOutcome,
    job_rows::{distinct, end_attempts, lock_jobs, read_attempts, write_jobs},
    lifecycle::{RetryPolicy, label},
    retry::retry_rollback,
    text::bounded,
};
use halfheard_shared::{
    ids::{AttemptId, JobId},
    wire::FailureKind,
};
use sqlx::PgConnection;
use std::time::Duration;
use uuid::Uuid;

/// Most leases that are ended in one transaction.
const MOST_EXPIRED: i64 = 1000;
/// Most characters of a reason that is kept in `job.last_error`.
const REASON: usize = 1000;

/// What a worker's heartbeat says of one attempt.
#[derive(Clone, Copy, Debug)]
pub struct Beat<'a> {
    /// The attempt.
    pub attempt: AttemptId,
    /// The worker that was heard, and its process.
    pub worker: &'a str,
    /// See `worker`.
    pub session: Uuid,
    /// Training steps in the last state that it stored; 0 if it stored none.
    pub saved: u64,
    /// Whether that state is beyond the one that the attempt began from.
    pub advanced: bool,
}

/// An attempt that ended without its worker's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: AttemptId,
    /// The worker that had it.
    pub worker: String,
    /// Whether the job failed with it.
    pub gave_up: bool,
}

impl Store {
    /// Renews for `lease` from now what these heartbeats hold, as far as the rows still name their
    /// attempts, and keeps how far the work is. Returns those that are still theirs.
    ///
    /// A job has advanced if the attempt stored more than it began from, and also if it began from more
    /// than was known: the attempt before stored that and was killed before its next heartbeat.
    ///
    /// # Errors
    ///
    /// The database's, as for all methods here; [`StoreError::Deposed`].
    pub async fn renew(
        &self,
        held: &[Beat<'_>],
        lease: Duration,
    ) -> Result<Vec<AttemptId>, StoreError> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        retry_rollback(|| self.renew_once(held, lease)).await
    }

    async fn renew_once(
        &self,
        held: &[Beat<'_>],
        lease: Duration,
    ) -> Result<Vec<AttemptId>, StoreError> {
        let attempts: Vec<Uuid> = held.iter().map(|beat| beat.attempt.0).collect();
        let workers: Vec<&str> = held.iter().map(|beat| beat.worker).collect();
        let sessions: Vec<Uuid> = held.iter().map(|beat| beat.session).collect();
        let saved: Vec<i64> = held
            .iter()
            .map(|beat| i64::try_from(beat.saved).unwrap_or(i64::MAX))
            .collect();
        let advanced: Vec<bool> = held.iter().map(|beat| beat.advanced).collect();
        let mut tx = self.begin().await?;
        let renewed = sqlx::query_scalar!(
            r#"WITH held AS (
                   SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::boolean[])
                        AS h (attempt, worker, session, saved, advanced)
               ), mine AS (
                   SELECT j.id, h.attempt, h.saved, h.advanced
                   FROM held h
                   JOIN attempt a ON a.id = h.attempt
                   JOIN job j ON j.id = a.job AND j.attempt = a.id
                   WHERE j.state IN ('queued', 'running')
                     AND j.worker = h.worker AND j.session = h.session
                   ORDER BY j.id FOR NO KEY UPDATE OF j
               ), further AS (
                   UPDATE attempt SET advanced = true FROM mine
                   WHERE attempt.id = mine.attempt AND mine.advanced AND NOT attempt.advanced
               )
               UPDATE job SET lease_until = now() + make_interval(secs => $6),
                              progress = CASE WHEN mine.saved > 0 THEN mine.saved ELSE job.progress END,
                              losses = CASE WHEN mine.advanced OR mine.saved > job.progress THEN 0
                                            ELSE job.losses END
               FROM mine WHERE job.id = mine.id
               RETURNING mine.attempt AS "attempt!""#,
            &attempts,
            &workers as &[&str],
            &sessions,
            &saved,
            &advanced,
            lease.as_secs_f64()
        )
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(renewed.into_iter().map(AttemptId).collect())
    }

    /// Which of these attempts still have their jobs. Reads only.
    pub async fn still_leased(&self, attempts: &[AttemptId]) -> Result<Vec<AttemptId>, StoreError> {
        let attempts: Vec<Uuid> = attempts.iter().map(|attempt| attempt.0).collect();
        Ok(sqlx::query_scalar!(
            "SELECT a.id FROM attempt a JOIN job j ON j.id = a.job AND j.attempt = a.id
             WHERE a.id = ANY($1) AND j.state IN ('queued', 'running')",
            &attempts
        )
        .fetch_all(self.pool())
        .await?
        .into_iter()
        .map(AttemptId)
        .collect())
    }

    /// Whether [`Store::expire`] would find a lease.
    pub async fn has_expired(&self, lease: Duration) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT EXISTS (
                   SELECT FROM job
                   WHERE state IN ('queued', 'running')
                     AND (lease_until < now()
                          OR lease_until > now() + make_interval(secs => $1::float8 + 1))
               ) AS "expired!""#,
            lease.as_secs_f64()
        )
        .fetch_one(self.pool())
        .await?)
    }

    /// Ends leases that have run out, up to a thousand: their attempts are lost. Only a leader that has
    /// heard the workers for as long as a lease lasts, and has ingested what they said, may call this.
    ///
    /// A lease that lasts longer than `lease` from now was written before the clock was set back, and is
    /// shortened.
    pub async fn expire(
        &self,
        lease: Duration,
        policy: &RetryPolicy,
    ) -> Result<Vec<Ended>, StoreError> {
        retry_rollback(|| self.expire_once(lease, policy)).await
    }

    async fn expire_once(
        &self,
        lease: Duration,
        policy: &RetryPolicy,
    ) -> Result<Vec<Ended>, StoreError> {
        let (expired, ahead): (Vec<_>, Vec<_>) = sqlx::query!(
            r#"SELECT id, attempt AS "attempt!", lease_until < now() AS "expired!" FROM job
               WHERE state IN ('queued', 'running')
                 AND (lease_until < now() OR lease_until > now() + make_interval(secs => $1::float8 + 1))
               ORDER BY lease_until LIMIT $2"#,
            lease.as_secs_f64(),
            MOST_EXPIRED
        )
        .fetch_all(self.pool())
        .await?
        .into_iter()
        .partition(|row| row.expired);
        if expired.is_empty() && ahead.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.begin().await?;
        let ahead: Vec<Uuid> = ahead.into_iter().map(|row| row.id).collect();
        if !ahead.is_empty() {
            tracing::warn!(
                jobs = ahead.len(),
                "leases end too far ahead; the database's clock was set back"
            );
            sqlx::query!(
                "WITH mine AS (
                     SELECT id FROM job WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE
                 )
                 UPDATE job SET lease_until = least(lease_until, now() + make_interval(secs => $2))
                 FROM mine WHERE job.id = mine.id",
                &ahead,
                lease.as_secs_f64()
            )
            .execute(&mut *tx)
            .await?;
        }
        let expired: Vec<(Uuid, Uuid)> = expired
            .into_iter()
            .map(|row| (row.id, row.attempt))
            .collect();
        let ended = lose(&mut tx, &expired, Loss::Expired, policy).await?;
        tx.commit().await?;
        Ok(ended)
    }

    /// Takes jobs away from attempts whose work does not advance.
    pub async fn stall(
        &self,
        attempts: &[AttemptId],
        policy: &RetryPolicy,
    ) -> Result<Vec<Ended>, StoreError> {
        let attempts: Vec<Uuid> = attempts.iter().map(|attempt| attempt.0).collect();
        retry_rollback(|| async {
            let mut tx = self.begin().await?;
            let held: Vec<(Uuid, Uuid)> =
                sqlx::query!("SELECT job, id FROM attempt WHERE id = ANY($1)", &attempts)
                    .fetch_all(&mut *tx)
                    .await?
                    .into_iter()
                    .map(|row| (row.job, row.id))
                    .collect();
            let ended = lose(&mut tx, &held, Loss::Stalled, policy).await?;
            tx.commit().await?;
            Ok(ended)
        })
        .await
    }

    /// Sends a training back to be done again, because nobody has its checkpoints; its evaluations that
    /// are not done wait for it. Returns the attempts at them that ended so, or `None` if the training
    /// is not done (any more).
    pub async fn retrain(
        &self,
        train: JobId,
        reason: &str,
    ) -> Result<Option<Vec<Ended>>, StoreError> {
        let reason = bounded(reason, REASON);
        retry_rollback(|| self.retrain_once(train, &reason)).await
    }

    async fn retrain_once(
        &self,
        train: JobId,
        reason: &str,
    ) -> Result<Option<Vec<Ended>>, StoreError> {
        let mut tx = self.begin().await?;
        let sent_back = sqlx::query!(
            "UPDATE job SET state = 'ready', progress = 0, failures = 0, losses = 0,
                            not_before = '-infinity', finished = NULL, last_error = $2
             WHERE id = $1 AND kind = 'train' AND state = 'done'",
            train.0,
            reason
        )
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if sent_back == 0 {
            return Ok(None);
        }
        let waiting = sqlx::query!(
            r#"SELECT id, state AS "state: JobState", attempt, coalesce(worker, '') AS "worker!"
               FROM job WHERE train_job = $1 AND state IN ('ready', 'queued', 'running')
               ORDER BY id FOR NO KEY UPDATE"#,
            train.0
        )
        .fetch_all(&mut *tx)
        .await?;
        let ids: Vec<Uuid> = waiting.iter().map(|row| row.id).collect();
        sqlx::query!(
            "UPDATE job SET state = 'blocked', failures = 0, losses = 0, lease_until = NULL,
                            not_before = '-infinity'
             WHERE id = ANY($1)",
            &ids
        )
        .execute(&mut *tx)
        .await?;
        let ended: Vec<Ended> = waiting
            .into_iter()
            .filter(|row| row.state.is_leased())
            .filter_map(|row| {
                Some(Ended {
                    job: JobId(row.id),
                    attempt: AttemptId(row.attempt?),
                    worker: row.worker,
                    gave_up: false,
                })
            })
            .collect();
        let attempts: Vec<Uuid> = ended.iter().map(|ended| ended.attempt.0).collect();
        end_attempts(&mut tx, &attempts, AttemptOutcome::Revoked).await?;
        tx.commit().await?;
        Ok(Some(ended))
    }
}

/// Why an attempt ends without its worker's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Its lease has run out.
    Expired,
    /// Its process was replaced.
    Replaced,
    /// Its work does not advance.
    Stalled,
}

/// Ends these attempts (job, attempt) without their workers' word, as far as they still have their jobs.
pub(crate) async fn lose(
    tx: &mut PgConnection,
    held: &[(Uuid, Uuid)],
    loss: Loss,
    policy: &RetryPolicy,
) -> Result<Vec<Ended>, StoreError> {
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let outcome = match loss {
        Loss::Expired | Loss::Replaced => AttemptOutcome::Lost,
        Loss::Stalled => AttemptOutcome::Stalled,
    };
    let mut jobs = lock_jobs(tx, &distinct(held.iter().map(|(job, _)| *job))).await?;
    // Read after the locks: what a beat or a report changed meanwhile counts.
    let attempts = distinct(held.iter().map(|(_, attempt)| *attempt));
    let mut attempts = read_attempts(tx, &attempts).await?;
    let mut ended = Vec::new();
    for known in attempts.values_mut() {
        let Some(job) = jobs.get_mut(&known.job) else {
            continue;
        };
        let gone = loss != Loss::Expired || job.expired;
        if !gone || !job.after.is_held_by(&known.attempt) {
            continue;
        }
        let gave_up = job.after.lose(&mut known.attempt, outcome, job.now, policy);
        ended.push(Ended {
            job: known.job,
            attempt: known.attempt.id,
            worker: known.worker.clone(),
            gave_up,
        });
    }
    let lost: Vec<Uuid> = ended.iter().map(|ended| ended.attempt.0).collect();
    end_attempts(tx, &lost, outcome).await?;
    write_jobs(tx, &jobs).await?;
    let (failed, last): (Vec<Uuid>, Vec<Uuid>) = ended
        .iter()
        .filter(|ended| ended.gave_up)
        .map(|ended| (ended.job.0, ended.attempt.0))
        .unzip();
    if !failed.is_empty() {
        sqlx::query!(
            "UPDATE attempt SET failure_kind = $2, errors = ARRAY[j.last_error]
             FROM job j WHERE attempt.id = ANY($1) AND j.id = attempt.job",
            &last,
            label(FailureKind::Crashed)
        )
        .execute(&mut *tx)
        .await?;
    }
    fail_evaluations(tx, &failed).await?;
    Ok(ended)
}
