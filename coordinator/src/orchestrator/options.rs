//! Tuning of the daemon.

use crate::notify::NotifyOptions;
use halfheard_shared::broker::LEASE;
use halfheard_store::lifecycle::RetryPolicy;
use std::time::Duration;

/// How the daemon works; the defaults suit a cluster.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// How failed jobs are retried.
    pub retry: RetryPolicy,
    /// How long a job stays with a worker that is not heard.
    pub lease: Duration,
    /// How often ready jobs are looked for when nothing wakes the dispatcher.
    pub poll: Duration,
    /// How often a standby tries to take the lead.
    pub leader_poll: Duration,
    /// Whom to tell what happens.
    pub notify: Option<NotifyOptions>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            lease: LEASE,
            poll: Duration::from_millis(200),
            leader_poll: Duration::from_millis(500),
            notify: None,
        }
    }
}
