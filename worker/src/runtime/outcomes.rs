//! Outcomes kept in the artifact store, so that a redelivered job is reported and not repeated.

use super::{
    leases::JobLease,
    retry::{BEFORE_JOB, OPTIONAL},
    slot::Slot,
};
use bytes::Bytes;
use halfheard_shared::{
    artifacts::{ArtifactError, Key},
    error::chain,
    wire::{self, ResultBody},
};

impl Slot {
    /// The outcome of an earlier attempt that got that far.
    ///
    /// # Errors
    ///
    /// The artifact store cannot be read.
    pub(super) async fn earlier_outcome(
        &self,
        lease: &JobLease,
    ) -> Result<Option<ResultBody>, ArtifactError> {
        let key = Key::Outcome(lease.job.job);
        let limit = wire::MAX_BYTES as u64;
        let read = self
            .retry_transient(BEFORE_JOB, async || self.store.get(&key, limit).await)
            .await;
        let encoded = match read {
            Ok(None) => return Ok(None),
            Ok(Some(encoded)) => encoded,
            Err(error @ ArtifactError::TooLarge { .. }) => {
                tracing::warn!(error = chain(&error), "cannot read an earlier outcome");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match wire::decode(&encoded) {
            Ok(body) => Ok(Some(body)),
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot read an earlier outcome");
                Ok(None)
            }
        }
    }

    /// Keeps an outcome for later deliveries of the job. Returns the one that counts: of two
    /// concurrent attempts, the first.
    pub(super) async fn keep_outcome(&self, lease: &JobLease, body: ResultBody) -> ResultBody {
        let Ok(encoded) = wire::encode(&body) else {
            return body;
        };
        let key = Key::Outcome(lease.job.job);
        let encoded = Bytes::from(encoded);
        let put = self
            .retry_transient(OPTIONAL, async || {
                self.store.put_first(&key, encoded.clone()).await
            })
            .await;
        match put {
            Ok(first) => wire::decode(&first).unwrap_or(body),
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "cannot keep the outcome; a redelivery would repeat the job"
                );
                body
            }
        }
    }
}
