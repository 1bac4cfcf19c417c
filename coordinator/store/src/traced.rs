//! The way of an attempt, from the moment its job was ready.

use crate::{JobKind, Store, StoreError};
use chrono::{DateTime, Utc};
use halfheard_shared::ids::{AttemptId, JobId, SweepId};
use uuid::Uuid;

/// An attempt at a training or an evaluation.
#[derive(Clone, Debug)]
pub struct TracedAttempt {
    /// Primary key.
    pub attempt: AttemptId,
    /// Its job.
    pub job: JobId,
    /// Training or evaluation.
    pub kind: JobKind,
    /// The sweep under which it is scheduled, if any asks for it.
    pub sweep: Option<SweepId>,
    /// The method's id, with a slash and the variant's id if it is one.
    pub model: String,
    /// The dataset's name.
    pub dataset: String,
    /// Training seed.
    pub seed: i64,
    /// The case of an evaluation.
    pub case: Option<String>,
    /// The worker.
    pub worker: String,
    /// Since when the job had waited for a worker.
    pub ready: Option<DateTime<Utc>>,
    /// When it was granted.
    pub granted: DateTime<Utc>,
    /// When its start was reported.
    pub started: Option<DateTime<Utc>>,
    /// How it ended, as the table has it.
    pub outcome: Option<String>,
    /// What kind of failure it was.
    pub failure_kind: Option<String>,
}

impl Store {
    /// These attempts, without those at no-op jobs.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn traced_attempts(
        &self,
        attempts: &[AttemptId],
    ) -> Result<Vec<TracedAttempt>, StoreError> {
        let ids: Vec<Uuid> = attempts.iter().map(|attempt| attempt.0).collect();
        let rows = sqlx::query!(
            r#"SELECT a.id, a.job, j.kind AS "kind: JobKind", j.sweep,
                      j.method || CASE j.variant WHEN '' THEN '' ELSE '/' || j.variant END
                          AS "model!",
                      j.dataset, j.seed, j.case_id, a.worker, a.ready, a.granted, a.started,
                      a.outcome::text, a.failure_kind
               FROM attempt a JOIN job j ON j.id = a.job
               WHERE a.id = ANY($1) AND j.kind <> 'noop'"#,
            &ids
        )
        .fetch_all(self.pool())
        .await?;
        let rows = rows.into_iter().map(|row| TracedAttempt {
            attempt: AttemptId(row.id),
            job: JobId(row.job),
            kind: row.kind,
            sweep: row.sweep.map(SweepId),
            model: row.model,
            dataset: row.dataset,
            seed: row.seed,
            case: row.case_id,
            worker: row.worker,
            ready: row.ready,
            granted: row.granted,
            started: row.started,
            outcome: row.outcome,
            failure_kind: row.failure_kind,
        });
        Ok(rows.collect())
    }
}
