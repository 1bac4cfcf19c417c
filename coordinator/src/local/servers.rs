//! Private servers for one machine: a nats-server and a Postgres below the data folder, on free
//! loopback ports, with logins that nobody else has.
//!
//! They are child processes that end with this one. What they hold stays in the data folder, and a
//! later run goes on from it. One process at a time may use a data folder; others may connect to
//! what it runs (see [`Connection`]).

pub use super::{child::ServerProcess, nats::NatsServer, postgres::PostgresServer};

use super::{
    LocalError,
    connection::{Connection, Folder},
    files,
    programs::{Part, Programs},
};
use halfheard_store::connect::PgConnectOptions;
use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a server may take to answer. Postgres may have a log to replay first.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(60);

/// Both private servers, or Postgres alone.
///
/// Dropped, they are stopped; [`Servers::stop`] does it in better order.
#[derive(Debug)]
pub struct Servers {
    folder: Folder,
    nats: Option<NatsServer>,
    postgres: PostgresServer,
    /// Held for as long as the servers run.
    _lock: File,
}

impl Servers {
    /// Starts both servers below `data_dir`, making what is not there yet.
    ///
    /// # Errors
    ///
    /// A program is missing, the folder is in use or cannot be written, a server does not start.
    pub async fn start(data_dir: &Path, programs: &Programs) -> Result<Self, LocalError> {
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
    /// As [`Servers::start`], and where no run has been.
    pub async fn start_database(data_dir: &Path, programs: &Programs) -> Result<Self, LocalError> {
        let folder = Folder::of(data_dir);
        if !Self::exists(data_dir) {
            return Err(LocalError::Empty {
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
    ) -> Result<Self, LocalError> {
        let servers = Self {
            folder,
            nats,
            postgres,
            _lock: lock,
        };
        servers.tell()?;
        Ok(servers)
    }

    /// Writes down for other processes how to connect.
    fn tell(&self) -> Result<(), LocalError> {
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
    pub async fn restart_nats(&mut self) -> Result<(), LocalError> {
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
    pub async fn restart_postgres(&mut self) -> Result<(), LocalError> {
        self.postgres.restart().await
    }

    /// Starts again what has ended without having been asked, and says what that was.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub async fn revive(&mut self) -> Result<Vec<&'static str>, LocalError> {
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
pub(super) fn free_port() -> Result<u16, LocalError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| LocalError::Files {
            action: "given a port",
            path: PathBuf::from("127.0.0.1"),
            source,
        })
}

#[cfg(test)]
mod tests;
