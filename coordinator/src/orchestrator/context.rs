//! What the parts of a leading coordinator share.

use super::{hearing::Hearing, options::ServeOptions};
use halfheard_shared::broker::{Broker, heartbeats::Heartbeats};
use halfheard_store::{Store, lifecycle::RetryPolicy};
use tokio::sync::Notify;

/// A lead: a database in which this coordinator writes under its term, and whom it hears.
#[derive(Debug)]
pub(super) struct Lead {
    pub(super) store: Store,
    pub(super) broker: Broker,
    pub(super) options: ServeOptions,
    pub(super) hearing: Hearing,
    pub(super) heartbeats: Heartbeats,
    /// Jobs may have become ready.
    pub(super) wake: Notify,
}

impl Lead {
    /// How failed jobs are retried at the moment: on a larger device only if there is one.
    pub(super) fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy {
            largest: self.heartbeats.largest_memory(),
            ..self.options.retry
        }
    }
}
