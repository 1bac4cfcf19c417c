//! What is made of a sweep's results, shared by all viewers: the results as read, tables and figures.

use super::cache::{Cache, Fresh};
use crate::{Page, error::PageError};
use halfheard_analysis::{
    draw,
    tables::{TableRequest, table},
};
use halfheard_results::{
    figures::{Figure, Kind, Request},
    report,
    tables::Table,
};
use halfheard_shared::{
    benchmark::Benchmark,
    error::{Hint as _, chain},
    ids::SweepId,
    results::{Results, Wanted},
};
use halfheard_store::{
    Store,
    results::{ResultsVersion, Snapshot},
};
use std::sync::Arc;
use tokio::sync::Semaphore;

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

/// What is made of results.
#[derive(Debug)]
pub(super) struct Made {
    results: Cache<SweepId, Arc<Results>>,
    tables: Cache<(SweepId, String), Arc<Table>>,
    figures: Cache<(SweepId, String), Drawn>,
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
    /// The results of a sweep.
    pub(super) async fn results(
        &self,
        page: &Page,
        sweep: SweepId,
    ) -> Result<Arc<Results>, PageError> {
        let (version, store, at_once) = self.making(page, sweep);
        let make = async move {
            let _turn = at_once.acquire().await;
            let mut snapshot = Snapshot::begin(&store, sweep).await?;
            let wanted = Wanted {
                // Of Figure 8.
                checkpoints: true,
                ..Wanted::default()
            };
            let value = Arc::new(snapshot.results(wanted).await?);
            Ok(Fresh { value, lasts: true })
        };
        self.results.get(sweep, version, make).await
    }

    /// What making something of a sweep's results takes: their version, the database, and a turn.
    fn making(
        &self,
        page: &Page,
        sweep: SweepId,
    ) -> (
        impl Future<Output = Result<ResultsVersion, PageError>> + Send + use<>,
        Store,
        Arc<Semaphore>,
    ) {
        let store = page.store.clone();
        let version = async move { Ok(store.results_version(sweep).await?) };
        (version, page.store.clone(), Arc::clone(&self.at_once))
    }

    /// A table of a sweep.
    pub(super) async fn table(
        &self,
        page: &Page,
        sweep: SweepId,
        request: TableRequest,
    ) -> Result<Arc<Table>, PageError> {
        let results = self.results(page, sweep).await?;
        let key = format!("{} {request:?}", request.which);
        let (version, store, at_once) = self.making(page, sweep);
        let make = async move {
            let _turn = at_once.acquire().await;
            let mut snapshot = Snapshot::begin(&store, sweep).await?;
            let value = table(&store, results, &mut snapshot, &request).await?;
            Ok(Fresh {
                value: Arc::new(value),
                lasts: true,
            })
        };
        self.tables.get((sweep, key), version, make).await
    }

    /// A figure of a sweep.
    pub(super) async fn figure(
        &self,
        page: &Page,
        sweep: SweepId,
        figure: &Offered,
    ) -> Result<Drawn, PageError> {
        let results = self.results(page, sweep).await?;
        let (version, store, at_once) = self.making(page, sweep);
        let (places, offered) = (Arc::clone(&page.places), figure.clone());
        let make = async move {
            let _turn = at_once.acquire().await;
            let mut snapshot = Snapshot::begin(&store, sweep).await?;
            let (sources, Offered { kind, request, .. }) = (places.sources(), offered);
            let drawn = draw(&mut snapshot, &results, None, sources, kind, &request).await;
            match drawn {
                Ok(figure) => Ok(Fresh {
                    value: Ok(Arc::new(figure)),
                    lasts: true,
                }),
                Err(error) if error.is_missing() => {
                    let mut reason = chain(&error);
                    if let Some(hint) = error.hint() {
                        reason = format!("{reason} ({hint})");
                    }
                    Ok(Fresh {
                        value: Err(reason),
                        lasts: !error.is_out_of_reach(),
                    })
                }
                Err(error) => Err(anyhow::Error::from(error).into()),
            }
        };
        self.figures
            .get((sweep, figure.name.clone()), version, make)
            .await
    }
}

/// A figure that a sweep may have.
#[derive(Clone, Debug)]
pub(super) struct Offered {
    /// Its name in addresses: `2`, `ranks`, `confusion-mine`.
    pub(super) name: String,
    /// The kind.
    pub(super) kind: Kind,
    /// What to draw.
    pub(super) request: Request,
}

impl Offered {
    /// The figures of a sweep: those of the paper whose datasets it has, the confusion matrices of its own
    /// datasets, and ranks.
    pub(super) fn of(results: &Results) -> Vec<Self> {
        let trained = results.trained_datasets();
        let ranks = (Kind::Ranks, Request::default());
        let all = report::figures(results).into_iter().chain([ranks]);
        all.filter(|(kind, _)| match kind {
            Kind::Confusion(dataset) => trained.contains(dataset),
            _ => true,
        })
        .map(|(kind, request)| Self {
            name: match kind {
                Kind::Confusion(dataset @ Benchmark::Own(_)) => {
                    format!("confusion-{}", dataset.id())
                }
                kind => kind.id().to_owned(),
            },
            kind,
            request,
        })
        .collect()
    }

    /// `Figure 2`, or what it shows.
    pub(super) fn heading(&self) -> String {
        match self.kind {
            Kind::Ranks => "Mean ranks".to_owned(),
            Kind::Confusion(dataset @ Benchmark::Own(_)) => {
                format!("Confusion matrices on {}", dataset.title())
            }
            kind => format!("Figure {}", kind.id()),
        }
    }
}
