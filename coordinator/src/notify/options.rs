//! Whom to tell, and after what time.

use super::webhook::Webhook;
use std::time::Duration;

/// Whom to tell, and after what time.
#[derive(Clone, Debug)]
pub struct NotifyOptions {
    /// A program and its arguments, which get the event on standard input.
    pub command: Option<Vec<String>>,
    /// Where events are posted.
    pub webhook: Option<Webhook>,
    /// How long a sweep makes no progress, or a worker sits out, before somebody is told.
    pub after: Duration,
    /// How often events are looked for.
    pub every: Duration,
}

impl NotifyOptions {
    /// Those of the command line without flags.
    pub const AFTER: Duration = Duration::from_secs(30 * 60);
    /// How often events are looked for: a look counts the jobs of the sweeps that run.
    pub const EVERY: Duration = Duration::from_secs(15);
}
