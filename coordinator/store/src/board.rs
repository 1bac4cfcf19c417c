//! All sweeps at a glance, for pages that many look at: few statements, whatever the number of sweeps.

use crate::{
    Store, StoreError, SweepState,
    status::SweepProgress,
    sweeps::{Progress, SweepRow},
};
use halfheard_shared::ids::SweepId;
use std::collections::HashMap;

/// A sweep with its jobs counted.
#[derive(Clone, Debug)]
pub struct BoardRow {
    /// The sweep.
    pub sweep: SweepRow,
    /// Its jobs by state and kind.
    pub progress: SweepProgress,
    /// Jobs that were done within the last [`RECENT`] seconds.
    pub recent: i64,
}

/// How many seconds are recent.
pub const RECENT: i32 = 600;

/// What a sweep has cost, in seconds of devices. Attempts that failed or were lost count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Seconds of GPUs.
    pub gpu: f64,
    /// Seconds of workers on a processor.
    pub cpu: f64,
}

impl Store {
    /// All sweeps with their jobs counted, newest first.
    ///
    /// # Errors
    ///
    /// The database's, as for all methods here.
    pub async fn board(&self) -> Result<Vec<BoardRow>, StoreError> {
        let sweeps = self.sweeps().await?;
        let counts = sqlx::query!(
            r#"WITH recent AS (
                   SELECT w.sweep, count(*) AS jobs_done
                   FROM sweep s
                   JOIN job j ON j.sweep = s.id AND j.state = 'done'
                       AND j.finished > now() - make_interval(secs => $1)
                   JOIN sweep_job w ON w.job = j.id
                   GROUP BY w.sweep
               )
               SELECT p.sweep AS "sweep!", p.blocked AS "blocked!", p.ready AS "ready!", p.queued AS "queued!",
                      p.running AS "running!", p.done AS "done!", p.failed AS "failed!",
                      p.cancelled AS "cancelled!", p.train_jobs AS "train_jobs!", p.train_done AS "train_done!",
                      p.eval_jobs AS "eval_jobs!", p.eval_done AS "eval_done!",
                      coalesce(r.jobs_done, 0) AS "recent!"
               FROM sweep_progress p LEFT JOIN recent r ON r.sweep = p.sweep"#,
            f64::from(RECENT)
        )
        .fetch_all(self.pool())
        .await?;
        let mut counts: HashMap<_, _> = counts.into_iter().map(|row| (row.sweep, row)).collect();
        let rows = sweeps.into_iter().map(|sweep| {
            let Some(row) = counts.remove(&sweep.id.0) else {
                return BoardRow {
                    sweep,
                    progress: SweepProgress::default(),
                    recent: 0,
                };
            };
            let progress = Progress {
                blocked: row.blocked,
                ready: row.ready,
                queued: row.queued,
                running: row.running,
                done: row.done,
                failed: row.failed,
                cancelled: row.cancelled,
            };
            BoardRow {
                progress: SweepProgress {
                    progress,
                    train_jobs: row.train_jobs,
                    train_done: row.train_done,
                    eval_jobs: row.eval_jobs,
                    eval_done: row.eval_done,
                    finished: sweep.state == SweepState::Cancelled || progress.open() == 0,
                },
                sweep,
                recent: row.recent,
            }
        });
        Ok(rows.collect())
    }

    /// What each sweep has cost so far: the time of training attempts, and of evaluations the seconds
    /// that were spent on their own cases. A job that several sweeps ask for costs each of them.
    pub async fn sweep_costs(&self) -> Result<HashMap<SweepId, Cost>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT w.sweep,
                      coalesce(sum(s) FILTER (WHERE a.device <> 'cpu'), 0)::float8 AS "gpu!",
                      coalesce(sum(s) FILTER (WHERE a.device = 'cpu'), 0)::float8 AS "cpu!"
               FROM sweep_job w
               JOIN job j ON j.id = w.job
               JOIN attempt a ON a.job = j.id
               CROSS JOIN LATERAL (
                   SELECT CASE WHEN j.kind = 'train'
                               THEN extract(epoch FROM coalesce(a.ended, now()) - a.started)::float8
                               ELSE a.seconds END AS s
               ) spent
               WHERE a.started IS NOT NULL AND a.device NOT IN ('', 'imported')
               GROUP BY w.sweep"#
        )
        .fetch_all(self.pool())
        .await?;
        let cost = |gpu, cpu| Cost { gpu, cpu };
        Ok(rows
            .into_iter()
            .map(|row| (SweepId(row.sweep), cost(row.gpu, row.cpu)))
            .collect())
    }

    /// A text that changes when something is written that pages show; cheap, whatever the number of
    /// jobs. Postgres counts changes of rows with a delay of a second or two; what operators change is
    /// noticed at once.
    pub async fn change_stamp(&self) -> Result<String, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT concat_ws(' ',
                   (SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables
                    WHERE relname IN ('job', 'attempt', 'epoch_log', 'checkpoint', 'dead_letter',
                                      'conflict', 'attempt_output')),
                   (SELECT md5(string_agg(concat_ws(' ', id, state, changed, owner, priority, weight,
                                                    max_running, max_failures), ',' ORDER BY id))
                    FROM sweep),
                   (SELECT md5(string_agg(concat_ws(' ', worker, at_once), ',' ORDER BY worker))
                    FROM drained_worker)) AS "stamp!""#
        )
        .fetch_one(self.pool())
        .await?)
    }
}
