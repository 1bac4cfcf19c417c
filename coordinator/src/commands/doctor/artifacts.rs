//! Checks of the artifact store, and of the checkpoints in it.

use super::{finding::Finding, servers::of_remark};
use crate::{
    config::{Origin, Settings},
    housekeeping::{
        confirm::confirm,
        missing::{self, Missing},
        own_store,
        size::Bytes,
    },
    infrastructure,
    local::Database,
};
use halfheard_shared::{
    address::redacted,
    artifacts::ArtifactStore,
    error::{Hint as _, chain},
    text::count,
};
use std::{path::Path, time::Duration};

/// How long the store may take to be listed.
const TIMEOUT: Duration = Duration::from_secs(30);
const STORE: &str = "artifact store";
const CHECKPOINTS: &str = "checkpoints";
/// Missing checkpoints that are listed.
const LISTED: usize = 20;
/// What is said of a training that is done again.
const REASON: &str = "its checkpoints are missing from the artifact store";

/// Checks that the artifact store can be written, read and listed.
pub(super) async fn store(settings: &Settings) -> Vec<Finding> {
    let address = redacted(&settings.artifacts);
    if settings.artifacts_origin == Origin::Default && !settings.data_dir.join("artifacts").exists()
    {
        let found = "not configured; `coord run` keeps artifacts in the data folder";
        return vec![Finding::ok(STORE, found)];
    }
    if let Some(folder) = settings.artifacts.strip_prefix("file://")
        && !Path::new(folder).is_dir()
    {
        let found = format!("{folder} does not exist on this machine");
        let remedy = "mount it, or set HALFHEARD_ARTIFACTS";
        return vec![Finding::warn(STORE, found, remedy)];
    }
    let checked = async {
        // Its own object store needs the broker, and is made by the coordinator.
        let broker = match settings.artifacts.starts_with("nats:") {
            true => settings
                .broker
                .connect()
                .await
                .map(Some)
                .map_err(|e| chain(&e))?,
            false => None,
        };
        let artifacts = ArtifactStore::open(&settings.artifacts, broker.as_ref())
            .await
            .map_err(|error| chain(&error))?;
        Ok::<_, String>(infrastructure::store::remarks(&artifacts).await)
    };
    let (remarks, inventory) = match tokio::time::timeout(TIMEOUT, checked).await {
        Ok(Ok(checked)) => checked,
        Ok(Err(reason)) => {
            let remedy = "check HALFHEARD_ARTIFACTS and its rights (docs/guide/cluster.md)";
            return vec![Finding::bad(STORE, reason, remedy)];
        }
        Err(_) => {
            let found = format!("{address} does not answer");
            return vec![Finding::warn(STORE, found, "try again")];
        }
    };
    let mut findings = Vec::new();
    if let Some(inventory) = inventory {
        let kinds: Vec<String> = inventory
            .by_kind()
            .into_iter()
            .map(|(kind, amount)| format!("{kind} {}", Bytes(amount.bytes)))
            .collect();
        let held = match kinds.is_empty() {
            true => "empty".to_owned(),
            false => kinds.join(", "),
        };
        findings.push(Finding::ok(STORE, format!("{address}: {held}")));
    }
    findings.extend(remarks.into_iter().map(|remark| of_remark(STORE, remark)));
    findings
}

/// Compares the checkpoints of results with those in the store, and has trainings done again if asked
/// to.
///
/// # Errors
///
/// The repair fails, or there is nobody to ask.
pub(super) async fn checkpoints(
    settings: &Settings,
    repair: bool,
    yes: bool,
) -> anyhow::Result<Vec<Finding>> {
    let database = match Database::open(settings).await {
        Ok(database) => database,
        Err(error) => {
            let found = chain(error.as_ref());
            return Ok(vec![Finding::bad(CHECKPOINTS, found, "see database")]);
        }
    };
    let findings = examine(settings, &database, repair, yes).await;
    database.close().await;
    findings
}

async fn examine(
    settings: &Settings,
    database: &Database,
    repair: bool,
    yes: bool,
) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let artifacts = match own_store::open(settings, database).await {
        Ok(artifacts) => artifacts,
        Err(error) => {
            let found = chain(error.as_ref());
            return Ok(vec![Finding::bad(CHECKPOINTS, found, "see artifact store")]);
        }
    };
    if let Err(error) = own_store::check(&artifacts, &settings.artifacts, database).await {
        let Some(other) = error.downcast_ref::<own_store::OtherStore>() else {
            return Err(error);
        };
        let question = format!("{other}. Go on with this one?");
        if !repair || !confirm(&question, yes)? {
            let remedy = other.hint().unwrap_or_default();
            return Ok(vec![Finding::bad(CHECKPOINTS, other.to_string(), remedy)]);
        }
        database.replace_store(Some(&artifacts.id().await?)).await?;
        findings.push(Finding::ok(
            CHECKPOINTS,
            "the installation goes on with this artifact store",
        ));
    }
    let found = missing::find(&artifacts, database).await?;
    if found.missing.is_empty() {
        let checkpoints = count(found.expected as usize, "checkpoint");
        findings.push(Finding::ok(
            CHECKPOINTS,
            format!("{checkpoints}, none missing"),
        ));
        return Ok(findings);
    }
    findings.push(match repair {
        true => send_back(&found, database, yes).await?,
        false => Finding::bad(
            CHECKPOINTS,
            describe(&found),
            "restore them (`coord restore`), or have their trainings done again with `coord doctor --checkpoints --repair`",
        ),
    });
    Ok(findings)
}

fn describe(found: &Missing) -> String {
    let mut text = format!(
        "{} of {} missing, of {}:",
        found.missing.len(),
        count(found.expected as usize, "checkpoint"),
        count(found.trainings().len(), "training job")
    );
    for checkpoint in found.missing.iter().take(LISTED) {
        let job = checkpoint.jobs.first().map(|job| job.short());
        text += &format!(" {} (job {})", &checkpoint.blake3, job.unwrap_or_default());
    }
    if found.missing.len() > LISTED {
        text += " ...";
    }
    text
}

async fn send_back(found: &Missing, database: &Database, yes: bool) -> anyhow::Result<Finding> {
    let trainings = found.trainings();
    let question = format!("Do {} again?", count(trainings.len(), "training job"));
    if !confirm(&question, yes)? {
        return Ok(Finding::bad(
            CHECKPOINTS,
            describe(found),
            "nothing was changed",
        ));
    }
    let mut sent = 0;
    for training in trainings {
        sent += usize::from(database.retrain(training, REASON).await?.is_some());
    }
    Ok(Finding::warn(
        CHECKPOINTS,
        format!(
            "{} missing; {} sent back",
            count(found.missing.len(), "checkpoint"),
            count(sent, "training job")
        ),
        "`coord serve` and workers do them again; their weights must have the same hash",
    ))
}
