//! The Slurm jobs in which workers run: which `coord slurm` submitted, which of its processes may submit
//! more, and how much work there is for them.

use crate::{
    Store, StoreError,
    text::{NAME, bounded},
};
use chrono::{DateTime, Utc};
use std::time::Duration;
use uuid::Uuid;

/// Most characters of a reason.
const REASON: usize = 4096;

/// A Slurm job that was submitted for workers.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Allocation {
    /// Ascending in order of submission.
    #[serde(skip)]
    pub id: i64,
    /// The name of the Slurm cluster.
    pub cluster: String,
    /// The partition that it was submitted to.
    pub partition: String,
    /// Slurm's number of the job.
    pub slurm_id: i64,
    /// The file of its worker's log; empty if unknown.
    pub log: String,
    /// Time of the submission.
    pub submitted: DateTime<Utc>,
    /// Slurm's word for its state.
    pub state: String,
    /// Why it waits, or why it ended badly.
    pub reason: String,
    /// When it was started last.
    pub started: Option<DateTime<Utc>>,
    /// When its time runs out, while it runs.
    pub ends: Option<DateTime<Utc>>,
    /// How often it was preempted, or its node failed, and it was queued again.
    pub restarts: i32,
    /// When it ended.
    pub ended: Option<DateTime<Utc>>,
    /// Whether it ended badly within a minute.
    pub died: bool,
}

/// Work of running sweeps that is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct OpenWork {
    /// How many jobs could be at work at once: open training jobs, and models with open evaluations.
    pub parallel: i64,
    /// Seconds that are left of jobs whose cost is known or can be estimated.
    pub seconds: f64,
    /// Training jobs of which no cost is known.
    pub unknown: i64,
}

impl Store {
    /// Takes or renews the right to submit to a partition for `lease`. Returns who has it, if that is
    /// another process.
    ///
    /// # Errors
    ///
    /// The database's, as for all methods here.
    pub async fn take_feed(
        &self,
        (cluster, partition): (&str, &str),
        holder: &str,
        session: Uuid,
        lease: Duration,
    ) -> Result<Result<(), String>, StoreError> {
        let taken = sqlx::query_scalar!(
            r#"INSERT INTO feeder AS f (cluster, partition, holder, session, expires)
               VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5))
               ON CONFLICT (cluster, partition) DO UPDATE
               SET holder = excluded.holder, session = excluded.session, expires = excluded.expires
               WHERE f.session = excluded.session OR f.expires < clock_timestamp()
               RETURNING true AS "taken!""#,
            cluster,
            partition,
            bounded(holder, NAME),
            session,
            lease.as_secs_f64()
        )
        .fetch_optional(self.pool())
        .await?;
        if taken.is_some() {
            return Ok(Ok(()));
        }
        let other = sqlx::query_scalar!(
            "SELECT holder FROM feeder WHERE cluster = $1 AND partition = $2",
            cluster,
            partition
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(Err(other.unwrap_or_default()))
    }

    /// Gives up the right to submit.
    pub async fn leave_feed(&self, session: Uuid) -> Result<(), StoreError> {
        sqlx::query!("DELETE FROM feeder WHERE session = $1", session)
            .execute(self.pool())
            .await?;
        Ok(())
    }

    /// The allocations that have not ended, and those that ended within the last day, in order of
    /// submission.
    pub async fn allocations(&self) -> Result<Vec<Allocation>, StoreError> {
        Ok(sqlx::query_as!(
            Allocation,
            "SELECT id, cluster, partition, slurm_id, log, submitted, state, reason, started, ends,
                    restarts, ended, died
             FROM allocation WHERE ended IS NULL OR ended > now() - interval '1 day'
             ORDER BY id"
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// Records a submission; one that is recorded already stays as it is. Old ones are deleted.
    pub async fn add_allocation(
        &self,
        (cluster, partition): (&str, &str),
        slurm_id: i64,
        log: &str,
    ) -> Result<(), StoreError> {
        sqlx::query!("DELETE FROM allocation WHERE ended < now() - interval '30 days'")
            .execute(self.pool())
            .await?;
        sqlx::query!(
            "INSERT INTO allocation (cluster, partition, slurm_id, log) VALUES ($1, $2, $3, $4)
             ON CONFLICT (cluster, slurm_id) WHERE ended IS NULL DO NOTHING",
            cluster,
            partition,
            slurm_id,
            log
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Stores what became of an allocation.
    pub async fn update_allocation(&self, allocation: &Allocation) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE allocation
             SET state = $2, reason = $3, started = $4, ends = $5, restarts = $6, ended = $7, died = $8
             WHERE id = $1",
            allocation.id,
            bounded(&allocation.state, NAME),
            bounded(&allocation.reason, REASON),
            allocation.started,
            allocation.ends,
            allocation.restarts,
            allocation.ended,
            allocation.died
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Whether a worker of this name was granted a job since then.
    pub async fn was_granted_a_job(
        &self,
        worker: &str,
        since: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT EXISTS (
                   SELECT FROM attempt
                   WHERE granted >= $2 AND starts_with(regexp_replace(worker, '^.*[.]', ''), $1 || '-')
               ) AS "exists!""#,
            worker,
            since
        )
        .fetch_one(self.pool())
        .await?)
    }

    /// How much work of running sweeps is left for workers with these labels. A training job costs what
    /// is estimated for it, else what its method took on average; what it has trained already is
    /// subtracted. Where workers are `named` after their allocations, jobs that other workers have do
    /// not count.
    pub async fn open_work(&self, labels: &[String], named: bool) -> Result<OpenWork, StoreError> {
        Ok(sqlx::query_as!(
            OpenWork,
            r#"WITH took AS (
                   SELECT j.kind, j.method, avg(a.seconds) AS seconds
                   FROM attempt a JOIN job j ON j.id = a.job
                   WHERE a.outcome = 'done' AND a.seconds > 0 AND j.kind <> 'noop'
                   GROUP BY j.kind, j.method
               ), open AS (
                   SELECT j.sweep, j.kind, j.state, coalesce(j.train_job, j.sweep, j.id) AS bundle,
                          coalesce(nullif(j.cost, 0), t.seconds)
                              * greatest(0, 1 - coalesce(e.epochs / nullif(e.max, 0), 0)) AS seconds
                   FROM job j
                   JOIN sweep s ON s.id = j.sweep AND s.state = 'running'
                   LEFT JOIN took t ON (t.kind, t.method) = (j.kind, j.method)
                   LEFT JOIN LATERAL (
                       SELECT (SELECT count(*) FROM epoch_log l WHERE l.job = j.id)::float8 AS epochs,
                              (c.spec ->> 'max_epochs')::float8 AS max
                       FROM config c WHERE c.id = j.config AND j.kind = 'train'
                   ) e ON true
                   WHERE j.state IN ('blocked', 'ready', 'queued', 'running')
                     AND (j.label IS NULL OR j.label = ANY($1))
                     AND (NOT $2 OR j.lease_until IS NULL OR EXISTS (
                         SELECT FROM allocation l
                         WHERE l.ended IS NULL
                           AND starts_with(regexp_replace(j.worker, '^.*[.]', ''),
                                           l.cluster || '-' || l.slurm_id || '-')))
               ), by_sweep AS (
                   SELECT o.sweep,
                          count(*) FILTER (WHERE kind = 'train')
                              + count(DISTINCT bundle) FILTER (WHERE kind <> 'train' AND state <> 'blocked')
                              AS parallel,
                          coalesce(sum(seconds), 0) AS seconds,
                          count(*) FILTER (WHERE kind = 'train' AND seconds IS NULL) AS unknown
                   FROM open o GROUP BY o.sweep
               )
               SELECT coalesce(sum(least(parallel, s.max_running)), 0)::bigint AS "parallel!",
                      coalesce(sum(seconds), 0)::float8 AS "seconds!",
                      coalesce(sum(unknown), 0)::bigint AS "unknown!"
               FROM by_sweep b JOIN sweep s ON s.id = b.sweep"#,
            labels,
            named
        )
        .fetch_one(self.pool())
        .await?)
    }
}
