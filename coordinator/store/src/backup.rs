//! Everything that must last, out of the database and back into an empty one.
//!
//! A dump is the text of `COPY` for each table, read in one snapshot; the caller keeps it. Who leads is
//! not part of it, nor is what the migrations write themselves.

use crate::{Store, StoreError, connect::connect_error};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use halfheard_shared::broker::topology::Installation;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// The tables of a dump; each refers only to those before it.
pub const TABLES: [&str; 19] = [
    "installation",
    "benchmark",
    "metric",
    "dataset",
    "config",
    "sweep",
    "job",
    "sweep_job",
    "attempt",
    "attempt_output",
    "epoch_log",
    "checkpoint",
    "prediction",
    "evaluation",
    "result",
    "conflict",
    "other_processor",
    "dead_letter",
    "drained_worker",
];

/// Tables that are not in a dump: the migrations fill them, triggers do, or their content is of the moment.
pub const LEFT_OUT: [&str; 11] = [
    "allocation",
    "feeder",
    "notification",
    "_sqlx_migrations",
    "job_transition",
    "leadership",
    "published",
    "erratum",
    "reference_data",
    "tally",
    "tally_metric",
];

/// A table and its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableShape {
    /// Its name.
    pub name: String,
    /// Its columns, in their order.
    pub columns: Vec<String>,
}

/// A migration as it was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its version.
    pub version: i64,
    /// Of its text, in hexadecimal digits.
    pub checksum: String,
}

/// The database as it is at one moment.
#[derive(Debug)]
pub struct Dump {
    connection: PgConnection,
    /// Which installation it is.
    pub installation: Installation,
    /// Its migrations.
    pub migrations: Vec<Applied>,
    /// Its tables, in the order in which they are restored.
    pub tables: Vec<TableShape>,
}

/// A database that is being filled from a dump, in one transaction: dropped, it stays empty.
#[derive(Debug)]
pub struct Refill {
    connection: PgConnection,
    /// Its migrations.
    pub migrations: Vec<Applied>,
}

/// Why a database is not filled from a dump.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Occupied {
    /// It holds sweeps or jobs.
    #[error("the database is not empty: it has {sweeps} sweeps and {jobs} jobs")]
    NotEmpty {
        /// How many sweeps.
        sweeps: i64,
        /// How many jobs.
        jobs: i64,
    },
    /// A coordinator leads.
    #[error("the coordinator {holder} serves this database")]
    Served {
        /// Which.
        holder: String,
    },
}

impl Store {
    /// Opens a snapshot of the database.
    ///
    /// # Errors
    ///
    /// The database's; a table that this program does not know.
    pub async fn dump(&self) -> Result<Dump, StoreError> {
        let mut connection = self.unhurried().await?;
        sqlx::query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut connection)
            .await?;
        let migrations = applied(&mut connection).await?;
        let tables = shapes(&mut connection).await?;
        let row = sqlx::query!("SELECT id, name FROM installation")
            .fetch_one(&mut connection)
            .await?;
        Ok(Dump {
            connection,
            installation: Installation {
                id: row.id,
                name: row.name,
            },
            migrations,
            tables,
        })
    }

    /// Begins to fill the empty, migrated database from a dump.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn refill(&self) -> Result<Result<Refill, Occupied>, StoreError> {
        let mut connection = self.unhurried().await?;
        sqlx::query("BEGIN").execute(&mut connection).await?;
        // Nobody begins to lead meanwhile.
        sqlx::query("LOCK TABLE leadership, installation, sweep, job IN EXCLUSIVE MODE")
            .execute(&mut connection)
            .await?;
        let holder = sqlx::query_scalar!("SELECT holder FROM leadership WHERE expires > now()")
            .fetch_optional(&mut connection)
            .await?;
        if let Some(holder) = holder {
            return Ok(Err(Occupied::Served { holder }));
        }
        let found = sqlx::query!(
            r#"SELECT (SELECT count(*) FROM sweep) AS "sweeps!", (SELECT count(*) FROM job) AS "jobs!""#
        )
        .fetch_one(&mut connection)
        .await?;
        if found.sweeps > 0 || found.jobs > 0 {
            return Ok(Err(Occupied::NotEmpty {
                sweeps: found.sweeps,
                jobs: found.jobs,
            }));
        }
        // What a dump fills in is counted anew.
        for table in std::iter::once(&"tally").chain(TABLES.iter().rev()) {
            sqlx::query(AssertSqlSafe(format!("DELETE FROM {table}")))
                .execute(&mut connection)
                .await?;
        }
        let migrations = applied(&mut connection).await?;
        Ok(Ok(Refill {
            connection,
            migrations,
        }))
    }

    /// A connection of its own, on which statements may take as long as they take.
    async fn unhurried(&self) -> Result<PgConnection, StoreError> {
        let mut connection = PgConnection::connect_with(self.options())
            .await
            .map_err(|source| connect_error(self.options(), source))?;
        for setting in ["statement_timeout", "idle_in_transaction_session_timeout"] {
            sqlx::query(AssertSqlSafe(format!("SET {setting} = 0")))
                .execute(&mut connection)
                .await?;
        }
        Ok(connection)
    }
}

impl Dump {
    /// The text of a table.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn copy(
        &mut self,
        table: &TableShape,
    ) -> Result<impl Stream<Item = Result<Bytes, StoreError>> + Unpin + '_, StoreError> {
        let statement = format!(
            "COPY {} ({}) TO STDOUT",
            quoted(&table.name),
            columns(&table.columns)
        );
        let rows = self.connection.copy_out_raw(&statement).await?;
        Ok(rows.map_err(StoreError::from))
    }

    /// Hash and size in bytes of the checkpoints that its results refer to.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn checkpoints(&mut self) -> Result<Vec<(String, i64)>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT blake3, max(bytes) AS "bytes!" FROM checkpoint GROUP BY blake3 ORDER BY blake3"#
        )
        .fetch_all(&mut self.connection)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| (row.blake3, row.bytes))
            .collect())
    }

    /// Ends the snapshot.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn close(mut self) -> Result<(), StoreError> {
        sqlx::query("COMMIT").execute(&mut self.connection).await?;
        Ok(self.connection.close().await?)
    }
}

impl Refill {
    /// Fills a table from its text. Returns the number of rows.
    ///
    /// # Errors
    ///
    /// The database's; an error of `content` is returned as it is.
    pub async fn copy<E: From<StoreError>>(
        &mut self,
        table: &TableShape,
        mut content: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<u64, E> {
        let statement = format!(
            "COPY {} ({}) FROM STDIN",
            quoted(&table.name),
            columns(&table.columns)
        );
        let failed = |error: sqlx::Error| E::from(StoreError::from(error));
        let mut copy = self
            .connection
            .copy_in_raw(&statement)
            .await
            .map_err(failed)?;
        while let Some(piece) = content.next().await {
            match piece {
                Ok(piece) => {
                    copy.send(&piece[..]).await.map_err(failed)?;
                }
                Err(error) => {
                    // The transaction is not committed.
                    let _ = copy.abort("the backup cannot be read").await;
                    return Err(error);
                }
            }
        }
        copy.finish().await.map_err(failed)
    }

    /// Ends it: what was filled in stays.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        sqlx::query!(
            "SELECT setval(pg_get_serial_sequence('dead_letter', 'id'),
                           (SELECT coalesce(max(id), 0) + 1 FROM dead_letter), false)"
        )
        .fetch_one(&mut self.connection)
        .await?;
        sqlx::query("COMMIT").execute(&mut self.connection).await?;
        Ok(self.connection.close().await?)
    }
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<Applied>, StoreError> {
    // Unchecked: sqlx creates the table itself, when it runs the first migration.
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version",
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(version, checksum)| Applied {
            version,
            checksum: checksum.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
        .collect())
}

/// The tables of a dump with their columns. A table that is in neither list is an error: it would be
/// forgotten.
async fn shapes(connection: &mut PgConnection) -> Result<Vec<TableShape>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT c.relname::text AS "name!",
                  array_agg(a.attname::text ORDER BY a.attnum) AS "columns!"
           FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
           WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
             AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
           GROUP BY c.relname"#
    )
    .fetch_all(connection)
    .await?;
    let mut tables: Vec<TableShape> = rows
        .into_iter()
        .map(|row| TableShape {
            name: row.name,
            columns: row.columns,
        })
        .filter(|table| !LEFT_OUT.contains(&table.name.as_str()))
        .collect();
    let position = |table: &TableShape| TABLES.iter().position(|name| *name == table.name);
    if let Some(unknown) = tables.iter().find(|table| position(table).is_none()) {
        return Err(StoreError::stored(
            format!("table {}", unknown.name),
            "it is not one of this program's",
        ));
    }
    tables.sort_by_key(position);
    Ok(tables)
}

fn columns(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    names.join(", ")
}

/// An identifier as SQL: a dump may come from anywhere.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
