//! The sweeps' control as published on the broker: running, paused or cancelled.

use futures::StreamExt as _;
use halfheard_shared::{
    broker::{Broker, SweepControl},
    error::chain,
    ids::SweepId,
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};

/// The latest control of every sweep. Cheap to clone.
#[derive(Clone)]
pub(super) struct SweepControls(watch::Receiver<HashMap<String, SweepControl>>);

impl SweepControls {
    /// Returns the controls and the future that keeps them current for as long as it runs.
    pub(super) fn watch(broker: Broker) -> (Self, impl Future<Output = ()>) {
        let (sender, receiver) = watch::channel(HashMap::new());
        let watching = async move {
            loop {
                if let Err(error) = follow(&broker, &sender).await {
                    tracing::debug!(
                        error = chain(error.as_ref()),
                        "cannot watch sweep control; retrying"
                    );
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        (Self(receiver), watching)
    }

    pub(super) fn of(&self, sweep: SweepId) -> SweepControl {
        let control = self.0.borrow().get(&sweep.to_string()).copied();
        control.unwrap_or(SweepControl::Running)
    }

    /// Watches for the cancellation of one sweep.
    pub(super) fn watch_cancellation(&self, sweep: SweepId) -> Cancellation {
        let flag = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn({
            let (controls, flag) = (self.clone(), flag.clone());
            async move {
                controls.cancelled(sweep).await;
                flag.store(true, Ordering::Relaxed);
            }
        });
        Cancellation { flag, task }
    }

    async fn cancelled(mut self, sweep: SweepId) {
        let key = sweep.to_string();
        let cancelled = |controls: &HashMap<String, SweepControl>| {
            controls.get(&key) == Some(&SweepControl::Cancelled)
        };
        if self.0.wait_for(cancelled).await.is_err() {
            // The watch has ended: the worker is shutting down.
            std::future::pending::<()>().await;
        }
    }
}

/// Whether a sweep has been cancelled. The watch ends when this is dropped.
pub(super) struct Cancellation {
    flag: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Cancellation {
    /// The flag, for the compute thread.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        self.flag.clone()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
}

impl Drop for Cancellation {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(
    broker: &Broker,
    controls: &watch::Sender<HashMap<String, SweepControl>>,
) -> Result<(), async_nats::Error> {
    let bucket = broker.sweeps().await?;
    let mut entries = bucket.watch_with_history(">").await?;
    while let Some(entry) = entries.next().await {
        let entry = entry?;
        let control = std::str::from_utf8(&entry.value)
            .ok()
            .and_then(|text| text.parse::<SweepControl>().ok());
        controls.send_modify(|controls| match control {
            Some(control) => {
                controls.insert(entry.key.clone(), control);
            }
            // Deleted: a sweep without an entry is running.
            None => {
                controls.remove(&entry.key);
            }
        });
    }
    Ok(())
}
