//! Being told to leave.

use std::{
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

/// Whether and since when the worker is to leave. Cheap to clone.
#[derive(Clone, Default)]
pub struct Leaving {
    token: CancellationToken,
    since: Arc<OnceLock<Instant>>,
}

impl Leaving {
    /// Leave: the clock starts with the first call.
    pub fn leave(&self) {
        self.since.get_or_init(Instant::now);
        self.token.cancel();
    }

    /// Whether to leave.
    pub fn is_asked(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until it is to leave.
    pub async fn asked(&self) {
        self.token.cancelled().await;
    }

    /// Whether it was told to leave longer than `after` ago.
    pub fn is_past(&self, after: Duration) -> bool {
        self.since
            .get()
            .is_some_and(|since| since.elapsed() >= after)
    }

    /// Waits until `after` has passed since it was told to leave.
    pub async fn past(&self, after: Duration) {
        self.asked().await;
        if let Some(since) = self.since.get() {
            tokio::time::sleep_until((*since + after).into()).await;
        }
    }

    /// Sleeps, but not longer than until it is told to leave.
    pub async fn sleep(&self, duration: Duration) {
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.asked() => {}
        }
    }
}

/// Turns signals, and the end of the supervisor, into leaving. A second signal ends the process.
pub fn on_signals(leaving: Leaving, watch_parent: bool) -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let told = leaving.clone();
    tokio::spawn(async move {
        let mut signals = 0;
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            signals += 1;
            if signals > 1 {
                tracing::warn!("told twice: leaving at once");
                std::process::exit(crate::exit::AT_ONCE.into());
            }
            tracing::info!("told to leave: no more jobs, saving, handing back");
            told.leave();
        }
    });
    if watch_parent {
        // The supervisor holds the other end of standard input and never writes: an end means that
        // it is gone, however it went.
        std::thread::Builder::new()
            .name("parent".to_owned())
            .spawn(move || {
                let mut buffer = [0; 64];
                while matches!(
                    std::io::Read::read(&mut std::io::stdin(), &mut buffer),
                    Ok(1..)
                ) {}
                tracing::info!("the supervisor is gone");
                leaving.leave();
            })?;
    }
    Ok(())
}
