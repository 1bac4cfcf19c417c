//! Leadership: of several coordinators one leads, the others stand by.
//!
//! It is a Postgres advisory lock on a connection of its own. The lock falls with the connection,
//! so a leader that dies is replaced at once. A leader that cannot reach Postgres for a few seconds
//! assumes it has lost leadership before the server lets the lock go: two may never lead. Should they
//! all the same for a moment, message ids and conditional updates keep the count right.
//!
//! A database that takes no writes is not led from. A standby's locks are its own: a coordinator that
//! was pointed at one would lead beside the real leader.

use super::outage_log::OutageLog;
use halfheard_shared::error::chain;
use halfheard_store::{
    Store,
    leadership::{Acquired, LeaderLock},
};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often a leader asks whether its connection lives.
const PING_EVERY: Duration = Duration::from_secs(1);

/// The right to lead, for as long as [`Leadership::lost`] is not cancelled.
#[derive(Debug)]
pub(super) struct Leadership {
    lost: CancellationToken,
    watch: tokio::task::JoinHandle<()>,
    _stop: DropGuard,
}

impl Leadership {
    /// Waits until this process leads; `None` when `shutdown` came first. Asks again every `poll`,
    /// also while Postgres is away.
    pub(super) async fn acquire(
        store: &Store,
        poll: Duration,
        shutdown: &CancellationToken,
    ) -> Option<Self> {
        let mut told = Told::Nothing;
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
                    if told != Told::Another {
                        tracing::info!("another coordinator leads, standing by");
                        told = Told::Another;
                    }
                }
                Ok(Acquired::ReadOnly) => {
                    outage.recovered();
                    if told != Told::ReadOnly {
                        tracing::warn!(
                            "the database takes no writes (a standby, or made read-only): nobody leads, standing by until it does"
                        );
                        told = Told::ReadOnly;
                    }
                }
                Err(error) => outage.failed(&chain(&error), 0),
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(poll) => {}
            }
        }
    }

    /// Cancelled when leadership is lost, and on shutdown.
    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Gives leadership up and waits until the lock is free.
    pub(super) async fn resign(self) {
        let Self { watch, _stop, .. } = self;
        drop(_stop);
        if watch.await.is_err() {
            tracing::debug!("the watch over leadership had ended");
        }
    }
}

/// What was logged last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Another,
    ReadOnly,
}

/// Keeps the connection that holds the lock, and tells when it is gone.
async fn hold(mut lock: LeaderLock, lost: CancellationToken, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return lock.release().await,
            () = tokio::time::sleep(PING_EVERY) => {}
        }
        match lock.is_writable().await {
            Ok(true) => continue,
            Ok(false) => {
                tracing::warn!("leadership given up: the database takes no writes any more");
                lost.cancel();
                return lock.release().await;
            }
            Err(error) => tracing::warn!(error = chain(&error), "leadership lost"),
        }
        lost.cancel();
        return;
    }
}
