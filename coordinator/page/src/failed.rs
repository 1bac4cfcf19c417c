//! What failed, in one sweep and in all, asked for once whoever looks.

use crate::{cache::Cache, kept::Kept};
use halfheard_progress::failures::{FailureGroup, load};
use halfheard_shared::ids::SweepId;
use halfheard_store::{
    Store, StoreError, dead_letters::DeadLetter, trainings::AskingSweep,
    worker_tallies::DeclinedRow,
};
use std::sync::Arc;

/// The most sweeps with failures on the page of all, the newest.
const SWEEPS: usize = 20;
/// The most dead letters that are shown, the newest.
const LETTERS: u32 = 20;
/// The most rows about declined jobs.
const DECLINED: u32 = 50;

/// Sweeps whose failures are kept.
const KEPT: usize = 64;

/// What failed, which all viewers share: by sweep, and of all.
#[derive(Debug)]
pub(crate) struct Failed {
    of_sweep: Cache<SweepId, OfSweep>,
    of_all: Kept<OfAll>,
}

/// What failed in a sweep.
#[derive(Debug)]
pub(crate) struct OfSweep {
    /// Failures by cause.
    pub(crate) groups: Vec<FailureGroup>,
    /// Jobs that workers handed back.
    pub(crate) declined: Vec<DeclinedRow>,
}

/// What failed in all sweeps.
#[derive(Debug)]
pub(crate) struct OfAll {
    /// Failures by cause of the newest sweeps that have any.
    pub(crate) sweeps: Vec<(AskingSweep, Vec<FailureGroup>)>,
    /// The number of older sweeps with failures.
    pub(crate) hidden: usize,
    /// Jobs that workers handed back.
    pub(crate) declined: Vec<DeclinedRow>,
    /// Messages that were refused, the newest.
    pub(crate) letters: Vec<DeadLetter>,
}

impl Default for Failed {
    fn default() -> Self {
        Self {
            of_sweep: Cache::new(KEPT),
            of_all: Kept::default(),
        }
    }
}

impl Failed {
    /// What failed in a sweep.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub(crate) async fn of_sweep(
        &self,
        store: &Store,
        sweep: SweepId,
    ) -> Result<Arc<OfSweep>, StoreError> {
        let store = store.clone();
        let load = async move { OfSweep::load(&store, sweep).await };
        self.of_sweep.at(sweep).get(load).await
    }

    /// What failed in all sweeps.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub(crate) async fn of_all(&self, store: &Store) -> Result<Arc<OfAll>, StoreError> {
        let store = store.clone();
        self.of_all
            .get(async move { OfAll::load(&store).await })
            .await
    }

    /// Forgets all, because the page itself changed something.
    pub(crate) async fn forget(&self) {
        self.of_sweep.forget();
        self.of_all.forget().await;
    }
}

impl OfSweep {
    async fn load(store: &Store, sweep: SweepId) -> Result<Self, StoreError> {
        Ok(Self {
            groups: load(store, sweep).await?,
            declined: store.declined(Some(sweep), DECLINED).await?,
        })
    }
}

impl OfAll {
    async fn load(store: &Store) -> Result<Self, StoreError> {
        let all = store.sweeps_with_failures().await?;
        let hidden = all.len().saturating_sub(SWEEPS);
        let mut sweeps = Vec::new();
        for sweep in all.into_iter().take(SWEEPS) {
            let groups = load(store, sweep.sweep).await?;
            sweeps.push((sweep, groups));
        }
        Ok(Self {
            sweeps,
            hidden,
            declined: store.declined(None, DECLINED).await?,
            letters: store.dead_letters(LETTERS).await?,
        })
    }
}
