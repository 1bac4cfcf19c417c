//! The heartbeats of workers as a coordinator hears them, at the moment they are sent.

use super::{Broker, reflected};
use crate::wire::Heartbeat;
use futures::StreamExt as _;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long a worker is remembered after its last heartbeat.
const FORGET: Duration = Duration::from_secs(60);
/// The most workers that are remembered, against one that invents names.
const MAX_WORKERS: usize = 20_000;

/// The last heartbeat of each worker. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Heartbeats(Arc<Mutex<HashMap<String, Heard>>>);

/// A heartbeat and when it was heard.
#[derive(Clone, Debug)]
pub struct Heard {
    /// What it said.
    pub beat: Heartbeat,
    /// When, by this machine's clock.
    pub at: Instant,
    /// Whether it came since the last look.
    pub fresh: bool,
}

impl Heartbeats {
    /// Listens for as long as it runs.
    pub async fn listen(&self, broker: &Broker) {
        loop {
            match broker.client().subscribe(broker.names().heartbeats()).await {
                Ok(mut messages) => {
                    while let Some(message) = messages.next().await {
                        if !reflected(message.headers.as_ref()) {
                            self.hear(broker.names().worker_of(&message.subject), &message.payload);
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot listen to heartbeats; retrying"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn hear(&self, worker: Option<&str>, payload: &[u8]) {
        let Some(worker) = worker else {
            return;
        };
        let mut workers = self.lock();
        match Heartbeat::read(payload) {
            Ok(beat) if beat.worker.name == worker => {
                if workers.len() < MAX_WORKERS || workers.contains_key(worker) {
                    let heard = Heard {
                        beat,
                        at: Instant::now(),
                        fresh: true,
                    };
                    workers.insert(worker.to_owned(), heard);
                }
            }
            // A worker that left deletes its entry; what cannot be read says nothing.
            _ => drop(workers.remove(worker)),
        }
    }

    /// What is known of the workers, by name; the next call gets what is heard from now on as fresh.
    pub fn take(&self) -> Vec<(String, Heard)> {
        let mut workers = self.lock();
        workers.retain(|_, heard| heard.at.elapsed() < FORGET);
        let known = workers
            .iter()
            .map(|(name, heard)| (name.clone(), heard.clone()))
            .collect();
        for heard in workers.values_mut() {
            heard.fresh = false;
        }
        known
    }

    /// Shows `visit` the last heartbeat of each worker that is remembered, in no order. Changes nothing.
    pub fn each(&self, visit: impl FnMut(&Heard)) {
        let workers = self.lock();
        let remembered = workers.values();
        remembered
            .filter(|heard| heard.at.elapsed() < FORGET)
            .for_each(visit);
    }

    /// The last heartbeats of the workers that are remembered, by name. Changes nothing.
    pub fn heard(&self) -> Vec<Heartbeat> {
        let workers = self.lock();
        let mut beats: Vec<Heartbeat> = workers
            .values()
            .filter(|heard| heard.at.elapsed() < FORGET)
            .map(|heard| heard.beat.clone())
            .collect();
        beats.sort_by(|a, b| a.worker.name.cmp(&b.worker.name));
        beats
    }

    /// The most device memory that a live worker announces, in bytes.
    pub fn largest_memory(&self) -> u64 {
        let workers = self.lock();
        let memories = workers.values().map(|heard| heard.beat.device_memory);
        memories.max().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Heard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn beat(name: &str) -> Vec<u8> {
        let worker = json!({"name": name, "host": "h", "device": "cpu", "version": "0"});
        json!({"worker": worker, "pid": 1, "at_ms": 0, "memory_bytes": 0, "doing": null})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn worker_speaks_for_itself_alone() {
        let heartbeats = Heartbeats::default();
        heartbeats.hear(Some("a-0"), &beat("a-0"));
        heartbeats.hear(Some("b-0"), &beat("a-0"));
        let names: Vec<String> = heartbeats
            .take()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["a-0"]);
        assert!(!heartbeats.take()[0].1.fresh, "taken before");
        heartbeats.hear(Some("a-0"), b"");
        assert!(heartbeats.take().is_empty(), "it left");
    }
}
