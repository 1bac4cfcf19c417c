//! Sweep control: publishes to workers which sweeps are paused or cancelled.
//!
//! The database is authoritative; the bucket `SWEEPS` is its copy for workers. Whoever changes a
//! sweep's row publishes at once, and the leader polls the rows every second and publishes what is
//! missing ([`publish_changes`]): a command works without a broker. Publishing locks the sweep's row,
//! so that of two concurrent publishers none leaves an outdated value.

use super::{
    options::ServeOptions,
    outage_log::OutageLog,
    sync::{SyncError, jetstream, purge, queued_messages},
};
use futures::TryStreamExt as _;
use halfheard_shared::{
    broker::{Broker, BrokerSettings, JOBS, SweepControl},
    error::chain,
    ids::SweepId,
};
use halfheard_store::{Store, SweepState};
use std::{collections::HashMap, time::Duration};
use tokio_util::sync::CancellationToken;

/// How often the leader polls the state of the sweeps.
const POLL: Duration = Duration::from_secs(1);
/// How long a command tries to reach the broker.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Publishes the state in the sweep's row. Jobs of a stopped sweep are removed from the queues: they
/// would fill the window and block other sweeps.
///
/// # Errors
///
/// The database or the broker fails; then the leader publishes it later.
pub async fn publish(store: &Store, broker: &Broker, sweep: SweepId) -> Result<(), SyncError> {
    let bucket = broker.sweeps().await?;
    let key = sweep.to_string();
    let held = store.lock_sweep(sweep).await?;
    let state = held.as_ref().map_or(SweepState::Running, |held| held.state);
    if state == SweepState::Running {
        // No entry means running.
        bucket.purge(&key).await.map_err(jetstream)?;
    } else {
        let jobs = broker
            .jetstream()
            .get_stream(JOBS)
            .await
            .map_err(jetstream)?;
        purge(&jobs, sweep).await?;
        if state == SweepState::Paused {
            // Jobs in progress continue; if their worker dies, reconciliation finds them lost.
            store.unqueue(sweep).await?;
        }
        // Last: an entry means that everything above is done.
        let value = SweepControl::from(state).to_string();
        bucket.put(&key, value.into()).await.map_err(jetstream)?;
    }
    if let Some(held) = held {
        held.release().await?;
    }
    tracing::info!(%sweep, %state, "sweep control published");
    Ok(())
}

/// Publishes the control of all sweeps, and removes jobs of stopped sweeps from the queues.
pub(super) async fn publish_all(store: &Store, broker: &Broker) -> Result<(), SyncError> {
    let bucket = broker.sweeps().await?;
    let wanted: HashMap<SweepId, SweepState> =
        store.paused_or_cancelled().await?.into_iter().collect();
    for (&sweep, &state) in &wanted {
        let value = SweepControl::from(state).to_string();
        let published = bucket.get(sweep.to_string()).await.map_err(jetstream)?;
        if published.is_none_or(|published| published != value) {
            publish(store, broker, sweep).await?;
        }
    }
    // The dispatcher may have published jobs of a sweep while it was being stopped.
    if !wanted.is_empty() {
        let jobs = broker
            .jetstream()
            .get_stream(JOBS)
            .await
            .map_err(jetstream)?;
        for sweep in queued_messages(&jobs).await?.into_keys() {
            if wanted.contains_key(&sweep) {
                publish(store, broker, sweep).await?;
            }
        }
    }
    let keys: Vec<String> = bucket
        .keys()
        .await
        .map_err(jetstream)?
        .try_collect()
        .await
        .map_err(jetstream)?;
    for key in keys {
        let Ok(sweep) = key.parse::<SweepId>() else {
            continue;
        };
        // A resumed sweep, or one of another database.
        if !wanted.contains_key(&sweep) {
            publish(store, broker, sweep).await?;
        }
    }
    Ok(())
}

/// As [`publish`], for a command: within a few seconds or not at all.
///
/// # Errors
///
/// The database or the broker fails or does not answer; then the leader publishes it later.
pub(crate) async fn publish_soon(
    store: &Store,
    broker: &BrokerSettings,
    sweep: SweepId,
) -> Result<(), PublishError> {
    let publish = async {
        let broker = broker.connect().await.map_err(SyncError::from)?;
        publish(store, &broker, sweep).await
    };
    let outcome = tokio::time::timeout(TIMEOUT, publish).await;
    Ok(outcome.map_err(|_| PublishError::Timeout)??)
}

/// Why a command could not publish sweep control.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error(transparent)]
    Failed(#[from] SyncError),
    #[error("the broker does not answer")]
    Timeout,
}

/// Publishes changes of sweep control until `stop`.
pub(super) async fn publish_changes(
    store: &Store,
    broker: &Broker,
    options: &ServeOptions,
    stop: &CancellationToken,
) {
    let mut published: Option<HashMap<SweepId, SweepState>> = None;
    let mut outage = OutageLog::new("publishing sweep control failed; retrying");
    loop {
        let pause = tokio::select! {
            () = stop.cancelled() => return,
            outcome = catch_up(store, broker, &mut published) => match outcome {
                Ok(()) => {
                    outage.recovered();
                    POLL.min(options.reconcile_every)
                }
                Err(error) => outage.failed(&chain(&error), 0),
            },
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Publishes what differs from `published`, or everything the first time.
async fn catch_up(
    store: &Store,
    broker: &Broker,
    published: &mut Option<HashMap<SweepId, SweepState>>,
) -> Result<(), SyncError> {
    let wanted: HashMap<SweepId, SweepState> =
        store.paused_or_cancelled().await?.into_iter().collect();
    match published {
        None => publish_all(store, broker).await?,
        Some(published) => {
            let changed = wanted
                .iter()
                .filter(|(sweep, state)| published.get(sweep) != Some(state))
                .map(|(&sweep, _)| sweep)
                .chain(
                    published
                        .keys()
                        .copied()
                        .filter(|sweep| !wanted.contains_key(sweep)),
                );
            for sweep in changed {
                publish(store, broker, sweep).await?;
            }
        }
    }
    *published = Some(wanted);
    Ok(())
}
