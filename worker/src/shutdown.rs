//! Graceful shutdown.
//!
//! Signals request it (SIGTERM, SIGINT; SIGUSR1 for programs that may repeat themselves). A slot
//! also receives the request from its supervisor through the pipe at its standard input, because
//! what the supervisor forwards must not count as a second signal: one signal often reaches both
//! processes (`pkill worker`, `scancel --full`, stopping a control group). Signals that arrive
//! together count once; a later one forces an immediate exit.

use crate::exit::Exit;
use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A step that has not finished by then is abandoned.
pub(crate) const STEP_DEADLINE: Duration = Duration::from_secs(6);
/// A state that has not been saved by then is abandoned.
pub(crate) const SAVE_DEADLINE: Duration = Duration::from_secs(8);
/// The slot exits by then.
pub(crate) const EXIT_DEADLINE: Duration = Duration::from_millis(9500);
/// The supervisor kills its slots after this.
pub(crate) const KILL_DEADLINE: Duration = Duration::from_secs(12);

/// Signals this close to the first one are part of it.
const SAME_SIGNAL: Duration = Duration::from_secs(2);
/// How long a supervisor that is forced to exit waits for its slots to be killed.
const FORCED_WAIT: Duration = Duration::from_secs(2);
/// What the supervisor writes to a slot's standard input to request a shutdown.
pub(crate) const REQUEST: &[u8] = b"shutdown\n";

/// Whether and since when a shutdown is requested. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Shutdown {
    requested: CancellationToken,
    forced: CancellationToken,
    since: Arc<OnceLock<Instant>>,
}

impl Shutdown {
    /// Requests a shutdown; deadlines count from the first call. Returns whether this was it.
    pub(crate) fn request(&self) -> bool {
        let mut first = false;
        self.since.get_or_init(|| {
            first = true;
            Instant::now()
        });
        self.requested.cancel();
        first
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Waits for the request.
    pub(crate) async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Waits until the process is forced to exit immediately.
    pub(crate) async fn forced(&self) {
        self.forced.cancelled().await;
    }

    /// Whether the request is at least `deadline` old.
    pub(crate) fn is_past(&self, deadline: Duration) -> bool {
        self.since
            .get()
            .is_some_and(|since| since.elapsed() >= deadline)
    }

    /// Waits for the request and then until it is `deadline` old.
    pub(crate) async fn deadline(&self, deadline: Duration) {
        self.requested().await;
        if let Some(since) = self.since.get() {
            tokio::time::sleep_until((*since + deadline).into()).await;
        }
    }

    /// Sleeps, at most until a shutdown is requested.
    pub(crate) async fn sleep(&self, duration: Duration) {
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.requested() => {}
        }
    }
}

/// Which process this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Supervisor,
    Slot(usize),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Supervisor => f.write_str("supervisor"),
            Role::Slot(number) => write!(f, "slot {number}"),
        }
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Shutdown,
    /// Nothing new.
    Ignore,
    Force,
}

#[derive(Debug, Default)]
struct Signals {
    first: Option<Instant>,
}

impl Signals {
    /// Interprets SIGUSR1: never forces.
    fn polite(&mut self, at: Instant) -> Action {
        match self.signal(at) {
            Action::Force => Action::Ignore,
            other => other,
        }
    }

    /// Interprets SIGTERM or SIGINT.
    fn signal(&mut self, at: Instant) -> Action {
        match self.first {
            None => {
                self.first = Some(at);
                Action::Shutdown
            }
            Some(first) if at.saturating_duration_since(first) <= SAME_SIGNAL => Action::Ignore,
            Some(_) => Action::Force,
        }
    }
}

/// Listens for signals and, in a slot, for the supervisor. A second signal ends a slot
/// immediately; a supervisor kills its slots first.
pub(crate) fn listen(shutdown: Shutdown, role: Role) -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut user = signal(SignalKind::user_defined1())?;
    let signaled = shutdown.clone();
    tokio::spawn(async move {
        let mut signals = Signals::default();
        loop {
            let (name, action) = tokio::select! {
                _ = term.recv() => ("SIGTERM", signals.signal(Instant::now())),
                _ = int.recv() => ("SIGINT", signals.signal(Instant::now())),
                _ = user.recv() => ("SIGUSR1", signals.polite(Instant::now())),
            };
            if action == Action::Force {
                tracing::warn!("{role} received a second {name}; exiting immediately");
                if role == Role::Supervisor {
                    signaled.forced.cancel();
                    tokio::time::sleep(FORCED_WAIT).await;
                }
                std::process::exit(Exit::Forced.code().into());
            }
            request(&signaled, role, name);
        }
    });
    if let Role::Slot(_) = role {
        // The supervisor holds the other end of standard input: data requests a shutdown, and so
        // does its end, however the supervisor went.
        std::thread::Builder::new()
            .name("parent".to_owned())
            .spawn(move || {
                let mut buffer = [0; 64];
                let cause = match std::io::Read::read(&mut std::io::stdin(), &mut buffer) {
                    Ok(1..) => "supervisor",
                    _ => "supervisor exited",
                };
                request(&shutdown, role, cause);
            })?;
    }
    Ok(())
}

fn request(shutdown: &Shutdown, role: Role, cause: &str) {
    if !shutdown.request() {
        tracing::debug!(cause, "{role} is already shutting down");
        return;
    }
    match role {
        Role::Supervisor => tracing::info!(
            cause,
            "{role} shutting down: slots save and hand back their jobs; signal again after {} s to exit immediately",
            SAME_SIGNAL.as_secs()
        ),
        Role::Slot(_) => tracing::info!(
            cause,
            "{role} shutting down: taking no more jobs, saving, handing back"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simultaneous_signals_count_once() {
        let mut signals = Signals::default();
        let start = Instant::now();
        let after = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert_eq!(signals.signal(start), Action::Shutdown);
        for seconds in [0.0, 0.001, 0.5, 1.9] {
            assert_eq!(signals.signal(after(seconds)), Action::Ignore);
        }
        assert_eq!(signals.polite(after(60.0)), Action::Ignore);
        assert_eq!(signals.signal(after(2.1)), Action::Force);
        // A polite signal counts as the first one too.
        let mut signals = Signals::default();
        assert_eq!(signals.polite(start), Action::Shutdown);
        assert_eq!(signals.signal(after(1.0)), Action::Ignore);
        assert_eq!(signals.signal(after(3.0)), Action::Force);
    }

    #[test]
    fn deadlines_count_from_the_first_request() {
        let shutdown = Shutdown::default();
        assert!(!shutdown.is_requested() && !shutdown.is_past(Duration::ZERO));
        assert!(shutdown.request());
        assert!(!shutdown.request());
        assert!(shutdown.is_requested() && shutdown.is_past(Duration::ZERO));
    }
}
