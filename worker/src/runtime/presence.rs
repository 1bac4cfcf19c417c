//! This worker's presence on the broker: its status and the heartbeats that publish it, with what it
//! holds.

use super::{health::Health, inject, leases::Leases, report::WIRE};
use async_nats::{HeaderMap, connection::State};
use bytes::Bytes;
use halfheard_models::{memory, methods};
use halfheard_shared::{
    broker::{Broker, HEARTBEAT_EVERY},
    external,
    wire::{Doing, Fault, Heartbeat, Trouble, WorkerInfo},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::Notify, time::timeout};
use uuid::Uuid;

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

/// What a worker says of itself: who it is, what it can do, what it holds.
pub(super) struct Announcement {
    pub(super) worker: WorkerInfo,
    /// This process.
    pub(super) session: Uuid,
    pub(super) labels: Vec<String>,
    /// Whether it runs external programs.
    pub(super) external: bool,
    /// Bytes of the device's memory that jobs may need, an equal part of a GPU that several slots share; 0 if unknown.
    pub(super) memory: u64,
    pub(super) leases: Leases,
}

impl Announcement {
    /// The ids of the methods that this worker has.
    pub(super) fn methods(&self) -> Vec<String> {
        let external = self.external.then_some(external::METHOD);
        methods::ids().chain(external).map(str::to_owned).collect()
    }

    fn heartbeat(&self, status: &Status) -> Bytes {
        let heartbeat = Heartbeat {
            worker: self.worker.clone(),
            pid: std::process::id(),
            session: self.session,
            holds: self.leases.holds(),
            at_ms: now_ms(),
            memory_bytes: memory::resident_bytes().unwrap_or(0),
            doing: status.activity().clone(),
            trouble: status.trouble(),
            wire: WIRE,
            methods: self.methods(),
            labels: self.labels.clone(),
            device_memory: self.memory,
        };
        // Numbers and strings only: serialization cannot fail.
        serde_json::to_vec(&heartbeat).unwrap_or_default().into()
    }
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

    /// Publishes what has changed elsewhere.
    pub(super) fn publish(&self) {
        self.changed.notify_one();
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

    /// Whether there is a job.
    pub(super) fn is_busy(&self) -> bool {
        self.activity().is_some()
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

/// Sends a heartbeat every few seconds and whenever the status changes. The coordinator hears it on
/// its subject even while the broker has no bucket to keep it in.
pub(super) async fn send_heartbeats(
    broker: Broker,
    announcement: Arc<Announcement>,
    status: Status,
) {
    let every = inject::beat_every().unwrap_or(HEARTBEAT_EVERY);
    loop {
        // The client would keep it and send it, with others, when the broker is back.
        if broker.client().connection_state() == State::Connected {
            beat(&broker, &announcement, &status).await;
        }
        tokio::time::sleep(MIN_INTERVAL.min(every)).await;
        let rest = every.saturating_sub(MIN_INTERVAL);
        let _ = timeout(rest, status.changed.notified()).await;
    }
}

async fn beat(broker: &Broker, announcement: &Announcement, status: &Status) {
    let subject = broker.names().heartbeat(&announcement.worker.name);
    let json = announcement.heartbeat(status);
    let sent = timeout(HEARTBEAT_EVERY, broker.client().publish(subject, json));
    if !matches!(sent.await, Ok(Ok(()))) {
        tracing::debug!("heartbeat failed");
    }
}

/// Leaves a last heartbeat for the process that replaces this one.
pub(super) async fn send_final_heartbeat(
    broker: &Broker,
    announcement: &Announcement,
    status: &Status,
) {
    let sent = async {
        beat(broker, announcement, status).await;
        let _ = broker.client().flush().await;
    };
    if timeout(Duration::from_secs(2), sent).await.is_err() {
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
    let mut headers = HeaderMap::new();
    // How a key of a bucket is deleted.
    headers.insert("KV-Operation", "DEL");
    let subject = broker.names().heartbeat(name);
    let client = broker.client();
    let deleted = client.publish_with_headers(subject, headers, Bytes::new());
    // Otherwise the entry expires.
    let _ = timeout(Duration::from_millis(500), deleted).await;
}
