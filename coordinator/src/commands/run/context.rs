//! What a run consists of.

use super::{args::RunArgs, slots::Slots};
use crate::{
    config::{Origin, Settings},
    housekeeping::own_store,
    http::Server,
    local::{Servers, programs::Programs},
    notify::NotifyOptions,
    orchestrator::options::ServeOptions,
    output::Output,
    submission::Loaded,
};
use halfheard_page::Places;
use halfheard_shared::{
    artifacts::ArtifactStore,
    broker::BrokerSettings,
    env,
    shutdown::Shutdown,
    text::{quoted, quoted_path},
};
use halfheard_store::Store;
use std::{path::PathBuf, process::Command, time::Instant};

/// What a run consists of.
pub(super) struct RunContext<'a> {
    pub(super) args: RunArgs,
    pub(super) settings: &'a Settings,
    pub(super) interrupt: &'a Shutdown,
    pub(super) output: Output,
    pub(super) programs: Programs,
    /// The path of the worker.
    pub(super) worker: PathBuf,
    pub(super) loaded: Loaded,
    pub(super) slots: Slots,
    pub(super) started: Instant,
    pub(super) notify: Option<NotifyOptions>,
    pub(super) page: Option<Server>,
}

impl RunContext<'_> {
    /// Returns the command of the worker, which starts a child process per slot.
    pub(super) fn worker_command(&self, servers: &Servers) -> Command {
        let mut command = Command::new(&self.worker);
        command
            .args(&self.slots.flags)
            .args(self.args.allow_external.then_some("--allow-external"))
            // The address has a password: in the environment other users cannot read it.
            .env(env::NATS_URL, servers.nats_url())
            .env(env::ARTIFACTS, self.artifacts())
            .env(env::DATA_DIR, &self.settings.data_dir)
            // These workers ignore the settings of another installation.
            .env(env::CONFIG, "/dev/null")
            .env("NO_COLOR", "1");
        for variable in [
            env::NATS_CREDS,
            env::NATS_CA,
            env::NATS_CERT,
            env::NATS_KEY,
            // Workers never see a database.
            env::DATABASE_URL,
        ] {
            command.env_remove(variable);
        }
        if let Some(libraries) = self.programs.library_path() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    /// Shows the page, if one was asked for.
    ///
    /// # Errors
    ///
    /// The broker fails.
    pub(super) async fn show_page(&self, servers: &Servers, store: &Store) -> anyhow::Result<()> {
        let Some(page) = &self.page else {
            return Ok(());
        };
        let settings = BrokerSettings::at(servers.nats_url());
        let broker = settings.connect().await?;
        let places = Places {
            artifacts: self.artifacts(),
            data_dir: self.settings.data_dir.clone(),
            broker: settings,
        };
        page.show(store, &broker, places);
        Ok(())
    }

    /// Returns how the coordinator of a run works.
    pub(super) fn serve_options(&self) -> ServeOptions {
        ServeOptions {
            notify: self.notify.clone(),
            ..ServeOptions::default()
        }
    }

    /// Returns the artifact store: below the data folder, unless a flag names another one. The
    /// environment and the config file are about a cluster.
    fn artifacts(&self) -> String {
        match self.settings.artifacts_origin {
            Origin::Flag(_) => self.settings.artifacts.clone(),
            _ => ArtifactStore::url_of(&self.settings.data_dir.join("artifacts")),
        }
    }

    /// Opens the artifact store as the workers do.
    pub(super) async fn open_artifacts(
        &self,
        servers: &Servers,
        database: &Store,
    ) -> anyhow::Result<ArtifactStore> {
        let address = self.artifacts();
        let broker = BrokerSettings::at(servers.nats_url());
        let artifacts = own_store::open_at(&address, &broker, database).await?;
        own_store::check(&artifacts, &address, database).await?;
        Ok(artifacts)
    }

    /// Returns the command line of this run with another flag.
    pub(super) fn run_again(&self, flag: &str) -> String {
        let spec = self.args.spec.display().to_string();
        let mut arguments = vec!["run", &spec, flag];
        arguments.extend(self.args.allow_external.then_some("--allow-external"));
        self.command_line(&arguments)
    }

    /// Returns a `coord` command line for a shell, with the data folder if it was given.
    pub(super) fn command_line(&self, arguments: &[&str]) -> String {
        let mut line = "coord".to_owned();
        for argument in arguments {
            line.push(' ');
            line.push_str(&quoted(argument));
        }
        if let Origin::Flag(_) = self.settings.data_dir_origin {
            line.push_str(" --data-dir ");
            line.push_str(&quoted_path(&self.settings.data_dir));
        }
        line
    }
}
