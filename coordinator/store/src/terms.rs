//! What an operator may change while a sweep runs.

use crate::{Store, StoreError, retry::retry_rollback, sharing};
use halfheard_shared::ids::SweepId;
use sqlx::PgConnection;

/// What `coord gc` keeps of a sweep once it is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type, serde::Serialize)]
#[sqlx(type_name = "text", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// Everything.
    All,
    /// Results only: no checkpoints, no features.
    Results,
}

impl Retention {
    /// Its word in the database and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Results => "results",
        }
    }
}

/// A sweep's terms.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SweepTerms {
    /// Whose sweep it is.
    pub owner: String,
    /// A sweep with a higher one is served first.
    pub priority: i32,
    /// Its share among sweeps of equal priority; more than 0.
    pub weight: f64,
    /// How many of its jobs may be at work at once; `None` if any number.
    pub max_running: Option<i32>,
    /// It is paused when more of its jobs have failed; `None` if never.
    pub max_failures: Option<i32>,
    /// What is kept of it.
    pub retention: Retention,
}

/// A change of terms: `None` leaves a term as it is, `Some(None)` lifts a limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    /// See [`SweepTerms::owner`].
    pub owner: Option<String>,
    /// See [`SweepTerms::priority`].
    pub priority: Option<i32>,
    /// See [`SweepTerms::weight`].
    pub weight: Option<f64>,
    /// See [`SweepTerms::max_running`].
    pub max_running: Option<Option<i32>>,
    /// See [`SweepTerms::max_failures`].
    pub max_failures: Option<Option<i32>>,
    /// See [`SweepTerms::retention`].
    pub retention: Option<Retention>,
}

impl Terms {
    /// Terms with nothing but a priority.
    pub fn with_priority(priority: i32) -> Self {
        Self {
            priority: Some(priority),
            ..Self::default()
        }
    }
}

impl Store {
    /// Changes a sweep's terms. Returns them as they were and as they are. Jobs that several sweeps
    /// ask for are scheduled under the one that ranks first then.
    ///
    /// # Errors
    ///
    /// The database's; it refuses weights and limits that are out of range.
    pub async fn set_terms(
        &self,
        sweep: SweepId,
        terms: &Terms,
    ) -> Result<(SweepTerms, SweepTerms), StoreError> {
        retry_rollback(|| async {
            let mut tx = sharing::begin(self).await?;
            let (before, after) = set(&mut tx, sweep, terms).await?;
            if before.priority != after.priority {
                sharing::reschedule(&mut tx, sweep).await?;
            }
            tx.commit().await?;
            Ok((before, after))
        })
        .await
    }

    /// A sweep's terms.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn terms(&self, sweep: SweepId) -> Result<SweepTerms, StoreError> {
        Ok(sqlx::query_as!(
            SweepTerms,
            r#"SELECT owner, priority, weight, max_running, max_failures,
                      retention AS "retention: Retention"
               FROM sweep WHERE id = $1"#,
            sweep.0
        )
        .fetch_one(self.pool())
        .await?)
    }
}

/// Changes the terms in the row of a sweep. Returns them as they were and as they are.
pub(crate) async fn set(
    tx: &mut PgConnection,
    sweep: SweepId,
    terms: &Terms,
) -> Result<(SweepTerms, SweepTerms), StoreError> {
    let before = sqlx::query_as!(
        SweepTerms,
        r#"SELECT owner, priority, weight, max_running, max_failures,
                  retention AS "retention: Retention"
           FROM sweep WHERE id = $1 FOR NO KEY UPDATE"#,
        sweep.0
    )
    .fetch_one(&mut *tx)
    .await?;
    let after = SweepTerms {
        owner: terms.owner.clone().unwrap_or_else(|| before.owner.clone()),
        priority: terms.priority.unwrap_or(before.priority),
        weight: terms.weight.unwrap_or(before.weight),
        max_running: terms.max_running.unwrap_or(before.max_running),
        max_failures: terms.max_failures.unwrap_or(before.max_failures),
        retention: terms.retention.unwrap_or(before.retention),
    };
    if before != after {
        sqlx::query!(
            "UPDATE sweep SET owner = $2, priority = $3, weight = $4, max_running = $5,
                              max_failures = $6, retention = $7
             WHERE id = $1",
            sweep.0,
            after.owner,
            after.priority,
            after.weight,
            after.max_running,
            after.max_failures,
            after.retention.as_str()
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok((before, after))
}
