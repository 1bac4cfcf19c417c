//! How fast workers are, from one heartbeat to a later one.

use halfheard_shared::{
    ids::JobId,
    wire::{Doing, Heartbeat},
};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Heartbeats closer together than this say little, in milliseconds.
const APART_MS: u64 = 2000;

/// What was seen of each worker last.
#[derive(Debug, Default)]
pub(super) struct Paces(Mutex<HashMap<String, Seen>>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    job: JobId,
    steps: u64,
    at_ms: u64,
    /// Steps a second since the time before.
    pace: Option<f64>,
}

/// Steps or batches since the job began, as far as heartbeats say.
fn steps(doing: &Doing) -> u64 {
    let whole = if doing.cases > 0 {
        doing.case
    } else {
        doing.epoch
    };
    u64::from(whole.saturating_sub(1)) * u64::from(doing.steps) + u64::from(doing.step)
}

impl Paces {
    /// Steps a second of those workers that were seen before at the same job.
    pub(super) fn look(&self, beats: &[Heartbeat]) -> HashMap<String, f64> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = HashMap::with_capacity(beats.len());
        for beat in beats {
            let Some(doing) = &beat.doing else { continue };
            let name = &beat.worker.name;
            let fresh = Seen {
                job: doing.job,
                steps: steps(doing),
                at_ms: beat.at_ms,
                pace: None,
            };
            let next = match seen.get(name) {
                Some(last) if last.job == doing.job && fresh.steps >= last.steps => {
                    let apart = fresh.at_ms.saturating_sub(last.at_ms);
                    if apart < APART_MS {
                        *last
                    } else {
                        let pace = (fresh.steps - last.steps) as f64 * 1000.0 / apart as f64;
                        Seen {
                            pace: Some(pace),
                            ..fresh
                        }
                    }
                }
                _ => fresh,
            };
            now.insert(name.clone(), next);
        }
        let paces = now
            .iter()
            .filter_map(|(name, seen)| Some((name.clone(), seen.pace?)));
        let paces = paces.collect();
        *seen = now;
        paces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn beat(job: u128, epoch: u32, step: u32, at_ms: u64) -> Heartbeat {
        let worker = json!({"name": "w-0", "host": "h", "device": "cpu", "version": "0"});
        let id = uuid::Uuid::from_u128(job);
        let doing = json!({
            "sweep": id, "job": id, "what": "train", "epoch": epoch, "max_epochs": 9,
            "step": step, "steps": 100, "loss": null,
        });
        let beat = json!({
            "worker": worker, "pid": 1, "at_ms": at_ms, "memory_bytes": 0, "doing": doing,
        });
        serde_json::from_value(beat).unwrap()
    }

    #[test]
    fn pace_is_steps_between_heartbeats_of_one_job() {
        let paces = Paces::default();
        let look = |beat| paces.look(&[beat]).get("w-0").copied();
        assert_eq!(look(beat(1, 1, 90, 10_000)), None, "seen once");
        assert_eq!(look(beat(1, 2, 10, 14_000)), Some(5.0));
        assert_eq!(look(beat(1, 2, 11, 14_500)), Some(5.0), "too soon to tell");
        assert_eq!(look(beat(1, 2, 10, 24_000)), Some(0.0), "stands still");
        assert_eq!(look(beat(2, 1, 10, 34_000)), None, "another job");
        assert_eq!(paces.look(&[]).len(), 0);
        assert_eq!(look(beat(2, 1, 20, 44_000)), None, "it was away");
    }
}
