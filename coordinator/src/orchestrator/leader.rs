//! Leadership: one coordinator leads, the others are standbys.
//!
//! It is a Postgres advisory lock on a separate connection. The lock is released with the connection,
//! so a leader that dies is replaced at once. A leader that cannot reach Postgres for a few seconds
//! assumes it has lost leadership, before the server releases the lock: two must never lead. If they
//! do for a moment, message ids and conditional updates keep the state consistent.
//!
//! Nobody leads on a read-only database. A standby server has its own locks: a coordinator that was
//! pointed at one would lead beside the real leader.

use super::outage_log::OutageLog;
use halfheard_shared::error::chain;
use halfheard_store::{
    Store,
    leadership::{Acquired, LeaderLock},
};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often a leader checks its connection.
const PING_EVERY: Duration = Duration::from_secs(1);

/// Leadership, until [`Leadership::lost`] is cancelled.
#[derive(Debug)]
pub(super) struct Leadership {
    lost: CancellationToken,
    watch: tokio::task::JoinHandle<()>,
    _stop: DropGuard,
}

impl Leadership {
    /// Waits until this process leads, or returns `None` on `shutdown`. Tries every `poll`, also during
    /// an outage of Postgres.
    pub(super) async fn acquire(
        store: &Store,
        poll: Duration,
        shutdown: &CancellationToken,
    ) -> Option<Self> {
        let mut standby = Standby::No;
        let mut outage = OutageLog::new("acquiring leadership failed; retrying");
        loop {
            let attempt = tokio::select! {
                () = shutdown.cancelled() => return None,
                attempt = store.try_lead() => attempt,
            };
            match attempt {
                Ok(Acquired::Lock(lock)) => {
                    outage.recovered();
                    tracing::info!("leading");
                    let lost = shutdown.child_token();
                    let stop = CancellationToken::new();
                    let watch = tokio::spawn(hold(lock, lost.clone(), stop.clone()));
                    return Some(Self {
                        lost,
                        watch,
                        _stop: stop.drop_guard(),
                    });
                }
                Ok(Acquired::Other) => {
                    outage.recovered();
                    if standby != Standby::OtherLeads {
                        tracing::info!("another coordinator leads; standing by");
                        standby = Standby::OtherLeads;
                    }
                }
                Ok(Acquired::ReadOnly) => {
                    outage.recovered();
                    if standby != Standby::ReadOnly {
                        tracing::warn!(
                            "the database is read-only, so nobody leads; standing by until it is writable"
                        );
                        standby = Standby::ReadOnly;
                    }
                }
                // The pace of a standby is its own.
                Err(error) => {
                    outage.failed(&chain(&error), 0);
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(poll) => {}
            }
        }
    }

    /// Returns a token that is cancelled when leadership is lost, and on shutdown.
    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Gives up leadership and waits until the lock is released.
    pub(super) async fn resign(self) {
        let Self { watch, _stop, .. } = self;
        drop(_stop);
        if watch.await.is_err() {
            tracing::debug!("the task that holds the lock panicked");
        }
    }
}

/// Why this process is a standby, as logged last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standby {
    No,
    OtherLeads,
    ReadOnly,
}

/// Holds the lock and cancels `lost` when it is gone.
async fn hold(mut lock: LeaderLock, lost: CancellationToken, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return lock.release().await,
            () = tokio::time::sleep(PING_EVERY) => {}
        }
        match lock.is_writable().await {
            Ok(true) => continue,
            Ok(false) => {
                tracing::warn!("leadership given up: the database became read-only");
                lost.cancel();
                return lock.release().await;
            }
            Err(error) => tracing::warn!(error = chain(&error), "leadership lost"),
        }
        lost.cancel();
        return;
    }
}
