//! The broker and the live workers.

use super::needs::versions;
use crate::{
    commands::watch::{describe_worker, live_workers},
    config::{Origin, Settings},
    local::Servers,
};
use halfheard_shared::{
    broker::Broker,
    error::chain,
    wire::{Heartbeat, nobody_can},
};
use halfheard_store::drained::Drained;
use std::{fmt, time::Duration};

/// How long to wait for the broker: the status without it is still useful.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The broker, or why there is none.
pub(crate) enum BrokerState {
    Connected(Box<Broker>),
    /// The private servers of `coord run` are stopped.
    Stopped,
    Failed(String),
    /// Not connected, and no longer of interest.
    Ignored,
}

impl BrokerState {
    pub(crate) async fn connect(settings: &Settings) -> Self {
        // Without a configured broker and a running private one, there is none to connect to.
        let stopped = settings.broker_origin == Origin::Default
            && settings.database_origin == Origin::Default
            && Servers::exists(&settings.data_dir);
        if stopped {
            return Self::Stopped;
        }
        match tokio::time::timeout(TIMEOUT, settings.broker.connect()).await {
            Ok(Ok(broker)) => Self::Connected(Box::new(broker)),
            Ok(Err(error)) => Self::Failed(chain(&error)),
            Err(_) => Self::Failed("the broker does not answer".to_owned()),
        }
    }

    pub(crate) fn get(&self) -> Option<&Broker> {
        match self {
            Self::Connected(broker) => Some(broker),
            _ => None,
        }
    }

    /// From now on reports no error.
    pub(super) fn ignore_error(&mut self) {
        if self.get().is_none() {
            *self = Self::Ignored;
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        matches!(self, Self::Stopped)
    }

    pub(crate) fn error(&self) -> Option<String> {
        match self {
            Self::Connected(_) | Self::Ignored => None,
            Self::Stopped => Some("the servers of `coord run` are stopped".to_owned()),
            Self::Failed(error) => Some(error.clone()),
        }
    }

    pub(crate) async fn live_workers(&self) -> Vec<Heartbeat> {
        match self.get() {
            Some(broker) => live_workers(broker).await,
            None => Vec::new(),
        }
    }
}

/// The section on workers.
pub(super) struct Workers<'a> {
    pub(super) workers: &'a [Heartbeat],
    pub(super) broker_error: Option<&'a str>,
    pub(super) drained: &'a [Drained],
}

impl fmt::Display for Workers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = self.broker_error {
            return writeln!(f, "workers: unknown ({error})");
        }
        if self.workers.is_empty() {
            return writeln!(f, "no workers connected; start one with `worker`");
        }
        writeln!(f, "workers:")?;
        for heartbeat in self.workers {
            let worker = &heartbeat.worker;
            let drained = self.drained.iter().any(|name| name.covers(worker));
            writeln!(
                f,
                "  {} ({}, {}): {}{}",
                worker.name,
                worker.host,
                worker.device,
                describe_worker(heartbeat),
                if drained { "; drained" } else { "" }
            )?;
        }
        if let Some(versions) = versions(self.workers) {
            writeln!(f, "{versions}")?;
        }
        if let Some(problem) = nobody_can(self.workers) {
            writeln!(f, "{problem}; the sweeps continue as soon as that is fixed")?;
        }
        Ok(())
    }
}
