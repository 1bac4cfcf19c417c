//! The worker's health: its current fault, how often in a row it was met, and how long the worker
//! is suspended for it.

use halfheard_shared::wire::{Fault, Trouble};
use std::time::{Duration, Instant};

/// Suspension after the nth fault in a row.
const SUSPENSIONS: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(20),
    Duration::from_secs(60),
    Duration::from_secs(180),
    Duration::from_secs(600),
];

/// The health of this worker.
#[derive(Debug, Default)]
pub(super) struct Health {
    trouble: Option<Trouble>,
    /// Faults in a row, without a completed job in between.
    faults: u32,
    /// When the suspension ends.
    until: Option<Instant>,
}

impl Health {
    /// Records a fault and suspends the worker, longer for each one in a row.
    pub(super) fn record_fault(&mut self, fault: Fault, now_ms: u64) {
        let nth = (self.faults as usize).min(SUSPENSIONS.len() - 1);
        self.suspend(fault, SUSPENSIONS[nth], now_ms);
    }

    /// Records a fault and suspends the worker for `pause`.
    pub(super) fn suspend(&mut self, fault: Fault, pause: Duration, now_ms: u64) {
        self.faults = self.faults.saturating_add(1);
        self.until = Some(Instant::now() + pause);
        self.record(fault, Some(pause), true, now_ms);
    }

    /// Records that something fails and is retried, without suspending the worker.
    pub(super) fn degraded(&mut self, fault: Fault, retry_after: Option<Duration>, now_ms: u64) {
        if !self.trouble.as_ref().is_some_and(|t| t.sits_out) {
            self.record(fault, retry_after, false, now_ms);
        }
    }

    fn record(&mut self, fault: Fault, pause: Option<Duration>, suspended: bool, now_ms: u64) {
        metrics::counter!("halfheard_worker_faults_total", "fault" => fault.kind.as_str())
            .increment(1);
        let before = self.trouble.take();
        let since_ms = before
            .filter(|before| before.fault.is_like(&fault))
            .map_or(now_ms, |before| before.since_ms);
        self.trouble = Some(Trouble {
            fault,
            since_ms,
            times: self.faults.max(1),
            next_try_ms: pause.map(|pause| now_ms + pause.as_millis() as u64),
            sits_out: suspended,
        });
    }

    /// What failed works again. Only a completed job resets the count of faults.
    pub(super) fn recovered(&mut self) {
        self.trouble = None;
        self.until = None;
    }

    /// Ends the suspension although the fault may persist.
    pub(super) fn resume(&mut self) {
        self.until = None;
        if let Some(trouble) = &mut self.trouble {
            trouble.sits_out = false;
            trouble.next_try_ms = None;
        }
    }

    /// A job completed: clears everything.
    pub(super) fn job_completed(&mut self) {
        *self = Self::default();
    }

    /// Continues the suspension of an earlier process of this worker.
    pub(super) fn inherit(&mut self, trouble: Trouble, now_ms: u64) {
        let max = SUSPENSIONS[SUSPENSIONS.len() - 1];
        let left = trouble.next_try_ms.unwrap_or(0).saturating_sub(now_ms);
        self.faults = trouble.times;
        self.until = Some(Instant::now() + Duration::from_millis(left).min(max));
        self.trouble = Some(Trouble {
            sits_out: true,
            ..trouble
        });
    }

    /// The trouble for the heartbeat.
    pub(super) fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// The fault that suspends the worker, and until when.
    pub(super) fn suspension(&self) -> Option<(Fault, Instant)> {
        let trouble = self.trouble.as_ref().filter(|trouble| trouble.sits_out)?;
        Some((trouble.fault.clone(), self.until?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::wire::FaultKind;

    fn fault(what: &str) -> Fault {
        Fault::new(FaultKind::Dataset, what, vec!["reason".into()])
    }

    fn remaining(health: &Health) -> u64 {
        let (_, until) = health.suspension().unwrap();
        until
            .saturating_duration_since(Instant::now())
            .as_secs_f64()
            .round() as u64
    }

    #[test]
    fn suspensions_grow_until_a_job_completes() {
        let mut health = Health::default();
        for seconds in [5, 20, 60, 180, 600, 600] {
            health.record_fault(fault("dataset mosi"), 1000);
            assert_eq!(remaining(&health), seconds);
            // Looking recovered does not reset the count.
            health.recovered();
            assert!(health.suspension().is_none() && health.trouble().is_none());
        }
        health.job_completed();
        health.record_fault(fault("dataset mosi"), 1000);
        assert_eq!(remaining(&health), 5);
    }

    #[test]
    fn since_is_the_first_occurrence_of_the_same_fault() {
        let mut health = Health::default();
        health.record_fault(fault("dataset mosi"), 1000);
        health.resume();
        let trouble = health.trouble().unwrap();
        assert_eq!((trouble.next_try_ms, trouble.sits_out), (None, false));
        health.record_fault(fault("dataset mosi"), 9000);
        let trouble = health.trouble().unwrap();
        assert_eq!((trouble.since_ms, trouble.times), (1000, 2));
        assert_eq!(trouble.next_try_ms, Some(29_000));
        health.record_fault(fault("dataset sims"), 10_000);
        assert_eq!(health.trouble().unwrap().since_ms, 10_000);
    }

    #[test]
    fn degradation_does_not_end_a_suspension() {
        let mut health = Health::default();
        health.degraded(fault("the artifact store"), None, 1);
        assert!(health.suspension().is_none() && health.trouble().is_some());
        health.record_fault(fault("dataset mosi"), 2);
        health.degraded(fault("the artifact store"), None, 3);
        assert_eq!(remaining(&health), 5);
    }

    #[test]
    fn new_process_continues_the_suspension() {
        let mut health = Health::default();
        for _ in 0..3 {
            health.record_fault(fault("its device"), 1000);
        }
        let mut next = Health::default();
        next.inherit(health.trouble().unwrap().clone(), 1000 + 20_000);
        assert_eq!(remaining(&next), 40);
        next.record_fault(fault("its device"), 61_000);
        assert_eq!(remaining(&next), 180);
        // A wrong clock does not suspend the worker for days.
        next.inherit(health.trouble().unwrap().clone(), 0);
        assert!(remaining(&next) <= 600);
    }
}
