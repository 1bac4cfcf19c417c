//! A private nats-server and a private Postgres, each on a free loopback port under a temporary
//! folder, that can be killed and started again.

use anyhow::{Context as _, Result, bail, ensure};
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

/// Where set-up has laid the programs.
fn deps() -> PathBuf {
    std::env::var_os("HALFHEARD_DEPS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.deps")),
        PathBuf::from,
    )
}

/// The broker's program.
pub fn nats_server() -> PathBuf {
    std::env::var_os("HALFHEARD_NATS_SERVER")
        .map_or_else(|| deps().join("nats/nats-server"), PathBuf::from)
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
    child: Option<Child>,
}

impl Nats {
    /// Starts one.
    pub fn start() -> Result<Self> {
        let mut nats = Self {
            folder: tempfile::tempdir()?,
            port: free_port()?,
            child: None,
        };
        nats.resume()?;
        Ok(nats)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts it again on the same port and the same files.
    pub fn resume(&mut self) -> Result<()> {
        let program = nats_server();
        let log = self.folder.path().join("log");
        let mut child = Command::new(&program)
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
            .with_context(|| format!("{} cannot be run: `make setup`", program.display()))?;
        wait_for_port(self.port, &mut child, "nats-server", &log)?;
        self.child = Some(child);
        Ok(())
    }

    /// Starts it again on the same port with nothing in its store, as after the loss of a disk.
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
}

impl Postgres {
    /// Makes and starts one.
    pub fn start() -> Result<Self> {
        let mut postgres = Self {
            folder: tempfile::tempdir()?,
            port: free_port()?,
            child: None,
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
            .context("initdb cannot be run: `make setup`")?;
        ensure!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        postgres.resume()?;
        Ok(postgres)
    }

    /// PostgreSQL refuses to run as root: as root its programs run as `nobody`.
    fn program(name: &str) -> Result<Command> {
        let folder = std::env::var_os("HALFHEARD_POSTGRES_BIN")
            .map_or_else(|| deps().join("postgres/bin"), PathBuf::from);
        let mut command = Command::new(folder.join(name));
        command.current_dir("/").stdin(Stdio::null());
        if let Some(user) = unprivileged()? {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        Ok(command)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Its port on the loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Executes one statement as the superuser, on a connection of its own.
    pub async fn execute(&self, statement: &str) -> Result<()> {
        // One that has just been started may need a moment.
        let store = Store::connect_with_retry(&self.url().parse()?).await?;
        sqlx::query(AssertSqlSafe(statement))
            .execute(store.pool())
            .await?;
        store.pool().close().await;
        Ok(())
    }

    /// Puts a line before all others that say who may connect, and has the server read it.
    pub async fn allow_first(&self, line: &str) -> Result<()> {
        let path = self.folder.path().join("data/pg_hba.conf");
        let rest = std::fs::read_to_string(&path)?;
        std::fs::write(&path, format!("{line}\n{rest}"))?;
        self.execute("SELECT pg_reload_conf()").await
    }

    /// Its process and all it has started, with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            // The children notice that the postmaster is gone and end.
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts it again as a standby: it can be read and takes no writes until it is promoted.
    pub fn resume_as_standby(&mut self) -> Result<()> {
        std::fs::write(self.folder.path().join("data/standby.signal"), "")?;
        self.resume()
    }

    /// Starts it again on the same port and the same files.
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
                // SIGKILL of a process loses nothing that the kernel has.
                .args(["-c", "fsync=off"])
                .stdout(output.try_clone()?)
                .stderr(output)
                .spawn()
                .context("postgres cannot be run: `make setup`")?;
            match wait_for_port(self.port, &mut child, "postgres", &log) {
                Ok(()) => {
                    self.child = Some(child);
                    return Ok(());
                }
                // The children of a killed postmaster take a moment to leave.
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
            // "Immediate shutdown": its children leave too.
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGQUIT);
            let _ = child.wait();
        }
    }
}

fn unprivileged() -> Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name("nobody")?.context("there is no user `nobody`")?;
    Ok(Some(user))
}
