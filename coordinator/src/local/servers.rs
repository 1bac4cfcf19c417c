//! Private servers for one machine: a nats-server and a Postgres below the data folder, on free
//! loopback ports, with logins that nobody else has.
//!
//! They are child processes that end with this one. What they hold stays in the data folder, and a
//! later run goes on from it. One process at a time may use a data folder; others may connect to
//! what it runs (see [`Connection`]).

pub use super::{child::ServerProcess, nats::NatsServer, postgres::PostgresServer};

use super::{files, postgres};
use crate::local::programs::{Part, ProgramError, Programs};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;
use std::{
    fs::{File, TryLockError},
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long a server may take to answer. Postgres may have a log to replay first.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long another process may hold the data folder before that is an error.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Why there are no private servers.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
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
    #[error("the private Postgres: {}", halfheard_store::fault::explained(.0))]
    Database(#[from] sqlx::Error),
    /// Nothing was ever run in this data folder.
    #[error("nothing was run in the data folder {folder} yet: `coord run SPEC` does")]
    Empty {
        /// The data folder.
        folder: PathBuf,
    },
}

/// How other processes reach what one runs. Only this user can read it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Connection {
    /// The process that keeps the servers.
    pub pid: u32,
    /// The broker's address with its login; none where only the database runs.
    pub nats_url: Option<String>,
    /// The database's port on the loopback.
    pub port: u16,
    /// The database's password.
    pub password: String,
}

impl Connection {
    /// How to reach the database.
    pub fn database(&self) -> PgConnectOptions {
        postgres::options(self.port, &self.password)
    }

    /// What runs on `data_dir` at this moment, if anything does.
    pub fn of_running(data_dir: &Path) -> Option<Self> {
        let folder = Folder::of(data_dir);
        // Held by whoever runs the servers; a file that is left over says nothing.
        let lock = File::open(folder.lock()).ok()?;
        match lock.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {}
            _ => return None,
        }
        let text = std::fs::read_to_string(folder.connection()).ok()?;
        serde_json::from_str(&text).ok()
    }
}

/// The files below a data folder.
#[derive(Clone, Debug)]
struct Folder {
    data_dir: PathBuf,
    root: PathBuf,
}

impl Folder {
    fn of(data_dir: &Path) -> Self {
        let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        Self {
            root: data_dir.join("embedded"),
            data_dir,
        }
    }

    fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    fn connection(&self) -> PathBuf {
        self.root.join("connection.json")
    }

    /// Takes the folder for this process alone.
    async fn take(&self) -> Result<File, EmbeddedError> {
        files::make_folder(&self.data_dir, 0o755)?;
        // Postgres may run as another user, who has to get through.
        files::make_folder(&self.root, 0o711)?;
        let path = self.lock();
        let failed = |source| EmbeddedError::Files {
            action: "locked",
            path: path.clone(),
            source,
        };
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        let since = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if since.elapsed() < LOCK_PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let holder = std::fs::read_to_string(&path).unwrap_or_default();
                    return Err(EmbeddedError::InUse {
                        folder: self.data_dir.clone(),
                        holder: holder.trim().to_owned(),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(lock)
    }
}

/// Both private servers, or Postgres alone.
///
/// Dropped, they are stopped; [`Embedded::stop`] does it in better order.
#[derive(Debug)]
pub struct Embedded {
    folder: Folder,
    nats: Option<NatsServer>,
    postgres: PostgresServer,
    /// Held for as long as the servers run.
    _lock: File,
}

impl Embedded {
    /// Starts both servers below `data_dir`, making what is not there yet.
    ///
    /// # Errors
    ///
    /// A program is missing, the folder is in use or cannot be written, a server does not start.
    pub async fn start(data_dir: &Path, programs: &Programs) -> Result<Self, EmbeddedError> {
        let folder = Folder::of(data_dir);
        // All that can be missing is looked for before anything is started.
        let nats = programs.find(Part::Nats)?;
        let postgres = programs.find(Part::Postgres)?;
        let lock = folder.take().await?;
        let nats_folder = folder.root.join("nats");
        let (nats, postgres) = tokio::join!(
            NatsServer::start(&nats, &nats_folder),
            PostgresServer::start(&postgres, &folder.root),
        );
        Self::with(folder, lock, Some(nats?), postgres?)
    }

    /// Starts Postgres alone, to look at what an earlier run left.
    ///
    /// # Errors
    ///
    /// As [`Embedded::start`], and where no run has been.
    pub async fn start_database(
        data_dir: &Path,
        programs: &Programs,
    ) -> Result<Self, EmbeddedError> {
        let folder = Folder::of(data_dir);
        if !Self::exists(data_dir) {
            return Err(EmbeddedError::Empty {
                folder: folder.data_dir,
            });
        }
        let postgres = programs.find(Part::Postgres)?;
        let lock = folder.take().await?;
        let postgres = PostgresServer::start(&postgres, &folder.root).await?;
        Self::with(folder, lock, None, postgres)
    }

    fn with(
        folder: Folder,
        lock: File,
        nats: Option<NatsServer>,
        postgres: PostgresServer,
    ) -> Result<Self, EmbeddedError> {
        let embedded = Self {
            folder,
            nats,
            postgres,
            _lock: lock,
        };
        embedded.tell()?;
        Ok(embedded)
    }

    /// Writes down for other processes how to connect.
    fn tell(&self) -> Result<(), EmbeddedError> {
        let connection = Connection {
            pid: std::process::id(),
            nats_url: self.nats.as_ref().map(NatsServer::url),
            port: self.postgres.port(),
            password: self.postgres.password().to_owned(),
        };
        // A struct of text and numbers always has a JSON form.
        let text = serde_json::to_string(&connection).unwrap_or_default();
        files::write_private(&self.folder.connection(), &text, None)?;
        files::write_private(&self.pgpass(), &self.postgres.pgpass(), None)
    }

    /// Whether a run has been in `data_dir`.
    pub fn exists(data_dir: &Path) -> bool {
        PostgresServer::exists(&Folder::of(data_dir).root)
    }

    /// The broker's address with its login; empty where only Postgres runs.
    pub fn nats_url(&self) -> String {
        self.nats.as_ref().map(NatsServer::url).unwrap_or_default()
    }

    /// How to reach the database.
    pub fn database(&self) -> PgConnectOptions {
        self.postgres.options()
    }

    /// The broker.
    pub fn nats(&self) -> Option<&NatsServer> {
        self.nats.as_ref()
    }

    /// The database.
    pub fn postgres(&self) -> &PostgresServer {
        &self.postgres
    }

    /// A password file for psql, `PGPASSFILE`.
    pub fn pgpass(&self) -> PathBuf {
        self.folder.root.join("pgpass")
    }

    /// Where the servers' files and logs are.
    pub fn folder(&self) -> &Path {
        &self.folder.root
    }

    /// Ends the broker with SIGKILL.
    pub async fn kill_nats(&mut self) {
        if let Some(nats) = &mut self.nats {
            nats.kill().await;
        }
    }

    /// Starts the broker again on the same port and files.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub async fn restart_nats(&mut self) -> Result<(), EmbeddedError> {
        match &mut self.nats {
            Some(nats) => nats.restart().await,
            None => Ok(()),
        }
    }

    /// Ends the database with SIGKILL.
    pub async fn kill_postgres(&mut self) {
        self.postgres.kill().await;
    }

    /// Starts the database again on the same port and files.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub async fn restart_postgres(&mut self) -> Result<(), EmbeddedError> {
        self.postgres.restart().await
    }

    /// Starts again what has ended without having been asked, and says what that was.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub async fn revive(&mut self) -> Result<Vec<&'static str>, EmbeddedError> {
        let mut revived = Vec::new();
        if let Some(nats) = &mut self.nats
            && nats.has_fallen()
        {
            nats.restart().await?;
            revived.push("nats-server");
        }
        if self.postgres.has_fallen() {
            self.postgres.restart().await?;
            revived.push("Postgres");
        }
        Ok(revived)
    }

    /// Stops both and gives the folder free.
    pub async fn stop(mut self) {
        if let Some(nats) = &mut self.nats {
            nats.stop().await;
        }
        self.postgres.stop().await;
        // Others find out by the lock as well; the file may stay.
        let _ = std::fs::remove_file(self.folder.connection());
    }
}

/// A port of the loopback that nobody uses at this moment.
pub(super) fn free_port() -> Result<u16, EmbeddedError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| EmbeddedError::Files {
            action: "given a port",
            path: PathBuf::from("127.0.0.1"),
            source,
        })
}

#[cfg(test)]
mod tests;
