//! What a spec asks of workers that no live one has.

use crate::{
    commands::status::{BrokerState, unmet},
    config::Settings,
    submission::Loaded,
};
use halfheard_shared::matrix::{self, Needs};
use halfheard_store::measured_needs::OpenNeed;
use std::{collections::BTreeMap, sync::Arc};

/// One line for each need that no live worker meets. Nothing where the spec has none, or where no
/// worker is known: they may be started later.
pub(super) async fn unmet_by_workers(loaded: &Loaded, settings: &Settings) -> Vec<String> {
    let needs = open_needs(loaded);
    if needs.is_empty() {
        return Vec::new();
    }
    let workers = BrokerState::connect(settings).await.live_workers().await;
    unmet(&needs, &workers)
}

/// What the spec's jobs need of a worker, for those that need anything.
fn open_needs(loaded: &Loaded) -> Vec<OpenNeed> {
    let mut jobs: BTreeMap<(u64, Option<Arc<str>>), i64> = BTreeMap::new();
    for job in matrix::expand(loaded.resolved.clone(), None) {
        if job.needs != Needs::default() {
            let need = (job.needs.memory, job.needs.label);
            *jobs.entry(need).or_default() += 1;
        }
    }
    let need = |((memory, label), jobs): ((u64, Option<Arc<str>>), i64)| OpenNeed {
        memory: i64::try_from(memory).unwrap_or(i64::MAX),
        label: label.map(|label| label.to_string()),
        jobs,
    };
    jobs.into_iter().map(need).collect()
}
