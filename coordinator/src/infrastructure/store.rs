//! What an artifact store allows.

use super::Remark;
use crate::housekeeping::size::Bytes;
use halfheard_shared::{
    artifacts::{ArtifactStore, Inventory},
    error::chain,
};

/// The share of a limit from which on it is worth a warning.
pub(crate) const NEARLY_FULL: f64 = 0.8;

/// Writes, reads, deletes and lists. Returns what lies in the store, if it can be listed.
pub(crate) async fn remarks(artifacts: &ArtifactStore) -> (Vec<Remark>, Option<Inventory>) {
    let mut remarks = Vec::new();
    if let Err(error) = artifacts.probe("doctor").await {
        remarks.push(Remark::fatal(
            format!(
                "the artifact store does not do what workers need: {}",
                chain(&error)
            ),
            "give the login the rights to read, write and delete objects",
        ));
        return (remarks, None);
    }
    match artifacts.quota().await {
        Ok(Some(quota)) if quota.share() >= NEARLY_FULL => remarks.push(Remark::warning(
            format!(
                "artifacts take {} of at most {}",
                Bytes(quota.used),
                Bytes(quota.limit)
            ),
            "free some with `coord gc`, or raise the limit of the bucket's stream",
        )),
        Ok(_) => {}
        Err(error) => remarks.push(Remark::warning(
            format!(
                "how full the artifact store is is unknown: {}",
                chain(&error)
            ),
            "give the login the right to ask about its stream",
        )),
    }
    match artifacts.inventory().await {
        Ok(inventory) => (remarks, Some(inventory)),
        Err(error) => {
            remarks.push(Remark::warning(
                chain(&error),
                "give the login the right to list: `coord gc` and `coord doctor --checkpoints` need it",
            ));
            (remarks, None)
        }
    }
}
