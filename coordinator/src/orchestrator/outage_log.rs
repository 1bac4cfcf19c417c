//! An ongoing outage: reported once, then once per minute, instead of at every attempt, and retried
//! with a backoff.

use halfheard_shared::retry::Backoff;
use std::{
    fmt::Display,
    time::{Duration, Instant},
};

/// How often an ongoing outage is reported again.
const REMIND: Duration = Duration::from_secs(60);

/// Logs repeated failures of one operation and paces its retries.
#[derive(Debug)]
pub(crate) struct OutageLog {
    what: &'static str,
    since: Option<Instant>,
    reported: Option<(Instant, String)>,
    attempts: u64,
    backoff: Backoff,
}

impl OutageLog {
    /// Starts with no outage. `what` is the message to log: `dispatch failed; retrying`.
    pub(crate) fn new(what: &'static str) -> Self {
        Self {
            what,
            since: None,
            reported: None,
            attempts: 0,
            backoff: Backoff::default(),
        }
    }

    /// Records a failed attempt. It is a warning if the error is new or a minute has passed, and a
    /// debug line otherwise. `waiting`: how many items are held up. Returns the delay before the next
    /// attempt.
    pub(crate) fn failed(&mut self, error: &dyn Display, waiting: usize) -> Duration {
        let now = Instant::now();
        self.since.get_or_insert(now);
        self.attempts += 1;
        let error = error.to_string();
        let known = self
            .reported
            .as_ref()
            .is_some_and(|(at, before)| *before == error && at.elapsed() < REMIND);
        if known {
            tracing::debug!(error, attempts = self.attempts, "{}", self.what);
            return self.backoff.delay();
        }
        match waiting {
            0 => tracing::warn!(error, attempts = self.attempts, "{}", self.what),
            _ => tracing::warn!(error, attempts = self.attempts, waiting, "{}", self.what),
        }
        self.reported = Some((now, error));
        self.backoff.delay()
    }

    /// Records a successful attempt, which ends the outage.
    pub(crate) fn recovered(&mut self) {
        self.backoff.reset();
        if let Some(since) = self.since.take() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(
                seconds,
                attempts = self.attempts,
                "recovered from: {}",
                self.what
            );
            self.reported = None;
            self.attempts = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_error_is_reported_once() {
        let mut outage = OutageLog::new("dispatch failed; retrying");
        outage.failed(&"away", 3);
        let first = outage.reported.clone();
        outage.failed(&"away", 3);
        assert_eq!(outage.reported, first, "reported a second time");
        outage.failed(&"refused", 3);
        assert_ne!(outage.reported, first, "a different error is reported");
        assert_eq!(outage.attempts, 3);
        outage.recovered();
        assert!(outage.reported.is_none() && outage.since.is_none());
        outage.recovered();
    }
}
