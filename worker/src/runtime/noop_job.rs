//! No-op jobs.

use super::{leases::JobLease, report::deliver, slot::Slot};
use halfheard_shared::wire::ResultBody;
use std::sync::Arc;

impl Slot {
    /// Reports and acknowledges no-op jobs, many at once.
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
                let report = slot.report(&lease, ResultBody::Noop);
                let pending = slot.broker.send_result(&report).await;
                sent.push((lease, report, pending));
            }
            for (lease, report, pending) in sent {
                let confirmed = match pending {
                    Ok(pending) => pending.confirmed().await.is_ok(),
                    Err(_) => false,
                };
                if confirmed || deliver(&slot.broker, &report).await {
                    lease.acknowledge_unconfirmed().await;
                }
            }
            drop(permits);
        });
    }
}
