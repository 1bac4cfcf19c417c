//! The maps of sweeps that somebody looks at, asked for once whoever looks.

use crate::kept::Kept;
use halfheard_results::tables::protocols;
use halfheard_shared::ids::SweepId;
use halfheard_store::{
    Store,
    map::{DataHash, MapRow},
    results::{ResultsError, Snapshot},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The most maps that are kept.
const MAX_MAPS: usize = 64;

/// A sweep, and the metric that is asked for.
type Key = (SweepId, Option<String>);

/// The maps of sweeps that somebody looks at.
#[derive(Debug, Default)]
pub(crate) struct Maps(Mutex<HashMap<Key, Arc<Kept<SweepMap>>>>);

/// A sweep's training jobs, and what they have in common.
#[derive(Debug)]
pub(crate) struct SweepMap {
    /// The jobs in the order of the spec.
    pub(crate) rows: Vec<MapRow>,
    /// The datasets with their hashes.
    pub(crate) data: Vec<DataHash>,
    /// Selection, fidelity and regimes, a line each.
    pub(crate) protocols: Vec<String>,
}

impl SweepMap {
    async fn load(
        store: &Store,
        sweep: SweepId,
        shown: &[(String, String)],
    ) -> Result<Self, ResultsError> {
        let protocols = Snapshot::begin(store, sweep).await?.protocols().await?;
        Ok(Self {
            rows: store.map(sweep, shown).await?,
            data: store.data_hashes(sweep).await?,
            protocols: protocols::lines(&protocols, |_| true),
        })
    }
}

impl Maps {
    /// The map of a sweep. `shown` names the metric of each dataset: those that `metric` stands for.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub(crate) async fn load(
        &self,
        store: &Store,
        sweep: SweepId,
        metric: Option<&str>,
        shown: &[(String, String)],
    ) -> Result<Arc<SweepMap>, ResultsError> {
        let key = (sweep, metric.map(str::to_owned));
        let kept = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= MAX_MAPS && !all.contains_key(&key) {
                all.clear();
            }
            all.entry(key).or_default().clone()
        };
        let (store, shown) = (store.clone(), shown.to_owned());
        kept.get(async move { SweepMap::load(&store, sweep, &shown).await })
            .await
    }

    /// Forgets all, because the page itself changed something.
    pub(crate) fn forget(&self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.clear();
    }
}
