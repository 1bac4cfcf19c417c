//! Dispatches jobs by what they ask for.

use super::{leases::JobLease, slot::Slot};
use halfheard_shared::{broker::SweepControl, wire::Work};
use std::{sync::Arc, time::Duration};

/// How long a job of a paused or cancelled sweep is withheld.
const INACTIVE_DELAY: Duration = Duration::from_secs(3);

impl Slot {
    /// Processes jobs: training jobs one by one, evaluation jobs of one model together.
    pub(super) async fn dispatch(self: &Arc<Self>, jobs: Vec<JobLease>) {
        let mut noops = Vec::new();
        let mut groups: Vec<Vec<JobLease>> = Vec::new();
        for lease in jobs {
            let Some(lease) = self.admit(lease).await else {
                continue;
            };
            match &lease.job.work {
                Work::Noop => noops.push(lease),
                Work::Train(spec) => {
                    let spec = spec.clone();
                    self.train(lease, spec).await;
                    self.status.set(None);
                }
                Work::Eval { train, .. } => {
                    let group = groups.iter_mut().find(|group| {
                        matches!(&group[0].job.work, Work::Eval { train: other, .. } if other == train)
                    });
                    match group {
                        Some(group) => group.push(lease),
                        None => groups.push(vec![lease]),
                    }
                }
            }
        }
        if !noops.is_empty() {
            self.noop(noops).await;
        }
        for group in groups {
            if self.is_stopping() {
                for lease in group {
                    self.hand_back_unstarted(lease).await;
                }
                continue;
            }
            self.evaluate(group).await;
            self.status.set(None);
        }
    }

    /// Returns the job if it is to be processed now. Otherwise hands it back or declines it.
    async fn admit(&self, lease: JobLease) -> Option<JobLease> {
        match self.sweeps.of(lease.job.sweep) {
            SweepControl::Running => {}
            // Removing it from the queue is up to the coordinator: the sweep may have been submitted
            // again, and this be a message of its new publication.
            SweepControl::Cancelled | SweepControl::Paused => {
                self.record_clean_handback(&lease).await;
                lease.release(Some(INACTIVE_DELAY)).await;
                return None;
            }
        }
        if self.is_stopping() {
            self.hand_back_unstarted(lease).await;
            return None;
        }
        let lease = self.decline_if_blocked(lease).await?;
        self.switch_numerics_for(lease).await
    }
}
