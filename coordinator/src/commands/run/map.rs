//! The map of models by datasets and seeds, below the bars.

use crate::commands::{top::Map, watch::Display};
use halfheard_shared::{error::chain, ids::SweepId};
use halfheard_store::Store;
use std::time::{Duration, Instant};

/// How often it is read.
const EVERY: Duration = Duration::from_secs(2);
/// Lines that the bar, the headings and notes take.
const RESERVED: usize = 6;

/// The map of a sweep, read now and then.
#[derive(Debug)]
pub(super) struct MapBelow {
    sweep: SweepId,
    read: Option<Instant>,
}

impl MapBelow {
    /// That of a sweep.
    pub(super) fn of(sweep: SweepId) -> Self {
        Self { sweep, read: None }
    }

    /// Shows it below the bars of `workers` workers, if there are bars and the time has come. A map is
    /// not worth an error.
    pub(super) async fn show(&mut self, display: &mut Display, store: &Store, workers: usize) {
        let due = self.read.is_none_or(|read| read.elapsed() >= EVERY);
        if !due || !display.has_room_below() {
            return;
        }
        self.read = Some(Instant::now());
        match store.sweep_map(self.sweep).await {
            Ok(cells) => {
                let (width, height) = crossterm::terminal::size().unwrap_or((80, 24));
                let height = usize::from(height).saturating_sub(workers + RESERVED);
                // Where hardly any row fits, the bars say more.
                let lines = match height {
                    0..2 => Vec::new(),
                    _ => Map::new(cells).lines(usize::from(width).saturating_sub(1), height),
                };
                display.show_below(&lines);
            }
            Err(error) => tracing::debug!(error = chain(&error), "no map"),
        }
    }
}
