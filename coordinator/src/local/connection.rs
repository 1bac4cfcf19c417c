//! The data folder of private servers: the lock on it, and how other processes connect.

use super::{LocalError, files, postgres};
use halfheard_store::connect::PgConnectOptions;
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, TryLockError},
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long to wait for another process to release the data folder.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// How other processes connect to running servers. Only this user can read it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Connection {
    /// The id of the process that runs the servers.
    pub pid: u32,
    /// The broker's address with its login, if the broker runs.
    pub nats_url: Option<String>,
    /// The database's port on the loopback interface.
    pub port: u16,
    /// The database's password.
    pub password: String,
}

impl Connection {
    /// Returns how to connect to the database.
    pub fn database(&self) -> PgConnectOptions {
        postgres::options(self.port, &self.password)
    }

    /// Returns how to connect to the servers that run on `data_dir`, if any do.
    pub fn of_running(data_dir: &Path) -> Option<Self> {
        let folder = Folder::of(data_dir);
        // Locked while the servers run; a leftover file means nothing.
        let lock = File::open(folder.lock_file()).ok()?;
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
pub(super) struct Folder {
    pub(super) data_dir: PathBuf,
    pub(super) root: PathBuf,
}

impl Folder {
    pub(super) fn of(data_dir: &Path) -> Self {
        let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        Self {
            root: data_dir.join("embedded"),
            data_dir,
        }
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn connection(&self) -> PathBuf {
        self.root.join("connection.json")
    }

    /// Locks the folder for this process.
    pub(super) async fn lock(&self) -> Result<File, LocalError> {
        files::create_folder(&self.data_dir, 0o755)?;
        // Postgres may run as another user, who needs to pass through.
        files::create_folder(&self.root, 0o711)?;
        let path = self.lock_file();
        let failed = |source| LocalError::File {
            action: "lock",
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
                Err(TryLockError::WouldBlock) if since.elapsed() < LOCK_TIMEOUT => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let holder = std::fs::read_to_string(&path).unwrap_or_default();
                    return Err(LocalError::InUse {
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
