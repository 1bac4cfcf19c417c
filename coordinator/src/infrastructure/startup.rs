//! The checks at the start of the daemon.

use super::{Remark, Weight, broker, database};
use halfheard_shared::{broker::Broker, error::chain};
use halfheard_store::Store;
use std::time::Duration;

/// How long the checks of a server may take; a server that is busy is not kept waiting for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at the database and the broker, and says what must be changed: a line for each.
///
/// # Errors
///
/// Nothing works until something is changed: the first such thing.
pub(crate) async fn check(store: &Store, broker: &Broker) -> Result<(), Remark> {
    let mut remarks = Vec::new();
    match tokio::time::timeout(PATIENCE, database::remarks(store)).await {
        Ok(Ok(found)) => remarks.extend(found),
        Ok(Err(error)) if database::loses_statements(&error) => {
            remarks.push(database::transaction_pooling());
        }
        Ok(Err(error)) => tracing::debug!(error = chain(&error), "database not checked"),
        Err(_) => tracing::debug!("database not checked in time"),
    }
    match tokio::time::timeout(PATIENCE, broker::remarks(broker)).await {
        Ok(found) => remarks.extend(found),
        Err(_) => tracing::debug!("broker not checked in time"),
    }
    let mut fatal = None;
    for remark in remarks {
        match remark.weight {
            Weight::Warning => tracing::warn!(remedy = remark.remedy, "{}", remark.found),
            Weight::Fatal if fatal.is_none() => fatal = Some(remark),
            Weight::Fatal => tracing::error!(remedy = remark.remedy, "{}", remark.found),
        }
    }
    fatal.map_or(Ok(()), Err)
}
