//! The outbox: which jobs to publish next, and marking them as published.

use crate::{JobKind, Store, StoreError};
use halfheard_shared::{
    broker::Queue,
    ids::{JobId, SweepId},
    wire::{CheckpointRef, TrainSpec},
};
use std::collections::HashMap;
use uuid::Uuid;

/// A job to publish.
#[derive(Clone, Debug)]
pub struct ReadyJob {
    /// Primary key.
    pub id: JobId,
    /// The sweep it belongs to.
    pub sweep: SweepId,
    /// Training, evaluation or no-op.
    pub kind: JobKind,
    /// The number of this publication, from 1.
    pub publication: i32,
    /// Training seed.
    pub seed: i64,
    /// The case of an evaluation.
    pub case: Option<String>,
    /// The training job of an evaluation.
    pub train: Option<JobId>,
    /// The config that is, or was, trained.
    pub config: Option<Uuid>,
}

/// How many jobs are published and unfinished. Jobs that workers declined do not count: they circulate
/// until a worker can do them, and must not keep others from being published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Training jobs.
    pub train: i64,
    /// Evaluation and no-op jobs.
    pub eval: i64,
}

impl InFlight {
    /// Those on one queue.
    pub fn of(self, queue: Queue) -> i64 {
        match queue {
            Queue::Train => self.train,
            Queue::Eval => self.eval,
        }
    }
}

impl Store {
    /// How many jobs are published and unfinished; see [`InFlight`].
    ///
    /// # Errors
    ///
    /// The database's, as for all methods here.
    pub async fn in_flight(&self) -> Result<InFlight, StoreError> {
        Ok(sqlx::query_as!(
            InFlight,
            r#"SELECT count(*) FILTER (WHERE kind = 'train') AS "train!",
                      count(*) FILTER (WHERE kind <> 'train') AS "eval!"
               FROM job WHERE state IN ('queued', 'running') AND publication - publications_before <= failures + 1"#
        )
        .fetch_one(self.pool())
        .await?)
    }

    /// The sweeps of which `window` or more declined jobs circulate on `queue`: nothing new of theirs is
    /// published until a worker can do them.
    pub async fn circulating(&self, queue: Queue, window: i64) -> Result<Vec<SweepId>, StoreError> {
        let sweeps = sqlx::query_scalar!(
            "SELECT sweep FROM job
             WHERE state IN ('queued', 'running') AND publication - publications_before > failures + 1
               AND (kind = 'train') = $1
             GROUP BY sweep HAVING count(*) >= $2",
            queue == Queue::Train,
            window
        );
        let sweeps = sweeps.fetch_all(self.pool()).await?;
        Ok(sweeps.into_iter().map(SweepId).collect())
    }

    /// The next `limit` jobs to publish on `queue`: of running sweeps, by priority, then age of the
    /// sweep, then position in it. Of the sweeps `known_only`, only jobs that were published before.
    pub async fn ready_jobs(
        &self,
        queue: Queue,
        limit: i64,
        known_only: &[SweepId],
    ) -> Result<Vec<ReadyJob>, StoreError> {
        let known_only: Vec<Uuid> = known_only.iter().map(|sweep| sweep.0).collect();
        macro_rules! ready {
            ($sql:literal) => {
                sqlx::query!($sql, limit, &known_only)
                    .fetch_all(self.pool())
                    .await?
                    .into_iter()
                    .map(|row| ReadyJob {
                        id: JobId(row.id),
                        sweep: SweepId(row.sweep),
                        kind: row.kind,
                        publication: row.publication + 1,
                        seed: row.seed,
                        case: row.case_id,
                        train: row.train_job.map(JobId),
                        config: row.config,
                    })
                    .collect()
            };
        }
        // Each queue has its own partial index, which holds only ready rows, in order.
        Ok(match queue {
            Queue::Train => ready!(
                r#"SELECT j.id, j.sweep, j.kind AS "kind: JobKind", j.publication, j.seed,
                          j.case_id, j.train_job, j.config
                   FROM sweep s CROSS JOIN LATERAL (
                       SELECT * FROM job
                       WHERE sweep = s.id AND state = 'ready' AND kind = 'train'
                         AND not_before <= now()
                         AND (publication > 0 OR s.id <> ALL ($2))
                       ORDER BY position LIMIT $1
                   ) j
                   WHERE s.state = 'running'
                   ORDER BY s.priority DESC, s.created, s.id, j.position LIMIT $1"#
            ),
            Queue::Eval => ready!(
                r#"SELECT j.id, j.sweep, j.kind AS "kind: JobKind", j.publication, j.seed,
                          j.case_id, j.train_job, j.config
                   FROM sweep s CROSS JOIN LATERAL (
                       SELECT * FROM job
                       WHERE sweep = s.id AND state = 'ready' AND kind <> 'train'
                         AND not_before <= now()
                         AND (publication > 0 OR s.id <> ALL ($2))
                       ORDER BY position LIMIT $1
                   ) j
                   WHERE s.state = 'running'
                   ORDER BY s.priority DESC, s.created, s.id, j.position LIMIT $1"#
            ),
        })
    }

    /// Marks these publications as queued. A row that is further ahead, because a worker was faster,
    /// stays as it is. Returns how many were marked.
    pub async fn mark_queued(&self, published: &[(JobId, i32)]) -> Result<u64, StoreError> {
        let (ids, publications): (Vec<Uuid>, Vec<i32>) =
            published.iter().map(|(id, number)| (id.0, *number)).unzip();
        // Rows are locked in the order of their ids, as everywhere, against deadlocks.
        Ok(sqlx::query!(
            "WITH sent AS (
                 SELECT * FROM unnest($1::uuid[], $2::integer[]) AS s (id, publication)
             ), mine AS (
                 SELECT j.id, s.publication FROM job j JOIN sent s USING (id)
                 WHERE j.state = 'ready' AND j.publication = s.publication - 1
                 ORDER BY j.id FOR NO KEY UPDATE OF j
             )
             UPDATE job SET state = 'queued', publication = mine.publication
             FROM mine WHERE job.id = mine.id",
            &ids,
            &publications
        )
        .execute(self.pool())
        .await?
        .rows_affected())
    }

    /// The training specs of these configs, with seed 0, or why one cannot be decoded: that fails only
    /// its own jobs.
    pub async fn configs(
        &self,
        ids: &[Uuid],
    ) -> Result<HashMap<Uuid, Result<TrainSpec, String>>, StoreError> {
        Ok(sqlx::query!("SELECT id, spec FROM config WHERE id = ANY($1)", ids)
            .fetch_all(self.pool())
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
}
