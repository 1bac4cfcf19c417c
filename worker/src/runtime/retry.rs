//! Retrying operations on the artifact store.

use super::{faults, slot::Slot};
use halfheard_shared::{artifacts::ArtifactError, error::chain};
use std::time::{Duration, Instant};

/// The longest pause between attempts.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// For how long, and what, to retry.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryPolicy {
    limit: Duration,
    /// Whether to retry permanent errors too: a permission may be granted, a disk mounted, while
    /// completed work would otherwise be lost.
    permanent_too: bool,
}

/// Before a job has started: another worker may do it meanwhile.
pub(super) const BEFORE_JOB: RetryPolicy = RetryPolicy {
    limit: Duration::from_secs(10),
    permanent_too: false,
};
/// For what is useful but not essential.
pub(super) const OPTIONAL: RetryPolicy = RetryPolicy {
    limit: Duration::from_secs(60),
    permanent_too: false,
};

/// For a result that took `seconds` to compute: waiting that long again is cheaper than computing
/// it again.
pub(super) fn for_result(seconds: f64) -> RetryPolicy {
    let limit = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    RetryPolicy {
        limit: limit.clamp(Duration::from_secs(900), Duration::from_secs(12 * 3600)),
        permanent_too: true,
    }
}

impl Slot {
    /// Retries while the artifact store's error is transient, until the policy's limit or a
    /// shutdown. Heartbeats say meanwhile what the worker waits for.
    pub(super) async fn retry_transient<T>(
        &self,
        policy: RetryPolicy,
        mut operation: impl AsyncFnMut() -> Result<T, ArtifactError>,
    ) -> Result<T, ArtifactError> {
        let began = Instant::now();
        let mut pause = Duration::from_millis(250);
        let mut degraded = false;
        loop {
            match operation().await {
                Err(error)
                    if matches!(&error, ArtifactError::Store { .. })
                        && (policy.permanent_too || error.is_retryable())
                        && !self.shutdown.is_requested()
                        && began.elapsed() < policy.limit =>
                {
                    tracing::warn!(error = chain(&error), "artifact store failed; retrying");
                    if let Some(fault) = faults::store_fault(&error) {
                        self.status.degraded(fault, Some(pause));
                        degraded = true;
                    }
                    self.shutdown.sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
                outcome => {
                    if degraded && outcome.is_ok() {
                        self.status.recovered();
                    }
                    return outcome;
                }
            }
        }
    }
}
