//! This worker's presence on the broker: its status and the heartbeats that publish it.

use super::health::Health;
use halfheard_models::memory;
use halfheard_shared::{
    broker::{Broker, HEARTBEAT_EVERY},
    wire::{Doing, Fault, Heartbeat, Trouble, WorkerInfo},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::Notify, time::timeout};

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

/// The worker's activity and health. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Status {
    activity: Arc<Mutex<Option<Doing>>>,
    health: Arc<Mutex<Health>>,
    changed: Arc<Notify>,
}

impl Status {
    /// Sets the activity; `None` when idle.
    pub(super) fn set(&self, activity: Option<Doing>) {
        *self.activity() = activity;
        self.changed.notify_one();
    }

    /// Updates the activity, if there is one.
    pub(super) fn update(&self, update: impl FnOnce(&mut Doing)) {
        if let Some(activity) = &mut *self.activity() {
            update(activity);
        }
    }

    /// Changes the health and publishes it.
    pub(super) fn health<T>(&self, change: impl FnOnce(&mut Health) -> T) -> T {
        let answer = change(&mut self.lock_health());
        self.changed.notify_one();
        answer
    }

    /// See [`Health::record_fault`].
    pub(super) fn record_fault(&self, fault: Fault) {
        self.health(|health| health.record_fault(fault, now_ms()));
    }

    /// See [`Health::suspend`].
    pub(super) fn suspend(&self, fault: Fault, pause: Duration) {
        self.health(|health| health.suspend(fault, pause, now_ms()));
    }

    /// See [`Health::degraded`].
    pub(super) fn degraded(&self, fault: Fault, retry_after: Option<Duration>) {
        self.health(|health| health.degraded(fault, retry_after, now_ms()));
    }

    /// Clears what [`Status::degraded`] recorded, unless the worker is suspended.
    pub(super) fn recovered(&self) {
        if self.suspension().is_none() {
            self.health(Health::recovered);
        }
    }

    /// The fault that suspends the worker, and until when.
    pub(super) fn suspension(&self) -> Option<(Fault, Instant)> {
        self.lock_health().suspension()
    }

    /// Whether jobs are taken although this fault is known and not known to have passed.
    pub(super) fn tolerates(&self, fault: &Fault) -> bool {
        let known = |trouble: Trouble| !trouble.sits_out && trouble.fault.is_like(fault);
        !fault.kind.concerns_every_job() && self.trouble().is_some_and(known)
    }

    fn trouble(&self) -> Option<Trouble> {
        self.lock_health().trouble().cloned()
    }

    fn lock_health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn activity(&self) -> MutexGuard<'_, Option<Doing>> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Minimum interval between heartbeats.
const MIN_INTERVAL: Duration = Duration::from_millis(300);

fn heartbeat(worker: &WorkerInfo, status: &Status) -> Vec<u8> {
    let heartbeat = Heartbeat {
        worker: worker.clone(),
        pid: std::process::id(),
        at_ms: now_ms(),
        memory_bytes: memory::resident_bytes().unwrap_or(0),
        doing: status.activity().clone(),
        trouble: status.trouble(),
    };
    // Numbers and strings only: serialization cannot fail.
    serde_json::to_vec(&heartbeat).unwrap_or_default()
}

/// Sends a heartbeat every few seconds and whenever the status changes.
pub(super) async fn send_heartbeats(broker: Broker, worker: WorkerInfo, status: Status) {
    let mut bucket = None;
    loop {
        let json = heartbeat(&worker, &status);
        if bucket.is_none() {
            bucket = broker.workers().await.ok();
        }
        if let Some(store) = &bucket {
            let put = timeout(HEARTBEAT_EVERY, store.put(&worker.name, json.into())).await;
            if !matches!(put, Ok(Ok(_))) {
                tracing::debug!("heartbeat failed");
                bucket = None;
            }
        }
        tokio::time::sleep(MIN_INTERVAL).await;
        let _ = timeout(HEARTBEAT_EVERY - MIN_INTERVAL, status.changed.notified()).await;
    }
}

/// Leaves a last heartbeat for the process that replaces this one.
pub(super) async fn send_final_heartbeat(broker: &Broker, worker: &WorkerInfo, status: &Status) {
    let json = heartbeat(worker, status);
    let sent = async {
        let bucket = broker.workers().await.ok()?;
        bucket.put(&worker.name, json.into()).await.ok()
    };
    if !matches!(timeout(Duration::from_secs(2), sent).await, Ok(Some(_))) {
        tracing::debug!("cannot pass this process's trouble on to the next one");
    }
}

/// The trouble that this worker's previous process left in its final heartbeat.
pub(super) async fn previous_trouble(broker: &Broker, name: &str) -> Option<Trouble> {
    let read = async {
        let bucket = broker.workers().await.ok()?;
        bucket.get(name).await.ok()?
    };
    let json = timeout(Duration::from_secs(2), read).await.ok()??;
    serde_json::from_slice::<Heartbeat>(&json).ok()?.trouble
}

/// Removes the worker's heartbeat.
pub(super) async fn deregister(broker: &Broker, name: &str) {
    let deleted = async { broker.workers().await.ok()?.delete(name).await.ok() };
    // Otherwise the entry expires.
    let _ = timeout(Duration::from_millis(500), deleted).await;
}
