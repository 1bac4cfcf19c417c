//! Private servers for one machine: a nats-server and a Postgres below the data folder, on free
//! loopback ports, with random passwords.
//!
//! They are child processes that exit with this one. Their data stays in the data folder, and a later
//! run continues with it. One process at a time may use a data folder; others may connect to its
//! servers (see [`Connection`]).

use super::{
    LocalError,
    connection::{Connection, Folder},
    files,
    nats::NatsServer,
    postgres::PostgresServer,
    programs::{Part, Programs},
};
use halfheard_store::connect::PgConnectOptions;
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// Both private servers, or Postgres alone.
///
/// They are stopped on drop; [`Servers::stop`] does it in an orderly way.
#[derive(Debug)]
pub struct Servers {
    folder: Folder,
    nats: Option<NatsServer>,
    postgres: PostgresServer,
    /// Held while the servers run.
    _lock: File,
}

impl Servers {
    /// Starts both servers below `data_dir` and creates missing files.
    ///
    /// # Errors
    ///
    /// A program is missing, the folder is in use or cannot be written, or a server does not start.
    pub async fn start(data_dir: &Path, programs: &Programs) -> Result<Self, LocalError> {
        let folder = Folder::of(data_dir);
        // Find everything before anything is started.
        let nats = programs.find(Part::Nats)?;
        let postgres = programs.find(Part::Postgres)?;
        let lock = folder.lock().await?;
        let nats_folder = folder.root.join("nats");
        let (nats, postgres) = tokio::join!(
            NatsServer::start(&nats, &nats_folder),
            PostgresServer::start(&postgres, &folder.root),
        );
        Self::with(folder, lock, Some(nats?), postgres?)
    }

    /// Starts Postgres alone, to read the results of earlier runs.
    ///
    /// # Errors
    ///
    /// As [`Servers::start`], and if there was no run yet.
    pub async fn start_database(data_dir: &Path, programs: &Programs) -> Result<Self, LocalError> {
        let folder = Folder::of(data_dir);
        if !Self::exists(data_dir) {
            return Err(LocalError::Empty {
                folder: folder.data_dir,
            });
        }
        let postgres = programs.find(Part::Postgres)?;
        let lock = folder.lock().await?;
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
        servers.write_connection()?;
        Ok(servers)
    }

    /// Writes the files by which other processes connect.
    fn write_connection(&self) -> Result<(), LocalError> {
        let connection = Connection {
            pid: std::process::id(),
            nats_url: self.nats.as_ref().map(NatsServer::url),
            port: self.postgres.port(),
            password: self.postgres.password().to_owned(),
        };
        // A struct of strings and numbers always serializes.
        let text = serde_json::to_string(&connection).unwrap_or_default();
        files::write_private(&self.folder.connection(), &text, None)?;
        files::write_private(&self.pgpass(), &self.postgres.pgpass(), None)
    }

    /// Returns whether there is a database below `data_dir`.
    pub fn exists(data_dir: &Path) -> bool {
        PostgresServer::exists(&Folder::of(data_dir).root)
    }

    /// Returns the broker's address with its login; empty if only Postgres runs.
    pub fn nats_url(&self) -> String {
        self.nats.as_ref().map(NatsServer::url).unwrap_or_default()
    }

    /// Returns how to connect to the database.
    pub fn database(&self) -> PgConnectOptions {
        self.postgres.options()
    }

    /// Returns the broker.
    #[cfg(test)]
    pub(super) fn nats(&self) -> Option<&NatsServer> {
        self.nats.as_ref()
    }

    /// Returns the database.
    pub(crate) fn postgres(&self) -> &PostgresServer {
        &self.postgres
    }

    /// Returns the path of a password file for psql, `PGPASSFILE`.
    pub fn pgpass(&self) -> PathBuf {
        self.folder.root.join("pgpass")
    }

    /// Returns the folder of the servers' files and logs.
    pub fn folder(&self) -> &Path {
        &self.folder.root
    }

    /// Restarts servers that exited unexpectedly, and returns their names.
    ///
    /// # Errors
    ///
    /// A server does not start.
    pub async fn restart_exited(&mut self) -> Result<Vec<&'static str>, LocalError> {
        let mut restarted = Vec::new();
        if let Some(nats) = &mut self.nats
            && nats.has_exited()
        {
            nats.restart().await?;
            restarted.push("nats-server");
        }
        if self.postgres.has_exited() {
            self.postgres.restart().await?;
            restarted.push("Postgres");
        }
        Ok(restarted)
    }

    /// Stops both and releases the folder.
    pub async fn stop(mut self) {
        if let Some(nats) = &mut self.nats {
            nats.stop().await;
        }
        self.postgres.stop().await;
        // A leftover does no harm: others check the lock.
        let _ = std::fs::remove_file(self.folder.connection());
    }
}

#[cfg(test)]
mod tests;
