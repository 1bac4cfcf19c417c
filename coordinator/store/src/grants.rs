//! Grants: which jobs a worker that asks is given, out of the database.

mod candidates;
mod deal;

use crate::{
    JobKind, JobState, Store, StoreError,
    leases::{Ended, Loss, lose},
    lifecycle::RetryPolicy,
    retry::retry_rollback,
    text::{NAME, bounded},
};
use chrono::{DateTime, Utc};
use deal::{Holds, Offer, Taker};
use halfheard_shared::{
    ids::{AttemptId, JobId, SweepId},
    wire::{CheckpointRef, TrainSpec, WorkerInfo},
};
use sqlx::PgConnection;
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

/// How many jobs of each kind a worker takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Training jobs.
    pub trainings: u32,
    /// Evaluation jobs.
    pub evaluations: u32,
    /// No-op jobs.
    pub noops: u32,
}

/// A worker's request for jobs.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub worker: &'a WorkerInfo,
    /// Its process, which is known to live: what other processes of this worker had is lost.
    pub session: Uuid,
    /// The number of the request within the session.
    pub ask: u64,
    /// The last request whose answer arrived. What was granted in answer to later ones and has not
    /// begun is granted again.
    pub received: u64,
    /// What it takes.
    pub room: Room,
    /// The methods that it has.
    pub methods: &'a [String],
    /// Its labels.
    pub labels: &'a [String],
    /// Bytes of its device's memory; 0 if unknown.
    pub memory: u64,
    /// The sweeps to serve, the first ones first.
    pub sweeps: &'a [SweepId],
    /// How many workers beside those of the same call wait for jobs, which few evaluations are shared
    /// with.
    pub spread: usize,
}

/// A job that is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedJob {
    /// The job.
    pub job: JobId,
    /// The sweep under which it is scheduled.
    pub sweep: SweepId,
    /// The attempt.
    pub attempt: AttemptId,
    /// Training, evaluation or no-op.
    pub kind: JobKind,
    /// The training seed.
    pub seed: i64,
    /// The case of an evaluation.
    pub case: Option<String>,
    /// The training job of an evaluation.
    pub train: Option<JobId>,
    /// The config that is, or was, trained.
    pub config: Option<Uuid>,
    /// Attempts at it that ended without a word.
    pub losses: i32,
    /// Whether it was granted before, in an answer that did not arrive.
    pub repeated: bool,
}

/// What a call of [`Store::grant`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// The jobs for each request, in their order.
    pub answers: Vec<Vec<GrantedJob>>,
    /// Attempts of earlier processes of these workers, which are lost.
    pub ended: Vec<Ended>,
}

/// A number for each kind of job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByKind<T> {
    /// Of training jobs.
    pub train: T,
    /// Of evaluation jobs.
    pub eval: T,
    /// Of no-op jobs.
    pub noop: T,
}

/// A running sweep that has jobs to grant.
#[derive(Clone, Debug, PartialEq)]
pub struct ServableSweep {
    /// The sweep.
    pub id: SweepId,
    /// Who submitted it.
    pub owner: String,
    /// A sweep with a higher one is served first.
    pub priority: i32,
    /// Its share among sweeps of equal priority.
    pub weight: f64,
    /// Time of its first submission.
    pub created: DateTime<Utc>,
    /// How many of its jobs may be at work at once.
    pub max_running: Option<i32>,
    /// How many jobs that are scheduled under it workers have.
    pub running: ByKind<i64>,
    /// How many workers have them.
    pub workers: i64,
    /// Whether it has jobs to grant.
    pub ready: ByKind<bool>,
}

/// A lease of a worker that asks.
struct HeldRow {
    worker: String,
    session: Uuid,
    ask: i64,
    state: JobState,
    job: GrantedJob,
}

impl Store {
    /// The running sweeps that have jobs to grant, in no order.
    ///
    /// # Errors
    ///
    /// The database's, as for all methods here; those that write: [`StoreError::Deposed`].
    pub async fn servable(&self) -> Result<Vec<ServableSweep>, StoreError> {
        Ok(sqlx::query!(
            r#"WITH leased AS (
                   SELECT sweep, count(*) FILTER (WHERE kind = 'train') AS train,
                          count(*) FILTER (WHERE kind = 'eval') AS eval,
                          count(*) FILTER (WHERE kind = 'noop') AS noop,
                          count(DISTINCT worker) AS workers
                   FROM job WHERE state IN ('queued', 'running') GROUP BY sweep
               ), offered AS (
                   SELECT s.*,
                          s.train_jobs > 0 AND EXISTS (
                              SELECT FROM job WHERE sweep = s.id AND state = 'ready'
                              AND kind = 'train' AND not_before <= now()) AS ready_train,
                          s.eval_jobs > 0 AND EXISTS (
                              SELECT FROM job WHERE sweep = s.id AND state = 'ready'
                              AND kind <> 'train' AND kind = 'eval' AND not_before <= now()) AS ready_eval,
                          s.noop_jobs > 0 AND EXISTS (
                              SELECT FROM job WHERE sweep = s.id AND state = 'ready'
                              AND kind <> 'train' AND kind = 'noop' AND not_before <= now()) AS ready_noop
                   FROM sweep s WHERE s.state = 'running'
               )
               SELECT o.id, o.owner, o.priority, o.weight, o.created, o.max_running,
                      coalesce(l.train, 0) AS "train!", coalesce(l.eval, 0) AS "eval!",
                      coalesce(l.noop, 0) AS "noop!", coalesce(l.workers, 0) AS "workers!",
                      o.ready_train AS "ready_train!", o.ready_eval AS "ready_eval!",
                      o.ready_noop AS "ready_noop!"
               FROM offered o LEFT JOIN leased l ON l.sweep = o.id
               WHERE o.ready_train OR o.ready_eval OR o.ready_noop"#
        )
        .fetch_all(self.pool())
        .await?
        .into_iter()
        .map(|row| ServableSweep {
            id: SweepId(row.id),
            owner: row.owner,
            priority: row.priority,
            weight: row.weight,
            created: row.created,
            max_running: row.max_running,
            running: ByKind {
                train: row.train,
                eval: row.eval,
                noop: row.noop,
            },
            workers: row.workers,
            ready: ByKind {
                train: row.ready_train,
                eval: row.ready_eval,
                noop: row.ready_noop,
            },
        })
        .collect())
    }

    /// Grants jobs to workers that ask, for `lease` from now, all in one transaction: first what other
    /// processes of these workers had is lost, then grants whose answers were lost are repeated, then
    /// new ones are made. Of several requests of one worker only the last is answered with jobs.
    pub async fn grant(
        &self,
        requests: &[Request<'_>],
        lease: Duration,
        policy: &RetryPolicy,
    ) -> Result<Grants, StoreError> {
        if requests.is_empty() {
            return Ok(Grants::default());
        }
        retry_rollback(|| self.grant_once(requests, lease, policy)).await
    }

    async fn grant_once(
        &self,
        requests: &[Request<'_>],
        lease: Duration,
        policy: &RetryPolicy,
    ) -> Result<Grants, StoreError> {
        let names: Vec<String> = requests
            .iter()
            .map(|request| bounded(&request.worker.name, NAME))
            .collect();
        let last: HashMap<&str, usize> = names
            .iter()
            .enumerate()
            .map(|(index, name)| (name.as_str(), index))
            .collect();
        let mut tx = self.begin().await?;
        let mut theirs: Vec<Vec<HeldRow>> = requests.iter().map(|_| Vec::new()).collect();
        let mut others = Vec::new();
        for held in held_by(&mut tx, &names).await? {
            let Some(&index) = last.get(held.worker.as_str()) else {
                continue;
            };
            if held.session == requests[index].session {
                theirs[index].push(held);
            } else {
                others.push((held.job.job.0, held.job.attempt.0));
            }
        }
        let ended = lose(&mut tx, &others, Loss::Replaced, policy).await?;
        let mut answers = vec![Vec::new(); requests.len()];
        repeat(&mut tx, requests, &theirs, lease, &mut answers).await?;

        let takers: Vec<Taker> = requests
            .iter()
            .enumerate()
            .filter(|&(index, _)| last.get(names[index].as_str()) == Some(&index))
            .map(|(index, request)| Taker {
                index,
                room: room_left(request.room, &answers[index]),
                holds: Holds::of(theirs[index].iter().map(|held| &held.job)),
            })
            .collect();
        let dealt = candidates::deal_out(&mut tx, requests, takers).await?;
        if !dealt.is_empty() {
            let granted = write_grants(&mut tx, requests, &names, dealt, lease).await?;
            for (index, job) in granted {
                answers[index].push(job);
            }
        }
        tx.commit().await?;
        Ok(Grants { answers, ended })
    }

    /// The training specs of these configs, with seed 0, or why one cannot be decoded: that fails only
    /// its own jobs.
    pub async fn configs(
        &self,
        ids: &[Uuid],
    ) -> Result<HashMap<Uuid, Result<TrainSpec, String>>, StoreError> {
        let mut connection = self.pool().acquire().await?;
        read_configs(&mut connection, ids).await
    }

    /// The checkpoints of these training jobs, ordered by criterion.
    pub async fn checkpoints(
        &self,
        jobs: &[JobId],
    ) -> Result<HashMap<JobId, Vec<CheckpointRef>>, StoreError> {
        let ids: Vec<Uuid> = jobs.iter().map(|job| job.0).collect();
        let mut found: HashMap<JobId, Vec<CheckpointRef>> = HashMap::new();
        for row in sqlx::query!(
            "SELECT job, criterion, epoch, blake3, bytes FROM checkpoint
             WHERE job = ANY($1) ORDER BY job, criterion",
            &ids
        )
        .fetch_all(self.pool())
        .await?
        {
            found
                .entry(JobId(row.job))
                .or_default()
                .push(CheckpointRef {
                    criterion: row.criterion,
                    epoch: u32::try_from(row.epoch).unwrap_or_default(),
                    blake3: row.blake3,
                    bytes: u64::try_from(row.bytes).unwrap_or_default(),
                });
        }
        Ok(found)
    }

    /// The hashes of the tables of what words are heard as, of those of these jobs that need one.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn confusions(&self, jobs: &[JobId]) -> Result<HashMap<JobId, String>, StoreError> {
        let ids: Vec<Uuid> = jobs.iter().map(|job| job.0).collect();
        let rows = sqlx::query!(
            r#"SELECT id, confusions AS "confusions!" FROM job
               WHERE id = ANY($1) AND confusions IS NOT NULL"#,
            &ids
        )
        .fetch_all(self.pool())
        .await?;
        let rows = rows.into_iter();
        Ok(rows.map(|row| (JobId(row.id), row.confusions)).collect())
    }
}

/// Reads the training specs of these configs, or why one cannot be decoded.
pub(crate) async fn read_configs(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, Result<TrainSpec, String>>, StoreError> {
    Ok(sqlx::query!("SELECT id, spec FROM config WHERE id = ANY($1)", ids)
        .fetch_all(connection)
        .await?
        .into_iter()
        .map(|row| {
            let spec = serde_json::from_value(row.spec).map_err(|error| {
                format!(
                    "cannot decode config {} in the database ({error}): another release wrote it; submit the spec with --new",
                    row.id
                )
            });
            (row.id, spec)
        })
        .collect())
}

/// What these workers have, without locks: what changes meanwhile is noticed when it is written.
async fn held_by(tx: &mut PgConnection, workers: &[String]) -> Result<Vec<HeldRow>, StoreError> {
    Ok(sqlx::query!(
        r#"SELECT j.id, j.sweep, j.kind AS "kind: JobKind", j.state AS "state: JobState", j.seed,
                  j.case_id, j.train_job, j.config, j.losses, j.worker AS "worker!",
                  j.session AS "session!", a.id AS attempt, a.ask
           FROM job j JOIN attempt a ON a.id = j.attempt
           WHERE j.worker = ANY($1) AND j.state IN ('queued', 'running')
           ORDER BY j.position"#,
        workers
    )
    .fetch_all(tx)
    .await?
    .into_iter()
    .map(|row| HeldRow {
        worker: row.worker,
        session: row.session,
        ask: row.ask,
        state: row.state,
        job: GrantedJob {
            job: JobId(row.id),
            // A job that nobody asks for any more is on its way to be cancelled.
            sweep: SweepId(row.sweep.unwrap_or_default()),
            attempt: AttemptId(row.attempt),
            kind: row.kind,
            seed: row.seed,
            case: row.case_id,
            train: row.train_job.map(JobId),
            config: row.config,
            losses: row.losses,
            repeated: true,
        },
    })
    .collect())
}

/// Repeats the grants whose answers were lost.
async fn repeat(
    tx: &mut PgConnection,
    requests: &[Request<'_>],
    theirs: &[Vec<HeldRow>],
    lease: Duration,
    answers: &mut [Vec<GrantedJob>],
) -> Result<(), StoreError> {
    let mut lost: HashMap<Uuid, (usize, &GrantedJob)> = HashMap::new();
    for (index, (request, held)) in requests.iter().zip(theirs).enumerate() {
        let received = number(request.received);
        for held in held {
            if held.state == JobState::Queued && held.ask > received {
                lost.insert(held.job.attempt.0, (index, &held.job));
            }
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    let jobs: Vec<Uuid> = lost.values().map(|(_, job)| job.job.0).collect();
    let attempts: Vec<Uuid> = lost.keys().copied().collect();
    let mut repeated: Vec<(usize, &GrantedJob)> = sqlx::query_scalar!(
        r#"WITH mine AS (
               SELECT id FROM job
               WHERE id = ANY($1) AND attempt = ANY($2) AND state = 'queued'
               ORDER BY id FOR NO KEY UPDATE
           )
           UPDATE job SET lease_until = now() + make_interval(secs => $3)
           FROM mine WHERE job.id = mine.id
           RETURNING job.attempt AS "attempt!""#,
        &jobs,
        &attempts,
        lease.as_secs_f64()
    )
    .fetch_all(tx)
    .await?
    .iter()
    .filter_map(|attempt| lost.get(attempt).copied())
    .collect();
    repeated.sort_by_key(|(_, job)| job.job);
    for (index, job) in repeated {
        answers[index].push(job.clone());
    }
    Ok(())
}

/// What a worker takes beside what it is granted again.
fn room_left(room: Room, repeated: &[GrantedJob]) -> Room {
    let of = |kind: JobKind| {
        let repeated = repeated.iter().filter(|job| job.kind == kind).count();
        u32::try_from(repeated).unwrap_or(u32::MAX)
    };
    let (trainings, evaluations) = (of(JobKind::Train), of(JobKind::Eval));
    Room {
        // One or the other: a training would wait behind evaluations.
        trainings: if evaluations > 0 {
            0
        } else {
            room.trainings.saturating_sub(trainings)
        },
        evaluations: if trainings > 0 {
            0
        } else {
            room.evaluations.saturating_sub(evaluations)
        },
        noops: room.noops.saturating_sub(of(JobKind::Noop)),
    }
}

/// Writes new grants of jobs that are locked; `dealt` has the index of the request for each.
async fn write_grants(
    tx: &mut PgConnection,
    requests: &[Request<'_>],
    names: &[String],
    dealt: Vec<(usize, Offer)>,
    lease: Duration,
) -> Result<Vec<(usize, GrantedJob)>, StoreError> {
    let granted: Vec<(usize, GrantedJob)> = dealt
        .into_iter()
        .map(|(index, offer)| {
            let attempt = AttemptId(Uuid::new_v4());
            (index, offer.granted(attempt))
        })
        .collect();
    let column = |of: &dyn Fn(&Request<'_>) -> String| -> Vec<String> {
        granted.iter().map(|(i, _)| of(&requests[*i])).collect()
    };
    let attempts: Vec<Uuid> = granted.iter().map(|(_, job)| job.attempt.0).collect();
    let jobs: Vec<Uuid> = granted.iter().map(|(_, job)| job.job.0).collect();
    let workers: Vec<&str> = granted.iter().map(|(i, _)| names[*i].as_str()).collect();
    let sessions: Vec<Uuid> = granted.iter().map(|(i, _)| requests[*i].session).collect();
    let asks: Vec<i64> = granted
        .iter()
        .map(|(i, _)| number(requests[*i].ask))
        .collect();
    let memory: Vec<i64> = granted
        .iter()
        .map(|(i, _)| number(requests[*i].memory))
        .collect();
    sqlx::query!(
        "INSERT INTO attempt (id, job, worker, session, ask, memory, host, device, version, processor,
                              ready)
         SELECT i.*, greatest(j.changed, j.not_before)
         FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::bigint[],
                     $6::bigint[], $7::text[], $8::text[], $9::text[], $10::text[])
              AS i (id, job, worker, session, ask, memory, host, device, version, processor)
         JOIN job j ON j.id = i.job",
        &attempts,
        &jobs,
        &workers as &[&str],
        &sessions,
        &asks,
        &memory,
        &column(&|request| bounded(&request.worker.host, NAME)),
        &column(&|request| bounded(&request.worker.device, NAME)),
        &column(&|request| bounded(&request.worker.version, NAME)),
        &column(&|request| bounded(&request.worker.processor, NAME)),
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "UPDATE job SET state = 'queued', attempt = i.attempt, worker = i.worker,
                        session = i.session, lease_until = now() + make_interval(secs => $5)
         FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[])
              AS i (id, attempt, worker, session)
         WHERE job.id = i.id",
        &jobs,
        &attempts,
        &workers as &[&str],
        &sessions,
        lease.as_secs_f64()
    )
    .execute(tx)
    .await?;
    Ok(granted)
}

/// A number from the wire; one too large counts as the largest.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
