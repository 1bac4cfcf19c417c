//! Dispatches jobs by what they ask for.

use super::{leases::JobLease, slot::Slot, watch::Phase};
use halfheard_shared::wire::Work;
use halfheard_telemetry::traces::context;
use std::sync::Arc;
use tracing::Instrument as _;

impl Slot {
    /// Processes jobs: evaluation jobs of one model together, then training jobs one by one.
    pub(super) async fn dispatch(self: &Arc<Self>, jobs: Vec<JobLease>) {
        let mut noops = Vec::new();
        let mut trainings = Vec::new();
        let mut groups: Vec<Vec<JobLease>> = Vec::new();
        for lease in jobs {
            match &lease.job.work {
                Work::Noop => noops.push(lease),
                Work::Train(spec) => {
                    let spec = spec.clone();
                    trainings.push((lease, spec));
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
            let mut admitted = Vec::new();
            for lease in group {
                admitted.extend(self.admit(lease).await);
            }
            if !admitted.is_empty() {
                self.evaluate(admitted).await;
                self.rest();
            }
        }
        for (lease, spec) in trainings {
            if let Some(lease) = self.admit(lease).await {
                let context = context(lease.job.job, lease.attempt());
                self.train(lease, spec).instrument(context).await;
                self.rest();
            }
        }
    }

    fn rest(&self) {
        self.watch.enter(Phase::Waiting);
        self.status.set(None);
    }

    /// Returns the job if it is to be processed now. Otherwise hands it back or declines it.
    async fn admit(&self, lease: JobLease) -> Option<JobLease> {
        if lease.is_released() {
            return None;
        }
        if self.is_stopping() {
            self.hand_back(lease, 0).await;
            return None;
        }
        let lease = self.decline_if_blocked(lease).await?;
        self.switch_numerics_for(lease).await
    }
}
