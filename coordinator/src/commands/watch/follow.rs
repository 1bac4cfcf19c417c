//! The loop that follows a sweep until it is finished.

use halfheard_progress::Snapshot;
use halfheard_shared::{broker::Broker, ids::SweepId, shutdown::Shutdown};
use halfheard_store::Store;
use std::time::Duration;

/// What happens in each round of [`follow`].
pub(crate) trait Observer {
    /// Checks what the sweep depends on, before its state is loaded.
    ///
    /// # Errors
    ///
    /// Ends the loop.
    async fn check(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Shows the state of the sweep.
    ///
    /// # Errors
    ///
    /// Ends the loop.
    async fn show(&mut self, snapshot: &Snapshot) -> anyhow::Result<()>;
}

/// Follows a sweep until it is finished or cancelled, and returns its last state. A database outage is waited
/// out.
///
/// # Errors
///
/// [`halfheard_shared::shutdown::Interrupted`]; an error of the observer; a permanent database error.
pub(crate) async fn follow(
    store: &Store,
    broker: Option<&Broker>,
    sweep: SweepId,
    every: Duration,
    interrupt: &Shutdown,
    observer: &mut impl Observer,
) -> anyhow::Result<Snapshot> {
    loop {
        observer.check().await?;
        match Snapshot::load(store, broker, sweep).await {
            Ok(snapshot) => {
                observer.show(&snapshot).await?;
                if snapshot.finished {
                    return Ok(snapshot);
                }
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(error = halfheard_shared::error::chain(&error), "waiting");
            }
            Err(error) => return Err(error.into()),
        }
        interrupt.or(tokio::time::sleep(every)).await?;
    }
}
