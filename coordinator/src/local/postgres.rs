//! A private Postgres.
//!
//! Postgres refuses to run as root. Started by root it runs as an unprivileged user, who must get
//! at its programs and its files: where either lies out of that user's reach (below `/root`, say),
//! the files go to `/var/lib/halfheard` and the programs are copied there, once.

use super::{
    LocalError,
    child::{ServerProcess, log_tail},
    files,
    servers::{START_PATIENCE, free_port},
    stale,
};
use crate::local::programs::Found;
use halfheard_shared::text::quoted_path;
use halfheard_store::{
    admin,
    connect::{PgConnectOptions, PgSslMode},
};
use nix::{
    sys::signal::Signal,
    unistd::{User, geteuid},
};
use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What it is called in errors and logs.
const NAME: &str = "PostgreSQL";
/// User and database.
const LOGIN: &str = "halfheard";
/// How long it may take to stop in good order: it writes out what it has in memory.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How many times a start is tried.
const TRIES: usize = 6;
/// For root: where things lie that the unprivileged user must reach.
const STATE: &str = "/var/lib/halfheard";
/// The variable that names the unprivileged user.
const USER: &str = "HALFHEARD_POSTGRES_USER";

/// How to reach the database on `port`.
pub(super) fn options(port: u16, password: &str) -> PgConnectOptions {
    // Not from the environment, as `new` would: PGOPTIONS or PGSSLMODE of someone's other database.
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username(LOGIN)
        .password(password)
        .database(LOGIN)
        .ssl_mode(PgSslMode::Disable)
}

/// A private Postgres: loopback, a login of its own, all its files below one folder.
#[derive(Debug)]
pub struct PostgresServer {
    programs: PathBuf,
    /// The server's own files.
    data: PathBuf,
    log: PathBuf,
    user: Option<User>,
    password: String,
    port: u16,
    process: Option<ServerProcess>,
}

impl PostgresServer {
    /// Starts one whose files are below `root`, making the database if there is none.
    ///
    /// # Errors
    ///
    /// Its files cannot be written or were made by another version, or it does not start.
    pub async fn start(programs: &Found, root: &Path) -> Result<Self, LocalError> {
        let user = unprivileged()?;
        let place = Place::prepare(programs, root, user.as_ref())?;
        let password_file = root.join("postgres-password");
        let mut server = Self {
            programs: place.programs,
            data: place.folder.join("data"),
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
            server.make(&place.folder, &password_file).await?;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            // Another process may take the port between the asking and the listening.
            server.port = free_port()?;
            match server.restart().await {
                // A predecessor's children take a moment to leave.
                Err(LocalError::Start { reason, .. })
                    if tries < TRIES
                        && ["could not bind", "shared memory block", "in use"]
                            .iter()
                            .any(|passing| reason.contains(passing)) =>
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

    /// Whether there is one below `root`.
    pub fn exists(root: &Path) -> bool {
        root.join("postgres-password").exists()
    }

    /// How to reach the database.
    pub fn options(&self) -> PgConnectOptions {
        options(self.port, &self.password)
    }

    /// Its port on the loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its password.
    pub(super) fn password(&self) -> &str {
        &self.password
    }

    /// The line of a password file for psql.
    pub(super) fn pgpass(&self) -> String {
        format!("127.0.0.1:{}:*:{LOGIN}:{}\n", self.port, self.password)
    }

    /// What to type to look around with psql, given a password file.
    pub fn psql(&self, pgpass: &Path) -> String {
        format!(
            "PGPASSFILE={} {} -h 127.0.0.1 -p {} -U {LOGIN} {LOGIN}",
            quoted_path(pgpass),
            quoted_path(&self.programs.join("psql")),
            self.port
        )
    }

    /// Where it writes its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Where its files are.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Whether it has ended without having been asked.
    pub fn has_fallen(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.exited().is_some())
    }

    /// Starts it again on the same port and files, after [`PostgresServer::kill`] or a fall.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub async fn restart(&mut self) -> Result<(), LocalError> {
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
        // SIGINT asks for a fast, orderly stop: sessions are ended and everything is written out.
        let process = ServerProcess::start(command, NAME, &self.log, Signal::SIGINT)
            .map_err(|error| self.failed(error.to_string()))?;
        self.process = Some(process);
        self.ready().await
    }

    /// Ends it with SIGKILL, all its processes.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
            // Its own children notice that it is gone and leave.
        }
    }

    /// Stops it.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGINT);
            if !process.wait(STOP_PATIENCE).await {
                // At once, without writing out; nothing is lost, the next start replays its log.
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

    /// Waits until it lets us in.
    async fn ready(&mut self) -> Result<(), LocalError> {
        let since = Instant::now();
        let options = self.options();
        loop {
            let fallen = self.has_fallen();
            if fallen || since.elapsed() > START_PATIENCE {
                let what = if fallen {
                    "it ended"
                } else {
                    "it lets nobody in"
                };
                let reason = format!("{what}; the end of its log:\n{}", log_tail(&self.log));
                self.stop().await;
                return Err(self.failed(reason));
            }
            match admin::ping(&options).await {
                Ok(()) => return Ok(()),
                // Somebody else's server on that port, or files with another password.
                Err(error) if error.is_wrong_password() => {
                    let error = error.to_string();
                    self.stop().await;
                    return Err(self.failed(error));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(30)).await,
            }
        }
    }

    /// Makes a new server's files: in a folder beside, renamed when whole.
    async fn make(&mut self, folder: &Path, password_file: &Path) -> Result<(), LocalError> {
        let new = folder.join("data.new");
        // Left by a run that was killed while it made them.
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
        let made = tokio::task::spawn_blocking(move || command.output())
            .await
            .map_err(|error| self.failed(error.to_string()))?;
        let made = made.map_err(|error| self.failed(format!("initdb does not run: {error}")));
        // It has been read, or never will be.
        let _ = std::fs::remove_file(&readable);
        let made = made?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr);
            return Err(self.failed(format!("initdb failed: {}", said.trim())));
        }
        files::write_private(password_file, &self.password, None)?;
        files::rename(&new, &self.data)
    }

    fn check_version(&self, said: &str) -> Result<(), LocalError> {
        let made = files::read(&self.data.join("PG_VERSION"))?
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
        let here = digits(said);
        if digits(&made) == here {
            Ok(())
        } else {
            Err(LocalError::OtherVersion {
                folder: self.data.clone(),
                made,
                here,
            })
        }
    }

    /// Ends a server that an earlier run left behind. A process id that means another process by
    /// now is left alone, and the file that names it is removed: it would keep Postgres from
    /// starting.
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
        // It works in its own folder.
        let data = self
            .data
            .canonicalize()
            .unwrap_or_else(|_| self.data.clone());
        let ours = |pid| stale::current_folder(pid).is_some_and(|folder| folder == data);
        if ours(pid) {
            let signals = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL];
            stale::end(pid, NAME, &signals, ours).await
        } else {
            let _ = std::fs::remove_file(&file);
            Ok(())
        }
    }
}

/// A program of Postgres, run as `user`, with nothing of our environment that could concern it.
fn command(program: &Path, user: Option<&User>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir("/").stdin(Stdio::null());
    for name in ["PATH", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    if let Some(user) = user {
        // Other groups are dropped with it.
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// Whom Postgres runs as, when we are root.
fn unprivileged() -> Result<Option<User>, LocalError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let name = std::env::var(USER)
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "nobody".to_owned());
    match User::from_name(&name) {
        Ok(Some(user)) if !user.uid.is_root() => Ok(Some(user)),
        _ => Err(LocalError::NoUser { user: name }),
    }
}

/// Where Postgres' programs and files are.
struct Place {
    programs: PathBuf,
    folder: PathBuf,
}

impl Place {
    fn prepare(programs: &Found, root: &Path, user: Option<&User>) -> Result<Self, LocalError> {
        let folder = root.join("postgres");
        let Some(user) = user else {
            files::make_folder(&folder, 0o700)?;
            return Ok(Self {
                programs: programs.path.clone(),
                folder,
            });
        };
        let programs = reachable_programs(programs, user)?;
        let folder = reachable_folder(&programs, &folder, user)?;
        Ok(Self { programs, folder })
    }
}

/// The folder of the programs, or of a copy that `user` can run.
fn reachable_programs(programs: &Found, user: &User) -> Result<PathBuf, LocalError> {
    let Err(reason) = try_as(&programs.path, Path::new("/"), user) else {
        return Ok(programs.path.clone());
    };
    let unreachable = || LocalError::Unreachable {
        user: user.name.clone(),
        path: programs.path.clone(),
        reason: reason.clone(),
    };
    // Programs, libraries and shared files lie side by side; Postgres finds them from where it is.
    let whole = programs.path.parent().ok_or_else(unreachable)?;
    if !whole.join("share").exists() || !whole.join("lib").exists() {
        return Err(unreachable());
    }
    let stamp = |path: &Path| {
        let changed = std::fs::metadata(path).and_then(|meta| meta.modified());
        format!("{} {changed:?}", path.display())
    };
    let name = short_hash(&format!(
        "{} {}",
        programs.version,
        stamp(&programs.path.join("postgres"))
    ));
    let copy = Path::new(STATE).join(format!("postgres-{name}"));
    let bin = programs.path.file_name().ok_or_else(unreachable)?;
    if !copy.join(bin).join("postgres").exists() {
        files::make_folder(Path::new(STATE), 0o711)?;
        let new = Path::new(STATE).join(format!("postgres-{name}.{}", std::process::id()));
        tracing::info!(from = %whole.display(), to = %copy.display(), user = user.name,
            "PostgreSQL is copied to where its user can run it");
        files::remove_folder(&new)?;
        files::copy_tree(whole, &new)?;
        // Another process may have been faster; its copy is as good.
        if files::rename(&new, &copy).is_err() {
            files::remove_folder(&new)?;
        }
    }
    let copied = copy.join(bin);
    match try_as(&copied, Path::new("/"), user) {
        Ok(()) => Ok(copied),
        Err(reason) => Err(LocalError::Unreachable {
            user: user.name.clone(),
            path: copied,
            reason,
        }),
    }
}

/// `folder`, given to `user`, or one in its stead that the user can reach.
fn reachable_folder(programs: &Path, folder: &Path, user: &User) -> Result<PathBuf, LocalError> {
    let stead = Path::new(STATE).join(short_hash(&folder.display().to_string()));
    let made = |folder: &Path| folder.join("data/PG_VERSION").exists();
    if !made(&stead) || made(folder) {
        files::make_folder(folder, 0o700)?;
        files::give(folder, user)?;
        if try_as(programs, folder, user).is_ok() {
            return Ok(folder.to_owned());
        }
    }
    files::make_folder(Path::new(STATE), 0o711)?;
    files::make_folder(&stead, 0o700)?;
    files::give(&stead, user)?;
    match try_as(programs, &stead, user) {
        Ok(()) => Ok(stead),
        Err(reason) => Err(LocalError::Unreachable {
            user: user.name.clone(),
            path: stead,
            reason,
        }),
    }
}

/// Whether `user` can run the programs with `folder` as current folder.
fn try_as(programs: &Path, folder: &Path, user: &User) -> Result<(), String> {
    let output = command(&programs.join("postgres"), Some(user))
        .arg("--version")
        .current_dir(folder)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{}: {}", output.status, said.trim()))
    }
}

fn short_hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

#[cfg(test)]
impl PostgresServer {
    pub(super) fn programs_for_tests(&self) -> &Path {
        &self.programs
    }
}
