//! How much room artifacts, the broker and the database take.

use crate::{config::Settings, housekeeping::size::Bytes, infrastructure::store::NEARLY_FULL};
use halfheard_shared::{
    address::redacted,
    artifacts::{Amount, ArtifactKind, ArtifactStore, Quota},
    broker::Broker,
    error::chain,
};
use halfheard_store::Store;
use serde::Serialize;
use std::{collections::BTreeMap, fmt, time::Duration};

/// How long the store may take: the status without its size is still useful.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What takes room.
#[derive(Debug, Serialize)]
pub(super) struct Room {
    /// The store's address.
    store: String,
    /// Artifacts by kind; unknown if the store does not answer in time.
    artifacts: Option<BTreeMap<ArtifactKind, Amount>>,
    /// Temporary files and parts of broken uploads.
    leftovers: Option<Amount>,
    /// Why they are unknown.
    store_error: Option<String>,
    /// The bucket on the broker, if it has a limit.
    bucket: Option<Quota>,
    /// What the broker's account stores, if it has a limit.
    broker: Option<Quota>,
    /// Bytes of the database; unknown if it does not say.
    database_bytes: Option<i64>,
}

impl Room {
    pub(super) async fn load(
        settings: &Settings,
        database: &Store,
        broker: Option<&Broker>,
    ) -> Self {
        let mut room = Self {
            store: redacted(&settings.artifacts),
            artifacts: None,
            leftovers: None,
            store_error: None,
            bucket: None,
            broker: None,
            database_bytes: database.database_bytes().await.ok(),
        };
        let listed = tokio::time::timeout(TIMEOUT, room.list(settings, database, broker)).await;
        room.store_error = match listed {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => {
                Some("not counted within 2 s; `coord gc --dry-run` takes its time".to_owned())
            }
        };
        if let Some(broker) = broker {
            let account = tokio::time::timeout(TIMEOUT, broker.jetstream().query_account()).await;
            if let Ok(Ok(account)) = account
                && let Some(limit) = account.limits.max_storage.filter(|&limit| limit > 0)
            {
                room.broker = Some(Quota {
                    used: account.storage,
                    limit: limit.cast_unsigned(),
                });
            }
        }
        room
    }

    async fn list(
        &mut self,
        settings: &Settings,
        database: &Store,
        broker: Option<&Broker>,
    ) -> Result<(), String> {
        // Opening a folder makes it, which a look at it must not.
        if let Some(folder) = settings.artifacts.strip_prefix("file://")
            && !std::path::Path::new(folder).is_dir()
        {
            return Err("not on this machine".to_owned());
        }
        let failed = |error| chain(&error);
        let artifacts = ArtifactStore::open(&settings.artifacts, broker)
            .await
            .map_err(failed)?;
        let found = artifacts.current_id().await.map_err(failed)?;
        let known = database
            .artifact_store()
            .await
            .map_err(|error| chain(&error))?;
        if found.is_some() && known.is_some() && found != known {
            return Err("another store than that of the workers".to_owned());
        }
        self.bucket = artifacts.quota().await.map_err(failed)?;
        let inventory = artifacts.inventory().await.map_err(failed)?;
        self.artifacts = Some(inventory.by_kind());
        self.leftovers = Some(inventory.leftover());
        Ok(())
    }

    /// What is nearly full, on a line each.
    fn warnings(&self) -> impl Iterator<Item = String> {
        [
            (
                "artifacts on the broker",
                self.bucket,
                "free some with `coord gc`",
            ),
            (
                "the broker's account",
                self.broker,
                "raise its limit, or free some",
            ),
        ]
        .into_iter()
        .filter_map(|(what, quota, remedy)| {
            let quota = quota.filter(|quota| quota.share() >= NEARLY_FULL)?;
            let (used, limit) = (Bytes(quota.used), Bytes(quota.limit));
            Some(format!(
                "warning: {what}: {used} of at most {limit}: {remedy}"
            ))
        })
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (kind, amount) in self.artifacts.iter().flatten() {
            if *kind != ArtifactKind::Store {
                parts.push(format!("{kind} {}", Bytes(amount.bytes)));
            }
        }
        if let Some(leftovers) = self.leftovers.filter(|amount| amount.bytes > 0) {
            parts.push(format!("broken uploads {}", Bytes(leftovers.bytes)));
        }
        if let Some(error) = &self.store_error {
            parts.push(format!("artifacts {error}"));
        }
        if let Some(bytes) = self.database_bytes {
            parts.push(format!("database {}", Bytes(bytes.cast_unsigned())));
        }
        if !parts.is_empty() {
            writeln!(f, "room: {}", parts.join(", "))?;
        }
        for warning in self.warnings() {
            writeln!(f, "{warning}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearly_full_broker_is_named() {
        let mut room = Room {
            store: "nats://".to_owned(),
            artifacts: Some(BTreeMap::from([(
                ArtifactKind::Checkpoints,
                Amount {
                    count: 2,
                    bytes: 1_300_000_000,
                },
            )])),
            leftovers: Some(Amount::default()),
            store_error: None,
            bucket: Some(Quota {
                used: 79,
                limit: 100,
            }),
            broker: None,
            database_bytes: Some(9_000_000),
        };
        assert_eq!(
            room.to_string(),
            "room: checkpoints 1.3 GB, database 9.0 MB\n"
        );
        room.bucket = Some(Quota {
            used: 1_600_000,
            limit: 2_000_000,
        });
        let shown = room.to_string();
        assert!(shown.contains("1.6 MB of at most 2.0 MB"), "{shown}");
        assert!(shown.contains("coord gc"), "{shown}");
    }
}
