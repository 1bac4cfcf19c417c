//! Which installation this is, and what its database allows.

use crate::{Store, StoreError};
use halfheard_shared::broker::topology::Installation;

impl Store {
    /// Which installation the database belongs to.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn installation(&self) -> Result<Installation, StoreError> {
        let row = sqlx::query!("SELECT id, name FROM installation")
            .fetch_one(self.pool())
            .await?;
        Ok(Installation {
            id: row.id,
            name: row.name,
        })
    }

    /// The id of the artifact store that the installation uses; `None` before the first worker.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn artifact_store(&self) -> Result<Option<String>, StoreError> {
        let store = sqlx::query_scalar!("SELECT store FROM installation")
            .fetch_one(self.pool())
            .await?;
        Ok(store)
    }

    /// Claims the artifact store `id` for this installation: the first one that is seen is its store.
    /// Returns the other one if there is another.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn claim_store(&self, id: &str) -> Result<Result<(), String>, StoreError> {
        let claimed = sqlx::query!("UPDATE installation SET store = $1 WHERE store IS NULL", id)
            .execute(self.pool())
            .await?;
        if claimed.rows_affected() > 0 {
            return Ok(Ok(()));
        }
        Ok(match self.artifact_store().await? {
            Some(other) if other != id => Err(other),
            _ => Ok(()),
        })
    }

    /// Makes `id` the installation's artifact store, whatever it was before, which is returned.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn replace_store(&self, id: Option<&str>) -> Result<Option<String>, StoreError> {
        let before = sqlx::query_scalar!(
            "UPDATE installation SET store = $1
             FROM (SELECT store FROM installation FOR UPDATE) before
             RETURNING before.store",
            id
        )
        .fetch_one(self.pool())
        .await?;
        Ok(before)
    }

    /// What the server allows and what this login may do.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn server_facts(&self) -> Result<ServerFacts, StoreError> {
        let row = sqlx::query!(
            r#"SELECT current_setting('server_version_num')::integer AS "version!",
                      current_setting('max_connections')::bigint AS "connections!",
                      current_setting('superuser_reserved_connections')::bigint AS "reserved!",
                      (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
                          AS "used!",
                      (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user)::bigint
                          AS role_limit,
                      (SELECT setting::bigint FROM pg_settings WHERE name = 'statement_timeout')
                          AS "statement_timeout!",
                      (SELECT setting::bigint FROM pg_settings
                       WHERE name = 'idle_in_transaction_session_timeout') AS "idle_timeout!",
                      pg_is_in_recovery() AS "standby!",
                      current_setting('default_transaction_read_only')::boolean AS "read_only!",
                      current_setting('server_encoding') AS "encoding!""#
        )
        .fetch_one(self.pool())
        .await?;
        Ok(ServerFacts {
            version: row.version,
            max_connections: row.connections - row.reserved,
            used_connections: row.used,
            role_connections: row.role_limit.filter(|&limit| limit >= 0),
            statement_timeout_ms: row.statement_timeout,
            idle_timeout_ms: row.idle_timeout,
            standby: row.standby,
            read_only: row.read_only,
            encoding: row.encoding,
        })
    }

    /// The tables on which this login lacks a right that a coordinator needs, as `SELECT on job`.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn missing_privileges(&self) -> Result<Vec<String>, StoreError> {
        let missing = sqlx::query_scalar!(
            r#"SELECT privilege || ' on ' || c.relname AS "missing!"
               FROM pg_class c
               CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS p (privilege)
               WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
                 AND c.relname NOT LIKE '\_sqlx%'
                 AND NOT has_table_privilege(c.oid, privilege)
               ORDER BY c.relname, privilege"#
        )
        .fetch_all(self.pool())
        .await?;
        Ok(missing)
    }

    /// Whether a session survives from one statement to the next: it does not behind a proxy that pools
    /// transactions, where prepared statements disappear.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn keeps_sessions(&self) -> Result<bool, StoreError> {
        // Several connections at once: a proxy then hands out others than before.
        let mut connections = Vec::new();
        for _ in 0..3 {
            connections.push(self.pool().acquire().await?);
        }
        let mut first = Vec::new();
        for connection in &mut connections {
            first.push(backend(connection).await?);
        }
        // The other way round, so that a proxy's only free connection is another one's.
        for (connection, first) in connections.iter_mut().zip(&first).rev() {
            if backend(connection).await? != *first {
                return Ok(false);
            }
        }
        first.sort_unstable();
        first.dedup();
        Ok(first.len() == connections.len())
    }
}

async fn backend(connection: &mut sqlx::PgConnection) -> Result<i32, StoreError> {
    let backend = sqlx::query_scalar!(r#"SELECT pg_backend_pid() AS "pid!""#)
        .fetch_one(connection)
        .await?;
    Ok(backend)
}

/// What a server allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// As `server_version_num`: 150004.
    pub version: i32,
    /// Connections that ordinary logins may open in all.
    pub max_connections: i64,
    /// Connections that are open.
    pub used_connections: i64,
    /// How many connections this login may open; `None` if any number.
    pub role_connections: Option<i64>,
    /// Milliseconds after which a statement is ended; 0 if never.
    pub statement_timeout_ms: i64,
    /// Milliseconds after which a transaction that does nothing is ended; 0 if never.
    pub idle_timeout_ms: i64,
    /// It follows another server and takes no writes.
    pub standby: bool,
    /// Transactions are read-only unless they say otherwise.
    pub read_only: bool,
    /// Of the database: `UTF8`.
    pub encoding: String,
}
