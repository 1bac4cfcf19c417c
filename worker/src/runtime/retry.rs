//! Retrying operations on the artifact store.

use super::{faults, slot::Slot};
use halfheard_shared::{artifacts::ArtifactError, error::chain, shutdown::Interrupted};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The longest pause between attempts.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// For how long, and what, to retry.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryPolicy {
    /// `None`: until it works.
    limit: Option<Duration>,
    /// Whether to retry permanent errors too: a permission may be granted, a disk mounted, while
    /// completed work would otherwise be lost.
    permanent_too: bool,
}

/// Before a job has started: another worker may do it meanwhile.
pub(super) const BEFORE_JOB: RetryPolicy = RetryPolicy {
    limit: Some(Duration::from_secs(10)),
    permanent_too: false,
};
/// For what is useful but not essential.
pub(super) const OPTIONAL: RetryPolicy = RetryPolicy {
    limit: Some(Duration::from_secs(60)),
    permanent_too: false,
};
/// For a result: a store that is away or full is nobody's fault, and computing it again would not
/// help. Meanwhile the worker takes no other job.
pub(super) const RESULT: RetryPolicy = RetryPolicy {
    limit: None,
    permanent_too: true,
};

/// Whether an error is of the store and not of what is stored.
fn concerns_store(error: &ArtifactError) -> bool {
    matches!(
        error,
        ArtifactError::Store { .. } | ArtifactError::Full { .. } | ArtifactError::Unopened { .. }
    )
}

/// What becomes of an operation for which nobody waits any more.
fn unfinished() -> ArtifactError {
    ArtifactError::Store {
        key: "in progress".to_owned(),
        action: "read or written in time",
        retryable: false,
        source: Interrupted.into(),
    }
}

impl Slot {
    /// Retries while the artifact store fails, until the policy's limit, a shutdown, or `released`:
    /// the job is not this worker's any more. Heartbeats say meanwhile what the worker waits for.
    pub(super) async fn retry_store<T>(
        &self,
        policy: RetryPolicy,
        released: &CancellationToken,
        mut operation: impl AsyncFnMut() -> Result<T, ArtifactError>,
    ) -> Result<T, ArtifactError> {
        let began = Instant::now();
        let mut pause = Duration::from_millis(250);
        let mut degraded = false;
        loop {
            let outcome = tokio::select! {
                outcome = operation() => outcome,
                () = self.shutdown.deadline(self.settings.deadlines.save()) => Err(unfinished()),
                () = released.cancelled() => Err(unfinished()),
            };
            let error = match outcome {
                Err(error)
                    if concerns_store(&error)
                        && (policy.permanent_too || error.is_retryable())
                        && !self.shutdown.is_requested()
                        && !released.is_cancelled()
                        && policy.limit.is_none_or(|limit| began.elapsed() < limit) =>
                {
                    error
                }
                outcome => {
                    if degraded {
                        self.status.recovered();
                    }
                    return outcome;
                }
            };
            tracing::warn!(error = chain(&error), "artifact store failed; retrying");
            if let Some(fault) = faults::store_fault(&error) {
                self.status.degraded(fault, Some(pause));
                degraded = true;
            }
            tokio::select! {
                () = self.shutdown.sleep(pause) => {}
                () = released.cancelled() => {}
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}
