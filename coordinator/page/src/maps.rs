//! The maps of sweeps that somebody looks at, asked for once whoever looks.

use crate::cache::Cache;
use halfheard_results::tables::protocols;
use halfheard_shared::ids::SweepId;
use halfheard_store::{
    Store,
    map::{DataHash, MapRow},
    results::{ResultsError, Snapshot},
};
use std::sync::Arc;

/// The most maps that are kept.
const MAX_MAPS: usize = 64;

/// A sweep, and the metric that is asked for.
type Key = (SweepId, Option<String>);

/// The maps of sweeps that somebody looks at.
#[derive(Debug)]
pub(crate) struct Maps(Cache<Key, SweepMap>);

impl Default for Maps {
    fn default() -> Self {
        Self(Cache::new(MAX_MAPS))
    }
}

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
        let (store, shown) = (store.clone(), shown.to_owned());
        let load = async move { SweepMap::load(&store, sweep, &shown).await };
        self.0.at(key).get(load).await
    }

    /// Forgets all, because the page itself changed something.
    pub(crate) fn forget(&self) {
        self.0.forget();
    }
}
