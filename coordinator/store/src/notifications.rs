//! What operators are told about: the sweeps to look at, and which events they know already.

use crate::{Store, StoreError, SweepState, sweeps::Progress, text::bounded};
use chrono::{DateTime, Utc};
use halfheard_shared::ids::SweepId;

/// The most events of an hour: a worker that invents troubles must not flood anybody. Others wait.
const MAX_PER_HOUR: i64 = 60;
/// The longest key, in bytes.
const KEY: usize = 500;

/// A sweep and how far it is.
#[derive(Clone, Debug)]
pub struct Activity {
    /// Primary key.
    pub sweep: SweepId,
    /// The name in its spec.
    pub name: String,
    /// Who submitted it.
    pub owner: String,
    /// What the operator wants.
    pub state: SweepState,
    /// Why the coordinator paused it by itself.
    pub stopped_because: Option<String>,
    /// When it was submitted.
    pub created: DateTime<Utc>,
    /// When its state changed last.
    pub changed: DateTime<Utc>,
    /// Its jobs by state.
    pub progress: Progress,
    /// Jobs that a worker may have at once: ready, and not waiting for a retry.
    pub due: i64,
    /// When one of its jobs, or the sweep itself, changed its state last.
    pub advanced: DateTime<Utc>,
    /// When the last of its jobs ended.
    pub finished: Option<DateTime<Utc>>,
}

/// When events were looked for, by the database's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// For the first time.
    pub began: DateTime<Utc>,
    /// For the last time before now.
    pub before: Option<DateTime<Utc>>,
    /// Now.
    pub now: DateTime<Utc>,
}

/// Messages that were refused and that nobody was told about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDeadLetters {
    /// How many.
    pub count: i64,
    /// The id of the newest.
    pub newest: i64,
    /// Why it was refused.
    pub reason: String,
}

impl Store {
    /// Records that events are looked for, and forgets those of more than 90 days ago.
    ///
    /// # Errors
    ///
    /// The database's, as for all methods here; [`StoreError::Deposed`].
    pub async fn watch_events(&self) -> Result<Watched, StoreError> {
        let mut tx = self.begin().await?;
        let before = sqlx::query_scalar!(
            "SELECT at FROM notification WHERE event = 'watched' AND key = 'last'"
        )
        .fetch_optional(&mut *tx)
        .await?;
        let now = sqlx::query_scalar!(
            "INSERT INTO notification (event, key) VALUES ('watched', 'last')
             ON CONFLICT (event, key) DO UPDATE SET at = now() RETURNING at"
        )
        .fetch_one(&mut *tx)
        .await?;
        let began = sqlx::query_scalar!(
            "INSERT INTO notification AS n (event, key) VALUES ('watched', 'first')
             ON CONFLICT (event, key) DO UPDATE SET at = n.at RETURNING at"
        )
        .fetch_one(&mut *tx)
        .await?;
        sqlx::query!(
            "DELETE FROM notification WHERE at < now() - interval '90 days' AND event <> 'watched'"
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Watched { began, before, now })
    }

    /// The sweeps that are not cancelled and have open jobs, are among `sweeps`, or changed after
    /// `since`; with `all`, the others as well, which takes a while where there are many.
    pub async fn activity(
        &self,
        sweeps: &[SweepId],
        since: DateTime<Utc>,
        all: bool,
    ) -> Result<Vec<Activity>, StoreError> {
        let sweeps: Vec<_> = sweeps.iter().map(|sweep| sweep.0).collect();
        let rows = sqlx::query!(
            r#"SELECT s.id, s.name, s.owner, s.state AS "state: SweepState", s.stopped_because,
                      s.created, s.changed, p.blocked AS "blocked!", p.ready AS "ready!",
                      p.queued AS "queued!", p.running AS "running!", p.done AS "done!",
                      p.failed AS "failed!", p.cancelled AS "cancelled!", p.due AS "due!",
                      greatest(s.changed, p.changed) AS "advanced!", p.finished
               FROM sweep s
               CROSS JOIN LATERAL (
                   SELECT count(*) FILTER (WHERE j.state = 'blocked') AS blocked,
                          count(*) FILTER (WHERE j.state = 'ready') AS ready,
                          count(*) FILTER (WHERE j.state = 'queued') AS queued,
                          count(*) FILTER (WHERE j.state = 'running') AS running,
                          count(*) FILTER (WHERE j.state = 'done') AS done,
                          count(*) FILTER (WHERE j.state = 'failed') AS failed,
                          count(*) FILTER (WHERE j.state = 'cancelled') AS cancelled,
                          count(*) FILTER (WHERE j.state = 'ready' AND j.not_before <= now()) AS due,
                          max(j.changed) AS changed,
                          max(j.finished) AS finished
                   FROM sweep_job w JOIN job j ON j.id = w.job WHERE w.sweep = s.id
               ) p
               WHERE s.state <> 'cancelled'
                 AND ($3 OR s.id = ANY($1) OR s.changed > $2
                      OR EXISTS (SELECT FROM job o WHERE o.sweep = s.id
                                 AND o.state IN ('ready', 'queued', 'running')))
               ORDER BY s.created, s.id"#,
            &sweeps,
            since,
            all
        )
        .fetch_all(self.pool())
        .await?;
        let activities = rows.into_iter().map(|row| Activity {
            sweep: SweepId(row.id),
            name: row.name,
            owner: row.owner,
            state: row.state,
            stopped_because: row.stopped_because,
            created: row.created,
            changed: row.changed,
            progress: Progress {
                blocked: row.blocked,
                ready: row.ready,
                queued: row.queued,
                running: row.running,
                done: row.done,
                failed: row.failed,
                cancelled: row.cancelled,
            },
            due: row.due,
            advanced: row.advanced,
            finished: row.finished,
        });
        Ok(activities.collect())
    }

    /// The messages that were refused after `since` and after those that somebody was told about;
    /// `None` without any, and within ten minutes of the last time.
    pub async fn new_dead_letters(
        &self,
        since: DateTime<Utc>,
    ) -> Result<Option<NewDeadLetters>, StoreError> {
        let row = sqlx::query!(
            r#"WITH told AS (
                   SELECT max(key::bigint) AS id, max(at) AS at
                   FROM notification WHERE event = 'dead_letters'
               )
               SELECT count(*) AS "count!", max(d.id) AS newest,
                      (array_agg(d.reason ORDER BY d.id DESC))[1] AS reason
               FROM dead_letter d, told
               WHERE d.received > $1 AND d.id > coalesce(told.id, 0)
                 AND coalesce(told.at < now() - interval '10 minutes', true)"#,
            since
        )
        .fetch_one(self.pool())
        .await?;
        Ok(row.newest.map(|newest| NewDeadLetters {
            count: row.count,
            newest,
            reason: row.reason.unwrap_or_default(),
        }))
    }

    /// Records an event. Returns whether it is new and somebody is to be told: never for the same event
    /// again, and not yet if there were many within the last hour.
    pub async fn claim_event(
        &self,
        event: &str,
        key: &str,
        sweep: Option<SweepId>,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let claimed = sqlx::query!(
            "INSERT INTO notification (event, key, sweep)
             SELECT $1, $2, $3
             WHERE (SELECT count(*) FROM notification
                    WHERE at > now() - interval '1 hour' AND event <> 'watched') < $4
             ON CONFLICT DO NOTHING",
            event,
            bounded(key, KEY),
            sweep.map(|sweep| sweep.0),
            MAX_PER_HOUR
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(claimed.rows_affected() > 0)
    }
}
