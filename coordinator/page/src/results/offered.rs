//! Which of the tables and figures a sweep may have.

use halfheard_results::{
    figures::{Kind, Request},
    report,
    tables::{
        Row,
        layout::{LAYOUTS, Layout, Rows},
        paper,
    },
};
use halfheard_shared::{benchmark::Benchmark, results::Results};

/// The tables of the paper that say something about this sweep: it asks for what they show.
pub(super) fn applicable(results: &Results) -> Vec<Layout> {
    let applies = |layout: &Layout| {
        let table = paper::table(results, *layout, false);
        let rows = || table.blocks.iter().flat_map(|block| &block.rows);
        let asked = |row: &&Row| row.cells.iter().flatten().any(|value| value.expected > 0);
        // A table of ablations needs more than the complete model.
        let ablates = match layout.rows {
            Rows::Methods => true,
            Rows::Listed if layout.spread => true,
            Rows::Listed | Rows::Weights => rows()
                .filter(asked)
                .any(|row| !row.model.variant.is_empty()),
        };
        ablates && rows().any(|row| asked(&row))
    };
    LAYOUTS.iter().copied().filter(applies).collect()
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
