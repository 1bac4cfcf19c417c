//! Graceful shutdown: who requests it, and the deadlines.
//!
//! Signals request it (SIGTERM, SIGINT; SIGUSR1 for programs that may repeat themselves). A slot
//! also receives the request from its supervisor through the pipe at its standard input, because
//! what the supervisor forwards must not count as a second signal: one signal often reaches both
//! processes (`pkill worker`, `scancel --full`, stopping a control group). Signals that arrive
//! together count once; a later one forces an immediate exit.

use crate::exit::Exit;
use halfheard_shared::shutdown::{Meaning, Shutdown, Signals};
use std::{
    fmt,
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long a graceful shutdown may take, and what of it each part has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadlines(Duration);

impl Deadlines {
    /// For a shutdown within `limit`.
    pub(crate) fn within(limit: Duration) -> Self {
        Self(limit)
    }

    /// An evaluation is not continued after this: a case that is nearly done is finished, with time
    /// left to report it.
    pub(crate) fn evaluation(self) -> Duration {
        self.0.mul_f64(0.4)
    }

    /// A step that has not finished by then is abandoned.
    pub(crate) fn step(self) -> Duration {
        self.0.mul_f64(0.6)
    }

    /// A state that has not been saved by then is abandoned.
    pub(crate) fn save(self) -> Duration {
        self.0.mul_f64(0.8)
    }

    /// The slot exits by then.
    pub(crate) fn exit(self) -> Duration {
        self.0.mul_f64(0.95)
    }

    /// The supervisor kills its slots after this.
    pub(crate) fn kill(self) -> Duration {
        self.0.mul_f64(1.2)
    }
}

/// How long a supervisor that is forced to exit waits for its slots to be killed.
const FORCED_WAIT: Duration = Duration::from_secs(2);
/// What a slot writes to its standard output when it ends itself because its work hangs.
pub(crate) const ENDING: &[u8] = b"ending\n";
/// What the supervisor writes to a slot's standard input to request a shutdown.
pub(crate) const REQUEST: &[u8] = b"shutdown\n";

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

/// Listens for signals and, in a slot, for the supervisor. A second signal ends a slot
/// immediately; a supervisor kills its slots first, when the token it gets from here is cancelled.
pub(crate) fn listen(shutdown: Shutdown, role: Role) -> std::io::Result<CancellationToken> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut user = signal(SignalKind::user_defined1())?;
    let forced = CancellationToken::new();
    let (signaled, force) = (shutdown.clone(), forced.clone());
    tokio::spawn(async move {
        let mut signals = Signals::default();
        loop {
            let (name, meaning) = tokio::select! {
                _ = term.recv() => ("SIGTERM", signals.judge(Instant::now())),
                _ = int.recv() => ("SIGINT", signals.judge(Instant::now())),
                _ = user.recv() => ("SIGUSR1", signals.judge_polite(Instant::now())),
            };
            if meaning == Meaning::Exit {
                tracing::warn!("{role} received a second {name}; exiting immediately");
                if role == Role::Supervisor {
                    force.cancel();
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
    Ok(forced)
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
            Signals::TOGETHER.as_secs()
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
    fn parts_of_a_shutdown_follow_each_other() {
        for seconds in [1, 10, 120] {
            let limit = Duration::from_secs(seconds);
            let parts = Deadlines::within(limit);
            let order = [
                parts.evaluation(),
                parts.step(),
                parts.save(),
                parts.exit(),
                limit,
                parts.kill(),
            ];
            assert!(order.windows(2).all(|pair| pair[0] < pair[1]), "{order:?}");
        }
    }
}
