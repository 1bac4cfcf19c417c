//! What external programs wrote to standard error, attempt by attempt.

use crate::{JobKind, Store, StoreError};
use chrono::{DateTime, Utc};
use halfheard_shared::ids::{AttemptId, JobId};
use uuid::Uuid;

/// The least digits by which a job is found.
const MIN_DIGITS: usize = 4;
/// Digits of an id.
const DIGITS: usize = 32;

/// A job as people call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedJob {
    /// Its id.
    pub id: JobId,
    /// Training, evaluation or no-op.
    pub kind: JobKind,
    /// The method's id.
    pub method: String,
    /// The variant's id; empty for the method itself.
    pub variant: String,
    /// The dataset's name.
    pub dataset: String,
    /// The training seed.
    pub seed: i64,
    /// The case of an evaluation.
    pub case: Option<String>,
}

/// An attempt at a job, and what its program wrote.
#[derive(Clone, Debug)]
pub struct LoggedAttempt {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its worker.
    pub worker: String,
    /// The worker's machine.
    pub host: String,
    /// When it was granted.
    pub granted: DateTime<Utc>,
    /// When it ended.
    pub ended: Option<DateTime<Utc>>,
    /// How it ended; nothing while it is running.
    pub outcome: Option<String>,
    /// `permanent`, `retryable`, …
    pub failure_kind: Option<String>,
    /// The error and its causes, outermost first.
    pub errors: Vec<String>,
    /// What the program wrote.
    pub output: Option<KeptOutput>,
}

/// What a program wrote to standard error, as far as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptOutput {
    /// The end of it.
    pub tail: String,
    /// Bytes of the whole.
    pub bytes: u64,
    /// Whether the whole is in the artifact store.
    pub stored: bool,
}

impl Store {
    /// The job whose id begins with `text`.
    ///
    /// # Errors
    ///
    /// None or several have such an id; the database's.
    pub async fn find_job(&self, text: &str) -> Result<NamedJob, StoreError> {
        let none = || StoreError::NoJob(text.to_owned());
        let digits = text.replace('-', "").to_lowercase();
        let hexadecimal = digits.bytes().all(|b| b.is_ascii_hexdigit());
        if !hexadecimal || !(MIN_DIGITS..=DIGITS).contains(&digits.len()) {
            return Err(none());
        }
        let bound = |fill: &str| {
            let rest = fill.repeat(DIGITS - digits.len());
            Uuid::parse_str(&format!("{digits}{rest}")).map_err(|_| none())
        };
        let mut found = sqlx::query!(
            r#"SELECT id, kind AS "kind: JobKind", method, variant, dataset, seed, case_id
               FROM job WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT 2"#,
            bound("0")?,
            bound("f")?
        )
        .fetch_all(self.pool())
        .await?
        .into_iter();
        match (found.next(), found.next()) {
            (None, _) => Err(none()),
            (Some(_), Some(_)) => Err(StoreError::AmbiguousJob(text.to_owned())),
            (Some(row), None) => Ok(NamedJob {
                id: JobId(row.id),
                kind: row.kind,
                method: row.method,
                variant: row.variant,
                dataset: row.dataset,
                seed: row.seed,
                case: row.case_id,
            }),
        }
    }

    /// The attempts at a job, in the order in which they were granted.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn logged_attempts(&self, job: JobId) -> Result<Vec<LoggedAttempt>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT a.id, a.worker, a.host, a.granted, a.ended, a.outcome::text AS outcome,
                      a.failure_kind, a.errors, o.tail AS "tail?", o.bytes AS "bytes?",
                      o.stored AS "stored?"
               FROM attempt a LEFT JOIN attempt_output o ON o.attempt = a.id
               WHERE a.job = $1 ORDER BY a.granted, a.id"#,
            job.0
        )
        .fetch_all(self.pool())
        .await?;
        let rows = rows.into_iter().map(|row| LoggedAttempt {
            attempt: AttemptId(row.id),
            worker: row.worker,
            host: row.host,
            granted: row.granted,
            ended: row.ended,
            outcome: row.outcome,
            failure_kind: row.failure_kind,
            errors: row.errors,
            output: row.tail.map(|tail| KeptOutput {
                tail,
                bytes: row.bytes.unwrap_or_default().max(0).unsigned_abs(),
                stored: row.stored.unwrap_or_default(),
            }),
        });
        Ok(rows.collect())
    }
}
