//! A slot's state.

use super::{
    blobs::Blobs,
    engine::Engine,
    faults::LastFault,
    leases::{JobLease, Leases},
    presence::{Announcement, Status},
    report::Reporter,
    settings::SlotSettings,
    watch::Watch,
};
use crate::exit::Exit;
use halfheard_shared::{
    artifacts::ArtifactStore,
    broker::Broker,
    shutdown::Shutdown,
    wire::{Doing, TrainSpec},
};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// No-op jobs that are not settled at once: they are part of every heartbeat.
pub(super) const MAX_NOOPS: usize = 1024;

/// Why the slot exits on its own; the greater one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ExitReason {
    /// It could not work for as long as `--once` gives.
    Unfit,
    /// The slot's next process is to use the other numerics.
    SwitchNumerics,
    /// The device or the compute thread failed.
    Broken,
}

/// Everything that processing a job touches.
pub(super) struct Slot {
    pub(super) settings: SlotSettings,
    pub(super) broker: Broker,
    pub(super) store: ArtifactStore,
    /// The store's own id.
    pub(super) store_id: String,
    pub(super) blobs: Blobs,
    pub(super) engine: Engine,
    pub(super) reporter: Reporter,
    pub(super) announcement: Arc<Announcement>,
    pub(super) status: Status,
    pub(super) leases: Leases,
    pub(super) watch: Watch,
    pub(super) shutdown: Shutdown,
    pub(super) noops: Arc<Semaphore>,
    pub(super) last_fault: LastFault,
    pub(super) exit_reason: Mutex<Option<ExitReason>>,
}

impl Slot {
    /// Whether to take no more jobs.
    pub(super) fn is_stopping(&self) -> bool {
        self.shutdown.is_requested() || self.exit_reason().is_some()
    }

    pub(super) fn request_exit(&self, reason: ExitReason) {
        let mut current = self
            .exit_reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *current = (*current).max(Some(reason));
    }

    pub(super) fn exit_reason(&self) -> Option<ExitReason> {
        *self
            .exit_reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn exit(&self) -> Exit {
        match self.exit_reason() {
            Some(ExitReason::Broken) => Exit::Broken,
            Some(ExitReason::SwitchNumerics) if !self.shutdown.is_requested() => {
                Exit::SwitchNumerics
            }
            Some(ExitReason::Unfit) => Exit::Unfit,
            Some(ExitReason::SwitchNumerics) | None => Exit::Success,
        }
    }

    /// Sets the activity shown in heartbeats.
    pub(super) fn set_activity(&self, lease: &JobLease, what: String, max_epochs: u32, cases: u32) {
        self.status.set(Some(Doing {
            sweep: lease.job.sweep,
            job: lease.job.job,
            what,
            epoch: 0,
            max_epochs,
            step: 0,
            steps: 0,
            loss: None,
            case: cases.min(1),
            cases,
        }));
    }
}

/// Describes a training job: `lnln/no-dmc on mosi, seed 1111`.
pub(super) fn describe(spec: &TrainSpec) -> String {
    let variant = match spec.variant.as_str() {
        "" => String::new(),
        variant => format!("/{variant}"),
    };
    format!(
        "{}{variant} on {}, seed {}",
        spec.method, spec.dataset, spec.seed
    )
}
