//! What workers do: device, memory, pace, faults, versions, and what they did in the last hour.

mod paces;
mod row;
mod view;

use crate::{
    Page,
    error::PageError,
    kept::Kept,
    layout::{Section, shell},
};
use axum::{
    Extension, Router,
    extract::{Query, State},
    routing::get,
};
use halfheard_shared::{error::chain, ids::JobId, wire::Heartbeat};
use halfheard_store::{Store, StoreError, drained::Drained, worker_tallies::WorkerTally};
use maud::Markup;
use paces::Paces;
use row::{Row, Standing};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

/// How far back ended attempts are counted.
const LATELY: Duration = Duration::from_secs(3600);
/// Workers on one page.
const PER_PAGE: usize = 200;

/// What viewers share.
#[derive(Debug, Default)]
struct Shared {
    /// Every attempt of the last hour is counted for it.
    tallies: Kept<HashMap<String, WorkerTally>>,
    paces: Paces,
}

/// What the database says about workers.
#[derive(Debug)]
struct Known {
    tallies: Arc<HashMap<String, WorkerTally>>,
    drained: Vec<Drained>,
    /// How long the last epoch of each training in progress took, in seconds.
    epochs: HashMap<JobId, f64>,
}

/// Which workers are shown.
#[derive(Clone, Debug, Default, Deserialize)]
struct Asked {
    /// A part of a name, machine, device, label, version, or of what the worker does.
    #[serde(default)]
    filter: String,
    /// One of the standings; empty for all.
    #[serde(default)]
    state: String,
    /// From 1.
    #[serde(default)]
    page: Option<usize>,
}

pub(crate) fn routes() -> Router<Page> {
    Router::new()
        .route("/workers", get(show))
        .layer(Extension(Arc::new(Shared::default())))
}

async fn show(
    State(page): State<Page>,
    Extension(shared): Extension<Arc<Shared>>,
    Query(asked): Query<Asked>,
) -> Result<Markup, PageError> {
    let beats = page.heartbeats.heard();
    let jobs: Vec<JobId> = beats
        .iter()
        .filter_map(|beat| Some(beat.doing.as_ref()?.job))
        .collect();
    // Heartbeats come by the broker: workers are shown while the database is away.
    let (known, problem) = match known(&page.store, &shared, &jobs).await {
        Ok(known) => (Some(known), None),
        Err(error) => (None, Some(chain(&error))),
    };
    let paces = shared.paces.look(&beats);
    let rows = rows(&beats, known.as_ref(), &paces);
    let counts = Standing::ALL.map(|standing| {
        (
            standing,
            rows.iter().filter(|row| row.standing == standing).count(),
        )
    });
    let seen = view::Seen {
        hosts: rows
            .iter()
            .map(|row| &row.beat.worker.host)
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        versions: versions(&beats),
        absent: known
            .as_ref()
            .map(|known| absent(known, &beats))
            .unwrap_or_default(),
        counts,
        problem,
    };
    let mut shown: Vec<&Row<'_>> = rows.iter().filter(|row| asked.shows(row)).collect();
    shown.sort_by_key(|row| row.order());
    let pages = shown.len().div_ceil(PER_PAGE).max(1);
    let number = asked.page.unwrap_or(1).clamp(1, pages);
    let found = shown.len();
    let part: Vec<&Row<'_>> = shown
        .into_iter()
        .skip((number - 1) * PER_PAGE)
        .take(PER_PAGE)
        .collect();
    let main = view::body(
        &page,
        &asked,
        &seen,
        &part,
        view::Pages {
            number,
            pages,
            found,
        },
    );
    Ok(shell(&page, Section::Workers, "Workers", &main))
}

async fn known(store: &Store, shared: &Shared, jobs: &[JobId]) -> Result<Known, StoreError> {
    let asked = store.clone();
    let tallies = async move { asked.worker_tallies(LATELY).await };
    Ok(Known {
        tallies: shared.tallies.get(tallies).await?,
        drained: store.drained().await?,
        epochs: store.epoch_seconds(jobs).await?,
    })
}

fn rows<'a>(
    beats: &'a [Heartbeat],
    known: Option<&Known>,
    paces: &HashMap<String, f64>,
) -> Vec<Row<'a>> {
    let usual = versions(beats)
        .into_iter()
        .next()
        .map(|(version, _)| version);
    beats
        .iter()
        .map(|beat| {
            let drained = known.and_then(|known| {
                known
                    .drained
                    .iter()
                    .find(|drained| drained.covers(&beat.worker))
                    .cloned()
            });
            let epoch = beat.doing.as_ref().and_then(|doing| {
                let seconds = known?
                    .epochs
                    .get(&doing.job)
                    .filter(|seconds| **seconds > 0.0)?;
                (doing.epoch > 0 && doing.steps > 0).then(|| f64::from(doing.steps) / seconds)
            });
            Row {
                standing: Standing::of(beat, drained.is_some()),
                pace: paces.get(&beat.worker.name).copied().or(epoch),
                tally: known.map(|known| {
                    known
                        .tallies
                        .get(&beat.worker.name)
                        .copied()
                        .unwrap_or_default()
                }),
                other_version: usual
                    .as_ref()
                    .is_some_and(|usual| *usual != beat.worker.version),
                drained,
                beat,
            }
        })
        .collect()
}

/// The versions of workers with their numbers, the most frequent first.
fn versions(beats: &[Heartbeat]) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for beat in beats {
        *counts.entry(&beat.worker.version).or_default() += 1;
    }
    let mut versions: Vec<(String, usize)> = counts
        .into_iter()
        .map(|(version, count)| (version.to_owned(), count))
        .collect();
    versions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    versions
}

/// Drained names that stand for no worker that is heard.
fn absent(known: &Known, beats: &[Heartbeat]) -> Vec<Drained> {
    let heard = |drained: &&Drained| !beats.iter().any(|beat| drained.covers(&beat.worker));
    known.drained.iter().filter(heard).cloned().collect()
}

impl Asked {
    fn shows(&self, row: &Row<'_>) -> bool {
        (self.state.is_empty() || self.state == row.standing.key()) && row.matches(&self.filter)
    }
}
