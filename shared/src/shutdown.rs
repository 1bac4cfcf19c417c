//! Ctrl-C and SIGTERM: the first asks to stop in good order, the second ends at once.

use std::future::Future;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Someone asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Listens for Ctrl-C and SIGTERM.
#[derive(Clone, Debug)]
pub struct Interrupt {
    asked: CancellationToken,
}

impl Interrupt {
    /// Begins to listen. The second signal ends this process with `code`; what it started gets its
    /// own signal from the kernel.
    ///
    /// # Errors
    ///
    /// The system does not let us listen.
    pub fn listen(code: u8) -> std::io::Result<Self> {
        let mut ctrl_c = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let asked = CancellationToken::new();
        let token = asked.clone();
        tokio::spawn(async move {
            for time in 1.. {
                tokio::select! {
                    _ = ctrl_c.recv() => {}
                    _ = terminate.recv() => {}
                }
                if time > 1 {
                    std::process::exit(i32::from(code));
                }
                token.cancel();
            }
        });
        Ok(Self { asked })
    }

    /// Whether someone asked.
    pub fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }

    /// Waits until someone asks.
    pub async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// Does `work` unless someone asks first; then it is dropped where it stands.
    ///
    /// # Errors
    ///
    /// Someone asked.
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Result<T, Interrupted> {
        tokio::select! {
            biased;
            () = self.asked() => Err(Interrupted),
            done = work => Ok(done),
        }
    }
}
