//! The daemon: leads when it may, and while it leads dispatches, gathers and reconciles.

use crate::{
    orchestrator::collect::gather, orchestrator::control::follow, orchestrator::dispatch::dispatch,
    orchestrator::leader::Leadership, orchestrator::reconcile::reconcile,
};
use halfheard_shared::broker::Broker;
use halfheard_shared::retry::Backoff;
use halfheard_store::{Store, lifecycle::RetryPolicy};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How the daemon goes about its work; the defaults suit a cluster.
#[derive(Clone, Copy, Debug)]
pub struct ServeOptions {
    /// The least number of training jobs that may be published and unfinished; twice the number
    /// of living workers when that is more.
    pub train_window: i64,
    /// The number of evaluation jobs that may be published and unfinished.
    pub eval_window: i64,
    /// How failed jobs are tried again.
    pub retry: RetryPolicy,
    /// How often the outbox is looked at when nothing says that it has something.
    pub poll: Duration,
    /// How often a coordinator that stands by asks to lead.
    pub leader_poll: Duration,
    /// How often rows and messages are compared.
    pub reconcile_every: Duration,
    /// How long a published job may stand still before its message is looked for.
    pub grace: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            train_window: 8,
            eval_window: 4096,
            retry: RetryPolicy::default(),
            poll: Duration::from_millis(200),
            leader_poll: Duration::from_millis(500),
            reconcile_every: Duration::from_secs(30),
            grace: Duration::from_secs(30),
        }
    }
}

/// Serves until `shutdown`. Neither Postgres nor the broker going away ends it: it waits for them.
pub async fn serve(
    store: Store,
    broker: Broker,
    options: ServeOptions,
    shutdown: CancellationToken,
) {
    while let Some(leadership) = Leadership::acquire(&store, options.leader_poll, &shutdown).await {
        lead(&store, &broker, &options, leadership.lost()).await;
        // Acknowledgements that are still on their way.
        let flushed = tokio::time::timeout(Duration::from_secs(2), broker.client().flush()).await;
        tracing::debug!(?flushed, "acknowledgements sent");
        leadership.resign().await;
    }
    tracing::info!("stopped");
}

async fn lead(store: &Store, broker: &Broker, options: &ServeOptions, stop: &CancellationToken) {
    let mut backoff = Backoff::default();
    while let Err(error) = broker.ensure().await {
        tracing::warn!(%error, "the streams cannot be made, trying again");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
    let wake = Notify::new();
    tokio::join!(
        dispatch(store, broker, options, &wake, stop),
        gather(store, broker, options, &wake, stop),
        reconcile(store, broker, options, &wake, stop),
        follow(store, broker, options, stop),
    );
}
