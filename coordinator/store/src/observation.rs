//! What gauges show: jobs, sweeps, their cost and the pace of training, in a few statements that read
//! each table once, however often machines ask for metrics.

use crate::{JobKind, JobState, Store, StoreError, SweepState};
use chrono::{DateTime, Utc};
use halfheard_shared::ids::SweepId;
use uuid::Uuid;

/// Jobs of one kind, state, method and dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct JobGroup {
    /// Their kind.
    pub kind: JobKind,
    /// Their state.
    pub state: JobState,
    /// The method's id.
    pub method: String,
    /// The dataset's name.
    pub dataset: String,
    /// How many they are.
    pub jobs: i64,
    /// Those of sweeps that run, which a worker may get or will get.
    pub wanted: i64,
    /// Of the wanted, those of which no cost was estimated.
    pub unestimated: i64,
    /// The estimated cost of the wanted, in seconds.
    pub seconds: f64,
    /// Of the wanted that may be granted at the moment, for how many seconds the oldest has been waiting.
    pub oldest: Option<f64>,
    /// Mean seconds of those that are done.
    pub took: Option<f64>,
}

/// The jobs of a sweep in one state; without jobs, one row without a state.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepGroup {
    /// The sweep.
    pub sweep: SweepId,
    /// Its name.
    pub name: String,
    /// What the operator wants.
    pub wanted: SweepState,
    /// When it was submitted.
    pub created: DateTime<Utc>,
    /// The state of these jobs.
    pub state: Option<JobState>,
    /// How many they are.
    pub jobs: i64,
    /// Training steps in their saved states.
    pub steps: i64,
}

/// How fast jobs of one config train at the moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Pace {
    /// The method's id.
    pub method: String,
    /// Its hyper-parameters, a JSON object.
    pub hyper: String,
    /// Training jobs in progress.
    pub jobs: i64,
    /// Samples of the training split.
    pub samples: i32,
    /// Mean seconds of training in the last epoch of each.
    pub seconds: f64,
}

/// The lead and what was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The latest term.
    pub term: i64,
    /// Dead letters that are kept.
    pub dead_letters: i64,
}

impl Store {
    /// All jobs by kind, state, method and dataset.
    ///
    /// # Errors
    ///
    /// The database's, as for all methods here.
    pub async fn job_groups(&self) -> Result<Vec<JobGroup>, StoreError> {
        Ok(sqlx::query_as!(
            JobGroup,
            r#"SELECT j.kind AS "kind!: JobKind", j.state AS "state!: JobState", j.method AS "method!",
                      j.dataset AS "dataset!", count(*) AS "jobs!",
                      count(*) FILTER (WHERE s.id IS NOT NULL) AS "wanted!",
                      count(*) FILTER (WHERE s.id IS NOT NULL AND j.cost = 0) AS "unestimated!",
                      coalesce(sum(j.cost) FILTER (WHERE s.id IS NOT NULL), 0)::float8 AS "seconds!",
                      extract(epoch FROM now() - min(greatest(j.changed, j.not_before)) FILTER (
                          WHERE s.id IS NOT NULL AND j.not_before <= now()))::float8 AS "oldest?",
                      avg(extract(epoch FROM j.finished - j.started)) FILTER (
                          WHERE j.state = 'done')::float8 AS "took?"
               FROM job j LEFT JOIN sweep s ON s.id = j.sweep AND s.state = 'running'
               GROUP BY j.kind, j.state, j.method, j.dataset"#
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// The jobs of every sweep by state. A job that several sweeps ask for is in each of them.
    pub async fn sweep_groups(&self) -> Result<Vec<SweepGroup>, StoreError> {
        Ok(sqlx::query!(
            r#"SELECT s.id AS "id!", s.name AS "name!", s.state AS "wanted!: SweepState",
                      s.created AS "created!",
                      g.state AS "state?: JobState", coalesce(g.jobs, 0) AS "jobs!",
                      coalesce(g.steps, 0) AS "steps!"
               FROM sweep s
               LEFT JOIN (
                   SELECT w.sweep, j.state, count(*) AS jobs, sum(j.progress)::bigint AS steps
                   FROM sweep_job w JOIN job j ON j.id = w.job GROUP BY w.sweep, j.state
               ) g ON g.sweep = s.id"#
        )
        .fetch_all(self.pool())
        .await?
        .into_iter()
        .map(|row| SweepGroup {
            sweep: SweepId(row.id),
            name: row.name,
            wanted: row.wanted,
            created: row.created,
            state: row.state,
            jobs: row.jobs,
            steps: row.steps,
        })
        .collect())
    }

    /// For how many seconds slots were busy with the jobs of each of `sweeps`, those in progress
    /// included. Attempts of one slot at several evaluations overlap, and count once.
    pub async fn busy_seconds(
        &self,
        sweeps: &[SweepId],
    ) -> Result<Vec<(SweepId, f64)>, StoreError> {
        let sweeps: Vec<Uuid> = sweeps.iter().map(|sweep| sweep.0).collect();
        Ok(sqlx::query!(
            r#"SELECT sweep, sum((SELECT sum(extract(epoch FROM upper(s) - lower(s)))
                                  FROM unnest(spans) s))::float8 AS "seconds!"
               FROM (SELECT w.sweep, a.worker,
                            range_agg(tstzrange(a.started, coalesce(a.ended, now()))) AS spans
                     FROM sweep_job w JOIN attempt a ON a.job = w.job
                     WHERE w.sweep = ANY($1) AND a.started < coalesce(a.ended, now())
                     GROUP BY w.sweep, a.worker) w
               GROUP BY sweep"#,
            &sweeps
        )
        .fetch_all(self.pool())
        .await?
        .into_iter()
        .map(|row| (SweepId(row.sweep), row.seconds))
        .collect())
    }

    /// How fast the training jobs in progress are, by config; those in their first epoch are left out.
    pub async fn paces(&self) -> Result<Vec<Pace>, StoreError> {
        Ok(sqlx::query_as!(
            Pace,
            r#"SELECT j.method, coalesce(c.spec ->> 'hyper', '') AS "hyper!", count(*) AS "jobs!",
                      min(d.train_samples) AS "samples!", avg(e.train_seconds) AS "seconds!"
               FROM job j
               CROSS JOIN LATERAL (
                   SELECT train_seconds FROM epoch_log
                   WHERE job = j.id ORDER BY epoch DESC LIMIT 1
               ) e
               JOIN config c ON c.id = j.config
               JOIN dataset d ON d.blake3 = c.spec #>> '{data,blake3}'
               WHERE j.kind = 'train' AND j.state = 'running' AND e.train_seconds > 0
               GROUP BY j.method, c.id"#
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// The latest term and the dead letters.
    pub async fn standing(&self) -> Result<Standing, StoreError> {
        Ok(sqlx::query_as!(
            Standing,
            r#"SELECT term, (SELECT count(*) FROM dead_letter) AS "dead_letters!" FROM leadership"#
        )
        .fetch_one(self.pool())
        .await?)
    }
}
