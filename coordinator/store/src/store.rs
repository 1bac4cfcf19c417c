//! The connection pool, the transactions of a leader, and the state of the migrations.

use crate::{
    StoreError,
    fence::{Term, fence},
};
use halfheard_shared::ids::SweepId;
use sqlx::{PgPool, Postgres, Transaction, migrate::Migrator, postgres::PgConnectOptions};

/// The migrations in `schemas/migrations`, embedded in the program.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../../schemas/migrations");

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) pool: PgPool,
    /// For taking and keeping the lead, which must not wait for the connections of other work.
    pub(crate) lead: PgPool,
    pub(crate) options: PgConnectOptions,
    /// The term whose leader this store writes for; `None` for commands.
    pub(crate) term: Option<Term>,
}

impl Store {
    /// The pool.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The options it connects with.
    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Begins a transaction that writes. For a leader it begins with the fence: the row of its term is
    /// locked, so that no other coordinator takes the lead before the transaction ends.
    ///
    /// # Errors
    ///
    /// The database's; [`StoreError::Deposed`] if another coordinator leads.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        let mut tx = self.pool.begin().await?;
        if let Some(term) = self.term {
            fence(&mut tx, term).await?;
        }
        Ok(tx)
    }

    /// Brings the database up to date, reference data included. Safe to call from several processes
    /// at once: a lock in the database serializes them.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        MIGRATIONS.run(&self.pool).await?;
        self.load_published().await
    }

    /// How many migrations the database lacks.
    ///
    /// # Errors
    ///
    /// The database has a migration that is unknown to this program.
    pub async fn missing_migrations(&self) -> Result<usize, StoreError> {
        let begun = sqlx::query_scalar!(
            r#"SELECT to_regclass('_sqlx_migrations') IS NOT NULL AS "begun!""#
        )
        .fetch_one(&self.pool)
        .await?;
        let applied: Vec<i64> = if begun {
            // Unchecked: sqlx creates the table itself, when it runs the first migration.
            sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success")
                .fetch_all(&self.pool)
                .await?
        } else {
            Vec::new()
        };
        if let Some(&version) = applied
            .iter()
            .find(|&&version| !MIGRATIONS.version_exists(version))
        {
            return Err(StoreError::Ahead { version });
        }
        Ok(MIGRATIONS
            .iter()
            .filter(|migration| {
                migration.migration_type.is_up_migration() && !applied.contains(&migration.version)
            })
            .count())
    }

    /// Fails unless the database is as new as the program.
    ///
    /// # Errors
    ///
    /// It is older or newer.
    pub async fn check(&self) -> Result<(), StoreError> {
        match self.missing_migrations().await? {
            0 => Ok(()),
            missing => Err(StoreError::Behind { missing }),
        }
    }
}

/// How a sweep is shown: its name and the beginning of its id.
pub(crate) fn label(name: &str, id: SweepId) -> String {
    format!("{name} ({})", id.short())
}
