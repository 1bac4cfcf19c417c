//! Jobs that require other numerics than this process uses: a process computes in one mode for its
//! lifetime, so the slot's next process uses the other.

use super::{
    leases::JobLease,
    slot::{ExitReason, Slot},
};
use halfheard_models::numerics;
use halfheard_shared::{error::chain, numerics::Numerics, wire::Work};
use std::time::Duration;

/// How long a job that this machine cannot do is withheld, so that another worker takes it.
const DELAY_ELSEWHERE: Duration = Duration::from_secs(15);

/// The numerics that a job requires; a no-op job requires none.
fn required(work: &Work) -> Option<Numerics> {
    match work {
        Work::Train(spec) | Work::Eval { spec, .. } => Some(spec.numerics),
        Work::Noop => None,
    }
}

impl Slot {
    /// Returns the job if this process can compute it. Otherwise hands it back, uncounted, and ends
    /// the process if the slot's next one can.
    pub(super) async fn switch_numerics_for(&self, lease: JobLease) -> Option<JobLease> {
        let current = self.settings.numerics;
        let Some(required) = required(&lease.job.work).filter(|required| *required != current)
        else {
            return Some(lease);
        };
        self.record_clean_handback(&lease).await;
        match numerics::check_supported(required) {
            Ok(()) => {
                tracing::info!(job = %lease.job.job, "job requires numerics = \"{required}\"; restarting the slot for it");
                self.request_exit(ExitReason::SwitchNumerics);
                lease.release(None).await;
            }
            Err(error) => {
                tracing::warn!(job = %lease.job.job, error = chain(&error), "job handed back for another worker");
                lease.release(Some(DELAY_ELSEWHERE)).await;
            }
        }
        None
    }
}
