//! All sweeps at a glance, asked for once whoever looks: counts every second, costs and forecasts less
//! often and in the background.

use crate::kept::Kept;
use halfheard_progress::{Ending, Snapshot, forecast_ending};
use halfheard_shared::{
    broker::heartbeats::Heartbeats, error::chain, ids::SweepId, wire::Heartbeat,
};
use halfheard_store::{
    Store, StoreError, SweepState,
    board::{BoardRow, Cost},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often costs and forecasts are computed anew.
const ESTIMATE_EVERY: Duration = Duration::from_secs(10);
/// Computing them takes at most this share of the time.
const SHARE: u32 = 10;
/// How long the first page waits for them.
const PATIENCE: Duration = Duration::from_millis(250);

/// All sweeps at a glance.
#[derive(Debug, Default)]
pub(crate) struct Board {
    rows: Kept<Vec<BoardRow>>,
    estimates: Arc<Mutex<Estimates>>,
}

/// What a sweep costs, and when it will have ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Estimate {
    /// What it has cost so far.
    pub(crate) cost: Cost,
    /// The time left and the work left, once jobs have been timed and workers are there.
    pub(crate) ending: Option<Ending>,
    /// When that was computed.
    pub(crate) at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Estimates {
    all: HashMap<SweepId, Estimate>,
    /// Not before this they are computed again; `None` before the first time.
    next: Option<Instant>,
    computing: bool,
}

impl Board {
    /// All sweeps, newest first, with what they cost and when they end as far as that is known.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub(crate) async fn load(
        &self,
        store: &Store,
        heartbeats: &Heartbeats,
    ) -> Result<(Arc<Vec<BoardRow>>, HashMap<SweepId, Estimate>), StoreError> {
        let asked = store.clone();
        let rows = self.rows.get(async move { asked.board().await }).await?;
        if let Some(first) = self.begin() {
            let computing = tokio::spawn(compute(
                store.clone(),
                rows.clone(),
                heartbeats.heard(),
                self.estimates.clone(),
            ));
            if first {
                // It goes on by itself; the next page has it.
                let _ = tokio::time::timeout(PATIENCE, computing).await;
            }
        }
        Ok((rows, lock(&self.estimates).all.clone()))
    }

    /// Counts anew, before somebody is told that something changed. Returns how long these counts are
    /// shown.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub(crate) async fn renew(&self, store: &Store) -> Result<Duration, StoreError> {
        self.rows.renew(store.board()).await
    }

    /// Forgets the counts, because the page itself changed something.
    pub(crate) async fn forget(&self) {
        self.rows.forget().await;
    }

    /// Whether estimates are to be computed now, and if so, whether for the first time.
    fn begin(&self) -> Option<bool> {
        let mut estimates = lock(&self.estimates);
        let due = estimates.next.is_none_or(|next| next <= Instant::now());
        (due && !std::mem::replace(&mut estimates.computing, true))
            .then_some(estimates.next.is_none())
    }
}

fn lock(estimates: &Mutex<Estimates>) -> std::sync::MutexGuard<'_, Estimates> {
    estimates.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Computes what sweeps cost and when they end. What fails stays as it was.
async fn compute(
    store: Store,
    rows: Arc<Vec<BoardRow>>,
    workers: Vec<Heartbeat>,
    estimates: Arc<Mutex<Estimates>>,
) {
    let began = Instant::now();
    let outcome = estimate(&store, &rows, &workers).await;
    let mut estimates = lock(&estimates);
    let pause = match outcome {
        Ok(all) => {
            estimates.all = all;
            ESTIMATE_EVERY.max(began.elapsed() * SHARE)
        }
        // How long a database took not to answer says nothing.
        Err(error) => {
            tracing::debug!(error = chain(&error), "no forecasts");
            ESTIMATE_EVERY
        }
    };
    estimates.computing = false;
    estimates.next = Some(Instant::now() + pause);
}

async fn estimate(
    store: &Store,
    rows: &[BoardRow],
    workers: &[Heartbeat],
) -> Result<HashMap<SweepId, Estimate>, StoreError> {
    let costs = store.sweep_costs().await?;
    let active = |row: &&BoardRow| row.sweep.state == SweepState::Running && !row.progress.finished;
    let alone = rows.iter().filter(active).count() == 1;
    let mut all = HashMap::new();
    for row in rows {
        let id = row.sweep.id;
        let ending = match active(&row) {
            true => {
                let snapshot = snapshot(row, workers, alone);
                forecast_ending(store, &snapshot, id).await?
            }
            false => None,
        };
        let estimate = Estimate {
            cost: costs.get(&id).copied().unwrap_or_default(),
            ending,
            at: Some(Instant::now()),
        };
        all.insert(id, estimate);
    }
    Ok(all)
}

/// The state of a sweep with the workers that it can count on: all that do not sit out if it is the only
/// one that runs, those that work for it if there are others.
fn snapshot(row: &BoardRow, workers: &[Heartbeat], alone: bool) -> Snapshot {
    let able = workers.iter().filter(|worker| {
        let sits_out = worker
            .trouble
            .as_ref()
            .is_some_and(|trouble| trouble.sits_out);
        match alone {
            true => !sits_out,
            false => works_for(worker, row.sweep.id),
        }
    });
    Snapshot::of(row.progress, able.cloned().collect())
}

/// Whether a worker is doing a job of this sweep.
pub(crate) fn works_for(worker: &Heartbeat, sweep: SweepId) -> bool {
    worker
        .doing
        .as_ref()
        .is_some_and(|doing| doing.sweep == sweep)
}
