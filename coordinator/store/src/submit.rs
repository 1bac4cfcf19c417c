//! Submission: a sweep and the jobs that it asks for, in one transaction.

mod columns;

use crate::{
    JobCounts, Store, StoreError, benchmarks, costs,
    fault::is_rollback,
    retry::MAX_ROLLBACKS,
    sharing::{self, Which},
    tallies,
    terms::{self, SweepTerms, Terms},
};
use columns::{Columns, Planned};
use halfheard_shared::{ids::SweepId, matrix::PlannedJob, retry::Backoff};
use sqlx::{Connection as _, Postgres, Transaction};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Jobs per statement.
const BATCH: usize = 8192;
/// Names of other sweeps that are mentioned.
const NAMES: i64 = 3;

/// A sweep to submit.
#[derive(Clone, Debug)]
pub struct NewSweep {
    /// Derived from the resolved spec and the nonce.
    pub id: SweepId,
    /// The spec's name.
    pub name: String,
    /// Distinguishes sweeps of the same spec.
    pub nonce: Option<String>,
    /// The spec as written.
    pub spec: String,
    /// The spec with everything filled in.
    pub resolved: serde_json::Value,
    /// Who submits it: the owner of a new sweep, unless `terms` names another.
    pub owner: String,
    /// Priority and the like; what is `None` is left as it is, or at its default.
    pub terms: Terms,
    /// Floating-point operations of a training, by config, where they can be counted: the longest are granted
    /// first, also while nothing was measured.
    pub flop: BTreeMap<Uuid, f64>,
}

/// The jobs of a new sweep that other sweeps had asked for before, as they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Shared {
    /// Done: their results are this sweep's too.
    pub done: i64,
    /// Unfinished.
    pub open: i64,
    /// Failed; `coord retry` runs them again, for all sweeps.
    pub failed: i64,
    /// Cancelled with their sweeps; they continue, or are done if their result arrived all the same.
    pub cancelled: i64,
    /// The names of up to three sweeps under which the unfinished ones are scheduled, the one with
    /// most first.
    pub sweeps: Vec<String>,
}

/// The outcome of a submission.
#[derive(Clone, Debug, PartialEq)]
pub struct Submitted {
    /// False if the sweep existed already.
    pub new: bool,
    /// The jobs of the sweep.
    pub jobs: JobCounts,
    /// Those that no sweep had asked for before; none of a sweep that existed.
    pub fresh: JobCounts,
    /// The other jobs of a new sweep.
    pub shared: Shared,
    /// Cancelled jobs that continue.
    pub reopened: JobCounts,
    /// The terms of the sweep before, if it existed.
    pub before: Option<SweepTerms>,
    /// Its terms now.
    pub terms: SweepTerms,
}

impl Store {
    /// Writes a sweep and what it asks for in one transaction: memory stays flat however many jobs
    /// there are. A job that exists already is shared with the sweeps that asked for it, in whatever
    /// state it is; a cancelled one continues.
    ///
    /// A sweep that exists keeps its jobs. Its terms become those given, the paths of its files those
    /// of this submission, and if it was cancelled, it continues.
    ///
    /// # Errors
    ///
    /// The database's; results of another protocol under the same dataset name; a job twice.
    pub async fn submit(
        &self,
        sweep: &NewSweep,
        jobs: impl IntoIterator<Item = PlannedJob>,
    ) -> Result<Submitted, StoreError> {
        let mut tx = sharing::begin(self).await?;
        let new = insert_sweep(&mut tx, sweep).await?;
        let mut planned = Planned::default();
        let mut fresh = JobCounts::default();
        let mut jobs = jobs.into_iter();
        loop {
            let mut rows = Columns::default();
            for job in jobs.by_ref().take(BATCH) {
                planned.push(job, &mut rows)?;
            }
            if rows.id.is_empty() {
                break;
            }
            if new {
                fresh += insert_jobs(&mut tx, sweep.id, &rows).await?;
            }
        }
        for dataset in &planned.datasets {
            benchmarks::register(&mut tx, sweep.id, *dataset).await?;
        }
        write_configs(&mut tx, &planned, &sweep.flop).await?;
        let (before, terms) = terms::set(&mut tx, sweep.id, &sweep.terms).await?;
        let jobs = if new {
            set_counts(&mut tx, sweep.id, planned.counts).await?;
            planned.counts
        } else {
            counts(&mut tx, sweep.id).await?
        };
        let mut submitted = Submitted {
            new,
            jobs,
            fresh,
            shared: Shared::default(),
            reopened: JobCounts::default(),
            before: (!new).then_some(before),
            terms,
        };
        if !new || fresh != jobs {
            (submitted.shared, submitted.reopened) =
                join_retrying(&mut tx, sweep.id, new, &planned).await?;
            if new {
                tallies::recount(&mut tx, sweep.id).await?;
            }
        }
        costs::estimate(&mut tx, Some(sweep.id)).await?;
        tx.commit().await?;
        Ok(submitted)
    }
}

/// As [`join`], again if it lost against another transaction: everything before it is kept.
async fn join_retrying(
    tx: &mut Transaction<'_, Postgres>,
    sweep: SweepId,
    new: bool,
    planned: &Planned,
) -> Result<(Shared, JobCounts), StoreError> {
    let mut backoff = Backoff::default();
    let mut left = MAX_ROLLBACKS;
    loop {
        let mut savepoint = tx.begin().await?;
        match join(&mut savepoint, sweep, new, planned).await {
            Ok(joined) => {
                savepoint.commit().await?;
                return Ok(joined);
            }
            Err(StoreError::Query(error)) if left > 0 && is_rollback(&error) => {
                // That releases the locks.
                savepoint.rollback().await?;
                left -= 1;
                tokio::time::sleep(backoff.delay()).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Lets a sweep join those that had asked for some of its jobs before, or continue itself. Returns
/// what it shares, and what was reopened.
async fn join(
    tx: &mut Transaction<'_, Postgres>,
    sweep: SweepId,
    new: bool,
    planned: &Planned,
) -> Result<(Shared, JobCounts), StoreError> {
    sharing::lock_jobs(tx, sweep, !new).await?;
    let shared = if new {
        shared(tx, sweep).await?
    } else {
        sharing::uncancel(tx, sweep).await?;
        Shared::default()
    };
    write_needs(tx, sweep, planned).await?;
    sharing::reschedule(tx, sweep).await?;
    let reopened = sharing::reopen(tx, sweep, Which::CANCELLED).await?;
    sharing::settle(tx, sweep).await?;
    Ok((shared, reopened))
}

/// Returns whether the sweep is new.
async fn insert_sweep(
    tx: &mut Transaction<'_, Postgres>,
    sweep: &NewSweep,
) -> Result<bool, StoreError> {
    let written = sqlx::query!(
        "INSERT INTO sweep (id, name, nonce, spec, resolved, owner, train_jobs, eval_jobs)
         VALUES ($1, $2, $3, $4, $5, $6, 0, 0)
         ON CONFLICT (id) DO NOTHING",
        sweep.id.0,
        sweep.name,
        sweep.nonce,
        sweep.spec,
        sweep.resolved,
        sweep.owner,
    )
    .execute(&mut **tx)
    .await?
    .rows_affected();
    Ok(written > 0)
}

/// Writes jobs that do not exist, and that the sweep asks for all of them. Returns how many were new.
///
/// An evaluation of a model that is trained already begins `ready`; the states of models may change
/// until [`sharing::lock_jobs`], after which [`sharing::settle`] has the last word.
async fn insert_jobs(
    tx: &mut Transaction<'_, Postgres>,
    sweep: SweepId,
    rows: &Columns,
) -> Result<JobCounts, StoreError> {
    Ok(sqlx::query_as!(
        JobCounts,
        r#"WITH planned AS (
               SELECT * FROM unnest($2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[],
                                    $7::text[], $8::bigint[], $9::text[], $10::uuid[],
                                    $11::uuid[], $12::bigint[], $13::text[], $14::text[])
                   AS p (id, position, kind, method, variant, dataset, seed, case_id, train,
                         config, memory, label, confusions)
           ), fresh AS (
               INSERT INTO job (id, sweep, position, kind, method, variant, dataset, seed, case_id,
                                confusions, train_job, config, min_memory, label, state)
               SELECT p.id, $1, p.position, p.kind::job_kind, p.method, p.variant, p.dataset,
                      p.seed, p.case_id, p.confusions, p.train, p.config, p.memory, p.label,
                      CASE WHEN p.train IS NULL THEN 'ready'::job_state
                           WHEN (SELECT t.state FROM job t WHERE t.id = p.train) = 'done'
                           THEN 'ready' ELSE 'blocked' END
               FROM planned p
               ON CONFLICT (id) DO NOTHING
               RETURNING kind
           ), asked AS (
               INSERT INTO sweep_job (sweep, position, job)
               SELECT $1, p.position, p.id FROM planned p
           )
           SELECT count(*) FILTER (WHERE kind = 'train') AS "train!",
                  count(*) FILTER (WHERE kind = 'eval') AS "eval!",
                  count(*) FILTER (WHERE kind = 'noop') AS "noop!"
           FROM fresh"#,
        sweep.0,
        &rows.id,
        &rows.position,
        &rows.kind as &[&str],
        &rows.method,
        &rows.variant,
        &rows.dataset as &[&str],
        &rows.seed,
        &rows.case as &[Option<String>],
        &rows.train as &[Option<Uuid>],
        &rows.config as &[Option<Uuid>],
        &rows.memory,
        &rows.label as &[Option<String>],
        &rows.confusions as &[Option<String>],
    )
    .fetch_one(&mut **tx)
    .await?)
}

/// Writes the configs. Of one that exists only the paths can differ, which are hints: the newest count.
async fn write_configs(
    tx: &mut Transaction<'_, Postgres>,
    planned: &Planned,
    flop: &BTreeMap<Uuid, f64>,
) -> Result<(), StoreError> {
    let (ids, specs): (Vec<Uuid>, Vec<serde_json::Value>) = planned
        .configs
        .iter()
        .map(|(id, config)| (*id, config.spec.clone()))
        .unzip();
    let flop: Vec<f64> = ids
        .iter()
        .map(|id| flop.get(id).copied().unwrap_or_default())
        .collect();
    // Who cannot count them leaves them as they are.
    sqlx::query!(
        "INSERT INTO config AS c (id, spec, flop)
         SELECT * FROM unnest($1::uuid[], $2::jsonb[], $3::float8[])
         ON CONFLICT (id) DO UPDATE
         SET spec = EXCLUDED.spec, flop = coalesce(nullif(EXCLUDED.flop, 0), c.flop)
         WHERE c.spec <> EXCLUDED.spec OR EXCLUDED.flop NOT IN (0, c.flop)",
        &ids,
        &specs,
        &flop
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Writes what unfinished jobs need of a worker. Memory is only ever raised: that a job ran out of it
/// may have been learned.
async fn write_needs(
    tx: &mut Transaction<'_, Postgres>,
    sweep: SweepId,
    planned: &Planned,
) -> Result<(), StoreError> {
    let configs = planned.configs.iter();
    let ids: Vec<Uuid> = configs.clone().map(|(id, _)| *id).collect();
    let memory: Vec<i64> = configs.clone().map(|(_, config)| config.memory).collect();
    let label: Vec<Option<&str>> = configs.map(|(_, config)| config.label.as_deref()).collect();
    sqlx::query!(
        "WITH mine AS (
             SELECT j.id, n.memory, n.label
             FROM sweep_job w
             JOIN job j ON j.id = w.job
             JOIN unnest($2::uuid[], $3::bigint[], $4::text[]) AS n (config, memory, label)
               ON n.config = j.config
             WHERE w.sweep = $1 AND j.state NOT IN ('done', 'failed')
               AND (j.min_memory < n.memory OR j.label IS DISTINCT FROM n.label)
             ORDER BY j.id FOR NO KEY UPDATE OF j
         )
         UPDATE job SET min_memory = greatest(job.min_memory, mine.memory), label = mine.label
         FROM mine WHERE job.id = mine.id",
        sweep.0,
        &ids,
        &memory,
        &label as &[Option<&str>]
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn set_counts(
    tx: &mut Transaction<'_, Postgres>,
    sweep: SweepId,
    jobs: JobCounts,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE sweep SET train_jobs = $2, eval_jobs = $3, noop_jobs = $4 WHERE id = $1",
        sweep.0,
        jobs.train,
        jobs.eval,
        jobs.noop
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn counts(
    tx: &mut Transaction<'_, Postgres>,
    sweep: SweepId,
) -> Result<JobCounts, StoreError> {
    Ok(sqlx::query_as!(
        JobCounts,
        "SELECT train_jobs AS train, eval_jobs AS eval, noop_jobs AS noop FROM sweep WHERE id = $1",
        sweep.0
    )
    .fetch_one(&mut **tx)
    .await?)
}

/// What a new sweep shares: its jobs that are still scheduled under other sweeps.
async fn shared(tx: &mut Transaction<'_, Postgres>, sweep: SweepId) -> Result<Shared, StoreError> {
    let row = sqlx::query!(
        r#"WITH found AS (
               SELECT j.state, j.sweep FROM sweep_job w JOIN job j ON j.id = w.job
               WHERE w.sweep = $1 AND j.sweep IS DISTINCT FROM $1
           )
           SELECT count(*) FILTER (WHERE state = 'done') AS "done!",
                  count(*) FILTER (WHERE state IN ('blocked', 'ready', 'queued', 'running'))
                      AS "open!",
                  count(*) FILTER (WHERE state = 'failed') AS "failed!",
                  count(*) FILTER (WHERE state = 'cancelled') AS "cancelled!",
                  ARRAY(SELECT s.name FROM found f JOIN sweep s ON s.id = f.sweep
                        WHERE f.state IN ('blocked', 'ready', 'queued', 'running')
                        GROUP BY s.id, s.name ORDER BY count(*) DESC, s.name LIMIT $2)
                      AS "sweeps!"
           FROM found"#,
        sweep.0,
        NAMES
    )
    .fetch_one(&mut **tx)
    .await?;
    Ok(Shared {
        done: row.done,
        open: row.open,
        failed: row.failed,
        cancelled: row.cancelled,
        sweeps: row.sweeps,
    })
}
