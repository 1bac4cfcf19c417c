//! The data folder of private servers: who may use it, and how others connect to what runs there.

use super::{LocalError, files, postgres};
use halfheard_store::connect::PgConnectOptions;
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, TryLockError},
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long another process may hold the data folder before that is an error.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

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

    fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn connection(&self) -> PathBuf {
        self.root.join("connection.json")
    }

    /// Takes the folder for this process alone.
    pub(super) async fn take(&self) -> Result<File, LocalError> {
        files::make_folder(&self.data_dir, 0o755)?;
        // Postgres may run as another user, who has to get through.
        files::make_folder(&self.root, 0o711)?;
        let path = self.lock();
        let failed = |source| LocalError::Files {
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
