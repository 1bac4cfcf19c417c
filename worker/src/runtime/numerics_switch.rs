//! Jobs that ask for other numerics than this process computes with: a process has one way to
//! compute for as long as it lives, so the slot's next process computes the other way.

use super::{Slot, JobLease};
use halfheard_models::numerics;
use halfheard_shared::{numerics::Numerics, wire::Work};
use std::{sync::atomic::Ordering, time::Duration};

/// How long a job stays away that this machine cannot do: meanwhile another may take it.
const ELSEWHERE: Duration = Duration::from_secs(15);

/// What a job asks for; a no-op job asks for nothing.
fn wanted(work: &Work) -> Option<Numerics> {
    match work {
        Work::Train(spec) | Work::Eval { spec, .. } => Some(spec.numerics),
        Work::Noop => None,
    }
}

impl Slot {
    /// Gives a job back that this process must not compute, uncounted, and lets the process end
    /// where the slot's next one can. What is to be done here is returned.
    pub(super) async fn turn(&self, lease: JobLease) -> Option<JobLease> {
        let own = self.settings.numerics;
        let Some(wanted) = wanted(&lease.job.work).filter(|wanted| *wanted != own) else {
            return Some(lease);
        };
        self.record_clean_handback(&lease).await;
        match numerics::possible(wanted) {
            Ok(()) => {
                tracing::info!(job = %lease.job.job, "the job asks for numerics = \"{wanted}\": the slot begins anew for it");
                self.turning.store(true, Ordering::Relaxed);
                lease.give_back(None).await;
            }
            Err(error) => {
                tracing::warn!(job = %lease.job.job, %error, "the job goes back, for another worker");
                lease.give_back(Some(ELSEWHERE)).await;
            }
        }
        None
    }
}
