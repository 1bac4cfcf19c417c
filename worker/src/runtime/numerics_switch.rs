//! Jobs that require other numerics than this process uses: a process computes in one mode for its
//! lifetime, so the slot's next process uses the other.

use super::{
    ending::Ending,
    faults::Requirement,
    leases::JobLease,
    slot::{ExitReason, Slot},
};
use halfheard_models::numerics;
use halfheard_shared::{
    error::causes,
    numerics::Numerics,
    wire::{Fault, FaultKind, Work},
};

/// The numerics that a job requires; a no-op job requires none.
fn required(work: &Work) -> Option<Numerics> {
    match work {
        Work::Train(spec) | Work::Eval { spec, .. } => Some(spec.numerics),
        Work::Noop => None,
    }
}

impl Slot {
    /// What the last bits of a job's results depend on.
    pub(super) fn processor_for(&self, work: &Work) -> String {
        let processor = &self.announcement.worker.processor;
        match required(work) {
            Some(numerics @ Numerics::Bf16) => format!("{processor}-{numerics}"),
            Some(Numerics::Machine | Numerics::Portable) | None => processor.clone(),
        }
    }

    /// Returns the job if this process can compute it. Otherwise hands it back, uncounted, and ends
    /// the process if the slot's next one can.
    pub(super) async fn switch_numerics_for(&self, lease: JobLease) -> Option<JobLease> {
        let Some(required) = required(&lease.job.work) else {
            return Some(lease);
        };
        let fits = required.of_process() == self.settings.numerics.of_process();
        match numerics::check_supported(required, self.settings.device) {
            Ok(()) if fits => return Some(lease),
            Ok(()) => {
                tracing::info!(job = %lease.job.job, "job requires numerics = \"{required}\"; restarting the slot for it");
                self.request_exit(ExitReason::SwitchNumerics);
                self.hand_back(lease, 0).await;
            }
            Err(error) => {
                let what = format!("jobs with numerics = \"{required}\"");
                let fault = Fault::new(FaultKind::Method, what, causes(&error));
                self.record_fault(lease.job.job, &fault, Requirement::FaultKind);
                let after_epoch = 0;
                let ending = Ending::Decline { after_epoch, fault };
                self.end(lease, ending).await;
            }
        }
        None
    }
}
