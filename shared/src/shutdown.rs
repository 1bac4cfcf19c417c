//! Graceful shutdown: the first signal asks for it, a second one ends the process.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A shutdown was requested before the work was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Whether and since when this process is shutting down. Cheap to clone.
///
/// ```
/// use halfheard_shared::shutdown::Shutdown;
///
/// let shutdown = Shutdown::default();
/// let worker = shutdown.clone();
/// assert!(shutdown.request(), "the first request starts the clock");
/// assert!(!shutdown.request());
/// assert!(worker.is_requested());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    requested: CancellationToken,
    since: Arc<OnceLock<Instant>>,
}

impl Shutdown {
    /// Listens for SIGINT (Ctrl-C) and SIGTERM. A second signal ends this process with `code`; the kernel delivers the
    /// signal to its children.
    ///
    /// # Errors
    ///
    /// A signal handler cannot be installed.
    pub fn on_signals(code: u8) -> std::io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = Self::default();
        let requested = shutdown.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if !requested.request() {
                    std::process::exit(i32::from(code));
                }
            }
        });
        Ok(shutdown)
    }

    /// Requests the shutdown. Returns whether this was the first request, which starts the clock.
    pub fn request(&self) -> bool {
        let first = self.since.set(Instant::now()).is_ok();
        self.requested.cancel();
        first
    }

    /// Whether a shutdown was requested.
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Waits for the request.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// The request as a token, for code that takes one.
    pub fn token(&self) -> CancellationToken {
        self.requested.clone()
    }

    /// Whether the request is at least `limit` old.
    pub fn is_past(&self, limit: Duration) -> bool {
        self.since
            .get()
            .is_some_and(|since| since.elapsed() >= limit)
    }

    /// Waits until the request is `limit` old.
    pub async fn deadline(&self, limit: Duration) {
        self.requested().await;
        if let Some(since) = self.since.get() {
            tokio::time::sleep_until((*since + limit).into()).await;
        }
    }

    /// Sleeps for `duration` or until the request.
    pub async fn sleep(&self, duration: Duration) {
        let _ = self.or(tokio::time::sleep(duration)).await;
    }

    /// Does `work`, or drops it at the request.
    ///
    /// # Errors
    ///
    /// A shutdown was requested first.
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Result<T, Interrupted> {
        tokio::select! {
            biased;
            () = self.requested() => Err(Interrupted),
            done = work => Ok(done),
        }
    }
}

/// What one more signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Shut down gracefully.
    Shutdown,
    /// Nothing new.
    Repeated,
    /// Exit immediately.
    Exit,
}

/// Judges the signals of a process that may get several for one request: `pkill`, `scancel --full` and a service manager
/// signal the parent as well as its children.
#[derive(Debug, Default)]
pub struct Signals {
    first: Option<Instant>,
}

impl Signals {
    /// Signals that follow the first one this soon belong to it.
    pub const TOGETHER: Duration = Duration::from_secs(2);

    /// What SIGTERM or SIGINT means at the time `at`.
    pub fn judge(&mut self, at: Instant) -> Meaning {
        match self.first {
            None => {
                self.first = Some(at);
                Meaning::Shutdown
            }
            Some(first) if at.saturating_duration_since(first) <= Self::TOGETHER => {
                Meaning::Repeated
            }
            Some(_) => Meaning::Exit,
        }
    }

    /// What a signal means at `at` that never asks for more than a graceful shutdown (SIGUSR1).
    pub fn judge_polite(&mut self, at: Instant) -> Meaning {
        match self.judge(at) {
            Meaning::Exit => Meaning::Repeated,
            meaning => meaning,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_within_two_seconds_count_once() {
        let mut signals = Signals::default();
        let start = Instant::now();
        let after = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert_eq!(signals.judge(start), Meaning::Shutdown);
        for seconds in [0.0, 0.001, 0.5, 1.9] {
            assert_eq!(signals.judge(after(seconds)), Meaning::Repeated);
        }
        assert_eq!(signals.judge_polite(after(60.0)), Meaning::Repeated);
        assert_eq!(signals.judge(after(2.1)), Meaning::Exit);
        // A polite signal may come first, too.
        let mut signals = Signals::default();
        assert_eq!(signals.judge_polite(start), Meaning::Shutdown);
        assert_eq!(signals.judge(after(1.0)), Meaning::Repeated);
        assert_eq!(signals.judge(after(3.0)), Meaning::Exit);
    }

    #[test]
    fn clock_starts_with_first_request() {
        let shutdown = Shutdown::default();
        assert!(!shutdown.is_requested() && !shutdown.is_past(Duration::ZERO));
        assert!(shutdown.request());
        assert!(!shutdown.request());
        assert!(shutdown.is_requested() && shutdown.is_past(Duration::ZERO));
    }

    #[tokio::test]
    async fn request_drops_work() {
        let shutdown = Shutdown::default();
        assert_eq!(shutdown.or(async { 1 }).await, Ok(1));
        shutdown.request();
        assert_eq!(
            shutdown.or(std::future::pending::<()>()).await,
            Err(Interrupted)
        );
    }
}
