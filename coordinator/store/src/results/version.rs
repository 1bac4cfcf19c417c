//! Whether the results of a sweep have changed: what is made of them can be kept until then.

use crate::{Store, StoreError};
use halfheard_shared::ids::SweepId;

/// Differs once a sweep has other results than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResultsVersion {
    /// Evaluations that are done.
    pub done: i64,
    /// Evaluations that failed.
    pub failed: i64,
    /// When the last of the done jobs that are scheduled under the sweep was done, in microseconds since 1970.
    pub finished: i64,
}

impl Store {
    /// The version of a sweep's results.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn results_version(&self, sweep: SweepId) -> Result<ResultsVersion, StoreError> {
        // Evaluations that a worker merely takes, or hands back, change nothing that is shown. Results are never changed,
        // but imported ones may be deleted and others imported.
        Ok(sqlx::query_as!(
            ResultsVersion,
            r#"SELECT coalesce(sum(jobs) FILTER (WHERE state = 'done'), 0)::bigint AS "done!",
                      coalesce(sum(jobs) FILTER (WHERE state = 'failed'), 0)::bigint AS "failed!",
                      (SELECT coalesce(extract(epoch FROM max(j.finished)) * 1000000, 0)::bigint
                       FROM job j WHERE j.sweep = $1 AND j.state = 'done') AS "finished!"
               FROM tally WHERE sweep = $1 AND kind = 'eval'"#,
            sweep.0
        )
        .fetch_one(self.pool())
        .await?)
    }
}
