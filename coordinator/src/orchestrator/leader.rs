//! Leadership: one coordinator leads, the others stand by.
//!
//! It is a row of the database with a term and a time until which it holds, by the database's clock.
//! A leader renews it every other second; one that is stopped or cannot reach Postgres does not, and
//! another takes the next term. Every transaction of a leader begins by locking the row of its own
//! term, so one that was replaced writes nothing, however late it wakes up.
//!
//! Only a coordinator that hears itself through the broker takes the lead, and a leader that no longer
//! does gives it up: one that cannot reach workers must not keep one from leading that can.

use super::{hearing::Pings, outage_log::OutageLog};
use crate::observe::events::database_failed;
use halfheard_shared::error::chain;
use halfheard_store::{
    Store,
    leadership::{LEAD, Taken, Term},
};
use std::time::{Duration, Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often a leader renews its term.
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// A coordinator that has not heard itself for this long does not take the lead.
const HEARS_ITSELF: Duration = Duration::from_secs(3);
/// A leader that has not heard itself for this long gives the lead up.
const DEAF: Duration = Duration::from_secs(8);

/// The lead, until [`Leadership::lost`] is cancelled.
#[derive(Debug)]
pub(super) struct Leadership {
    term: Term,
    lost: CancellationToken,
    watch: tokio::task::JoinHandle<()>,
    _stop: DropGuard,
}

impl Leadership {
    /// Waits until this process leads, or returns `None` on `shutdown`. Tries every `poll`, also
    /// during an outage of Postgres.
    pub(super) async fn acquire(
        store: &Store,
        pings: &Pings,
        holder: &str,
        poll: Duration,
        shutdown: &CancellationToken,
    ) -> Option<Self> {
        let began = Instant::now();
        let mut standby = Standby::No;
        let mut outage = OutageLog::new("taking the lead failed; retrying");
        loop {
            let deaf = pings.age() > HEARS_ITSELF;
            let attempt = tokio::select! {
                () = shutdown.cancelled() => return None,
                attempt = store.take_lead(holder), if !deaf => Some(attempt),
                () = std::future::ready(()), if deaf => None,
            };
            match attempt {
                // The first message is still on its way.
                None if began.elapsed() < HEARS_ITSELF => {}
                None => standby.becomes(Standby::Deaf),
                Some(Ok(Taken::Lead(term))) => {
                    outage.recovered();
                    tracing::info!(term = term.0, "leading");
                    return Some(Self::hold(store, pings, term, shutdown));
                }
                Some(Ok(Taken::Other { holder })) => {
                    outage.recovered();
                    standby.becomes(Standby::OtherLeads(holder));
                }
                Some(Ok(Taken::ReadOnly)) => {
                    outage.recovered();
                    standby.becomes(Standby::ReadOnly);
                }
                // The pace of a standby is its own.
                Some(Err(error)) => {
                    database_failed(&error);
                    outage.failed(&chain(&error), 0);
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(poll) => {}
            }
        }
    }

    fn hold(store: &Store, pings: &Pings, term: Term, shutdown: &CancellationToken) -> Self {
        let lost = shutdown.child_token();
        let stop = CancellationToken::new();
        let keep = keep(
            store.clone(),
            pings.clone(),
            term,
            lost.clone(),
            stop.clone(),
        );
        Self {
            term,
            lost,
            watch: tokio::spawn(keep),
            _stop: stop.drop_guard(),
        }
    }

    /// The term of this lead.
    pub(super) fn term(&self) -> Term {
        self.term
    }

    /// Returns a token that is cancelled when the lead is lost, and on shutdown.
    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Gives the lead up, so that another coordinator need not wait for it to run out.
    pub(super) async fn resign(self) {
        let Self { watch, _stop, .. } = self;
        drop(_stop);
        if watch.await.is_err() {
            tracing::debug!("the task that keeps the lead panicked");
        }
    }
}

/// Why this process stands by, as logged last.
#[derive(Clone, PartialEq, Eq)]
enum Standby {
    No,
    OtherLeads(String),
    ReadOnly,
    Deaf,
}

impl Standby {
    fn becomes(&mut self, now: Standby) {
        if *self == now {
            return;
        }
        match &now {
            Standby::No => {}
            Standby::OtherLeads(holder) => {
                tracing::info!(holder, "another coordinator leads; standing by");
            }
            Standby::ReadOnly => tracing::warn!(
                "the database is read-only, so nobody leads; standing by until it is writable"
            ),
            Standby::Deaf => tracing::warn!(
                "the broker does not return what this coordinator sends to itself; standing by until it does"
            ),
        }
        *self = now;
    }
}

/// Renews the term and cancels `lost` when it is gone.
async fn keep(
    store: Store,
    pings: Pings,
    term: Term,
    lost: CancellationToken,
    stop: CancellationToken,
) {
    let mut renewed = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(RENEW_EVERY) => {}
        }
        if pings.age() > DEAF {
            tracing::warn!("the lead is given up: the broker cannot be reached");
            break;
        }
        let asked = Instant::now();
        match store.renew_lead(term).await {
            Ok(true) => renewed = asked,
            Ok(false) => {
                tracing::warn!(
                    "the lead is lost: another coordinator leads, or the database is read-only"
                );
                lost.cancel();
                return;
            }
            // The database has the last word: it refuses what a leader writes after its time.
            Err(error) if renewed.elapsed() < LEAD => {
                database_failed(&error);
                tracing::debug!(error = chain(&error), "cannot renew the lead; retrying");
            }
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "the lead is lost: it cannot be renewed"
                );
                break;
            }
        }
    }
    lost.cancel();
    if let Err(error) = store.resign_lead(term).await {
        tracing::debug!(
            error = chain(&error),
            "cannot resign; the lead runs out by itself"
        );
    }
}
