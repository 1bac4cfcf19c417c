//! Opening the artifact store, and making sure that it is this installation's.

use crate::config::Settings;
use halfheard_shared::{
    address::redacted,
    artifacts::ArtifactStore,
    broker::{Broker, BrokerSettings},
    error::{Hint, hinted},
};
use halfheard_store::Store;
use std::path::Path;

/// The store is not the installation's.
#[derive(Debug, thiserror::Error)]
#[error("the artifact store at {address} is {found}, and the one of this installation is {known}")]
pub(crate) struct OtherStore {
    /// Its address.
    address: String,
    /// Its id.
    found: String,
    /// The id of the one that the workers use.
    known: String,
}

impl Hint for OtherStore {
    fn hint(&self) -> Option<String> {
        Some(
            "set HALFHEARD_ARTIFACTS to the store of the workers; if theirs was lost, `coord doctor --checkpoints --repair` goes on with this one"
                .to_owned(),
        )
    }
}

/// Opens the store of the settings; a bucket on the broker is made if it is missing.
///
/// # Errors
///
/// It cannot be opened; the broker's objects belong to another installation.
pub(crate) async fn open(settings: &Settings, database: &Store) -> anyhow::Result<ArtifactStore> {
    open_at(&settings.artifacts, &settings.broker, database).await
}

/// As [`open`], from the parts of the settings.
pub(crate) async fn open_at(
    artifacts: &str,
    broker: &BrokerSettings,
    database: &Store,
) -> anyhow::Result<ArtifactStore> {
    // Opening a folder makes it: an empty one in place of a mount would be taken for the store.
    if let Some(folder) = artifacts.strip_prefix("file://")
        && !Path::new(folder).is_dir()
        && database.artifact_store().await?.is_some()
    {
        let message = format!("the artifact store's folder {folder} does not exist here");
        return Err(hinted(message, "mount it, or set HALFHEARD_ARTIFACTS").into());
    }
    let broker: Option<Broker> = if artifacts.starts_with("nats:") {
        let broker = broker.connect().await?;
        broker.ensure(&database.installation().await?).await?;
        Some(broker)
    } else {
        None
    };
    Ok(ArtifactStore::open(artifacts, broker.as_ref()).await?)
}

/// Opens the store of the settings, which must be the one that the workers use. Before the first
/// worker any is: then it becomes the installation's.
///
/// # Errors
///
/// As [`open`]; [`OtherStore`].
pub(crate) async fn open_own(
    settings: &Settings,
    database: &Store,
) -> anyhow::Result<ArtifactStore> {
    let artifacts = open(settings, database).await?;
    check(&artifacts, &settings.artifacts, database).await?;
    Ok(artifacts)
}

/// Checks that a store is the installation's.
///
/// # Errors
///
/// It is another one ([`OtherStore`]), or does not answer.
pub(crate) async fn check(
    artifacts: &ArtifactStore,
    address: &str,
    database: &Store,
) -> anyhow::Result<()> {
    let found = artifacts.id().await?;
    match database.claim_store(&found).await? {
        Ok(()) => Ok(()),
        Err(known) => Err(OtherStore {
            address: redacted(address),
            found,
            known,
        }
        .into()),
    }
}
