//! Leadership: a row with a term number, which every transaction of a leader locks.
//!
//! Nothing of it is state of a session, which a pooling proxy would lose: no advisory lock, no setting
//! beyond a transaction. All times are the database's.

use crate::{
    Store, StoreError,
    connect::{MAX_CONNECTIONS, pool},
};

pub use crate::fence::Term;
use sqlx::{Connection as _, PgConnection};
use std::time::Duration;

/// How long the lead lasts unless it is renewed.
pub const LEAD: Duration = Duration::from_secs(10);
/// How long Postgres may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The outcome of trying to take the lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The caller leads, from now for [`LEAD`].
    Lead(Term),
    /// Another coordinator leads.
    Other {
        /// Which: machine and process.
        holder: String,
    },
    /// The database is a standby or was made read-only: nobody can lead.
    ReadOnly,
}

impl Store {
    /// Takes the lead if nobody has it. A transaction of the previous leader that is still open is
    /// waited for: the server ends one that stands still after a few seconds.
    ///
    /// # Errors
    ///
    /// Postgres cannot be reached or does not answer within seconds.
    pub async fn take_lead(&self, holder: &str) -> Result<Taken, StoreError> {
        self.on_lead_connection(async |connection: &mut PgConnection| {
            if !is_writable(connection).await? {
                return Ok(Taken::ReadOnly);
            }
            let mut tx = connection.begin().await?;
            sqlx::query!(r#"SELECT set_config('lock_timeout', '2000', true) AS "timeout!""#)
                .fetch_one(&mut *tx)
                .await?;
            // An end further ahead than a lead lasts was written before the clock was set back.
            let term = sqlx::query_scalar!(
                "UPDATE leadership
                 SET term = term + 1, holder = $1,
                     expires = clock_timestamp() + make_interval(secs => $2::float8)
                 WHERE expires < clock_timestamp()
                    OR expires > clock_timestamp() + make_interval(secs => $2::float8 + 1)
                 RETURNING term",
                holder,
                LEAD.as_secs_f64()
            )
            .fetch_optional(&mut *tx)
            .await?;
            if let Some(term) = term {
                tx.commit().await?;
                return Ok(Taken::Lead(Term(term)));
            }
            let holder = sqlx::query_scalar!("SELECT holder FROM leadership")
                .fetch_one(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(Taken::Other { holder })
        })
        .await
    }

    /// Keeps the lead for another [`LEAD`]. `false`: it is lost, to another coordinator, because it was
    /// renewed too late, or because the database became read-only.
    ///
    /// # Errors
    ///
    /// As [`Store::take_lead`]. The lead may be renewed or not.
    pub async fn renew_lead(&self, term: Term) -> Result<bool, StoreError> {
        self.on_lead_connection(async |connection: &mut PgConnection| {
            if !is_writable(connection).await? {
                return Ok(false);
            }
            let renewed = sqlx::query!(
                "UPDATE leadership SET expires = clock_timestamp() + make_interval(secs => $2)
                 WHERE term = $1 AND expires > clock_timestamp()",
                term.0,
                LEAD.as_secs_f64()
            )
            .execute(connection)
            .await?;
            Ok(renewed.rows_affected() > 0)
        })
        .await
    }

    /// Gives the lead up, so that another coordinator need not wait until it expires.
    ///
    /// # Errors
    ///
    /// As [`Store::take_lead`].
    pub async fn resign_lead(&self, term: Term) -> Result<(), StoreError> {
        self.on_lead_connection(async |connection: &mut PgConnection| {
            sqlx::query!(
                "UPDATE leadership SET expires = '-infinity' WHERE term = $1",
                term.0
            )
            .execute(connection)
            .await?;
            Ok(())
        })
        .await
    }

    /// The store of the leader of `term`: every transaction that writes begins with the fence. To be
    /// called once per term: it has connections of its own, because those of the term before may hang
    /// on a network that has changed.
    pub fn leading(&self, term: Term) -> Store {
        Store {
            pool: pool(&self.options, MAX_CONNECTIONS),
            lead: self.lead.clone(),
            options: self.options.clone(),
            term: Some(term),
        }
    }

    /// Runs `action` on the connection for the lead, which is replaced if Postgres does not answer.
    async fn on_lead_connection<T>(
        &self,
        action: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let timed_out = || StoreError::from(sqlx::Error::PoolTimedOut);
        let mut connection = tokio::time::timeout(TIMEOUT, self.lead.acquire())
            .await
            .map_err(|_| timed_out())??;
        match tokio::time::timeout(TIMEOUT, action(&mut connection)).await {
            Ok(Ok(done)) => Ok(done),
            outcome => {
                // Returned to the pool it would be waited for, however long that takes.
                drop(connection.detach());
                outcome.map_err(|_| timed_out())?
            }
        }
    }
}

/// Whether the database takes writes.
async fn is_writable(connection: &mut PgConnection) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT NOT pg_is_in_recovery()
                  AND NOT current_setting('transaction_read_only')::boolean AS "writes!""#
    )
    .fetch_one(connection)
    .await?)
}
