//! What can go wrong with the database.

use crate::fault::{self, Fault, PostgresError};
use halfheard_shared::error::Hint;

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address cannot be parsed. Never holds the address itself, which may contain a password.
    #[error("invalid database address: {reason}")]
    Address {
        /// What is wrong with it.
        reason: String,
    },
    /// Connection refused or authentication failed.
    #[error("cannot connect to Postgres {place}, database `{database}`")]
    Connect {
        /// `at HOST:PORT` or `in FOLDER`.
        place: String,
        /// The database's name.
        database: String,
        /// Whether waiting may help.
        transient: bool,
        /// Why.
        source: PostgresError,
    },
    /// Migrations failed.
    #[error("cannot migrate the database")]
    Migrate(#[source] PostgresError),
    /// The files of the migrations and the database disagree.
    #[error("cannot migrate the database")]
    Migrations(#[source] sqlx::migrate::MigrateError),
    /// The database is older than the program.
    #[error("the database lacks {missing} migrations of this program")]
    Behind {
        /// How many.
        missing: usize,
    },
    /// The database is newer than the program.
    #[error("the database has migration {version}, which is unknown to this program")]
    Ahead {
        /// The unknown migration.
        version: i64,
    },
    /// No sweep has this name or id.
    #[error("no sweep has the name `{0}` or an id that begins with it")]
    NoSweep(String),
    /// Several sweeps match.
    #[error("`{text}` matches {count} sweeps ({some})")]
    AmbiguousSweep {
        /// What was asked for.
        text: String,
        /// How many match.
        count: usize,
        /// Some of them.
        some: String,
    },
    /// No job has this id.
    #[error("no job has an id that begins with `{0}`")]
    NoJob(String),
    /// Several jobs match.
    #[error("the ids of several jobs begin with `{0}`")]
    AmbiguousJob(String),
    /// No dataset has this name.
    #[error("unknown dataset `{name}`; the database has {have}")]
    NoDataset {
        /// What was asked for.
        name: String,
        /// All that exist.
        have: String,
    },
    /// Results of another protocol are stored under this dataset name.
    #[error(
        "the database has results of a dataset `{name}` with another protocol ({known}; now {given})"
    )]
    OtherProtocol {
        /// The dataset.
        name: String,
        /// Its protocol in the database.
        known: String,
        /// Its protocol in the spec.
        given: String,
    },
    /// A number out of the database's range.
    #[error("{what} is {value}, which is out of the database's range")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A stored value that cannot be decoded.
    #[error("cannot decode {what} in the database")]
    Stored {
        /// What it is.
        what: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The coordinator that wrote does not lead any more: nothing was written.
    #[error("another coordinator leads")]
    Deposed,
    /// Any other error from Postgres.
    #[error("database query failed")]
    Query(#[source] PostgresError),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Query(error.into())
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        match PostgresError::of_migration(error) {
            Ok(error) => Self::Migrate(error),
            Err(error) => Self::Migrations(error),
        }
    }
}

impl StoreError {
    /// A stored value that cannot be decoded.
    pub(crate) fn stored(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Stored {
            what: what.into(),
            source: source.into(),
        }
    }

    /// Whether nothing was written because another coordinator leads.
    pub fn is_deposed(&self) -> bool {
        matches!(self, StoreError::Deposed)
    }

    /// Whether the same call may succeed later: Postgres is away or restarts, or two transactions
    /// conflicted.
    pub fn is_transient(&self) -> bool {
        match self {
            StoreError::Connect { transient, .. } => *transient,
            error => error.fault() == Fault::Transient,
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            StoreError::Query(error) | StoreError::Connect { source: error, .. } => error.fault(),
            StoreError::Behind { .. } | StoreError::Ahead { .. } => Fault::Refusal,
            _ => Fault::Other,
        }
    }
}

impl Hint for StoreError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            StoreError::Address { .. } => "write it as postgres://user@host:5432/name",
            StoreError::Connect { source, .. } => fault::connect_hint(source),
            StoreError::Migrations(sqlx::migrate::MigrateError::VersionMismatch(_)) => {
                "an unreleased build made it, with other tables: use another database or --data-dir, \
                 or the build that made it"
            }
            StoreError::Behind { .. } => "run `coord migrate`",
            StoreError::Ahead { .. } => "use a newer coord",
            StoreError::NoSweep(_) => "`coord status` lists the sweeps",
            StoreError::NoJob(_) => "`coord plan SPEC --jobs` lists jobs with their ids",
            StoreError::AmbiguousSweep { .. } | StoreError::AmbiguousJob(_) => {
                "give more digits of the id"
            }
            StoreError::OtherProtocol { .. } => "give the dataset another name in the spec",
            // The hint of the source is found there.
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_of_an_unreleased_build_is_explained() {
        let error = StoreError::from(sqlx::migrate::MigrateError::VersionMismatch(1));
        assert!(error.hint().unwrap().contains("--data-dir"), "{error}");
    }
}
