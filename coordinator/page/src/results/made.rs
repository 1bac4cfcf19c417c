//! What is made of a sweep's results, shared by all viewers: the results as read, tables and figures.

use super::offered::{Offered, applicable};
use crate::{Page, cache::Cache, error::PageError};
use halfheard_analysis::{
    draw,
    tables::{TableRequest, table},
};
use halfheard_results::{
    figures::Figure,
    tables::{Table, layout::Layout},
};
use halfheard_shared::{
    error::{Hint as _, chain},
    ids::SweepId,
    results::{Results, Wanted},
};
use halfheard_store::results::{ResultsVersion, Snapshot};
use std::{ops::Deref, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Sweeps whose results are kept as read, which takes most memory.
const SWEEPS: usize = 3;
/// Tables that are kept.
const TABLES: usize = 128;
/// Figures that are kept.
const FIGURES: usize = 64;
/// Figures and tables that are made at once, so that the daemon has room for its own work.
const AT_ONCE: usize = 2;

/// A figure, or why there is none yet.
pub(super) type Drawn = Result<Arc<Figure>, String>;

/// The results of a sweep, and what can be made of them.
#[derive(Debug)]
pub(super) struct Read {
    results: Arc<Results>,
    /// Of what they were read: all that one page shows is made of the same.
    version: ResultsVersion,
    /// The paper's tables that say something about the sweep.
    pub(super) layouts: Vec<Layout>,
    /// The figures that it may have.
    pub(super) figures: Vec<Offered>,
}

impl Deref for Read {
    type Target = Results;

    fn deref(&self) -> &Results {
        &self.results
    }
}

/// A value, and of which results it was made. `None` if it is not right for as long as they are the same:
/// it says that something was out of reach.
#[derive(Debug)]
struct Dated<V> {
    value: V,
    version: Option<ResultsVersion>,
}

/// What is made of results.
#[derive(Debug)]
pub(super) struct Made {
    results: Cache<SweepId, Read>,
    tables: Cache<(SweepId, String), Dated<Arc<Table>>>,
    figures: Cache<(SweepId, String), Dated<Drawn>>,
    at_once: Arc<Semaphore>,
}

impl Default for Made {
    fn default() -> Self {
        Self {
            results: Cache::new(SWEEPS),
            tables: Cache::new(TABLES),
            figures: Cache::new(FIGURES),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

impl Made {
    /// The results of a sweep, as they are now or, if reading them takes long, were a while ago.
    pub(super) async fn results(
        &self,
        page: &Page,
        sweep: SweepId,
    ) -> Result<Arc<Read>, PageError> {
        // Before anything is read: what changes meanwhile is noticed next time.
        let version = page.store.results_version(sweep).await?;
        let (store, at_once) = (page.store.clone(), Arc::clone(&self.at_once));
        let read = async move {
            let _turn = turn(&at_once).await;
            let mut snapshot = Snapshot::begin(&store, sweep).await?;
            let wanted = Wanted {
                // Of Figure 8.
                checkpoints: true,
                ..Wanted::default()
            };
            let results = Arc::new(snapshot.results(wanted).await?);
            Ok(Read {
                layouts: applicable(&results),
                figures: Offered::of(&results),
                results,
                version,
            })
        };
        let is_right = |read: &Read| read.version == version;
        self.results.at(sweep).get_right(is_right, read).await
    }

    /// A table of a sweep.
    pub(super) async fn table(
        &self,
        page: &Page,
        sweep: SweepId,
        read: &Read,
        request: TableRequest,
    ) -> Result<Arc<Table>, PageError> {
        let key = format!("{} {request:?}", request.which);
        let (store, at_once) = (page.store.clone(), Arc::clone(&self.at_once));
        let (results, version) = (Arc::clone(&read.results), read.version);
        let make = async move {
            let _turn = turn(&at_once).await;
            let mut snapshot = Snapshot::begin(&store, sweep).await?;
            let value = Arc::new(table(&store, results, &mut snapshot, &request).await?);
            let version = Some(version);
            Ok::<_, PageError>(Dated { value, version })
        };
        let is_right = |table: &Dated<_>| table.version == Some(version);
        let table = self
            .tables
            .at((sweep, key))
            .get_right(is_right, make)
            .await?;
        Ok(Arc::clone(&table.value))
    }

    /// A figure of a sweep.
    pub(super) async fn figure(
        &self,
        page: &Page,
        sweep: SweepId,
        read: &Read,
        figure: &Offered,
    ) -> Result<Drawn, PageError> {
        let (store, at_once) = (page.store.clone(), Arc::clone(&self.at_once));
        let (results, version) = (Arc::clone(&read.results), read.version);
        let (places, offered) = (Arc::clone(&page.places), figure.clone());
        let make = async move {
            let _turn = turn(&at_once).await;
            let mut snapshot = Snapshot::begin(&store, sweep).await?;
            let (sources, Offered { kind, request, .. }) = (places.sources(), offered);
            let drawn = draw(&mut snapshot, &results, None, sources, kind, &request).await;
            match drawn {
                Ok(figure) => Ok(Dated {
                    value: Ok(Arc::new(figure)),
                    version: Some(version),
                }),
                Err(error) if error.is_missing() => {
                    let mut reason = chain(&error);
                    if let Some(hint) = error.hint() {
                        reason = format!("{reason} ({hint})");
                    }
                    Ok(Dated {
                        value: Err(reason),
                        version: (!error.is_out_of_reach()).then_some(version),
                    })
                }
                Err(error) => Err(PageError::from(anyhow::Error::from(error))),
            }
        };
        let is_right = |drawn: &Dated<_>| drawn.version == Some(version);
        let key = (sweep, figure.name.clone());
        let drawn = self.figures.at(key).get_right(is_right, make).await?;
        Ok(drawn.value.clone())
    }

    /// A figure of a sweep as it was drawn last, perhaps of older results.
    pub(super) fn last_figure(&self, sweep: SweepId, figure: &Offered) -> Option<Drawn> {
        let kept = self.figures.at((sweep, figure.name.clone()));
        Some(kept.last()?.value.clone())
    }
}

/// A turn to make something.
async fn turn(at_once: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    // It is never closed; without it, only more would be made at once.
    Arc::clone(at_once).acquire_owned().await.ok()
}
