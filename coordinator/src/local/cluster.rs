//! Everything that runs a sweep on one machine: private servers, a coordinator and workers.

use super::{LocalError, Servers, child::ServerProcess, programs::Programs};
use crate::{
    notify::GRACE,
    orchestrator::{options::ServeOptions, serve::serve},
};
use anyhow::Context as _;
use halfheard_shared::broker::{Broker, BrokerError, BrokerSettings};
use halfheard_store::Store;
use nix::sys::signal::Signal;
use std::{path::Path, process::Command, time::Duration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long workers may take to hand back their jobs.
const WORKERS_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the coordinator may take to stop: it may have something to tell.
const COORDINATOR_TIMEOUT: Duration = GRACE.saturating_add(Duration::from_secs(10));

/// Private servers and, while jobs run, a coordinator and workers.
#[derive(Debug)]
pub(crate) struct Cluster {
    servers: Servers,
    coordinator: Option<(CancellationToken, JoinHandle<Result<(), BrokerError>>)>,
    workers: Option<ServerProcess>,
}

impl Cluster {
    /// Starts the private servers below `data_dir`.
    ///
    /// # Errors
    ///
    /// As [`Servers::start`].
    pub(crate) async fn start(data_dir: &Path, programs: &Programs) -> Result<Self, LocalError> {
        Ok(Self {
            servers: Servers::start(data_dir, programs).await?,
            coordinator: None,
            workers: None,
        })
    }

    pub(crate) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Starts a coordinator and, with the command `worker`, the workers.
    ///
    /// # Errors
    ///
    /// The broker fails, or the worker cannot be started.
    pub(crate) async fn start_jobs(
        &mut self,
        store: &Store,
        worker: Command,
        options: ServeOptions,
    ) -> anyhow::Result<Broker> {
        let settings = BrokerSettings {
            name: "coord run".to_owned(),
            ..BrokerSettings::at(self.servers.nats_url())
        };
        let broker = settings.connect().await?;
        let shutdown = CancellationToken::new();
        let coordinator = tokio::spawn(serve(
            store.clone(),
            broker.clone(),
            options,
            shutdown.clone(),
        ));
        self.coordinator = Some((shutdown, coordinator));
        let program = worker.get_program().display().to_string();
        let log = self.servers.folder().join("worker.log");
        // SIGUSR1 is a request to stop like SIGTERM, also on top of a SIGTERM to all processes.
        let workers = ServerProcess::start(worker, "worker", &log, Signal::SIGUSR1)
            .with_context(|| format!("cannot start {program}"))?;
        self.workers = Some(workers);
        Ok(broker)
    }

    /// Restarts servers that exited unexpectedly, and returns their names.
    ///
    /// # Errors
    ///
    /// A server does not start.
    pub(crate) async fn restart_exited(&mut self) -> Result<Vec<&'static str>, LocalError> {
        self.servers.restart_exited().await
    }

    /// Checks that the workers are running.
    ///
    /// # Errors
    ///
    /// They exited.
    pub(crate) fn check_workers(&mut self) -> anyhow::Result<()> {
        if let Some(workers) = &mut self.workers
            && let Some(status) = workers.exited()
        {
            anyhow::bail!(
                "the workers exited ({status}); the end of their log, {}:\n{}",
                workers.log().display(),
                workers.log_tail()
            );
        }
        Ok(())
    }

    /// Stops workers and coordinator.
    pub(crate) async fn stop_jobs(&mut self) {
        // Workers first: what they hand back is still collected.
        if let Some(mut workers) = self.workers.take() {
            workers.stop(WORKERS_TIMEOUT).await;
        }
        if let Some((shutdown, coordinator)) = self.coordinator.take() {
            shutdown.cancel();
            // It stops on its own; a panic in it has been logged.
            let _ = tokio::time::timeout(COORDINATOR_TIMEOUT, coordinator).await;
        }
    }

    /// Stops everything in order.
    pub(crate) async fn stop(mut self) {
        self.stop_jobs().await;
        self.servers.stop().await;
    }
}
