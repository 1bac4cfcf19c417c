//! An installation that is driven by command lines alone: servers, a folder with a small spec, and the
//! built programs.

use crate::{
    PATIENCE,
    programs::{Process, output, program},
    servers::{Nats, Postgres},
    tiny::Tiny,
};
use anyhow::{Result, ensure};
use halfheard_store::Store;
use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// The order of fields is the order of their end.
#[derive(Debug)]
pub struct Site {
    pub nats: Nats,
    pub postgres: Postgres,
    folder: tempfile::TempDir,
    artifacts: Option<String>,
}

impl Site {
    /// Starts the servers, migrates the database and writes a small dataset, encoder and spec.
    pub fn start() -> Result<Self> {
        Self::with(Nats::start()?)
    }

    /// As [`Self::start`] on a broker of its own kind.
    pub fn with(nats: Nats) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        Tiny::make(folder.path(), 48)?;
        let site = Self {
            nats,
            postgres: Postgres::start()?,
            folder,
            artifacts: None,
        };
        // A server that has just started may need a moment.
        let since = Instant::now();
        loop {
            match output(&mut site.coord(&["migrate"])?) {
                Ok(_) => return Ok(site),
                Err(error) if since.elapsed() > PATIENCE => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// Has all programs use another artifact store than the folder of the site.
    pub fn use_artifacts(&mut self, url: &str) {
        self.artifacts = Some(url.to_owned());
    }

    /// The folder of files and data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of artifacts, unless they lie elsewhere.
    pub fn artifacts(&self) -> PathBuf {
        self.folder.path().join("data/artifacts")
    }

    /// Writes a spec of one small method, whose trainings take a fraction of a second.
    pub fn spec(&self, name: &str, seeds: &[u64]) -> Result<()> {
        self.spec_of_epochs(name, seeds, 4)
    }

    /// The same with more or fewer epochs, for tests that watch a training.
    pub fn spec_of_epochs(&self, name: &str, seeds: &[u64], epochs: u32) -> Result<()> {
        let spec = format!(
            r#"
            name = "{name}"
            methods = ["almt"]
            seeds = {seeds:?}
            rates = [0.0, 0.5]
            missing = ["l"]
            epochs = {epochs}
            [datasets.mosi]
            file = "tiny.safetensors"
            [encoders.en]
            path = "tiny-encoder"
            [hyper.almt]
            batch_size = 16
            width = 16
            "#
        );
        Ok(std::fs::write(
            self.folder.path().join(format!("{name}.toml")),
            spec,
        )?)
    }

    fn command(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(program(name)?);
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy().into_owned();
            if name.starts_with("HALFHEARD_") && name != "HALFHEARD_DEPS" {
                command.env_remove(variable);
            }
        }
        command
            .env("HALFHEARD_NATS_URL", self.nats.url())
            .env("HALFHEARD_DATABASE_URL", self.postgres.url())
            .env("HALFHEARD_DATA_DIR", self.folder.path().join("data"))
            .env("HALFHEARD_CONFIG", "/dev/null")
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        if let Some(url) = &self.artifacts {
            command.env("HALFHEARD_ARTIFACTS", url);
        }
        Ok(command)
    }

    /// `coord` with these arguments.
    pub fn coord(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.command("coord")?;
        command.args(arguments);
        Ok(command)
    }

    /// What `coord --json` prints.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let printed = output(self.coord(arguments)?.arg("--json"))?;
        Ok(serde_json::from_str(&printed)?)
    }

    /// `coord serve`.
    pub fn serve(&self) -> Result<Process> {
        Process::spawn(&mut self.coord(&["serve"])?)
    }

    /// `worker` on one thread.
    pub fn worker(&self, name: &str) -> Result<Command> {
        let mut command = self.command("worker")?;
        command.args(["--device", "cpu", "--threads", "1", "--name", name]);
        Ok(command)
    }

    /// A connection to the database.
    pub async fn store(&self) -> Result<Store> {
        Ok(Store::connect_with_retry(&self.postgres.url().parse()?).await?)
    }

    /// Waits until a number from the database is `enough`.
    pub async fn until(&self, query: &'static str, enough: impl Fn(i64) -> bool) -> Result<i64> {
        let store = self.store().await?;
        let since = Instant::now();
        loop {
            let found: i64 = sqlx::query_scalar(query).fetch_one(store.pool()).await?;
            if enough(found) {
                store.pool().close().await;
                return Ok(found);
            }
            ensure!(since.elapsed() < PATIENCE, "{query} stays {found}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until no job is open. Returns the number of jobs that are done.
    pub async fn finished(&self) -> Result<i64> {
        self.until(
            "SELECT count(*) FROM job WHERE state IN ('blocked', 'ready', 'queued', 'running')",
            |open| open == 0,
        )
        .await?;
        let failed = "SELECT count(*) FROM job WHERE state <> 'done'";
        self.until(failed, |failed| failed == 0).await?;
        self.until("SELECT count(*) FROM job", |_| true).await
    }

    /// The unrounded numbers of tables 2 and 9, and of the missing modalities.
    pub fn tables(&self, sweep: &str) -> Result<Vec<String>> {
        ["2", "9", "13"]
            .into_iter()
            .map(|number| {
                output(&mut self.coord(&["table", number, "--sweep", sweep, "--format", "csv"])?)
            })
            .collect()
    }
}
