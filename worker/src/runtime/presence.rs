//! What others see of this worker, and what it is told: heartbeats, and the sweeps' control.

use crate::memory;
use futures::StreamExt as _;
use missbench_shared::{
    broker::{Broker, HEARTBEAT_EVERY, SweepControl},
    ids::SweepId,
    wire::{Doing, Heartbeat, WorkerInfo},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

/// What the worker is doing. Cheap to clone.
#[derive(Clone, Default)]
pub struct Status {
    doing: Arc<Mutex<Option<Doing>>>,
    changed: Arc<Notify>,
}

impl Status {
    /// Says what is being done, or that nothing is.
    pub fn set(&self, doing: Option<Doing>) {
        *self.lock() = doing;
        self.changed.notify_one();
    }

    /// Changes what is being done, if anything is.
    pub fn update(&self, change: impl FnOnce(&mut Doing)) {
        if let Some(doing) = &mut *self.lock() {
            change(doing);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Doing>> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Heartbeats come no closer together than this.
const CLOSEST: Duration = Duration::from_millis(300);

/// Says every few seconds that the worker lives and what it is doing, and when it takes up another
/// job.
pub async fn beat(broker: Broker, worker: WorkerInfo, status: Status) {
    let mut bucket = None;
    loop {
        let beat = Heartbeat {
            worker: worker.clone(),
            pid: std::process::id(),
            at_ms: now_ms(),
            memory_bytes: memory::resident().unwrap_or(0),
            doing: status.lock().clone(),
        };
        let json = serde_json::to_vec(&beat).unwrap_or_default();
        if bucket.is_none() {
            bucket = broker.workers().await.ok();
        }
        if let Some(store) = &bucket {
            let put = timeout(HEARTBEAT_EVERY, store.put(&worker.name, json.into())).await;
            if !matches!(put, Ok(Ok(_))) {
                tracing::debug!("no heartbeat reached the broker");
                bucket = None;
            }
        }
        tokio::time::sleep(CLOSEST).await;
        let _ = timeout(HEARTBEAT_EVERY - CLOSEST, status.changed.notified()).await;
    }
}

/// Takes the worker off the list of those that live.
pub async fn leave(broker: &Broker, name: &str) {
    let gone = async { broker.workers().await.ok()?.delete(name).await.ok() };
    // Otherwise the entry runs out by itself.
    let _ = timeout(Duration::from_millis(500), gone).await;
}

/// What is known of the sweeps' control. Cheap to clone.
#[derive(Clone)]
pub struct Sweeps(watch::Receiver<HashMap<String, SweepControl>>);

impl Sweeps {
    /// Begins to watch; the future it returns does so for as long as it runs.
    pub fn watch(broker: Broker) -> (Self, impl Future<Output = ()>) {
        let (sender, receiver) = watch::channel(HashMap::new());
        let watching = async move {
            loop {
                if let Err(error) = follow(&broker, &sender).await {
                    tracing::debug!(error, "sweep control is not being watched, trying again");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        (Self(receiver), watching)
    }

    /// What is to be done with a sweep's jobs.
    pub fn of(&self, sweep: SweepId) -> SweepControl {
        let known = self.0.borrow();
        let control = known.get(&sweep.to_string()).copied();
        control.unwrap_or(SweepControl::Running)
    }

    /// Waits until a sweep is cancelled.
    pub async fn cancelled(mut self, sweep: SweepId) {
        let key = sweep.to_string();
        let cancelled = |known: &HashMap<String, SweepControl>| {
            known.get(&key) == Some(&SweepControl::Cancelled)
        };
        if self.0.wait_for(cancelled).await.is_err() {
            // Nobody watches any more: the worker is leaving.
            std::future::pending::<()>().await;
        }
    }
}

async fn follow(
    broker: &Broker,
    known: &watch::Sender<HashMap<String, SweepControl>>,
) -> Result<(), String> {
    let bucket = broker.sweeps().await.map_err(|e| e.to_string())?;
    let mut entries = bucket
        .watch_with_history(">")
        .await
        .map_err(|e| e.to_string())?;
    while let Some(entry) = entries.next().await {
        let entry = entry.map_err(|e| e.to_string())?;
        let control = std::str::from_utf8(&entry.value)
            .ok()
            .and_then(|text| text.parse::<SweepControl>().ok());
        known.send_modify(|known| match control {
            Some(control) => {
                known.insert(entry.key.clone(), control);
            }
            // Deleted: running, as a sweep without an entry is.
            None => {
                known.remove(&entry.key);
            }
        });
    }
    Ok(())
}
