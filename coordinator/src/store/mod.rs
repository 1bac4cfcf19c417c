//! Postgres: the connection, the migrations, and what can go wrong with them.
//!
//! The queries live beside this file, by purpose: [`submit`], [`benchmarks`], [`datasets`], [`outbox`], [`intake`], [`recover`]
//! and [`sweeps`]. All are checked against the migrations when the program is compiled.

pub mod benchmarks;
pub mod datasets;
pub mod intake;
pub mod outbox;
pub mod recover;
pub mod submit;
pub mod sweeps;
pub mod types;

pub use types::{JobKind, JobState, SweepState};

use crate::backoff::Backoff;
use missbench_shared::ids::SweepId;
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{str::FromStr, time::Duration};

/// How long a connection may take to be made.
const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// The migrations in `schemas/migrations`, embedded in the program.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../schemas/migrations");

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address cannot be read.
    #[error(
        "the database's address cannot be read ({reason}): write it as postgres://user@host:5432/name"
    )]
    Address {
        /// Why; never holds the address itself, which may hold a password.
        reason: String,
    },
    /// Nobody there, or not let in.
    #[error(
        "no connection to Postgres at {host}:{port}, database `{database}`: {source}; start it, or say where it is (MISSBENCH_DATABASE_URL)"
    )]
    Connect {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The database's name.
        database: String,
        /// Why.
        source: sqlx::Error,
    },
    /// Migrations failed.
    #[error("the database cannot be brought up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The database is older than the program.
    #[error("the database lacks {missing} migrations of this program: run `coord migrate`")]
    Behind {
        /// How many.
        missing: usize,
    },
    /// The database is newer than the program.
    #[error(
        "the database has migration {version}, which this program does not know: use a newer coord"
    )]
    Ahead {
        /// The unknown migration.
        version: i64,
    },
    /// No such sweep.
    #[error("no sweep is called `{0}` and no sweep's id begins so: `coord status` lists them")]
    NoSweep(String),
    /// More than one.
    #[error("`{text}` could be {count} sweeps ({some}): give more of the id")]
    AmbiguousSweep {
        /// What was asked for.
        text: String,
        /// How many there are.
        count: usize,
        /// Some of them.
        some: String,
    },
    /// No such dataset.
    #[error("there is no dataset `{name}` in the database: there are {have}")]
    NoDataset {
        /// What was asked for.
        name: String,
        /// All that there are.
        have: String,
    },
    /// A name that another protocol's results are kept under.
    #[error(
        "the database keeps results of a dataset `{name}` with another protocol ({known}; now \
         {given}), and the two must not mix: give the dataset another name in the spec"
    )]
    OtherProtocol {
        /// The dataset.
        name: String,
        /// Its protocol in the database.
        known: String,
        /// Its protocol in the spec.
        given: String,
    },
    /// A number that has no place in the database.
    #[error("{what} is {value}, more than the database can hold")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A stored value that cannot be read.
    #[error("{what} in the database cannot be read: {reason}")]
    Stored {
        /// What it is.
        what: String,
        /// Why.
        reason: String,
    },
    /// Anything else that Postgres says.
    #[error("Postgres: {0}")]
    Query(#[from] sqlx::Error),
}

impl StoreError {
    /// Whether the same call may succeed later: Postgres is away, restarts, or two transactions
    /// met. Anything else is about the data.
    pub fn is_transient(&self) -> bool {
        let (StoreError::Query(error) | StoreError::Connect { source: error, .. }) = self else {
            return false;
        };
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // 08 connection, 40 serialization and deadlock, 53 resources, 55 not in this state,
            // 57 operator intervention (shutdown), 58 system, XX internal.
            sqlx::Error::Database(error) => error.code().is_some_and(|code| {
                ["08", "40", "53", "55", "57", "58", "XX"]
                    .iter()
                    .any(|class| code.starts_with(class))
            }),
            _ => false,
        }
    }
}

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    options: PgConnectOptions,
}

impl Store {
    /// Connects to a `postgres://` address.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url).map_err(|error| StoreError::Address {
            reason: error.to_string(),
        })?;
        Self::connect_with(options).await
    }

    /// Connects. The pool it keeps opens new connections by itself when Postgres comes back.
    pub async fn connect_with(options: PgConnectOptions) -> Result<Self, StoreError> {
        // A query that waits for a busy disk is no warning to a person.
        let options = options
            .application_name("missbench")
            .log_slow_statements(log::LevelFilter::Debug, Duration::from_secs(1));
        // One connection by hand: a pool would say only that it waited too long.
        tokio::time::timeout(CONNECT_WAIT, async {
            PgConnection::connect_with(&options).await?.close().await
        })
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
        .map_err(|source| StoreError::Connect {
            host: options.get_host().to_owned(),
            port: options.get_port(),
            database: options.get_database().unwrap_or_default().to_owned(),
            source,
        })?;
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(CONNECT_WAIT)
            .connect_lazy_with(options.clone());
        Ok(Self { pool, options })
    }

    /// Connects, however long it takes: only an answer that says no (a wrong login, no such
    /// database) ends it.
    pub async fn connect_patiently(options: &PgConnectOptions) -> Result<Self, StoreError> {
        let mut backoff = Backoff::default();
        loop {
            match Self::connect_with(options.clone()).await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "the database is not there, trying again");
                    tokio::time::sleep(backoff.pause()).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// The pool, for queries that live elsewhere.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// How it connects, for a connection of one's own.
    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Brings the database up to date, reference data included. Safe to call from several
    /// processes at once: a lock in the database lets one go first.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        MIGRATIONS.run(&self.pool).await?;
        self.load_published().await
    }

    /// How many migrations the database lacks; an error when it has one that this program does
    /// not know.
    pub async fn missing_migrations(&self) -> Result<usize, StoreError> {
        let begun: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
            .fetch_one(&self.pool)
            .await?;
        let applied: Vec<i64> = if begun {
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
    pub async fn check(&self) -> Result<(), StoreError> {
        match self.missing_migrations().await? {
            0 => Ok(()),
            missing => Err(StoreError::Behind { missing }),
        }
    }
}

/// The text that a person knows a sweep by: its name and the beginning of its id.
pub(crate) fn label(name: &str, id: SweepId) -> String {
    format!("{name} ({})", id.short())
}
