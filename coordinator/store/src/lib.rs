//! Postgres: the connection, the migrations, and what can go wrong with them.
//!
//! The queries live beside this file, by purpose: [`submit`], [`benchmarks`], [`datasets`], [`outbox`],
//! [`intake`], [`recover`], [`sweeps`] and [`control`]. Those with a fixed text are checked against the
//! migrations when the program is compiled.

pub mod benchmarks;
pub mod connect;
pub mod control;
pub mod datasets;
pub mod fault;
mod give_up;
pub mod intake;
pub mod lifecycle;
pub mod outbox;
mod published;
pub mod recover;
pub mod results;
pub mod submit;
pub mod sweeps;
pub mod types;

pub use fault::Fault;
pub use types::{JobKind, JobState, SweepState};

use halfheard_shared::ids::SweepId;
use sqlx::{PgPool, migrate::Migrator, postgres::PgConnectOptions};

/// The migrations in `schemas/migrations`, embedded in the program.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../../schemas/migrations");

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
        "no connection to Postgres {place}, database `{database}`: {}; {}",
        fault::words(source),
        fault::connect_remedy(source)
    )]
    Connect {
        /// Where: `at HOST:PORT` or `in FOLDER`.
        place: String,
        /// The database's name.
        database: String,
        /// Whether waiting may help.
        passing: bool,
        /// Why.
        source: sqlx::Error,
    },
    /// Migrations failed.
    #[error("the database cannot be brought up to date: {}", fault::migrate_words(.0))]
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
    #[error("Postgres: {}", fault::explained(.0))]
    Query(#[from] sqlx::Error),
}

impl StoreError {
    /// Whether the same call may succeed later by itself: Postgres is away, restarts, or two
    /// transactions met.
    pub fn is_transient(&self) -> bool {
        match self {
            StoreError::Connect { passing, .. } => *passing,
            error => error.fault() == Fault::Passing,
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            StoreError::Query(error) | StoreError::Connect { source: error, .. } => {
                Fault::of(error)
            }
            StoreError::Behind { .. } | StoreError::Ahead { .. } => Fault::Refusal,
            _ => Fault::Other,
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
