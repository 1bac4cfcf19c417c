//! The leader lock: a Postgres advisory lock on a connection of its own, released with the connection.

use crate::{Store, StoreError, connect::connect_error};
use sqlx::{Connection as _, PgConnection};
use std::time::Duration;

/// The lock's key, the same in all releases; advisory locks are per database.
const KEY: i64 = 0x006d_6973_7362_6e63;
/// How long Postgres may take to answer.
pub const TIMEOUT: Duration = Duration::from_secs(3);

/// The outcome of trying to acquire the lock.
#[derive(Debug)]
pub enum Acquired {
    /// This process leads.
    Lock(LeaderLock),
    /// Another coordinator leads.
    Other,
    /// The database is a standby, whose locks are separate from the primary's, or was made read-only.
    ReadOnly,
}

/// The connection that holds the lock.
#[derive(Debug)]
pub struct LeaderLock(PgConnection);

impl Store {
    /// Tries to acquire the leader lock, without waiting for it.
    ///
    /// # Errors
    ///
    /// Postgres cannot be reached.
    pub async fn try_lead(&self) -> Result<Acquired, StoreError> {
        let connection = PgConnection::connect_with(self.options());
        let connection = tokio::time::timeout(TIMEOUT, connection)
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
            .map_err(|source| connect_error(self.options(), source))?;
        let mut lock = LeaderLock(connection);
        if !lock.is_writable().await? {
            lock.0.close().await?;
            return Ok(Acquired::ReadOnly);
        }
        let locked = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "locked!""#, KEY)
            .fetch_one(&mut lock.0)
            .await?;
        if locked {
            return Ok(Acquired::Lock(lock));
        }
        lock.0.close().await?;
        Ok(Acquired::Other)
    }
}

impl LeaderLock {
    /// Whether the database takes writes; an error means that the lock is lost.
    ///
    /// # Errors
    ///
    /// The connection is broken or does not answer within [`TIMEOUT`].
    pub async fn is_writable(&mut self) -> Result<bool, StoreError> {
        let answer = sqlx::query_scalar!(
            r#"SELECT NOT pg_is_in_recovery()
                      AND NOT current_setting('transaction_read_only')::boolean AS "writes!""#
        )
        .fetch_one(&mut self.0);
        Ok(tokio::time::timeout(TIMEOUT, answer)
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))?)
    }

    /// Releases the lock before the connection is closed, which the server may notice later. If neither
    /// succeeds, the server will notice on its own.
    pub async fn release(mut self) {
        let _ = tokio::time::timeout(TIMEOUT, async {
            sqlx::query_scalar!("SELECT pg_advisory_unlock($1)", KEY)
                .fetch_one(&mut self.0)
                .await?;
            self.0.close().await
        })
        .await;
    }
}
