//! Why private servers are not available.

use super::programs::ProgramError;
use halfheard_shared::error::Hint;
use halfheard_store::fault::PostgresError;
use std::path::PathBuf;

/// Why private servers are not available.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A program is missing or unusable.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Another process uses the data folder.
    #[error("data folder {folder} is in use by process {holder}")]
    InUse {
        /// The data folder.
        folder: PathBuf,
        /// The process id of the other process.
        holder: String,
    },
    /// An operation on a file or folder failed.
    #[error("cannot {action} {path}")]
    File {
        /// A verb: `create`, `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// No free port on the loopback interface.
    #[error("cannot allocate a port on 127.0.0.1")]
    Port(#[source] std::io::Error),
    /// A server does not start.
    #[error("{name} does not start: {reason}")]
    Start {
        /// The server.
        name: &'static str,
        /// The reason, with the end of its log.
        reason: String,
        /// The file of its log.
        log: PathBuf,
    },
    /// A process of an earlier run does not exit.
    #[error("{name} of an earlier run (process {pid}) does not exit")]
    Stale {
        /// The server.
        name: &'static str,
        /// Its process id.
        pid: i32,
    },
    /// There is no user to run Postgres as.
    #[error("PostgreSQL refuses to run as root, and user `{user}` does not exist")]
    NoUser {
        /// The name of the user.
        user: String,
    },
    /// The user that Postgres runs as lacks access.
    #[error("PostgreSQL runs as `{user}`, who cannot use {path}: {reason}")]
    Inaccessible {
        /// The user.
        user: String,
        /// A file or folder.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The database belongs to another major version.
    #[error(
        "the database in {folder} was created by PostgreSQL {created}, and this is {installed}"
    )]
    OtherVersion {
        /// The database's folder.
        folder: PathBuf,
        /// The version that created it.
        created: String,
        /// The version that is installed.
        installed: String,
    },
    /// Postgres returned an error.
    #[error("the private Postgres failed")]
    Database(#[from] PostgresError),
    /// No sweep was ever run in this data folder.
    #[error("no sweep was run in data folder {folder} yet")]
    Empty {
        /// The data folder.
        folder: PathBuf,
    },
}

impl Hint for LocalError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::InUse { .. } => {
                "wait for it, stop it, or choose another folder with --data-dir".to_owned()
            }
            Self::Start { log, .. } => format!("see its log, {}", log.display()),
            Self::Stale { pid, .. } => format!("kill it: `kill -9 {pid}`"),
            Self::NoUser { .. } => {
                "name a user in HALFHEARD_POSTGRES_USER, or do not run as root".to_owned()
            }
            Self::Inaccessible { .. } => {
                "grant access, name another user in HALFHEARD_POSTGRES_USER, or do not run as root"
                    .to_owned()
            }
            Self::OtherVersion { created, .. } => format!(
                "name the programs of PostgreSQL {created} in HALFHEARD_POSTGRES_BIN, or choose \
                 another folder with --data-dir"
            ),
            Self::Empty { .. } => "run one: `coord run SPEC`".to_owned(),
            Self::Program(error) => return error.hint(),
            Self::Database(error) => return error.hint(),
            Self::File { .. } | Self::Port(_) => return None,
        })
    }
}
