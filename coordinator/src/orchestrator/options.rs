//! Tuning of the daemon.

use halfheard_store::lifecycle::RetryPolicy;
use std::time::Duration;

/// How the daemon works; the defaults suit a cluster.
#[derive(Clone, Copy, Debug)]
pub struct ServeOptions {
    /// Minimum in-flight window for training jobs; twice the number of live workers if that is more.
    pub train_window: i64,
    /// In-flight window for evaluation jobs.
    pub eval_window: i64,
    /// How failed jobs are retried.
    pub retry: RetryPolicy,
    /// How often the outbox is polled when nothing wakes the dispatcher.
    pub poll: Duration,
    /// How often a standby tries to acquire leadership.
    pub leader_poll: Duration,
    /// How often rows and messages are compared.
    pub reconcile_every: Duration,
    /// How long a published job may make no progress before its message is looked for.
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
