//! Jobs counted by what they are and by their states, however many there are: triggers note in table `tally` what
//! changes, and the notes are folded now and then.
//!
//! Notes are only added, so that transactions do not wait for each other. A sum is exact at every moment: a change and
//! its note are committed together.

use crate::{Store, StoreError, sharing};
use halfheard_shared::ids::SweepId;
use sqlx::PgConnection;

/// Rows of a sweep beyond twice the least that are left as they are.
const SPARE: i64 = 32;

impl Store {
    /// Replaces the many notes about a sweep by their sums, and deletes those about sweeps that were deleted. Nothing
    /// happens while somebody changes who asks for what: then the next call does it. Returns how many it replaced.
    ///
    /// # Errors
    ///
    /// The database's; [`StoreError::Deposed`].
    pub async fn fold_tallies(&self) -> Result<u64, StoreError> {
        let Some(mut tx) = sharing::try_begin(self).await? else {
            return Ok(0);
        };
        // Rows that another transaction deletes are left to it.
        let folded = sqlx::query_scalar!(
            r#"WITH many AS (
                   SELECT sweep FROM tally t GROUP BY sweep
                   HAVING count(*) > $1 + 2 * count(DISTINCT (kind, method, variant, dataset, config, state))
                       OR NOT EXISTS (SELECT FROM sweep s WHERE s.id = t.sweep)
               ), found AS (
                   SELECT t.ctid AS place FROM tally t JOIN many USING (sweep)
                   FOR UPDATE OF t SKIP LOCKED
               ), gone AS (
                   DELETE FROM tally t USING found WHERE t.ctid = found.place RETURNING t.*
               ), sums AS (
                   INSERT INTO tally (sweep, kind, method, variant, dataset, config, state, jobs)
                   SELECT sweep, kind, method, variant, dataset, config, state, sum(jobs)
                   FROM gone g WHERE EXISTS (SELECT FROM sweep s WHERE s.id = g.sweep)
                   GROUP BY 1, 2, 3, 4, 5, 6, 7 HAVING sum(jobs) <> 0
               )
               SELECT count(*) AS "folded!" FROM gone"#,
            SPARE
        )
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(folded.unsigned_abs())
    }
}

/// Counts the jobs of a sweep anew: where jobs went from it, and where jobs that it joins may have changed before it was
/// seen that it asks for them. In a transaction of [`sharing::begin`].
pub(crate) async fn recount(tx: &mut PgConnection, sweep: SweepId) -> Result<(), StoreError> {
    // One statement, one snapshot: a change that it does not see keeps its note.
    sqlx::query!(
        "WITH gone AS (DELETE FROM tally WHERE sweep = $1)
         INSERT INTO tally (sweep, kind, method, variant, dataset, config, state, jobs)
         SELECT w.sweep, j.kind, j.method, j.variant, j.dataset, j.config, j.state, count(*)
         FROM sweep_job w JOIN job j ON j.id = w.job
         WHERE w.sweep = $1
         GROUP BY 1, 2, 3, 4, 5, 6, 7",
        sweep.0
    )
    .execute(tx)
    .await?;
    Ok(())
}
