//! Retries of transactions that lost against another one.

use crate::{StoreError, fault::is_rollback};
use halfheard_shared::{error::chain, retry::Backoff};

/// Rollbacks of one transaction before its error is returned.
pub(crate) const MAX_ROLLBACKS: u32 = 20;

/// Repeats a transaction while Postgres rolls it back in favor of another one.
pub(crate) async fn retry_rollback<T, F, Fut>(mut action: F) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    let mut backoff = Backoff::default();
    for _ in 0..MAX_ROLLBACKS {
        match action().await {
            Err(StoreError::Query(error)) if is_rollback(&error) => {
                tracing::debug!(error = chain(&error), "transaction rolled back; retrying");
                tokio::time::sleep(backoff.delay()).await;
            }
            outcome => return outcome,
        }
    }
    action().await
}
