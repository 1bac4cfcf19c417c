//! Reads what could not be stored.

use crate::{Store, StoreError};
use chrono::{DateTime, Utc};

/// A message that could not be stored, or was refused.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The subject on which it came.
    pub subject: String,
    /// Its number in the stream.
    pub sequence: i64,
    /// Why it was refused.
    pub reason: String,
    /// Its beginning.
    pub payload: Vec<u8>,
    /// When.
    pub received: DateTime<Utc>,
}

impl Store {
    /// The newest dead letters, at most `limit`.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        Ok(sqlx::query_as!(
            DeadLetter,
            "SELECT subject, sequence, reason, payload, received
             FROM dead_letter ORDER BY id DESC LIMIT $1",
            i64::from(limit)
        )
        .fetch_all(self.pool())
        .await?)
    }
}
