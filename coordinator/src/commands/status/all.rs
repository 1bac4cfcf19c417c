//! The status of all sweeps.

use super::{
    allocations::Allocations,
    artifacts::Room,
    workers::{BrokerState, Workers},
};
use crate::config::Settings;
use chrono::{DateTime, Utc};
use comfy_table::{CellAlignment, Table, presets};
use halfheard_progress::{no_external, unmet};
use halfheard_shared::{
    ids::SweepId,
    text::plain,
    wire::{Heartbeat, nobody_can},
};
use halfheard_store::{
    Store, StoreError, SweepState, control::SetAside, drained::Drained, sweeps::Progress,
    terms::SweepTerms,
};
use serde::Serialize;
use std::fmt;

#[derive(Serialize)]
struct Sweep {
    id: SweepId,
    name: String,
    state: SweepState,
    #[serde(flatten)]
    terms: SweepTerms,
    stopped_because: Option<String>,
    created: DateTime<Utc>,
    jobs: Progress,
    finished: bool,
}

#[derive(Serialize)]
pub(super) struct AllSweeps {
    sweeps: Vec<Sweep>,
    workers: Vec<Heartbeat>,
    nobody_can: Option<String>,
    broker_error: Option<String>,
    drained: Vec<Drained>,
    unmet_needs: Vec<String>,
    set_aside: SetAside,
    room: Room,
    allocations: Allocations,
    #[serde(skip)]
    servers_stopped: bool,
}

impl AllSweeps {
    pub(super) async fn load(
        store: &Store,
        broker: &BrokerState,
        settings: &Settings,
    ) -> Result<Self, StoreError> {
        let mut sweeps = Vec::new();
        for row in store.sweeps().await? {
            let jobs = store.progress(row.id).await?;
            sweeps.push(Sweep {
                id: row.id,
                name: row.name,
                state: row.state,
                terms: row.terms,
                stopped_because: row.stopped_because,
                created: row.created,
                jobs,
                finished: row.state == SweepState::Cancelled || jobs.open() == 0,
            });
        }
        // Broker, artifact store and database answer at once: of a thousand workers and a million jobs each takes a while.
        let (workers, room, needs, externals, set_aside, drained, allocations) = tokio::join!(
            broker.live_workers(),
            Room::load(settings, store, broker.get()),
            store.open_needs(),
            store.open_externals(),
            store.set_aside(),
            store.drained(),
            Allocations::load(store),
        );
        let (needs, externals) = (needs?, externals?);
        Ok(Self {
            sweeps,
            nobody_can: nobody_can(&workers),
            unmet_needs: match broker.get() {
                Some(_) => {
                    let mut lines = unmet(&needs, &workers);
                    lines.extend(no_external(&externals, &workers));
                    lines
                }
                None => Vec::new(),
            },
            workers,
            broker_error: broker.error(),
            set_aside: set_aside?,
            drained: drained?,
            allocations: allocations?,
            room,
            servers_stopped: broker.is_stopped(),
        })
    }
}

impl fmt::Display for AllSweeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sweeps.is_empty() {
            writeln!(
                f,
                "no sweeps yet; create one with `coord run SPEC` or `coord submit SPEC`"
            )?;
        } else {
            writeln!(f, "{}", self.table().trim_fmt())?;
        }
        for sweep in &self.sweeps {
            if let Some(because) = &sweep.stopped_because {
                let (name, because) = (&sweep.name, plain(because));
                writeln!(f, "{name} was paused: {because}")?;
            }
        }
        writeln!(f)?;
        if let Some(set_aside) = self.set_aside.describe() {
            writeln!(f, "{set_aside}")?;
        }
        write!(f, "{}{}", self.room, self.allocations)?;
        let workers = Workers {
            workers: &self.workers,
            broker_error: self.broker_error.as_deref(),
            drained: &self.drained,
        };
        write!(f, "{workers}")?;
        for need in &self.unmet_needs {
            writeln!(f, "{need}")?;
        }
        Ok(())
    }
}

impl AllSweeps {
    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "sweep",
            "name",
            "state",
            "submitted",
            "jobs",
            "done",
            "running",
            "waiting",
            "failed",
        ]);
        for sweep in &self.sweeps {
            let jobs = &sweep.jobs;
            table.add_row([
                sweep.id.short(),
                sweep.name.clone(),
                state(sweep.state, jobs.open(), self.servers_stopped),
                sweep.created.format("%Y-%m-%d %H:%M").to_string(),
                jobs.total().to_string(),
                jobs.done.to_string(),
                jobs.running.to_string(),
                (jobs.open() - jobs.running).to_string(),
                jobs.failed.to_string(),
            ]);
        }
        for column in table.column_iter_mut().skip(4) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

/// Describes the state of a sweep with `open` jobs. Nothing runs while the private servers are stopped.
pub(super) fn state(state: SweepState, open: i64, servers_stopped: bool) -> String {
    match state {
        SweepState::Running if open == 0 => "finished".to_owned(),
        SweepState::Running if servers_stopped => "interrupted".to_owned(),
        state => state.to_string(),
    }
}
