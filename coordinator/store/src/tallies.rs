//! Jobs counted by what they are and by their states, and their results summed up, however many there are: triggers note
//! in tables `tally` and `tally_metric` what changes, and the notes are folded now and then.
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
        let folded = fold_jobs(&mut tx).await? + fold_metrics(&mut tx).await?;
        tx.commit().await?;
        Ok(folded)
    }
}

async fn fold_jobs(tx: &mut PgConnection) -> Result<u64, StoreError> {
    // Rows that another transaction deletes are left to it.
    let folded = sqlx::query_scalar!(
        r#"WITH many AS (
               SELECT sweep FROM tally t GROUP BY sweep
               HAVING count(*) > $1 + 2 * count(DISTINCT (kind, method, variant, dataset, config, case_id, state))
                   OR NOT EXISTS (SELECT FROM sweep s WHERE s.id = t.sweep)
           ), found AS (
               SELECT t.ctid AS place FROM tally t JOIN many USING (sweep)
               FOR UPDATE OF t SKIP LOCKED
           ), gone AS (
               DELETE FROM tally t USING found WHERE t.ctid = found.place RETURNING t.*
           ), sums AS (
               INSERT INTO tally (sweep, kind, method, variant, dataset, config, case_id, state, jobs)
               SELECT sweep, kind, method, variant, dataset, config, case_id, state, sum(jobs)
               FROM gone g WHERE EXISTS (SELECT FROM sweep s WHERE s.id = g.sweep)
               GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 HAVING sum(jobs) <> 0
           )
           SELECT count(*) AS "folded!" FROM gone"#,
        SPARE
    )
    .fetch_one(tx)
    .await?;
    Ok(folded.unsigned_abs())
}

async fn fold_metrics(tx: &mut PgConnection) -> Result<u64, StoreError> {
    let folded = sqlx::query_scalar!(
        r#"WITH many AS (
               SELECT sweep FROM tally_metric t GROUP BY sweep
               HAVING count(*) > $1 + 2 * count(DISTINCT (method, variant, dataset, config, case_id, metric, on_test,
                                                          trained, evaluated))
                   OR NOT EXISTS (SELECT FROM sweep s WHERE s.id = t.sweep)
           ), found AS (
               SELECT t.ctid AS place FROM tally_metric t JOIN many USING (sweep)
               FOR UPDATE OF t SKIP LOCKED
           ), gone AS (
               DELETE FROM tally_metric t USING found WHERE t.ctid = found.place RETURNING t.*
           ), sums AS (
               INSERT INTO tally_metric (sweep, method, variant, dataset, config, case_id, metric, on_test, trained,
                                         evaluated, defined, total, squares, low, high)
               SELECT sweep, method, variant, dataset, config, case_id, metric, on_test, trained, evaluated,
                      sum(defined), sum(total), sum(squares), min(low), max(high)
               FROM gone g WHERE EXISTS (SELECT FROM sweep s WHERE s.id = g.sweep)
               GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
           )
           SELECT count(*) AS "folded!" FROM gone"#,
        SPARE
    )
    .fetch_one(tx)
    .await?;
    Ok(folded.unsigned_abs())
}

/// Counts the jobs of a sweep anew, and sums up their results: where jobs went from it, and where jobs that it joins may
/// have changed before it was seen that it asks for them. In a transaction of [`sharing::begin`].
pub(crate) async fn recount(tx: &mut PgConnection, sweep: SweepId) -> Result<(), StoreError> {
    sqlx::query!("SELECT recount($1)", sweep.0)
        .fetch_one(tx)
        .await?;
    Ok(())
}
