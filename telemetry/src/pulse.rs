//! Whether the loops of this process tick: one that hangs makes the process unhealthy.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

struct Loop {
    name: &'static str,
    limit: Duration,
    beat: Instant,
}

/// The loops that run, by number.
static LOOPS: Mutex<BTreeMap<u64, Loop>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

fn loops() -> MutexGuard<'static, BTreeMap<u64, Loop>> {
    LOOPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A loop that ticks until this is dropped.
#[derive(Debug)]
pub struct Pulse(u64);

impl Pulse {
    /// Begins a loop of which a round takes less than `limit`.
    pub fn start(name: &'static str, limit: Duration) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let beat = Instant::now();
        loops().insert(number, Loop { name, limit, beat });
        Self(number)
    }

    /// A round begins.
    pub fn beat(&self) {
        if let Some(own) = loops().get_mut(&self.0) {
            own.beat = Instant::now();
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        loops().remove(&self.0);
    }
}

/// Every loop that runs, and for how long it has not ticked if that is beyond its limit.
pub fn stalled() -> Vec<(&'static str, Option<Duration>)> {
    loops()
        .values()
        .map(|own| {
            let since = own.beat.elapsed();
            (own.name, (since > own.limit).then_some(since))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Option<bool> {
        let all = stalled();
        let own = all.iter().find(|(own, _)| *own == name);
        own.map(|(_, stalled)| stalled.is_some())
    }

    #[test]
    fn loop_that_does_not_tick_is_stalled_until_it_ticks_or_ends() {
        let pulse = Pulse::start("test", Duration::from_millis(200));
        assert_eq!(of("test"), Some(false));
        std::thread::sleep(Duration::from_millis(250));
        assert_eq!(of("test"), Some(true));
        pulse.beat();
        assert_eq!(of("test"), Some(false));
        drop(pulse);
        assert_eq!(of("test"), None);
    }
}
