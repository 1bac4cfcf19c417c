//! What others see of this worker, and what it is told: heartbeats, and the sweeps' control.

use super::health::Health;
use futures::StreamExt as _;
use halfheard_models::memory;
use halfheard_shared::{
    broker::{Broker, HEARTBEAT_EVERY, SweepControl},
    ids::SweepId,
    wire::{Doing, Fault, Heartbeat, Trouble, WorkerInfo},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
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

/// What the worker is doing, and what is wrong with it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Status {
    doing: Arc<Mutex<Option<Doing>>>,
    health: Arc<Mutex<Health>>,
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

    /// Changes what is known of the worker's faults.
    pub fn health<T>(&self, change: impl FnOnce(&mut Health) -> T) -> T {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = change(&mut health);
        drop(health);
        self.changed.notify_one();
        answer
    }

    /// A fault was met: see [`Health::met`].
    pub fn met(&self, fault: Fault) {
        self.health(|health| health.met(fault, now_ms()));
    }

    /// A fault was met: see [`Health::sit_out`].
    pub fn sit_out(&self, fault: Fault, pause: Duration) {
        self.health(|health| health.sit_out(fault, pause, now_ms()));
    }

    /// Something does not go: see [`Health::hindered`].
    pub fn hindered(&self, fault: Fault, pause: Option<Duration>) {
        self.health(|health| health.hindered(fault, pause, now_ms()));
    }

    /// What hindered goes again, unless the worker sits out.
    pub fn unhindered(&self) {
        if self.sitting_out().is_none() {
            self.health(Health::mended);
        }
    }

    /// The fault for which the worker sits out, and until when.
    pub fn sitting_out(&self) -> Option<(Fault, Instant)> {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.sitting_out()
    }

    /// Whether jobs are lease although this fault was met and is not known to be mended.
    pub fn takes_in_spite_of(&self, fault: &Fault) -> bool {
        let known = |trouble: Trouble| !trouble.sits_out && trouble.fault.is_like(fault);
        !fault.kind.concerns_every_job() && self.trouble().is_some_and(known)
    }

    fn trouble(&self) -> Option<Trouble> {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.trouble().cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Doing>> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Heartbeats come no closer together than this.
const CLOSEST: Duration = Duration::from_millis(300);

fn heartbeat(worker: &WorkerInfo, status: &Status) -> Vec<u8> {
    let beat = Heartbeat {
        worker: worker.clone(),
        pid: std::process::id(),
        at_ms: now_ms(),
        memory_bytes: memory::resident().unwrap_or(0),
        doing: status.lock().clone(),
        trouble: status.trouble(),
    };
    // Of numbers and texts: it can always be written.
    serde_json::to_vec(&beat).unwrap_or_default()
}

/// Says every few seconds that the worker lives, what it is doing and what is wrong with it, and
/// when one of these changes.
pub async fn beat(broker: Broker, worker: WorkerInfo, status: Status) {
    let mut bucket = None;
    loop {
        let json = heartbeat(&worker, &status);
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

/// Leaves a last heartbeat for the process that takes this one's place.
pub async fn last_words(broker: &Broker, worker: &WorkerInfo, status: &Status) {
    let json = heartbeat(worker, status);
    let said = async {
        let bucket = broker.workers().await.ok()?;
        bucket.put(&worker.name, json.into()).await.ok()
    };
    if !matches!(timeout(Duration::from_secs(2), said).await, Ok(Some(_))) {
        tracing::debug!("the next process will not know what was wrong with this one");
    }
}

/// What was wrong with the process whose place this one takes, if it left that behind.
pub async fn inherited(broker: &Broker, name: &str) -> Option<Trouble> {
    let read = async {
        let bucket = broker.workers().await.ok()?;
        bucket.get(name).await.ok()?
    };
    let json = timeout(Duration::from_secs(2), read).await.ok()??;
    serde_json::from_slice::<Heartbeat>(&json).ok()?.trouble
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
            // Nobody watches any more: the worker is shutdown.
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
