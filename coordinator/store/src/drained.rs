//! Drained workers: those that an operator grants nothing more, until told otherwise.
//!
//! A name stands for one slot (`gpu7-12-0`), for a worker with all its slots (`gpu7-12`), or, with
//! [`HOST`] before it, for all workers of a machine. It outlives their processes.

use crate::{
    Store, StoreError,
    retry::retry_rollback,
    text::{NAME, bounded},
};
use chrono::{DateTime, Utc};
use halfheard_shared::{text::plain, wire::WorkerInfo};
use sqlx::PgConnection;

/// What stands before the name of a machine; names of workers have no colon.
pub const HOST: &str = "host:";

/// How long a job that was at work is not granted again: its worker saves a last state meanwhile.
const SAVING: f64 = 10.0;

/// How a name is shown: `gpu7-12`, or `machine gpu7`.
pub fn title(worker: &str) -> String {
    match worker.strip_prefix(HOST) {
        Some(host) => format!("machine {}", plain(host)),
        None => plain(worker),
    }
}

/// A name that is drained.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Drained {
    /// A slot, a worker, or `host:` and a machine.
    pub worker: String,
    /// Who asked for it.
    pub by: String,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Whether what they have is taken back, rather than finished.
    pub at_once: bool,
}

impl Drained {
    /// Whether this slot is meant.
    pub fn covers(&self, slot: &WorkerInfo) -> bool {
        if let Some(host) = self.worker.strip_prefix(HOST) {
            return slot.host == host;
        }
        let Some(rest) = slot.name.strip_prefix(&self.worker) else {
            return false;
        };
        let number = rest.strip_prefix('-').unwrap_or_default();
        rest.is_empty() || (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    }
}

impl Store {
    /// Grants a worker nothing more; what it has, it finishes. Returns whether that is new.
    ///
    /// # Errors
    ///
    /// The database's, as for all methods here.
    pub async fn drain(&self, worker: &str, by: &str) -> Result<bool, StoreError> {
        let added = sqlx::query!(
            "INSERT INTO drained_worker (worker, by) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            bounded(worker, NAME),
            bounded(by, NAME)
        )
        .execute(self.pool())
        .await?;
        Ok(added.rows_affected() > 0)
    }

    /// Takes back what a drained worker has, and whatever a grant on its way adds to it. Its attempts
    /// do not count, and the leader tells the worker, which saves a state of what is at work. Returns
    /// how many jobs were taken back.
    pub async fn take_back(&self, worker: &str) -> Result<u64, StoreError> {
        // In one transaction: else the leader could take them in between, and nobody would be told of them here.
        retry_rollback(|| async {
            let mut tx = self.begin().await?;
            sqlx::query!(
                "UPDATE drained_worker SET at_once = true WHERE worker = $1",
                bounded(worker, NAME)
            )
            .execute(&mut *tx)
            .await?;
            let jobs = take_back_in(&mut tx).await?;
            tx.commit().await?;
            Ok(jobs)
        })
        .await
    }

    /// Takes back what workers have that are drained at once: a grant may have been on its way. Returns
    /// how many jobs.
    pub async fn take_back_drained(&self) -> Result<u64, StoreError> {
        // Usually there is none, and no transaction is needed.
        if !self.drained().await?.iter().any(|drained| drained.at_once) {
            return Ok(0);
        }
        retry_rollback(|| async {
            let mut tx = self.begin().await?;
            let jobs = take_back_in(&mut tx).await?;
            tx.commit().await?;
            Ok(jobs)
        })
        .await
    }

    /// Grants a worker jobs again. Returns whether it was drained under this name.
    pub async fn undrain(&self, worker: &str) -> Result<bool, StoreError> {
        let removed = sqlx::query!(
            "DELETE FROM drained_worker WHERE worker = $1",
            bounded(worker, NAME)
        )
        .execute(self.pool())
        .await?;
        Ok(removed.rows_affected() > 0)
    }

    /// The names that are drained, in order.
    pub async fn drained(&self) -> Result<Vec<Drained>, StoreError> {
        Ok(sqlx::query_as!(
            Drained,
            "SELECT worker, by, since, at_once FROM drained_worker ORDER BY worker"
        )
        .fetch_all(self.pool())
        .await?)
    }
}

async fn take_back_in(tx: &mut PgConnection) -> Result<u64, StoreError> {
    let jobs = sqlx::query_scalar!(
        r#"WITH mine AS (
               SELECT j.id, j.attempt, j.state FROM job j JOIN attempt a ON a.id = j.attempt
               WHERE j.state IN ('queued', 'running') AND EXISTS (
                   SELECT FROM drained_worker d WHERE d.at_once
                     AND (d.worker = j.worker OR d.worker = $1::text || a.host
                          OR d.worker = regexp_replace(j.worker, '-[0-9]+$', '')))
               ORDER BY j.id FOR NO KEY UPDATE OF j
           ), taken AS (
               UPDATE job SET state = 'ready', lease_until = NULL,
                              not_before = CASE mine.state WHEN 'running'
                                  THEN now() + make_interval(secs => $2)
                                  ELSE job.not_before END
               FROM mine WHERE job.id = mine.id
           ), ended AS (
               UPDATE attempt SET outcome = 'revoked', ended = now()
               FROM mine WHERE attempt.id = mine.attempt AND attempt.outcome IS NULL
           )
           SELECT count(*) AS "jobs!" FROM mine"#,
        HOST,
        SAVING
    )
    .fetch_one(tx)
    .await?;
    Ok(jobs.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_covers_a_slot_a_worker_or_a_machine() {
        let slot = WorkerInfo {
            name: "red.gpu7-12-0".to_owned(),
            host: "gpu7.example".to_owned(),
            device: "cpu".to_owned(),
            version: "0".to_owned(),
            processor: String::new(),
        };
        let covers = |worker: &str| {
            let drained = Drained {
                worker: worker.to_owned(),
                by: String::new(),
                since: DateTime::UNIX_EPOCH,
                at_once: false,
            };
            drained.covers(&slot)
        };
        for worker in ["red.gpu7-12-0", "red.gpu7-12", "host:gpu7.example"] {
            assert!(covers(worker), "{worker}");
        }
        for worker in [
            "red.gpu7",
            "red.gpu7-1",
            "red.gpu7-12-",
            "gpu7-12",
            "host:gpu7",
            "",
        ] {
            assert!(!covers(worker), "{worker}");
        }
    }
}
