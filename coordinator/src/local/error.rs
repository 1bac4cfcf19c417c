//! Why private servers are not available.

use super::programs::ProgramError;
use std::path::PathBuf;

/// Why there are no private servers.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A program is missing or unusable.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Another process uses the data folder.
    #[error(
        "the data folder {folder} is in use by process {holder}: wait for it, stop it, or name another folder with --data-dir"
    )]
    InUse {
        /// The data folder.
        folder: PathBuf,
        /// The other process.
        holder: String,
    },
    /// A file or folder.
    #[error("{path} cannot be {action}: {source}")]
    Files {
        /// `made`, `written`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A server does not start.
    #[error("{name} does not start: {reason}\nits whole log is {log}")]
    Start {
        /// Which server.
        name: &'static str,
        /// Why, with the end of its log.
        reason: String,
        /// Where the log is.
        log: PathBuf,
    },
    /// A process of an earlier run does not end.
    #[error(
        "{name} of an earlier run (process {pid}) does not end: end it by hand, `kill -9 {pid}`"
    )]
    Stale {
        /// Which server.
        name: &'static str,
        /// Its process id.
        pid: i32,
    },
    /// No user to run Postgres as.
    #[error(
        "PostgreSQL refuses to run as root, and there is no user `{user}` to run it as: name one in HALFHEARD_POSTGRES_USER, or do not run as root"
    )]
    NoUser {
        /// Who was looked for.
        user: String,
    },
    /// The user that Postgres runs as gets at no place.
    #[error(
        "PostgreSQL runs as `{user}`, who cannot use {path}: {reason}; let that user in, name another in HALFHEARD_POSTGRES_USER, or do not run as root"
    )]
    Unreachable {
        /// The user.
        user: String,
        /// What it cannot use.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Files of another major version.
    #[error(
        "the database in {folder} was made by PostgreSQL {made}, and this is {here}: name the programs of {made} in HALFHEARD_POSTGRES_BIN, or another folder with --data-dir"
    )]
    OtherVersion {
        /// The database's folder.
        folder: PathBuf,
        /// Which version made it.
        made: String,
        /// Which version is here.
        here: String,
    },
    /// Postgres answers with an error.
    #[error("the private Postgres failed")]
    Database(#[from] halfheard_store::fault::PostgresError),
    /// Nothing was ever run in this data folder.
    #[error("nothing was run in the data folder {folder} yet: `coord run SPEC` does")]
    Empty {
        /// The data folder.
        folder: PathBuf,
    },
}
