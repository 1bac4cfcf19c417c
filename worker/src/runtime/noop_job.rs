//! No-op jobs.

use super::{
    leases::JobLease,
    report::{count, deliver, send},
    slot::Slot,
};
use halfheard_shared::wire::{ResultBody, ResultMessage};
use std::sync::Arc;

impl Slot {
    /// Reports no-op jobs, many at once.
    pub(super) async fn noop(self: &Arc<Self>, jobs: Vec<JobLease>) {
        let permits = self.noops.clone().acquire_many_owned(jobs.len() as u32);
        let Ok(permits) = permits.await else {
            return;
        };
        let slot = self.clone();
        tokio::spawn(async move {
            // All reports are sent before the first confirmation is awaited.
            let mut sent = Vec::with_capacity(jobs.len());
            for lease in jobs {
                let report = ResultMessage {
                    job: lease.job.job,
                    attempt: lease.attempt(),
                    worker: slot.announcement.worker.clone(),
                    body: ResultBody::Noop,
                };
                count("noop", &report.body);
                slot.leases.record(&report);
                let pending = send(&slot.broker, &report).await;
                sent.push((lease, report, pending));
            }
            for (lease, report, pending) in sent {
                let confirmed = match pending {
                    Ok(pending) => pending.confirmed().await.is_ok(),
                    Err(_) => false,
                };
                if confirmed || deliver(&slot.broker, &report).await {
                    lease.reported();
                }
            }
            drop(permits);
        });
    }
}
