//! Suspending the worker for a fault of its own, and resuming once it has passed.

use super::{
    ending::Ending,
    errors::causes_and_hint,
    faults::{self, Requirement},
    leases::JobLease,
    slot::{ExitReason, Slot},
};
use halfheard_models::train::{self, TrainError};
use halfheard_shared::{
    artifacts::Key,
    error::causes,
    ids::JobId,
    wire::{Fault, FaultKind, TrainSpec, WireError},
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// The first interval between probes.
const FIRST_PROBE: Duration = Duration::from_secs(1);
/// The longest interval between probes.
pub(super) const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(15);

impl Slot {
    /// Records a fault met at `job` and suspends the worker for it. If the fault is known and its
    /// suspension has ended, the job is skipped instead: jobs that this worker can do must not wait
    /// behind one that no worker can.
    pub(super) fn record_fault(&self, job: JobId, fault: &Fault, requirement: Requirement) {
        if self.status.tolerates(fault) && self.last_fault.may_skip(job) {
            return;
        }
        tracing::error!("worker suspended: {fault}");
        self.last_fault.set(requirement);
        self.status.record_fault(fault.clone());
    }

    /// The worker's fault behind a failed training or evaluation job, if it is one. Records it as met
    /// at `job`, and ends the process if the error broke it.
    pub(super) fn worker_fault(
        &self,
        job: Option<JobId>,
        error: &TrainError,
        spec: &TrainSpec,
        encoder: &Path,
    ) -> Option<Fault> {
        if error.is_fatal_to_process() {
            self.request_exit(ExitReason::Broken);
        }
        let fault = faults::training_fault(error, spec, encoder)?;
        let requirement = match (fault.kind, &fault.what) {
            (FaultKind::Dataset | FaultKind::Encoder, _) => {
                Requirement::Inputs(Box::new(spec.clone()))
            }
            (FaultKind::Checkpoint, what) => what
                .split_whitespace()
                .find_map(|word| word.parse().ok())
                .map_or(Requirement::FaultKind, Requirement::Checkpoint),
            _ => Requirement::FaultKind,
        };
        if let Some(job) = job {
            self.record_fault(job, &fault, requirement);
        }
        Some(fault)
    }

    /// Records that an answer to a request for jobs cannot be decoded: the coordinator is of another
    /// release.
    pub(super) fn record_undecodable_answer(&self, error: &WireError) {
        self.refused("jobs of another release", causes_and_hint(error));
    }

    /// Records that the coordinator gives this worker no jobs.
    pub(super) fn record_refusal(&self, reason: String) {
        self.refused("jobs of this coordinator", vec![reason]);
    }

    fn refused(&self, what: &str, chain: Vec<String>) {
        let fault = Fault::new(FaultKind::Method, what, chain);
        tracing::error!("worker suspended: {fault}");
        self.last_fault.set(Requirement::FaultKind);
        self.status.record_fault(fault);
    }

    /// The fault that currently prevents every job.
    pub(super) fn blocking_fault(&self) -> Option<Fault> {
        let (fault, _) = self.status.suspension()?;
        fault.kind.concerns_every_job().then_some(fault)
    }

    /// Declines a job for the fault that currently prevents every job, if there is one.
    pub(super) async fn decline_if_blocked(&self, lease: JobLease) -> Option<JobLease> {
        match self.blocking_fault() {
            None => Some(lease),
            Some(fault) => {
                let after_epoch = 0;
                let ending = Ending::Decline { after_epoch, fault };
                self.end(lease, ending).await;
                None
            }
        }
    }

    /// Waits until the suspension ends or its cause has passed. Returns `false` if the worker should
    /// exit: with `--once`, after being unable to work for that long.
    pub(super) async fn wait_out_suspension(&self, idle_since: Instant) -> bool {
        let Some((fault, until)) = self.status.suspension() else {
            return true;
        };
        let requirement = self.last_fault.requirement();
        let mut interval = FIRST_PROBE;
        let mut confirmed = false;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            self.shutdown.sleep(interval.min(left)).await;
            if self.shutdown.is_requested() {
                return true;
            }
            let over = until <= Instant::now();
            // A broken device may compute a moment later: it gets its full suspension.
            if fault.kind == FaultKind::Device && !over {
                continue;
            }
            match self.probe(&fault, &requirement).await {
                // A fault that a probe never confirmed waits for the end of the suspension.
                None if over || confirmed => {
                    self.resume(&fault);
                    return true;
                }
                None => {}
                Some(persistent) => {
                    confirmed = true;
                    if over {
                        self.suspend_again_or_resume(persistent);
                        return true;
                    }
                }
            }
            let once = self.settings.once;
            if once.is_some_and(|once| idle_since.elapsed() >= once) {
                tracing::error!("unable to work for the time that --once gives; exiting");
                return false;
            }
            interval = (interval * 2).min(MAX_PROBE_INTERVAL);
        }
    }

    /// Takes jobs again: the fault has passed, or cannot be probed without one.
    fn resume(&self, fault: &Fault) {
        tracing::info!("resuming: it can {}", fault.deed());
        match fault.kind {
            FaultKind::Device | FaultKind::Method => self.status.health(|health| health.resume()),
            _ => self.status.health(|health| health.recovered()),
        }
    }

    /// Ends a suspension whose fault persists.
    fn suspend_again_or_resume(&self, fault: Fault) {
        if !fault.kind.concerns_every_job() {
            // Jobs other than the last one may work.
            return self.status.health(|health| health.resume());
        }
        tracing::warn!("worker still suspended: {fault}");
        if fault.kind == FaultKind::Device {
            self.request_exit(ExitReason::Broken);
        }
        self.status.record_fault(fault);
    }

    /// Probes whether a fault persists.
    async fn probe(&self, fault: &Fault, requirement: &Requirement) -> Option<Fault> {
        let name = &self.settings.name;
        match (fault.kind, requirement) {
            (FaultKind::Store, _) => {
                let error = self.store.probe(name).await.err()?;
                Some(faults::store_fault(&error).unwrap_or_else(|| fault.clone()))
            }
            (FaultKind::DataFolder, _) => {
                let folder = &self.settings.data_dir;
                match faults::probe_data_folder(folder, name).await {
                    Ok(None) => None,
                    Ok(Some(warning)) => Some(Fault::new(
                        FaultKind::DataFolder,
                        fault.what.clone(),
                        vec![warning],
                    )),
                    Err(error) => Some(faults::data_folder_fault(folder, &error)),
                }
            }
            (_, Requirement::Inputs(spec)) => {
                let error = self.inputs(spec).await.err()?;
                Some(faults::input_fault(&error, spec).unwrap_or_else(|| fault.clone()))
            }
            (_, Requirement::Checkpoint(hash)) => {
                match self.store.size(&Key::Checkpoint(hash.clone())).await {
                    Ok(Some(_)) => None,
                    Ok(None) => Some(fault.clone()),
                    Err(error) => {
                        Some(faults::store_fault(&error).unwrap_or_else(|| fault.clone()))
                    }
                }
            }
            (FaultKind::Device, _) => {
                let chain = match self.engine.probe().await {
                    Ok(Ok(())) => return None,
                    Ok(Err(error)) => train::chain(&error),
                    Err(exited) => causes(&exited),
                };
                Some(Fault::new(FaultKind::Device, fault.what.clone(), chain))
            }
            // A running program does not learn new methods.
            (FaultKind::Method, _) => Some(fault.clone()),
            (
                FaultKind::Dataset | FaultKind::Encoder | FaultKind::Checkpoint,
                Requirement::FaultKind,
            ) => None,
        }
    }
}
