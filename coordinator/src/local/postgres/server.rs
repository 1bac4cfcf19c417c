//! A private Postgres server.

use super::{
    super::{
        LocalError,
        child::{ServerProcess, log_tail},
        files,
        programs::Found,
        stale,
        startup::{START_TIMEOUT, free_port},
    },
    access::{Folders, command, unprivileged_user},
};
use halfheard_shared::{error::chain, text::quoted_path};
use halfheard_store::{
    admin,
    connect::{PgConnectOptions, PgSslMode},
};
use nix::{sys::signal::Signal, unistd::User};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Its name in errors and logs.
const NAME: &str = "PostgreSQL";
/// Name of the user and of the database.
const LOGIN: &str = "halfheard";
/// How long an orderly stop may take: it writes its memory to disk.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a start is attempted.
const ATTEMPTS: usize = 6;

/// Returns how to connect to the database on `port`.
pub(in crate::local) fn options(port: u16, password: &str) -> PgConnectOptions {
    // `new` would read the environment: PGOPTIONS or PGSSLMODE of some other database.
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username(LOGIN)
        .password(password)
        .database(LOGIN)
        .ssl_mode(PgSslMode::Disable)
}

/// A private Postgres on the loopback interface, with its own login and all files below one folder.
#[derive(Debug)]
pub(crate) struct PostgresServer {
    programs: PathBuf,
    /// The database cluster.
    data: PathBuf,
    log: PathBuf,
    user: Option<User>,
    password: String,
    port: u16,
    process: Option<ServerProcess>,
}

impl PostgresServer {
    /// Starts a server with its files below `root`, and creates the database if there is none.
    ///
    /// # Errors
    ///
    /// Its files cannot be written or belong to another version, or it does not start.
    pub(crate) async fn start(programs: &Found, root: &Path) -> Result<Self, LocalError> {
        let user = unprivileged_user()?;
        let folders = Folders::prepare(programs, root, user.as_ref())?;
        let password_file = root.join("postgres-password");
        let mut server = Self {
            programs: folders.programs,
            data: folders.files.join("data"),
            log: root.join("postgres.log"),
            user,
            password: String::new(),
            port: 0,
            process: None,
        };
        if server.data.join("PG_VERSION").exists() && password_file.exists() {
            server.password = files::read(&password_file)?.trim().to_owned();
            server.check_version(&programs.version)?;
            server.stop_stale().await?;
        } else {
            server.initialize(&folders.files, &password_file).await?;
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            // Another process may take the port before the server listens on it.
            server.port = free_port()?;
            match server.restart().await {
                // Children of a previous server take a moment to exit.
                Err(LocalError::Start { reason, .. })
                    if attempts < ATTEMPTS
                        && ["could not bind", "shared memory block", "in use"]
                            .iter()
                            .any(|transient| reason.contains(transient)) =>
                {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        admin::create_database(&server.options()).await?;
        Ok(server)
    }

    /// Returns whether there is a server below `root`.
    pub(crate) fn exists(root: &Path) -> bool {
        root.join("postgres-password").exists()
    }

    /// Returns how to connect to the database.
    pub(crate) fn options(&self) -> PgConnectOptions {
        options(self.port, &self.password)
    }

    /// Returns its port on the loopback interface.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns its password.
    pub(in crate::local) fn password(&self) -> &str {
        &self.password
    }

    /// Returns the line of a password file for psql.
    pub(in crate::local) fn pgpass(&self) -> String {
        format!("127.0.0.1:{}:*:{LOGIN}:{}\n", self.port, self.password)
    }

    /// Returns a psql command line, given a password file.
    pub(crate) fn psql(&self, pgpass: &Path) -> String {
        format!(
            "PGPASSFILE={} {} -h 127.0.0.1 -p {} -U {LOGIN} {LOGIN}",
            quoted_path(pgpass),
            quoted_path(&self.programs.join("psql")),
            self.port
        )
    }

    /// Returns the folder of the database cluster.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Returns whether it exited unexpectedly.
    pub(crate) fn has_exited(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.exited().is_some())
    }

    /// Restarts it on the same port and files, after a kill or a crash.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub(crate) async fn restart(&mut self) -> Result<(), LocalError> {
        if self.process.take().is_some() {
            self.stop_stale().await?;
        }
        let mut command = self.command("postgres");
        command.arg("-D").arg(&self.data);
        for setting in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.port),
            "unix_socket_directories=".to_owned(),
            "max_connections=64".to_owned(),
            "shared_buffers=128MB".to_owned(),
            "max_wal_size=1GB".to_owned(),
            "jit=off".to_owned(),
            "timezone=UTC".to_owned(),
            "log_timezone=UTC".to_owned(),
            "log_line_prefix=%m [%p] ".to_owned(),
            "log_checkpoints=off".to_owned(),
        ] {
            command.arg("-c").arg(setting);
        }
        // SIGINT requests a fast, orderly stop: sessions end and memory is written to disk.
        let process = ServerProcess::start(command, NAME, &self.log, Signal::SIGINT)
            .map_err(|error| self.failed(error.to_string()))?;
        self.process = Some(process);
        self.ready().await
    }

    /// Kills it with SIGKILL.
    #[cfg(test)]
    pub(crate) async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
            // Its children notice and exit.
        }
    }

    /// Stops it.
    pub(crate) async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGINT);
            if !process.wait(STOP_TIMEOUT).await {
                // Immediate, without writing to disk; the next start replays its log.
                process.signal(Signal::SIGQUIT);
                if !process.wait(Duration::from_secs(5)).await {
                    process.kill().await;
                }
            }
        }
    }

    fn failed(&self, reason: String) -> LocalError {
        LocalError::Start {
            name: NAME,
            reason,
            log: self.log.clone(),
        }
    }

    fn command(&self, program: &str) -> Command {
        command(&self.programs.join(program), self.user.as_ref())
    }

    /// Waits until it accepts connections.
    async fn ready(&mut self) -> Result<(), LocalError> {
        let since = Instant::now();
        let options = self.options();
        loop {
            let exited = self.has_exited();
            if exited || since.elapsed() > START_TIMEOUT {
                let what = if exited {
                    "it exited"
                } else {
                    "it accepts no connections"
                };
                let reason = format!("{what}; the end of its log:\n{}", log_tail(&self.log));
                self.stop().await;
                return Err(self.failed(reason));
            }
            match admin::ping(&options).await {
                Ok(()) => return Ok(()),
                // Another server on that port, or files with another password.
                Err(error) if error.is_wrong_password() => {
                    let error = chain(&error);
                    self.stop().await;
                    return Err(self.failed(error));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(30)).await,
            }
        }
    }

    /// Creates the database cluster, in a temporary folder that is renamed when complete.
    async fn initialize(&mut self, folder: &Path, password_file: &Path) -> Result<(), LocalError> {
        let new = folder.join("data.new");
        // Left by a run that was killed at this point.
        files::remove_folder(&new)?;
        files::remove_folder(&self.data)?;
        self.password = files::random_password()?;
        let readable = folder.join("password");
        files::write_private(&readable, &self.password, self.user.as_ref())?;
        let mut command = self.command("initdb");
        command
            .arg("-D")
            .arg(&new)
            .args(["-U", LOGIN, "--encoding=UTF8", "--locale=C"])
            .args(["--auth-host=scram-sha-256", "--auth-local=scram-sha-256"])
            .arg(format!("--pwfile={}", readable.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .map_err(|error| self.failed(error.to_string()))?;
        let output = output.map_err(|error| self.failed(format!("cannot run initdb: {error}")));
        // No longer needed.
        let _ = std::fs::remove_file(&readable);
        let output = output?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(self.failed(format!("initdb failed: {}", stderr.trim())));
        }
        files::write_private(password_file, &self.password, None)?;
        files::rename(&new, &self.data)
    }

    fn check_version(&self, reported: &str) -> Result<(), LocalError> {
        let created = files::read(&self.data.join("PG_VERSION"))?
            .trim()
            .to_owned();
        let digits = |text: &str| -> String {
            let start = text
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(text.len());
            text[start..]
                .chars()
                .take_while(char::is_ascii_digit)
                .collect()
        };
        let installed = digits(reported);
        if digits(&created) == installed {
            Ok(())
        } else {
            Err(LocalError::OtherVersion {
                folder: self.data.clone(),
                created,
                installed,
            })
        }
    }

    /// Stops a server that an earlier run left running. If its process id now belongs to another
    /// process, that process is left alone and the file with the id is removed: it would prevent
    /// Postgres from starting.
    async fn stop_stale(&self) -> Result<(), LocalError> {
        let file = self.data.join("postmaster.pid");
        let Ok(text) = std::fs::read_to_string(&file) else {
            return Ok(());
        };
        let Some(pid) = text
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok())
        else {
            return Ok(());
        };
        // Its current folder is its data folder.
        let data = self
            .data
            .canonicalize()
            .unwrap_or_else(|_| self.data.clone());
        let ours = |pid| stale::current_folder(pid).is_some_and(|folder| folder == data);
        if ours(pid) {
            let signals = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL];
            stale::terminate(pid, NAME, &signals, ours).await
        } else {
            let _ = std::fs::remove_file(&file);
            Ok(())
        }
    }
}

#[cfg(test)]
impl PostgresServer {
    pub(in crate::local) fn programs_for_tests(&self) -> &Path {
        &self.programs
    }
}
