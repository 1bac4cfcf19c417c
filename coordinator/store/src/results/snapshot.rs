//! A sweep in one transaction.

use super::ResultsError;
use crate::{Store, benchmarks::Benchmarks};
use halfheard_shared::{case::Case, ids::SweepId};
use sqlx::{Postgres, Transaction};

/// A sweep as it is at one moment: everything read from it agrees.
pub struct Snapshot {
    pub(super) tx: Transaction<'static, Postgres>,
    pub(super) sweep: SweepId,
    pub(super) known: Benchmarks,
}

impl Snapshot {
    /// Begins to read a sweep.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn begin(store: &Store, sweep: SweepId) -> Result<Self, ResultsError> {
        let known = store.benchmarks().await?;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let tx = store.pool().begin_with(begin).await?;
        Ok(Self { tx, sweep, known })
    }
}

/// The case of an evaluation.
pub(super) fn case(text: Option<String>) -> Result<Option<Case>, ResultsError> {
    Ok(text.map(|text| text.parse()).transpose()?)
}
