//! Whether this worker can work: what is wrong with it, how often in a row, and until when it sits
//! out.

use halfheard_shared::wire::{Fault, Trouble};
use std::time::{Duration, Instant};

/// How long a worker sits out after it met a fault so often in a row.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(20),
    Duration::from_secs(60),
    Duration::from_secs(180),
    Duration::from_secs(600),
];

/// What is known of a worker's faults.
#[derive(Debug, Default)]
pub struct Health {
    trouble: Option<Trouble>,
    /// How often in a row a fault was met, with no job done in between.
    times: u32,
    /// When the pause ends.
    until: Option<Instant>,
}

impl Health {
    /// A fault was met: the worker sits out, the longer the more often in a row.
    pub fn met(&mut self, fault: Fault, now_ms: u64) {
        let place = (self.times as usize).min(PAUSES.len() - 1);
        self.sit_out(fault, PAUSES[place], now_ms);
    }

    /// A fault was met: the worker sits out for `pause`.
    pub fn sit_out(&mut self, fault: Fault, pause: Duration, now_ms: u64) {
        self.times = self.times.saturating_add(1);
        self.until = Some(Instant::now() + pause);
        self.note(fault, Some(pause), true, now_ms);
    }

    /// Something does not go and is tried again after `pause`; no other job is refused for it.
    pub fn hindered(&mut self, fault: Fault, pause: Option<Duration>, now_ms: u64) {
        if !self.trouble.as_ref().is_some_and(|t| t.sits_out) {
            self.note(fault, pause, false, now_ms);
        }
    }

    fn note(&mut self, fault: Fault, pause: Option<Duration>, sits_out: bool, now_ms: u64) {
        let before = self.trouble.take();
        let since_ms = before
            .filter(|before| before.fault.is_like(&fault))
            .map_or(now_ms, |before| before.since_ms);
        self.trouble = Some(Trouble {
            fault,
            since_ms,
            times: self.times.max(1),
            next_try_ms: pause.map(|pause| now_ms + pause.as_millis() as u64),
            sits_out,
        });
    }

    /// What went wrong goes again; whether jobs do is not known yet.
    pub fn mended(&mut self) {
        self.trouble = None;
        self.until = None;
    }

    /// The pause is over and what was wrong may still be: jobs are lease again.
    pub fn takes_again(&mut self) {
        self.until = None;
        if let Some(trouble) = &mut self.trouble {
            trouble.sits_out = false;
            trouble.next_try_ms = None;
        }
    }

    /// A job was done: nothing is wrong.
    pub fn worked(&mut self) {
        *self = Self::default();
    }

    /// Goes on where an earlier process of this worker stopped.
    pub fn inherit(&mut self, trouble: Trouble, now_ms: u64) {
        let longest = PAUSES[PAUSES.len() - 1];
        let left = trouble.next_try_ms.unwrap_or(0).saturating_sub(now_ms);
        self.times = trouble.times;
        self.until = Some(Instant::now() + Duration::from_millis(left).min(longest));
        self.trouble = Some(Trouble {
            sits_out: true,
            ..trouble
        });
    }

    /// What is wrong, for the heartbeat.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// The fault for which the worker sits out, and until when.
    pub fn sitting_out(&self) -> Option<(Fault, Instant)> {
        let trouble = self.trouble.as_ref().filter(|trouble| trouble.sits_out)?;
        Some((trouble.fault.clone(), self.until?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::wire::FaultKind;

    fn fault(what: &str) -> Fault {
        Fault::new(FaultKind::Dataset, what, vec!["why".into()])
    }

    fn pause(health: &Health) -> u64 {
        let (_, until) = health.sitting_out().unwrap();
        until
            .saturating_duration_since(Instant::now())
            .as_secs_f64()
            .round() as u64
    }

    #[test]
    fn pauses_grow_until_a_job_is_done() {
        let mut health = Health::default();
        for seconds in [5, 20, 60, 180, 600, 600] {
            health.met(fault("dataset mosi"), 1000);
            assert_eq!(pause(&health), seconds);
            // That it looks mended is not enough.
            health.mended();
            assert!(health.sitting_out().is_none() && health.trouble().is_none());
        }
        health.worked();
        health.met(fault("dataset mosi"), 1000);
        assert_eq!(pause(&health), 5);
    }

    #[test]
    fn since_is_when_the_same_was_met_first() {
        let mut health = Health::default();
        health.met(fault("dataset mosi"), 1000);
        health.takes_again();
        let trouble = health.trouble().unwrap();
        assert_eq!((trouble.next_try_ms, trouble.sits_out), (None, false));
        health.met(fault("dataset mosi"), 9000);
        let trouble = health.trouble().unwrap();
        assert_eq!((trouble.since_ms, trouble.times), (1000, 2));
        assert_eq!(trouble.next_try_ms, Some(29_000));
        health.met(fault("dataset sims"), 10_000);
        assert_eq!(health.trouble().unwrap().since_ms, 10_000);
    }

    #[test]
    fn a_hindrance_does_not_end_a_pause() {
        let mut health = Health::default();
        health.hindered(fault("the artifact store"), None, 1);
        assert!(health.sitting_out().is_none() && health.trouble().is_some());
        health.met(fault("dataset mosi"), 2);
        health.hindered(fault("the artifact store"), None, 3);
        assert_eq!(pause(&health), 5);
    }

    #[test]
    fn a_new_process_goes_on_with_the_old_ones_pause() {
        let mut health = Health::default();
        for _ in 0..3 {
            health.met(fault("its device"), 1000);
        }
        let mut next = Health::default();
        next.inherit(health.trouble().unwrap().clone(), 1000 + 20_000);
        assert_eq!(pause(&next), 40);
        next.met(fault("its device"), 61_000);
        assert_eq!(pause(&next), 180);
        // A clock that went wrong keeps nobody out for days.
        next.inherit(health.trouble().unwrap().clone(), 0);
        assert!(pause(&next) <= 600);
    }
}
