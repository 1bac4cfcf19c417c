//! Checks of the broker and the database.

use super::finding::Finding;
use crate::{
    config::{Origin, Settings},
    infrastructure::{self, Remark, Weight},
    local::{Database, Servers},
};
use halfheard_shared::{
    broker::BrokerError,
    error::{Hint as _, chain},
    text::count,
};
use halfheard_store::{Store, StoreError};
use std::time::Duration;

/// How long each server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn broker(settings: &Settings) -> Finding {
    const WHAT: &str = "broker";
    let address = settings.broker.address();
    let reason = match tokio::time::timeout(TIMEOUT, query_broker(settings)).await {
        Ok(Ok((version, has_streams))) => {
            let streams = match has_streams {
                true => "its streams exist",
                false => "its streams do not exist yet (`coord serve` creates them)",
            };
            return Finding::ok(
                WHAT,
                format!("nats-server {version} at {address} with JetStream; {streams}"),
            );
        }
        Ok(Err(reason)) => reason,
        Err(_) => format!("{address} does not answer"),
    };
    unreachable(
        WHAT,
        &settings.broker_origin,
        reason,
        "start `nats-server -c deploy/nats.conf`, or set HALFHEARD_NATS_URL (docs/guide/cluster.md)",
    )
}

/// What the broker's account and the database's login do not allow, of servers that answer.
pub(super) async fn limits(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let broker = async {
        let broker = settings.broker.connect().await.ok()?;
        Some(infrastructure::broker::remarks(&broker).await)
    };
    if let Ok(Some(remarks)) = tokio::time::timeout(TIMEOUT, broker).await {
        findings.extend(
            remarks
                .into_iter()
                .map(|remark| of_remark("broker limits", remark)),
        );
    }
    let database = async {
        let store = Store::connect_with(settings.database.clone()).await.ok()?;
        store.check().await.ok()?;
        infrastructure::database::remarks(&store).await.ok()
    };
    if let Ok(Some(remarks)) = tokio::time::timeout(TIMEOUT, database).await {
        findings.extend(
            remarks
                .into_iter()
                .map(|remark| of_remark("database limits", remark)),
        );
    }
    findings
}

/// A remark as a finding.
pub(super) fn of_remark(what: &'static str, remark: Remark) -> Finding {
    match remark.weight {
        Weight::Warning => Finding::warn(what, remark.found, remark.remedy),
        Weight::Fatal => Finding::bad(what, remark.found, remark.remedy),
    }
}

/// Returns the broker's version and whether its streams exist.
async fn query_broker(settings: &Settings) -> Result<(String, bool), String> {
    let connected: Result<_, BrokerError> = settings.broker.connect().await;
    let broker = connected.map_err(|error| chain(&error))?;
    let version = broker.client().server_info().version;
    broker
        .jetstream()
        .query_account()
        .await
        .map_err(|error| format!("it has no JetStream: {error}"))?;
    Ok((version, broker.results().await.is_ok()))
}

/// A server that is not configured may be unreachable: `coord run` starts its own.
fn unreachable(what: &'static str, origin: &Origin, reason: String, remedy: &str) -> Finding {
    match origin {
        Origin::Default | Origin::Private => Finding::warn(
            what,
            "not configured, and none answers at the default address; `coord run` needs none",
            remedy,
        ),
        origin => Finding::bad(what, format!("{reason} (from {origin})"), remedy),
    }
}

const DATABASE: &str = "database";

pub(super) async fn database(settings: &Settings) -> Finding {
    if settings.database_origin == Origin::Default && Servers::exists(&settings.data_dir) {
        return private_database(settings).await;
    }
    let query = async {
        let store = Store::connect_with(settings.database.clone()).await?;
        let version = server_version(&store).await;
        Ok::<_, StoreError>((version, store.missing_migrations().await))
    };
    let address = settings.database_address();
    let reason = match tokio::time::timeout(TIMEOUT, query).await {
        Ok(Ok((version, Ok(0)))) => {
            return Finding::ok(
                DATABASE,
                format!("PostgreSQL {version} at {address}, migrated"),
            );
        }
        Ok(Ok((version, Ok(missing)))) => {
            let missing = count(missing, "migration");
            return Finding::bad(
                DATABASE,
                format!("PostgreSQL {version} at {address} lacks {missing}"),
                "run `coord migrate`",
            );
        }
        Ok(Ok((_, Err(error)))) => {
            let remedy = error.hint();
            return Finding::bad(DATABASE, chain(&error), remedy.unwrap_or_default());
        }
        Ok(Err(error)) => chain(&error),
        Err(_) => format!("{address} does not answer"),
    };
    unreachable(
        DATABASE,
        &settings.database_origin,
        reason,
        "start PostgreSQL 15 or newer and run `createdb halfheard && coord migrate`, or set \
         HALFHEARD_DATABASE_URL",
    )
}

async fn private_database(settings: &Settings) -> Finding {
    match Database::open(settings).await {
        Ok(database) => {
            let version = server_version(&database).await;
            database.close().await;
            let found = format!("the private one of `coord run`, PostgreSQL {version}, migrated");
            Finding::ok(DATABASE, found)
        }
        Err(error) => Finding::bad(
            DATABASE,
            chain(error.as_ref()),
            "see embedded/postgres.log in the data folder",
        ),
    }
}

async fn server_version(store: &Store) -> String {
    let version = store.server_version().await;
    version.unwrap_or_else(|_| "of unknown version".to_owned())
}
