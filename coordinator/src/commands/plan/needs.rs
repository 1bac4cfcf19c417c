//! What a spec asks of workers that no live one has.

use crate::{
    commands::status::BrokerState,
    config::Settings,
    submission::{Loaded, programs},
};
use halfheard_progress::{no_external, unmet};
use halfheard_shared::matrix::{self, Needs};
use halfheard_store::measured_needs::OpenNeed;
use std::{collections::BTreeMap, sync::Arc};

/// One line for each need that no live worker meets. Nothing where the spec has none, or where no
/// worker is known: they may be started later.
pub(super) async fn unmet_by_workers(loaded: &Loaded, settings: &Settings) -> Vec<String> {
    let needs = open_needs(loaded);
    let external = external_jobs(loaded);
    if needs.is_empty() && external.is_empty() {
        return Vec::new();
    }
    let workers = BrokerState::connect(settings).await.live_workers().await;
    let mut lines = unmet(&needs, &workers);
    lines.extend(no_external(&external, &workers));
    lines
}

/// The external programs of the spec with the number of their jobs.
fn external_jobs(loaded: &Loaded) -> Vec<(String, i64)> {
    let resolved = &loaded.resolved;
    let each = resolved.datasets.len() * resolved.seeds.len() * (1 + resolved.cases.len());
    let jobs = |method: &str| {
        let variants = resolved.methods.iter().filter(|own| own.method == method);
        i64::try_from(variants.count() * each).unwrap_or(i64::MAX)
    };
    let programs = programs::of_sweep(resolved);
    let methods = programs.methods().into_iter();
    methods
        .map(|method| (method.to_owned(), jobs(method)))
        .collect()
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
