//! The daemon: while it leads, it dispatches jobs, collects results and reconciles.

use super::{
    collect::collect, dispatch::dispatch, leader::Leadership, options::ServeOptions,
    reconcile::reconcile, sweep_control::publish_changes,
};
use halfheard_shared::{broker::Broker, error::chain, retry::Backoff};
use halfheard_store::Store;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Serves until `shutdown`. An outage of Postgres or of the broker does not end it.
pub async fn serve(
    store: Store,
    broker: Broker,
    options: ServeOptions,
    shutdown: CancellationToken,
) {
    while let Some(leadership) = Leadership::acquire(&store, options.leader_poll, &shutdown).await {
        lead(&store, &broker, &options, leadership.lost()).await;
        // Acknowledgements that are still buffered.
        let flushed = tokio::time::timeout(Duration::from_secs(2), broker.client().flush()).await;
        tracing::debug!(?flushed, "acknowledgements sent");
        leadership.resign().await;
    }
    tracing::info!("stopped");
}

async fn lead(store: &Store, broker: &Broker, options: &ServeOptions, stop: &CancellationToken) {
    let mut backoff = Backoff::default();
    while let Err(error) = broker.ensure().await {
        tracing::warn!(error = chain(&error), "cannot create the streams; retrying");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.delay()) => {}
        }
    }
    let wake = Notify::new();
    tokio::join!(
        dispatch(store, broker, options, &wake, stop),
        collect(store, broker, options, &wake, stop),
        reconcile(store, broker, options, &wake, stop),
        publish_changes(store, broker, options, stop),
    );
}
