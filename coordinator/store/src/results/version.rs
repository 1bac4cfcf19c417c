//! Whether the results of a sweep have changed: what is made of them can be kept until then.

use crate::{Store, StoreError};
use halfheard_shared::ids::SweepId;

/// Differs once a sweep has other results than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResultsVersion {
    /// Evaluations that are done.
    pub done: i64,
    /// The last change of an evaluation, in microseconds since 1970.
    pub changed: i64,
}

impl Store {
    /// The version of a sweep's results.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn results_version(&self, sweep: SweepId) -> Result<ResultsVersion, StoreError> {
        // Evaluations that a worker merely takes, or hands back, change nothing that is shown.
        Ok(sqlx::query_as!(
            ResultsVersion,
            r#"SELECT count(*) FILTER (WHERE j.state = 'done') AS "done!",
                      coalesce(extract(epoch FROM max(j.changed)
                          FILTER (WHERE j.state IN ('done', 'failed'))) * 1000000, 0)::bigint
                          AS "changed!"
               FROM sweep_job w JOIN job j ON j.id = w.job WHERE w.sweep = $1 AND j.kind = 'eval'"#,
            sweep.0
        )
        .fetch_one(self.pool())
        .await?)
    }
}
