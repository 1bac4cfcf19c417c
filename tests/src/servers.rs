//! A private nats-server and a private Postgres, each on a free loopback port in a temporary folder.
//!
//! `coord`'s own private servers are not used: tests kill these at any point, restart them empty or as a standby, and edit
//! who may connect, while `coord` must not lose what the tests break.

use anyhow::{Context as _, Result, bail, ensure};
use halfheard_coordinator::local::programs::{Part, Programs};
use halfheard_store::Store;
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, chown, geteuid},
};
use sqlx::AssertSqlSafe;
use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Where `part` is: as `coord` looks for it, or in this checkout.
fn find(part: Part) -> Result<PathBuf> {
    let programs = match std::env::var_os("HALFHEARD_DEPS") {
        Some(_) => Programs::discover(),
        None => Programs::with_deps(concat!(env!("CARGO_MANIFEST_DIR"), "/../.deps")),
    };
    Ok(programs.find(part)?.path)
}

/// The broker's program.
pub fn nats_server() -> Result<PathBuf> {
    find(Part::Nats)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

fn wait_for_port(port: u16, child: &mut Child, name: &str, log: &Path) -> Result<()> {
    let since = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        let ended = child.try_wait()?;
        if ended.is_some() || since.elapsed() > crate::PATIENCE {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            bail!("{name} did not start:\n{log}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A nats-server with JetStream.
#[derive(Debug)]
pub struct Nats {
    folder: tempfile::TempDir,
    port: u16,
    /// Further lines of its configuration.
    config: String,
    child: Option<Child>,
}

impl Nats {
    pub fn start() -> Result<Self> {
        Self::configured("")
    }

    /// One with further lines in its configuration.
    pub fn configured(config: &str) -> Result<Self> {
        let mut nats = Self {
            folder: tempfile::tempdir()?,
            port: free_port()?,
            config: config.to_owned(),
            child: None,
        };
        nats.resume()?;
        Ok(nats)
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process, while it runs.
    pub fn process(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Restarts it on the same port and files.
    pub fn resume(&mut self) -> Result<()> {
        let program = nats_server()?;
        let log = self.folder.path().join("log");
        let mut command = Command::new(&program);
        if !self.config.is_empty() {
            let config = self.folder.path().join("nats.conf");
            std::fs::write(&config, &self.config)?;
            command.arg("-c").arg(&config);
        }
        let mut child = command
            .args([
                "-a",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-js",
                "-sd",
            ])
            .arg(self.folder.path().join("data"))
            .arg("-l")
            .arg(&log)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        wait_for_port(self.port, &mut child, "nats-server", &log)?;
        self.child = Some(child);
        Ok(())
    }

    /// Restarts it on the same port with an empty store, as after the loss of a disk.
    pub fn resume_empty(&mut self) -> Result<()> {
        std::fs::remove_dir_all(self.folder.path().join("data"))?;
        self.resume()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// A Postgres.
#[derive(Debug)]
pub struct Postgres {
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
    /// Whether what is committed outlives a power cut.
    synced: bool,
}

impl Postgres {
    pub fn start() -> Result<Self> {
        // SIGKILL loses nothing that the kernel has.
        Self::start_with(false)
    }

    /// As it is outside tests: each commit waits for the disk.
    pub fn start_synced() -> Result<Self> {
        Self::start_with(true)
    }

    fn start_with(synced: bool) -> Result<Self> {
        let mut postgres = Self {
            folder: tempfile::tempdir()?,
            port: free_port()?,
            child: None,
            synced,
        };
        if let Some(user) = unprivileged()? {
            chown(postgres.folder.path(), Some(user.uid), Some(user.gid))?;
        }
        let made = Self::program("initdb")?
            .arg("-D")
            .arg(postgres.folder.path().join("data"))
            .args([
                "-U",
                "postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-sync",
            ])
            .output()
            .context("cannot run initdb")?;
        ensure!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        postgres.resume()?;
        Ok(postgres)
    }

    /// PostgreSQL does not run as root; if root starts it, its programs run as `nobody`.
    fn program(name: &str) -> Result<Command> {
        let mut command = Command::new(find(Part::Postgres)?.join(name));
        command.current_dir("/").stdin(Stdio::null());
        if let Some(user) = unprivileged()? {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        Ok(command)
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process, while it runs.
    pub fn process(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Executes one statement as the superuser, on a new connection.
    pub async fn execute(&self, statement: &str) -> Result<()> {
        // A server that has just started may need a moment.
        let store = Store::connect_with_retry(&self.url().parse()?).await?;
        sqlx::query(AssertSqlSafe(statement))
            .execute(store.pool())
            .await?;
        store.pool().close().await;
        Ok(())
    }

    /// Puts a line first in `pg_hba.conf` and reloads it.
    pub async fn allow_first(&self, line: &str) -> Result<()> {
        let path = self.folder.path().join("data/pg_hba.conf");
        let rest = std::fs::read_to_string(&path)?;
        std::fs::write(&path, format!("{line}\n{rest}"))?;
        self.execute("SELECT pg_reload_conf()").await
    }

    /// Kills its process and its children with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            // The children exit when they notice that the postmaster is gone.
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Restarts it as a standby, read-only until it is promoted.
    pub fn resume_as_standby(&mut self) -> Result<()> {
        std::fs::write(self.folder.path().join("data/standby.signal"), "")?;
        self.resume()
    }

    /// Restarts it on the same port and files.
    pub fn resume(&mut self) -> Result<()> {
        let data = self.folder.path().join("data");
        let log = self.folder.path().join("log");
        let since = Instant::now();
        loop {
            let output = std::fs::File::create(&log)?;
            let mut child = Self::program("postgres")?
                .arg("-D")
                .arg(&data)
                .args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", ""])
                .args(["-c", if self.synced { "fsync=on" } else { "fsync=off" }])
                .stdout(output.try_clone()?)
                .stderr(output)
                .spawn()
                .context("cannot run postgres")?;
            match wait_for_port(self.port, &mut child, "postgres", &log) {
                Ok(()) => {
                    self.child = Some(child);
                    return Ok(());
                }
                // The children of a killed postmaster take a moment to exit.
                Err(error) if since.elapsed() > crate::PATIENCE => return Err(error),
                Err(_) => {
                    let _ = child.kill();
                    child.wait()?;
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // An immediate shutdown ends its children too.
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGQUIT);
            let _ = child.wait();
        }
    }
}

fn unprivileged() -> Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name("nobody")?.context("missing user `nobody`")?;
    Ok(Some(user))
}
