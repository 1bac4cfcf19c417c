//! The outbox: which jobs are to be published next, and noting that they were.

use super::{JobKind, Store, StoreError};
use halfheard_shared::{
    broker::Queue,
    ids::{JobId, SweepId},
    wire::{CheckpointRef, TrainSpec},
};
use std::collections::HashMap;
use uuid::Uuid;

/// A job that is to be published.
#[derive(Clone, Debug)]
pub struct ReadyJob {
    /// Its id.
    pub id: JobId,
    /// Its sweep.
    pub sweep: SweepId,
    /// What kind it is.
    pub kind: JobKind,
    /// The publication that is due: one more than there have been.
    pub publication: i32,
    /// Its training seed.
    pub seed: i64,
    /// The case of an evaluation.
    pub case: Option<String>,
    /// The training job of an evaluation.
    pub train: Option<JobId>,
    /// What is, or was, trained.
    pub config: Option<Uuid>,
}

/// How many jobs are published and not finished, but for those that workers declined before: they
/// go round until somebody can do them, and must not keep others from being published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Training.
    pub train: i64,
    /// Evaluation and no-op.
    pub eval: i64,
}

impl InFlight {
    /// Those of one queue.
    pub fn of(self, queue: Queue) -> i64 {
        match queue {
            Queue::Train => self.train,
            Queue::Eval => self.eval,
        }
    }
}

impl Store {
    /// How many jobs are published and not finished; see [`InFlight`].
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

    /// The sweeps of which `window` jobs or more go round on `queue`, declined by workers: of these
    /// nothing new is published until somebody can do them.
    pub async fn going_round(&self, queue: Queue, window: i64) -> Result<Vec<SweepId>, StoreError> {
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

    /// The next `limit` jobs to publish on `queue`: of sweeps that run, higher priority first,
    /// then the older sweep, then the order of the sweep. Of the sweeps `but_of` only what has been
    /// published before.
    pub async fn ready(
        &self,
        queue: Queue,
        limit: i64,
        but_of: &[SweepId],
    ) -> Result<Vec<ReadyJob>, StoreError> {
        let but_of: Vec<Uuid> = but_of.iter().map(|sweep| sweep.0).collect();
        macro_rules! ready {
            ($sql:literal) => {
                sqlx::query!($sql, limit, &but_of)
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
        // Each has a partial index of its own that holds only ready rows, in order.
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

    /// Notes that the broker has these publications. A row that has gone further meanwhile,
    /// because a worker was faster, stays where it is. Returns how many were marked.
    pub async fn mark_queued(&self, published: &[(JobId, i32)]) -> Result<u64, StoreError> {
        let (ids, publications): (Vec<Uuid>, Vec<i32>) =
            published.iter().map(|(id, number)| (id.0, *number)).unzip();
        // Rows are locked in the order of their ids, as everywhere, so that no two transactions
        // wait for each other.
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

    /// What the configs with these ids train, seed 0, or why one cannot be read: that concerns its
    /// own jobs and no others.
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
                        "config {} in the database cannot be read ({error}): it was written by another release; submit the spec with --new",
                        row.id
                    )
                });
                (row.id, spec)
            })
            .collect())
    }

    /// The checkpoints of these training jobs, in the order of their criteria.
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
