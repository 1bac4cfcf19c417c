//! Jobs and attempts as [`crate::lifecycle`] knows them: locked, read, and written back, with one
//! statement each for any number of them.

use crate::{
    JobKind, JobState, StoreError,
    columns::rows,
    job::AttemptOutcome,
    lifecycle::{Attempt, Job},
};
use chrono::{DateTime, Utc};
use halfheard_shared::ids::{AttemptId, JobId};
use sqlx::PgConnection;
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use uuid::Uuid;

/// A locked row of table `job`.
pub(crate) struct LockedJob {
    /// Before and after what the transaction changes.
    pub(crate) before: Job,
    pub(crate) after: Job,
    /// The worker that has it, or had it last.
    pub(crate) worker: String,
    /// What is trained or was trained.
    pub(crate) config: Option<Uuid>,
    /// The training job of an evaluation.
    pub(crate) train: Option<JobId>,
    /// Whether its lease has run out.
    pub(crate) expired: bool,
    /// The time of the transaction, by the database.
    pub(crate) now: DateTime<Utc>,
}

/// A row of table `attempt`.
pub(crate) struct KnownAttempt {
    pub(crate) attempt: Attempt,
    pub(crate) job: JobId,
    pub(crate) worker: String,
}

/// Locks and reads these jobs, in the order of their ids.
pub(crate) async fn lock_jobs(
    tx: &mut PgConnection,
    ids: &[Uuid],
) -> Result<BTreeMap<JobId, LockedJob>, StoreError> {
    let mut jobs = BTreeMap::new();
    for row in sqlx::query!(
        r#"SELECT id, kind AS "kind: JobKind", state AS "state: JobState", attempt,
                  coalesce(worker, '') AS "worker!", failures, losses, outcome, started, finished,
                  last_error, min_memory, config, train_job,
                  coalesce(lease_until < now(), false) AS "expired!", now() AS "now!"
           FROM job WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE"#,
        ids
    )
    .fetch_all(tx)
    .await?
    {
        let job = Job {
            id: JobId(row.id),
            kind: row.kind,
            state: row.state,
            attempt: row.attempt.map(AttemptId),
            failures: row.failures,
            losses: row.losses,
            broken_devices: 0,
            declines: 0,
            outcome: row.outcome.and_then(|bytes| bytes.try_into().ok()),
            evaluated: false,
            started: row.started,
            finished: row.finished,
            last_error: row.last_error,
            min_memory: row.min_memory,
            delay: Duration::ZERO,
        };
        let locked = LockedJob {
            before: job.clone(),
            after: job,
            worker: row.worker,
            config: row.config,
            train: row.train_job.map(JobId),
            expired: row.expired,
            now: row.now,
        };
        jobs.insert(locked.before.id, locked);
    }
    Ok(jobs)
}

/// Reads these attempts. Their jobs' locks protect them.
pub(crate) async fn read_attempts(
    tx: &mut PgConnection,
    ids: &[Uuid],
) -> Result<HashMap<AttemptId, KnownAttempt>, StoreError> {
    Ok(sqlx::query!(
        r#"SELECT id, job, worker, outcome AS "outcome: AttemptOutcome",
                  started IS NOT NULL AS "begun!", advanced, void, memory
           FROM attempt WHERE id = ANY($1)"#,
        ids
    )
    .fetch_all(tx)
    .await?
    .into_iter()
    .map(|row| {
        let attempt = Attempt {
            id: AttemptId(row.id),
            outcome: row.outcome,
            begun: row.begun,
            advanced: row.advanced,
            void: row.void,
            memory: row.memory,
        };
        let known = KnownAttempt {
            attempt,
            job: JobId(row.job),
            worker: row.worker,
        };
        (AttemptId(row.id), known)
    })
    .collect())
}

rows! {
    /// What changes in a row of table `job`.
    JobRow, JobColumns {
        id: Uuid,
        state: &'static str,
        failures: i32,
        losses: i32,
        outcome: Option<Vec<u8>>,
        started: Option<DateTime<Utc>>,
        finished: Option<DateTime<Utc>>,
        last_error: Option<String>,
        min_memory: i64,
        delay: f64,
    }
}

impl From<&Job> for JobRow {
    fn from(job: &Job) -> Self {
        Self {
            id: job.id.0,
            state: job.state.as_str(),
            failures: job.failures,
            losses: job.losses,
            outcome: job.outcome.map(|digest| digest.to_vec()),
            started: job.started,
            finished: job.finished,
            last_error: job.last_error.clone(),
            min_memory: job.min_memory,
            delay: job.delay.as_secs_f64(),
        }
    }
}

/// Writes the jobs that have changed; a lease ends with the states that have one. Returns how many
/// became ready.
pub(crate) async fn write_jobs(
    tx: &mut PgConnection,
    jobs: &BTreeMap<JobId, LockedJob>,
) -> Result<u64, StoreError> {
    let changed: Vec<(&Job, &Job)> = jobs
        .values()
        .filter(|job| job.before != job.after)
        .map(|job| (&job.before, &job.after))
        .collect();
    // Two statements, because the trigger runs for every row of one that sets `state`: only rows whose
    // state changes are worth that.
    let rows = |state_changes: bool| -> JobColumns {
        changed
            .iter()
            .filter(|(before, after)| (before.state != after.state) == state_changes)
            .map(|(_, after)| JobRow::from(*after))
            .collect()
    };
    let same = rows(false);
    if !same.id.is_empty() {
        sqlx::query!(
            "UPDATE job SET
                 failures = i.failures, losses = i.losses, outcome = i.outcome,
                 started = i.started, finished = i.finished, last_error = i.last_error
             FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::bytea[], $5::timestamptz[],
                         $6::timestamptz[], $7::text[])
                  AS i (id, failures, losses, outcome, started, finished, last_error)
             WHERE job.id = i.id",
            &same.id,
            &same.failures,
            &same.losses,
            &same.outcome as &[Option<Vec<u8>>],
            &same.started as &[Option<DateTime<Utc>>],
            &same.finished as &[Option<DateTime<Utc>>],
            &same.last_error as &[Option<String>],
        )
        .execute(&mut *tx)
        .await?;
    }
    let moved = rows(true);
    if !moved.id.is_empty() {
        sqlx::query!(
            "UPDATE job SET
                 state = i.state::job_state, failures = i.failures, losses = i.losses,
                 outcome = i.outcome, started = i.started, finished = i.finished,
                 last_error = i.last_error, min_memory = i.min_memory,
                 lease_until = CASE WHEN i.state IN ('queued', 'running') THEN job.lease_until END,
                 not_before = CASE WHEN i.delay > 0 THEN now() + make_interval(secs => i.delay)
                                   ELSE job.not_before END
             FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::integer[], $5::bytea[],
                         $6::timestamptz[], $7::timestamptz[], $8::text[], $9::bigint[],
                         $10::float8[])
                  AS i (id, state, failures, losses, outcome, started, finished, last_error,
                        min_memory, delay)
             WHERE job.id = i.id",
            &moved.id,
            &moved.state as &[&str],
            &moved.failures,
            &moved.losses,
            &moved.outcome as &[Option<Vec<u8>>],
            &moved.started as &[Option<DateTime<Utc>>],
            &moved.finished as &[Option<DateTime<Utc>>],
            &moved.last_error as &[Option<String>],
            &moved.min_memory,
            &moved.delay,
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(changed
        .iter()
        .filter(|(_, after)| after.state == JobState::Ready)
        .count() as u64)
}

/// Ends these attempts, as far as they have not ended.
pub(crate) async fn end_attempts(
    tx: &mut PgConnection,
    attempts: &[Uuid],
    outcome: AttemptOutcome,
) -> Result<(), StoreError> {
    if attempts.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE attempt SET outcome = $2, ended = now() WHERE id = ANY($1) AND outcome IS NULL",
        attempts,
        outcome as AttemptOutcome
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The distinct ids among `ids`, in order.
pub(crate) fn distinct(ids: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
