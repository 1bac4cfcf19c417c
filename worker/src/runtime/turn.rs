//! Jobs that ask for other numerics than this process computes with: a process has one way to
//! compute for as long as it lives, so the slot's next process computes the other way.

use super::{Slot, Taken};
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
    pub(super) async fn turn(&self, taken: Taken) -> Option<Taken> {
        let own = self.settings.numerics;
        let Some(wanted) = wanted(&taken.job.work).filter(|wanted| *wanted != own) else {
            return Some(taken);
        };
        self.excuse(&taken).await;
        match numerics::check_supported(wanted) {
            Ok(()) => {
                tracing::info!(job = %taken.job.job, "the job asks for numerics = \"{wanted}\": the slot begins anew for it");
                self.turning.store(true, Ordering::Relaxed);
                taken.give_back(None).await;
            }
            Err(error) => {
                tracing::warn!(job = %taken.job.job, %error, "the job goes back, for another worker");
                taken.give_back(Some(ELSEWHERE)).await;
            }
        }
        None
    }
}
