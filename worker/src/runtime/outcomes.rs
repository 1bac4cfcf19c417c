//! Speaking to the artifact store with patience, and the outcomes of jobs that lie there.

use super::{Slot, JobLease, faults};
use bytes::Bytes;
use halfheard_shared::{
    artifacts::{ArtifactError, Key},
    wire::ResultBody,
};
use std::time::{Duration, Instant};

/// How long something is tried that the artifact store does not do.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// At most so long.
    longest: Duration,
    /// Whether to try again what looks as if it could not succeed, too: a right may be given, a
    /// disk mounted, while what is at stake is done and would be lost.
    stubborn: bool,
}

/// Before a job has begun: another worker may do it meanwhile.
pub const BEFORE: Patience = Patience {
    longest: Duration::from_secs(10),
    stubborn: false,
};
/// For what is good to have.
pub const BESIDE: Patience = Patience {
    longest: Duration::from_secs(60),
    stubborn: false,
};

/// For the result of so many seconds' work: as long again is better waited than worked.
pub fn after(seconds: f64) -> Patience {
    let longest = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    Patience {
        longest: longest.clamp(Duration::from_secs(900), Duration::from_secs(12 * 3600)),
        stubborn: true,
    }
}

impl Slot {
    /// The outcome of an earlier attempt, if one got that far.
    ///
    /// # Errors
    ///
    /// The store cannot be read: then nothing else can be, either.
    pub(super) async fn earlier_outcome(
        &self,
        lease: &JobLease,
    ) -> Result<Option<ResultBody>, ArtifactError> {
        let key = Key::Outcome(lease.job.job);
        let limit = halfheard_shared::wire::MAX_BYTES as u64;
        let read = self
            .retry_transient(BEFORE, async || self.store.get(&key, limit).await)
            .await;
        let marker = match read {
            Ok(None) => return Ok(None),
            Ok(Some(marker)) => marker,
            Err(error @ ArtifactError::TooLarge { .. }) => {
                tracing::warn!(%error, "an earlier outcome cannot be read");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match halfheard_shared::wire::decode(&marker) {
            Ok(body) => Ok(Some(body)),
            Err(error) => {
                tracing::warn!(%error, "an earlier outcome cannot be read");
                Ok(None)
            }
        }
    }

    /// Leaves an outcome for later deliveries of the same job. What is returned is what counts: of
    /// two attempts at the same time the first one's.
    pub(super) async fn keep_outcome(&self, lease: &JobLease, body: ResultBody) -> ResultBody {
        let Ok(encoded) = halfheard_shared::wire::encode(&body) else {
            return body;
        };
        let key = Key::Outcome(lease.job.job);
        let encoded = Bytes::from(encoded);
        let put = self
            .retry_transient(BESIDE, async || {
                self.store.put_first(&key, encoded.clone()).await
            })
            .await;
        match put {
            Ok(first) => halfheard_shared::wire::decode(&first).unwrap_or(body),
            Err(error) => {
                tracing::warn!(%error, "the outcome is not kept: a second delivery would do it again");
                body
            }
        }
    }

    /// Tries again what the artifact store did not do, until patience ends or the worker leaves.
    /// Meanwhile others see what it waits for.
    pub(super) async fn retry_transient<T>(
        &self,
        patience: Patience,
        mut call: impl AsyncFnMut() -> Result<T, ArtifactError>,
    ) -> Result<T, ArtifactError> {
        let began = Instant::now();
        let mut pause = Duration::from_millis(250);
        let mut waited = false;
        loop {
            let outcome = call().await;
            match outcome {
                Err(error)
                    if matches!(&error, ArtifactError::Store { .. })
                        && (patience.stubborn || error.is_retryable())
                        && !self.shutdown.is_requested()
                        && began.elapsed() < patience.longest =>
                {
                    tracing::warn!(error = crate::chain(&error), "trying again");
                    if let Some(fault) = faults::of_store(&error) {
                        self.status.hindered(fault, Some(pause));
                        waited = true;
                    }
                    self.shutdown.sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(30));
                }
                outcome => {
                    if waited && outcome.is_ok() {
                        self.status.unhindered();
                    }
                    return outcome;
                }
            }
        }
    }
}
