//! Being told to leave.
//!
//! A process is told by a signal (SIGTERM, SIGINT; SIGUSR1 for programs that may repeat themselves),
//! a slot also by its supervisor, through the pipe that is its standard input: what the supervisor
//! passes on must not look like a second signal, for a signal may well have reached both (`pkill
//! worker`, `scancel --full`, the stop of a whole control group). Signals that come together count
//! once; a second one later on means "now".

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A step that is not done after this is not waited for.
pub const STEP: Duration = Duration::from_secs(6);
/// A state that is not saved after this is given up.
pub const SAVE: Duration = Duration::from_secs(8);
/// After this the worker is gone.
pub const GONE: Duration = Duration::from_millis(9500);

/// Signals that come so soon after the first one are part of it.
const TOGETHER: Duration = Duration::from_secs(2);
/// What the supervisor writes into a slot's standard input: leave.
pub const LEAVE: &[u8] = b"leave\n";
/// How long a supervisor that has to leave at once waits for its slots to be ended.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Whether and since when the worker is to leave. Cheap to clone.
#[derive(Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    now: CancellationToken,
    since: Arc<OnceLock<Instant>>,
}

impl Shutdown {
    /// Leave: the clock starts with the first call. Returns whether this was the first.
    pub fn leave(&self) -> bool {
        let mut first = false;
        self.since.get_or_init(|| {
            first = true;
            Instant::now()
        });
        self.token.cancel();
        first
    }

    /// Whether to leave.
    pub fn is_asked(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until it is to leave.
    pub async fn asked(&self) {
        self.token.cancelled().await;
    }

    /// Waits until it is to leave at once.
    pub async fn at_once(&self) {
        self.now.cancelled().await;
    }

    /// Whether it was told to leave longer than `after` ago.
    pub fn is_past(&self, after: Duration) -> bool {
        self.since
            .get()
            .is_some_and(|since| since.elapsed() >= after)
    }

    /// Waits until `after` has passed since it was told to leave.
    pub async fn past(&self, after: Duration) {
        self.requested().await;
        if let Some(since) = self.since.get() {
            tokio::time::sleep_until((*since + after).into()).await;
        }
    }

    /// Sleeps, but not longer than until it is told to leave.
    pub async fn sleep(&self, duration: Duration) {
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.requested() => {}
        }
    }
}

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The process that keeps the slots.
    Supervisor,
    /// One slot.
    Slot(usize),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Supervisor => f.write_str("the supervisor"),
            Role::Slot(number) => write!(f, "slot {number}"),
        }
    }
}

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Leave in good order.
    Leave,
    /// What has been said already.
    Again,
    /// Leave at once.
    Now,
}

/// The process's own signals, counted.
#[derive(Debug, Default)]
struct Signals {
    first: Option<Instant>,
}

impl Signals {
    /// What a SIGUSR1 means that came at `at`: never more than to leave.
    fn politely(&mut self, at: Instant) -> Meaning {
        match self.mean(at) {
            Meaning::Now => Meaning::Again,
            other => other,
        }
    }

    /// What a SIGTERM or SIGINT means that came at `at`.
    fn mean(&mut self, at: Instant) -> Meaning {
        match self.first {
            None => {
                self.first = Some(at);
                Meaning::Leave
            }
            Some(first) if at.saturating_duration_since(first) <= TOGETHER => Meaning::Again,
            Some(_) => Meaning::Now,
        }
    }
}

/// Turns signals, and what the supervisor says, into shutdown. A second signal, some time after the
/// first, ends a slot; a supervisor ends its slots first.
pub fn on_signals(shutdown: Shutdown, role: Role) -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut user = signal(SignalKind::user_defined1())?;
    let told = shutdown.clone();
    tokio::spawn(async move {
        let mut signals = Signals::default();
        loop {
            let (name, meaning) = tokio::select! {
                _ = term.recv() => ("SIGTERM", signals.mean(Instant::now())),
                _ = int.recv() => ("SIGINT", signals.mean(Instant::now())),
                _ = user.recv() => ("SIGUSR1", signals.politely(Instant::now())),
            };
            if meaning == Meaning::Now {
                tracing::warn!("{role} is told again ({name}): shutdown at once");
                if role == Role::Supervisor {
                    told.now.cancel();
                    tokio::time::sleep(AT_ONCE).await;
                }
                std::process::exit(crate::exit::AT_ONCE.into());
            }
            leave(&told, role, name);
        }
    });
    if let Role::Slot(_) = role {
        // The supervisor holds the other end of standard input: what it writes there says to leave,
        // and so does its end, however the supervisor went.
        std::thread::Builder::new()
            .name("parent".to_owned())
            .spawn(move || {
                let mut buffer = [0; 64];
                let by = match std::io::Read::read(&mut std::io::stdin(), &mut buffer) {
                    Ok(1..) => "by the supervisor",
                    _ => "since the supervisor is gone",
                };
                leave(&shutdown, role, by);
            })?;
    }
    Ok(())
}

fn leave(shutdown: &Shutdown, role: Role, by: &str) {
    if !shutdown.request() {
        tracing::debug!("{role} is told to leave ({by}), as before");
        return;
    }
    match role {
        Role::Supervisor => tracing::info!(
            "the supervisor is told to leave ({by}): its slots save and hand back; tell it again after {} s to leave at once",
            TOGETHER.as_secs()
        ),
        Role::Slot(_) => {
            tracing::info!("{role} is told to leave ({by}): no more jobs, saving, handing back")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_come_together_count_once() {
        let mut signals = Signals::default();
        let start = Instant::now();
        let after = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert_eq!(signals.mean(start), Meaning::Leave);
        for seconds in [0.0, 0.001, 0.5, 1.9] {
            assert_eq!(signals.mean(after(seconds)), Meaning::Again);
        }
        assert_eq!(signals.politely(after(60.0)), Meaning::Again);
        assert_eq!(signals.mean(after(2.1)), Meaning::Now);
        // A polite word is a first word too.
        let mut signals = Signals::default();
        assert_eq!(signals.politely(start), Meaning::Leave);
        assert_eq!(signals.mean(after(1.0)), Meaning::Again);
        assert_eq!(signals.mean(after(3.0)), Meaning::Now);
    }

    #[test]
    fn the_clock_starts_with_the_first_word() {
        let shutdown = Shutdown::default();
        assert!(!shutdown.is_requested() && !shutdown.is_past(Duration::ZERO));
        assert!(shutdown.request());
        assert!(!shutdown.request());
        assert!(shutdown.is_requested() && shutdown.is_past(Duration::ZERO));
    }
}
